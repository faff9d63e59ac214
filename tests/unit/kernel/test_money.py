"""Money is exact integers, rounds once, and refuses what it cannot mean."""

from __future__ import annotations

import ast
import inspect
from decimal import Decimal, localcontext
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel import catalogue, hold, ledger, money, plan
from farthing.kernel.money import (
    COUNTER_MAX,
    div_ceil,
    div_floor,
    div_half_up,
    format_usd,
    nano_from_usd,
    nano_of_usd,
    number_from_text,
    usd_from_nano,
)

AMOUNTS = st.integers(0, 2**80)
DIVISORS = st.integers(1, 2**40)


@given(st.integers(-(2**80), 2**80), DIVISORS)
def test_ceil_and_floor_round_as_exact_fractions_do(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    assert div_ceil(numerator, denominator) == ceil(exact)
    assert div_floor(numerator, denominator) == floor(exact)


@given(AMOUNTS, DIVISORS)
def test_half_up_is_nearest_and_a_tie_goes_up(numerator: int, denominator: int) -> None:
    rounded, exact = div_half_up(numerator, denominator), Fraction(numerator, denominator)
    assert Fraction(-1, 2) < rounded - exact <= Fraction(1, 2)


def test_half_up_is_not_bankers_rounding() -> None:
    assert [div_half_up(n, 2) for n in (1, 3, 5)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("usd", "nano"),
    [
        (0, 0),
        (5, 5_000_000_000),
        (0.1, 100_000_000),  # not 100000000.00000000555
        (1.1, 1_100_000_000),
        (1e-9, 1),
        (-0.0, 0),
        (Decimal("0.000000001"), 1),
        (Decimal("0.50000000000000000000000000000000"), 500_000_000),
        (Decimal("5E+2"), 500_000_000_000),
        (Decimal("0E-999999999"), 0),
        (Decimal("0E+999999999"), 0),
        (Decimal(COUNTER_MAX).scaleb(-9), COUNTER_MAX),
    ],
)
def test_nano_from_usd_reads_what_was_written(usd: Decimal | int | float, nano: int) -> None:
    result = nano_from_usd(usd, field="usd")
    assert result == nano
    assert type(result) is int


@pytest.mark.parametrize(
    "wrong",
    [
        True,
        False,
        None,
        "5",
        "",
        b"5",
        [5],
        {"usd": 5},
        5j,
        Fraction(1, 2),
        object(),
        float("nan"),
        float("inf"),
        float("-inf"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("-Infinity"),
        -1,
        -0.01,
        Decimal("-0.000000001"),
        -(10**5000),
        0.0000000001,
        Decimal("0.0000000001"),
        Decimal("1.0000000001"),
        Decimal("1e-999999999"),
        1e300,
        10**5000,
        Decimal("1e999999999"),
        Decimal("9007199.254740993"),
    ],
    ids=lambda value: str(value)[:20] if not isinstance(value, int) or abs(value) < 10**9 else f"int{value > 0}",
)
def test_nano_from_usd_names_the_field_of_what_it_refuses(wrong: object) -> None:
    """Also at once: an exponent of a billion must not be multiplied out first."""
    with pytest.raises(ValueError, match=r"^limit_of_mine "):
        nano_from_usd(wrong, field="limit_of_mine")  # type: ignore[arg-type]


@given(st.integers(0, COUNTER_MAX), st.integers(1, 60))
def test_usd_and_nano_are_inverse_whatever_the_decimal_context(amount: int, precision: int) -> None:
    """A program that rounds its own Decimals must not round ours."""
    with localcontext() as context:
        context.prec = precision
        usd = usd_from_nano(amount)
        assert nano_of_usd(usd) == amount
        assert nano_from_usd(usd, field="usd") == amount


@given(st.integers(-COUNTER_MAX, COUNTER_MAX))
def test_format_usd_loses_nothing(amount: int) -> None:
    text = format_usd(amount)
    assert text.startswith("-$" if amount < 0 else "$")
    assert Decimal(text.replace("$", "").replace(",", "")) == Decimal(amount).scaleb(-9)
    fraction = text.rpartition(".")[2]
    assert 2 <= len(fraction) <= 9
    assert len(fraction) == 2 or not fraction.endswith("0")


def test_format_usd_examples() -> None:
    texts = [format_usd(n) for n in (0, 1, 5_000_000_000, 123_400, -1_500_000_000, 1_234_567_000_000_000)]
    assert texts == ["$0.00", "$0.000000001", "$5.00", "$0.0001234", "-$1.50", "$1,234,567.00"]


@pytest.mark.parametrize("module", [money, plan, hold, ledger, catalogue], ids=lambda module: module.__name__)
def test_no_float_is_made_where_amounts_are_computed(module: object) -> None:
    """No `/`, no float literal and no call of float(): in these files there is nothing a float would be right for."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    for node in ast.walk(tree):
        assert not isinstance(getattr(node, "op", None), ast.Div), f"line {node.lineno}: true division"  # type: ignore[attr-defined]
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), f"line {node.lineno}"  # type: ignore[attr-defined]
        made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("float", "round")
        assert not made, f"line {node.lineno}: {ast.unparse(node)}"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", "5"), (" 5.00 ", "5.00"), ("1,000", "1000"), ("1,000,000.5", "1000000.5"), ("-5", "-5"), (".5", "0.5")],
)
def test_a_number_that_a_person_wrote(text: str, number: str) -> None:
    assert number_from_text(text) == Decimal(number)


@pytest.mark.parametrize("text", ["5,00", "1,5", "1,0000", "10,00,000", ",5", "1,", "five", "", "5 000"])
def test_a_comma_parts_thousands_and_is_no_decimal_point(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number such as"):
        number_from_text(text)
