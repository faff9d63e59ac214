"""
Limits as people write them in one word: ``$5/day``, ``100k tokens/hour``, ``1M tokens/month Europe/Berlin``.

::

    AMOUNT [/ WINDOW]        "per" may stand for the slash; without a window the limit is for ever

    AMOUNT   $5 · $0.50 · 5 usd · 100k tokens · 1.5M tokens · 200 requests · 4 at once
    WINDOW   as ``per=``: minute hour day week month (a time zone may follow) · rolling 60s · request

Read strictly: what is not understood is an error that says what was expected, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from ..kernel.money import nano_from_usd
from ..kernel.window import parse_window

_NUMBER = r"(?P<number>(?:\d{1,3}(?:,\d{3})+|\d{1,18})(?:\.\d{1,9})?)"
_DOLLARS = re.compile(rf"(?:\$ ?{_NUMBER}|{_NUMBER.replace('number', 'bare')} ?usd)", re.IGNORECASE)
_COUNT = re.compile(rf"{_NUMBER}(?P<thousands>[kKmM])? ?(?P<unit>tokens?|requests?|calls?|at once)")
_THOUSANDS = {"k": 1_000, "m": 1_000_000}
_UNITS = {"token": "tokens", "request": "requests", "call": "requests", "at once": "concurrency"}
_EXAMPLES = (
    "write it as '$5/day', '100k tokens/hour', '200 requests/minute' or '4 at once' (in a shell with single quotes: it "
    "replaces $5 in double ones)"
)


class Limit(NamedTuple):
    """One limit of one unit: ``usd`` as Decimal, every other unit as an integer; ``per`` is a window's text."""

    unit: str
    amount: Decimal | int
    per: str


def parse_limit(text: object, *, argument: str) -> Limit:
    """Raises ValueError naming *argument*, and what is wrong with the text."""
    if not isinstance(text, str):
        raise ValueError(f"{argument} must be text such as '$5/day', not {text!r}")
    words = " ".join(text.split())
    amount_text, slash, per = words.partition("/")
    if " per " in amount_text:  # a slash may also stand in a time zone: "$5 per day Europe/Berlin"
        amount_text, slash, per = words.partition(" per ")
    amount_text, per = amount_text.strip(), per.strip()
    if slash and not per:
        raise ValueError(f"{argument}={text!r} names no window after {slash.strip()!r}: {_EXAMPLES}")
    unit, amount = _amount(amount_text, text, argument)
    try:
        window = parse_window(per or None)
    except ValueError as error:
        raise ValueError(f"{argument}={text!r}: {error}") from error
    return Limit(unit, amount, str(window))


def budget_terms(limits: Iterable[Limit]) -> dict[str, dict[str, Any]]:
    """
    By window, the terms of the one budget that has all limits over it. Raises ValueError for two limits of one unit
    over one window: nobody can say which was meant.
    """
    found: dict[str, dict[str, Any]] = {}
    for unit, amount, per in limits:
        terms = found.setdefault(per, {"per": per})
        if unit in terms:
            raise ValueError(f"two limits in {unit} are given per {per}: {terms[unit]} and {amount}")
        terms[unit] = amount
    return found


def _amount(amount: str, text: str, argument: str) -> tuple[str, Decimal | int]:
    if dollars := _DOLLARS.fullmatch(amount):
        usd = Decimal((dollars["number"] or dollars["bare"]).replace(",", ""))
        nano_from_usd(usd, field=f"{argument}={text!r}")
        return "usd", usd
    if count := _COUNT.fullmatch(amount):
        exact = Decimal(count["number"].replace(",", "")) * _THOUSANDS.get((count["thousands"] or "").lower(), 1)
        if exact != exact.to_integral_value():
            raise ValueError(f"{argument}={text!r} is not a whole number of {count['unit']}")
        return _UNITS[count["unit"].removesuffix("s")], int(exact)
    if re.fullmatch(rf"{_NUMBER}[kKmM]?", amount):
        raise ValueError(f"{argument}={text!r} does not say of what: {_EXAMPLES}")
    raise ValueError(f"{argument}={text!r} is not a limit: {_EXAMPLES}")
