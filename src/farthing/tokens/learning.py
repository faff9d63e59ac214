"""
Factors that follow what providers bill.

A model without a public vocabulary is counted with o200k, times a factor that starts safe (see :mod:`.families`). Each
call that is settled to the provider's figure shows what the factor should have been. The largest ratio that was seen
is kept, never an average: the densest text decides whether a hold was enough.

==================================  ====================================================================================
the largest ratio is above the      it is the factor from then on: what was billed once may be billed again
start
fewer than 1,000 calls were seen    the factor does not go below its start
from 1,000 calls on                 the largest ratio and a quarter more, if that is below the start: the next text may
                                    be denser than all that came before. Never below 1
==================================  ====================================================================================

Not every call teaches. Where the texts are short, or little beside the chat template, digits and images, what is not
text would be taken for dense text. Such a call counts only if more was billed than was held for it; and then, if there
was little text, or more was billed than any vocabulary makes of it, what was missing is held on top of every call from
then on: it was hardly the text.
"""

from __future__ import annotations

from dataclasses import replace

from ..kernel.money import div_ceil
from ..kernel.ratios import Ratio
from .count import Weight
from .families import Family

ENOUGH_CALLS = 1_000
"""Calls that must have been seen before a factor may come down below its start."""
MARGIN_NUM, MARGIN_DEN = 5, 4
"""What it keeps above the largest ratio then."""
DENSEST = 8
"""No vocabulary takes more tokens for each of o200k (densest in wide use: 3.49): more than that was not the text."""
LEAST_COUNTED = 256
"""Tokens of text below which a call says nothing about how dense text is …"""
MOST_BESIDE = 8
"""… nor if all else is more than one part in so many of them."""


def ratio_of(weight: Weight, family: Family, *, billed: int) -> Ratio | None:
    """
    What a call shows: with it, its own bound would have been enough. None if it shows nothing. *billed* is all of its
    input, as the provider reported it; *family* is what it was counted with.
    """
    beside = weight.beside + family.extra
    missing = billed - weight.bound(family)
    little = weight.counted < LEAST_COUNTED
    if missing > 0:
        if little or billed - beside > DENSEST * weight.counted:
            return Ratio(0, 0, family.extra + missing)
        # Exactly what was missing; all that is beside the texts is an upper bound already.
        return Ratio(div_ceil(1000 * (billed - beside), weight.counted), 1)
    if little or beside * MOST_BESIDE > weight.counted:
        return None
    # The little that is not text is taken for text, so that the ratio is rather too large.
    return Ratio(div_ceil(1000 * billed, weight.counted), 1)


def learned(family: Family, ratio: Ratio) -> Family:
    """The family with what these calls ask for."""
    start_milli = div_ceil(1000 * family.num, family.den)
    milli = max(ratio.milli, start_milli)
    if ratio.calls >= ENOUGH_CALLS:
        milli = max(ratio.milli, min(start_milli, div_ceil(ratio.milli * MARGIN_NUM, MARGIN_DEN)), 1000)
    return replace(family, num=milli, den=1000, extra=ratio.extra)
