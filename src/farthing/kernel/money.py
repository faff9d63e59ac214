"""
Money: integer nano-dollars (1e-9 USD), and how division rounds.

A *hold* rounds up, a *cost* rounds half up, each exactly once. No float ever holds an amount: a float given by a user
is read through its shortest decimal text, as the user wrote it.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache

NANO_PER_USD = 1_000_000_000
COUNTER_MAX = 2**53
"""Largest magnitude of one counter: integers are exact up to here in every store we mean to support (about $9.0M)."""

MOST_USD = COUNTER_MAX // NANO_PER_USD
_EXACT = Context(prec=40, traps=[Inexact])
"""Not the thread's own context: a program that set its precision to 3 would be shown $1.23 for $1.234."""


_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")


def number_from_text(text: str) -> Decimal:
    """
    A number as people write it. A comma parts thousands and nothing else: ``5,00`` is five to some, and is not read as
    500. Raises ValueError.
    """
    written = text.strip()
    try:
        if "," not in written:
            return Decimal(written)
        if _GROUPED.fullmatch(written):
            return Decimal(written.replace(",", ""))
    except InvalidOperation:
        pass
    raise ValueError(f"{text!r} is not a number such as 5.00 or 1,000")


def div_ceil(numerator: int, denominator: int) -> int:
    """The smallest integer that is not below ``numerator / denominator`` (denominator > 0)."""
    return -(-numerator // denominator)


def div_floor(numerator: int, denominator: int) -> int:
    """The largest integer that is not above ``numerator / denominator`` (denominator > 0)."""
    return numerator // denominator


def div_half_up(numerator: int, denominator: int) -> int:
    """The integer nearest to ``numerator / denominator`` (both >= 0); a tie goes up."""
    return (2 * numerator + denominator) // (2 * denominator)


def nano_from_usd(value: Decimal | int | float, *, field: str) -> int:
    """
    Exact nano-dollars of an amount in USD that a person wrote.

    Raises ValueError naming *field* for another type, a negative, NaN or infinity, more than a counter can hold, or an
    amount finer than one nano-dollar (rounding it would change what the person asked for).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise ValueError(f"{field} must be a number of US dollars, not {value!r}")
    amount = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    if not amount.is_finite():
        raise ValueError(f"{field} must be a finite number of US dollars, not {value}")
    # Before the digits are multiplied out: 1e999999999 is short to write, and an integer that fills the memory.
    if amount > COUNTER_MAX:
        raise _too_much(field, value)
    if amount < 0:
        raise ValueError(f"{field} must be at least 0 US dollars, not {_as_written(value)}")
    if amount and amount.adjusted() < -9:
        raise _too_fine(field, value)
    numerator, denominator = amount.as_integer_ratio()
    nano, rest = divmod(numerator * NANO_PER_USD, denominator)
    if rest:
        raise _too_fine(field, value)
    if nano > COUNTER_MAX:
        raise _too_much(field, value)
    return nano


def count_of(value: object, *, field: str) -> int:
    """A number of tokens, requests or the like, as a counter can hold it. Raises ValueError naming *field*."""
    if type(value) is not int:
        raise ValueError(f"{field} must be an integer of at least 0, not {value!r}")
    if abs(value) > COUNTER_MAX:  # and more digits than Python may agree to print
        raise ValueError(f"{field} must be at most {COUNTER_MAX:,}: a counter holds no more")
    if value < 0:
        raise ValueError(f"{field} must be an integer of at least 0, not {value}")
    return value


def _too_much(field: str, value: object) -> ValueError:
    return ValueError(f"{field} must be at most ${MOST_USD:,} (what a counter can hold), not {_as_written(value)}")


def _too_fine(field: str, value: object) -> ValueError:
    return ValueError(f"{field} must have at most nine decimals (whole nano-dollars), not {value}")


def _as_written(value: object) -> str:
    """Python refuses to print integers of thousands of digits, and nobody wants to read them."""
    return "a number of so many digits" if isinstance(value, int) and value.bit_length() > 256 else str(value)


@lru_cache(maxsize=1_024)
def usd_from_nano(amount_nano: int) -> Decimal:
    """The same amount as a Decimal in USD, exact, without trailing zeros."""
    return _EXACT.divide(Decimal(amount_nano), NANO_PER_USD)


def nano_of_usd(amount: Decimal) -> int:
    """The inverse of :func:`usd_from_nano`."""
    return int(_EXACT.multiply(amount, NANO_PER_USD))


def usd_decimal(amount_nano: int) -> str:
    """The same as programs read it, in JSON and in headers: decimal text, ``0.0001234``."""
    return format(usd_from_nano(amount_nano), "f")


def format_usd(amount_nano: int) -> str:
    """
    The amount as people read it: at least cents, never fewer digits than it needs: ``$5.00``, ``$0.0001234``.
    """
    return format_dollars(usd_from_nano(amount_nano))


def format_dollars(amount: Decimal) -> str:
    """The same, of an amount in USD that has no trailing zeros."""
    whole, _, digits = f"{amount:,f}".partition(".")
    return f"-${whole[1:]}.{digits:0<2}" if whole[0] == "-" else f"${whole}.{digits:0<2}"
