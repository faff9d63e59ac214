"""
What a call costs: model and usage to money, where each price came from, and a user's own prices on top.

The functions here work on one shared :class:`PriceBook`, the one that budgets use. Importing this is cheap: the public
price table loads when a price is first asked for. ``at_ms`` is a time in milliseconds since the epoch, now if None.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from .book import Explanation, PriceBook
from .rates import Rates

__all__ = [
    "Explanation",
    "PriceBook",
    "Rates",
    "age_days",
    "check_provider",
    "default_book",
    "estimate",
    "explain",
    "rates_of",
    "register",
    "register_all",
    "unregister",
]

default_book = PriceBook()
"""The price book of this process."""


register = default_book.register
unregister = default_book.unregister


def register_all(
    now: Mapping[str, Mapping[str, Any]], *, before: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """
    Register the prices of a configuration, by model, with the arguments of :func:`register`; those that only the one
    *before* it had are forgotten.
    """
    for model in before or {}:
        if model not in now:
            unregister(model)
    for model, rates in now.items():
        register(model, **rates)


def explain(model: str, provider: str | None = None, *, at_ms: int | None = None) -> Explanation:
    """Where the price of a model comes from: see :meth:`PriceBook.explain`."""
    return default_book.explain(model, provider, at_ms=_now_ms() if at_ms is None else at_ms)


def rates_of(model: str, *, provider: str | None = None, at_ms: int | None = None) -> Rates:
    """The prices of a model: see :meth:`PriceBook.rates`."""
    return default_book.rates(model, provider=provider, at_ms=_now_ms() if at_ms is None else at_ms)


def estimate(
    model: str,
    input_tokens: int,
    max_output_tokens: int = 0,
    *,
    provider: str | None = None,
    at_ms: int | None = None,
) -> Decimal:
    """The most that such a call can cost, in USD: see :meth:`PriceBook.estimate`."""
    return default_book.estimate(
        model,
        input_tokens=input_tokens,
        max_output_tokens=max_output_tokens,
        provider=provider,
        at_ms=_now_ms() if at_ms is None else at_ms,
    )


def check_provider(provider: str | None, model: str) -> None:
    """Whether the price table has this provider: see :meth:`PriceBook.check_provider`."""
    default_book.check_provider(provider, model, at_ms=_now_ms())


def age_days(now_ms: int | None = None) -> int | None:
    """How many days ago the price table was last checked: see :meth:`PriceBook.age_days`."""
    return default_book.age_days(_now_ms() if now_ms is None else now_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
