"""Which of a call's budgets is the tightest: the one with the smallest share left, in any unit."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.balances import UNITS, ZERO, Balance, Balances, change_of
from farthing.reports.room import tightest

AMOUNT = st.integers(0, 50)
ROW = st.none() | st.lists(st.builds(Balance, AMOUNT, AMOUNT, AMOUNT), min_size=4, max_size=4)
"""One account's row, in each unit; None: it is not known now."""
LIMITS = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 120))
Account = tuple[dict[str, int], list[list[Balance] | None]]
ACCOUNTS = st.lists(st.tuples(LIMITS, st.lists(ROW, max_size=3)), max_size=4)
"""Limits, and the rows whose sum counts; no rows: a check of each call alone."""


def granted(accounts: list[Account]) -> Any:
    """A hold on these accounts."""
    known = {}
    held = []
    for number, (limits, rows) in enumerate(accounts):
        keys = tuple(f"{number}.{index}" for index in range(len(rows)))
        for key, row in zip(keys, rows, strict=True):
            if row is not None:
                known[key] = sum_of(change_of(unit, *balance) for unit, balance in zip(UNITS, row, strict=True))
        named = tuple((unit, ceiling, keys) for unit, ceiling in limits.items())
        budget = SimpleNamespace(title=f"budget {number}")
        held.append(
            SimpleNamespace(budget=budget, key=next(iter(keys), ""), rolling=keys, kept=bool(rows), limits=named)
        )
    store = SimpleNamespace(known_balances=lambda: known.get)
    return SimpleNamespace(held=[(SimpleNamespace(store=store), held)])


def sum_of(changes: Iterable[Balances]) -> Balances:
    total = ZERO
    for change in changes:
        total = total.plus(change)
    return total


def left(unit: str, ceiling: int, rows: list[list[Balance] | None]) -> int | None:
    if not rows or None in rows:
        return None
    return max(0, ceiling - sum(row[UNITS.index(unit)].total for row in rows if row is not None))


@given(ACCOUNTS)
def test_the_smallest_share_of_what_is_known(accounts: list[Account]) -> None:
    shares = {}
    for number, (limits, rows) in enumerate(accounts):
        known = [(of, found) for unit, of in limits.items() if (found := left(unit, of, rows)) is not None]
        if known:
            shares[number] = min(Fraction(found, ceiling) if ceiling else Fraction(0) for ceiling, found in known)
    room = tightest(granted(accounts))
    if not shares:
        assert room is None
        return
    first = min(shares, key=lambda number: (shares[number], number))
    assert room is not None
    assert room.budget == f"budget {first}"
    limits, rows = accounts[first]
    assert list(room.remaining) == [(unit, left(unit, ceiling, rows)) for unit, ceiling in limits.items()]
