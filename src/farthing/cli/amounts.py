"""Amounts, ages and words from the command line: read and shown as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation

from ..kernel.money import NANO_PER_USD, div_floor, div_half_up, format_usd, number_from_text
from .failing import UsageMistake

NOTHING = "–"
_COUNT = re.compile(r"([+-]?\d[\d,]{0,17}(?:\.\d{1,9})?)([kKmM]?)")
_THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def usd_from_text(text: str | None, *, option: str) -> Decimal | None:
    """An amount in USD as it was typed. Raises UsageMistake naming the option."""
    if text is None:
        return None
    try:
        return number_from_text(text.strip().removeprefix("$"))
    except ValueError as error:
        raise UsageMistake(f"{option} takes an amount of US dollars such as 5.00, not {text!r}") from error


def count_from_text(text: str | None, *, option: str) -> int | None:
    """A whole number as typed: ``4096``, ``4,096``, ``100k``, ``1.5M``. Raises UsageMistake naming the option."""
    if text is None:
        return None
    number = _COUNT.fullmatch(text.strip().replace("_", ""))
    try:
        exact = number and number_from_text(number[1]) * _THOUSANDS[number[2].lower()]
    except ValueError:
        exact = None
    if exact is None or exact != int(exact):
        raise UsageMistake(f"{option} takes a whole number such as 4096 or 100k, not {text!r}")
    return int(exact)


def pairs_from_texts(texts: Iterable[str] | None, *, option: str, form: str = "TAG=VALUE") -> dict[str, str] | None:
    """``["team=search", …]`` as a dict; None for nothing. Raises UsageMistake naming the option and the form."""
    pairs = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UsageMistake(f"{option} takes {form}, not {text!r}")
        pairs[name.strip()] = value.strip()
    return pairs or None


def names_from_texts(texts: Iterable[str] | None) -> list[str]:
    """``["feature,model", "user"]`` as a flat list, each name once."""
    return list(dict.fromkeys(name.strip() for text in texts or () for name in text.split(",") if name.strip()))


def decimals_from_text(text: str | None, *, option: str) -> list[Decimal] | None:
    """``"0.5,0.8"`` as numbers; None for nothing. Raises UsageMistake naming the option."""
    if text is None:
        return None
    try:
        return [Decimal(part) for part in text.replace(",", " ").split()]
    except InvalidOperation as error:
        raise UsageMistake(f"{option} takes numbers such as 0.5,0.8, not {text!r}") from error


def usd_column(amounts_nano: Sequence[int | None], *, most_digits: int = 6, down: bool = False) -> list[str]:
    """
    Amounts of one column with equally many decimals, so that they can be compared at a glance; at most *most_digits*,
    and fewer where dollars matter more. What would be rounded to nothing says so. *down*: never more than there is.
    """
    known = [amount for amount in amounts_nano if amount is not None]
    digits = max((len(format_usd(amount).partition(".")[2]) for amount in known), default=2)
    largest = max((abs(amount) for amount in known), default=0)
    digits = min(digits, most_digits, 2 if largest >= 100 * NANO_PER_USD else 4 if largest >= NANO_PER_USD else 6)
    return [NOTHING if amount is None else _rounded(amount, digits, down=down) for amount in amounts_nano]


def _rounded(amount_nano: int, digits: int, *, down: bool) -> str:
    divide = div_floor if down else div_half_up
    whole, fraction = divmod(divide(abs(amount_nano), NANO_PER_USD // 10**digits), 10**digits)
    sign = "-" if amount_nano < 0 else ""
    if amount_nano and not whole and not fraction:
        return f"<$0.{1:0{digits}d}"
    return f"{sign}${whole:,}.{fraction:0{digits}d}"


def usd_text(amount_nano: int) -> str:
    """One amount, as in a column of its own."""
    return usd_column([amount_nano])[0]


def per_million(usd: Decimal) -> str:
    """A rate as price lists write it: at least cents, at most millionths (a few are prices an hour, divided)."""
    whole, _, digits = f"{usd:.6f}".partition(".")
    return f"${whole}.{digits.rstrip('0'):0<2}"


def number_of(count: int, thing: str) -> str:
    """``1 call``, ``2 calls``."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def age_text(seconds: float) -> str:
    """The largest unit that fits: ``3 d``, ``12 min``."""
    for length, unit in _AGES:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "0 s"


def when_text(instant: datetime, now: datetime) -> str:
    """An instant ahead, as far away as it is: ``in 3 d``."""
    return f"in {age_text((instant - now).total_seconds())}"
