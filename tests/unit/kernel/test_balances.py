"""Rows and their changes: one addition for every unit, and what a limit is compared with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.balances import (
    COUNTED,
    SPENT,
    UNITS,
    ZERO,
    Balance,
    Balances,
    amount_of,
    change,
    change_of,
    minus,
)

AMOUNT = st.integers(0, 10**12)
ROWS = st.builds(Balances, *[AMOUNT] * 12)


@given(ROWS, ROWS)
def test_a_change_adds_to_each_unit_and_state_alone(row: Balances, made: Balances) -> None:
    after = row.plus(made)
    for unit in UNITS:
        before, added = row.of(unit), made.of(unit)
        assert after.of(unit) == Balance(
            before.settled + added.settled, before.held + added.held, before.suspect + added.suspect
        )
        assert sum(COUNTED[unit](after)) == after.of(unit).total
        assert sum(SPENT[unit](after)) == after.of(unit).settled + after.of(unit).suspect
    assert row.plus(ZERO) == row


@given(ROWS, st.sets(st.sampled_from(UNITS)))
def test_a_change_in_some_units_leaves_the_others(made: Balances, units: set[str]) -> None:
    only = made.only(units)
    assert all(only.of(unit) == (made.of(unit) if unit in units else Balance()) for unit in UNITS)


def test_names_and_places_agree() -> None:
    """Stores name their columns by the fields; the rules reckon with the places."""
    assert Balances._fields == tuple(f"{state}_{unit}" for state in ("settled", "held", "suspect") for unit in UNITS)
    for unit in UNITS:
        assert change_of(unit, 1, 2, 3) == ZERO._replace(
            **{f"settled_{unit}": 1, f"held_{unit}": 2, f"suspect_{unit}": 3}
        )
        assert change(held=amount_of(unit, 4)).of(unit) == Balance(0, 4, 0)


def test_a_hold_that_goes_as_it_came_leaves_nothing() -> None:
    amounts = (120, 450, 1, 1)
    assert change(held=amounts).plus(change(held=minus(amounts))) == ZERO
    assert change(settled=amounts).settled == amounts
