"""
Ratios: how many tokens a provider billed for each that was counted here, at most, by model and dialect.

A yardstick vocabulary counts the texts of models whose own is not public. The ledger keeps the largest ratio that was
ever seen, so that every process that shares it learns from the calls of all. What a ratio does to the next bound is
said in :mod:`farthing.tokens.learning`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class RatioKey(NamedTuple):
    """What a ratio is kept for: a model as it was asked for, and the wire dialect that its requests were written in."""

    model: str
    dialect: str


class Ratio(NamedTuple):
    """What calls to a model have shown: each figure is the largest that was seen."""

    milli: int
    """Billed tokens for each that was counted, in thousandths rounded up."""
    calls: int
    """How many calls ``milli`` is the largest of."""
    extra: int = 0
    """Tokens billed on top of what was counted where there was little text: a prompt of the provider's own, say."""


Ratios = Mapping[RatioKey, Ratio]


def merged(known: Ratios, seen: Ratios) -> Ratios:
    """What is known after *seen* came on top: the larger figures, and all calls."""
    together = dict(known)
    for key, new in seen.items():
        old = together.get(key, NOTHING_SEEN)
        together[key] = Ratio(max(old.milli, new.milli), old.calls + new.calls, max(old.extra, new.extra))
    return together


NOTHING_SEEN = Ratio(0, 0)
