"""``estimate(...)``: what a call would cost at most, without making it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from .. import tokens
from ..runtime.default import runtime
from ..runtime.learning import learned_of


def estimate(
    model: str, messages: str | Sequence[Any], max_output_tokens: int = 0, *, provider: str | None = None
) -> Decimal:
    """
    The most that a call with these messages can cost, in USD; no call is made.

    Args:
        model: as the SDK names it.
        messages: chat messages, or a text.
        max_output_tokens: the output to price beside the input.
        provider: the price table's id, where the model's name alone is not enough.

    Raises UnpricedModel; ValueError for a negative number or an unknown provider.
    """
    if type(max_output_tokens) is not int or max_output_tokens < 0:
        raise ValueError(f"max_output_tokens must be an integer of at least 0, not {max_output_tokens!r}")
    here = runtime()
    here.prices.check_provider(provider, model, at_ms=here.memory_store.now())
    known = learned_of(here.learner.ratios(), model)
    return here.prices.estimate(
        model,
        input_tokens=tokens.count(messages, model, family=known and known.family),
        max_output_tokens=max_output_tokens,
        provider=provider,
        at_ms=here.memory_store.now(),
    )
