"""What is left of the budgets that a call was held on, for showing: figures of this instant, never asked of a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..calls.admission import Granted
from ..kernel.plan import Balance


class Room(NamedTuple):
    """The tightest account of a call: its budget's title, and what is left in each unit that it limits."""

    budget: str
    remaining: tuple[tuple[str, int], ...]
    """Unit and amount, never below 0 (nano-dollars for ``usd``)."""


def tightest(granted: Granted) -> Room | None:
    """The account with the smallest share left, in any unit; None where none is known now."""
    found: Room | None = None
    least, of_least = 1, 0
    for ledger, accounts in granted.held:
        keys = [key for account in accounts for limit in account.limits for key in limit[2]]
        known = ledger.store.known_balances(keys)
        for account in accounts:
            remaining = []
            tighter = False
            for unit, ceiling, counters in account.limits:
                left = _left(ceiling, counters, known)
                if left is None:
                    continue
                remaining.append((unit, left))
                # left / ceiling < least / of_least, in integers; nothing is a share of nothing.
                if not of_least or left * of_least < least * ceiling or (not ceiling and least):
                    tighter, least, of_least = True, left, ceiling or 1
            if tighter:
                found = Room(account.budget.title, tuple(remaining))
    return found


def _left(ceiling: int, counters: Sequence[str], known: Mapping[str, Balance]) -> int | None:
    """What is left under a ceiling; None where a counter is not known."""
    if not counters:
        return None
    try:
        # A rolling window has dozens of counters; their totals are summed without a step for each.
        return max(0, ceiling - sum(map(sum, map(known.__getitem__, counters))))
    except KeyError:
        return None
