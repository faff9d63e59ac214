"""Which of a call's budgets is the tightest: the one with the smallest share left, in any unit."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.balances import Balance, change_of
from farthing.reports.room import tightest

AMOUNT = st.integers(0, 50)
BALANCE = st.none() | st.builds(Balance, AMOUNT, AMOUNT, AMOUNT)
LIMIT = st.tuples(st.sampled_from(["usd", "tokens", "requests"]), st.integers(0, 120), st.lists(BALANCE, max_size=3))
ACCOUNTS = st.lists(st.lists(LIMIT, max_size=3), max_size=4)


def granted(accounts: list[list[tuple[str, int, list[Balance | None]]]]) -> Any:
    """A hold on these accounts; a balance of None is not known now."""
    balances = {}
    held = []
    for number, limits in enumerate(accounts):
        named = []
        for place, (unit, ceiling, counters) in enumerate(limits):
            keys = tuple(f"{number}.{place}.{index}" for index in range(len(counters)))
            rows = [None if balance is None else change_of(unit, *balance) for balance in counters]
            balances.update(zip(keys, rows, strict=True))
            named.append((unit, ceiling, keys))
        held.append(SimpleNamespace(budget=SimpleNamespace(title=f"budget {number}"), limits=tuple(named)))
    known = {key: balance for key, balance in balances.items() if balance is not None}
    store = SimpleNamespace(known_balances=lambda: known.get)
    return SimpleNamespace(held=[(SimpleNamespace(store=store), held)])


def left(ceiling: int, counters: list[Balance | None]) -> int | None:
    if not counters or None in counters:
        return None
    return max(0, ceiling - sum(balance.total for balance in counters if balance is not None))


@given(ACCOUNTS)
def test_the_smallest_share_of_what_is_known(accounts: list[list[tuple[str, int, list[Balance | None]]]]) -> None:
    shares = {}
    for number, limits in enumerate(accounts):
        known = [(ceiling, found) for _, ceiling, counters in limits if (found := left(ceiling, counters)) is not None]
        if known:
            shares[number] = min(Fraction(found, ceiling) if ceiling else Fraction(0) for ceiling, found in known)
    room = tightest(granted(accounts))
    if not shares:
        assert room is None
        return
    first = min(shares, key=lambda number: (shares[number], number))
    assert room is not None
    assert room.budget == f"budget {first}"
    remaining = [(unit, left(ceiling, counters)) for unit, ceiling, counters in accounts[first]]
    assert list(room.remaining) == [(unit, found) for unit, found in remaining if found is not None]
