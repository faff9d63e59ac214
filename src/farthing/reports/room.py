"""What is left of the budgets that a call was held on, for showing: figures of this instant, never asked of a disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..calls.holding import Granted
from ..kernel.balances import COUNTED, Balances


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
        known = ledger.store.known_balances()
        for account in accounts:
            remaining = []
            tighter = False
            for unit, ceiling, keys in account.limits:
                left = _left(unit, ceiling, keys, known)
                if left is None:
                    continue
                remaining.append((unit, left))
                # left / ceiling < least / of_least, in integers; nothing is a share of nothing.
                if not of_least or left * of_least < least * ceiling or (not ceiling and least):
                    tighter, least, of_least = True, left, ceiling or 1
            if tighter:
                found = Room(account.budget.title, tuple(remaining))
    return found


def _left(unit: str, ceiling: int, keys: Sequence[str], known: Callable[[str], Balances | None]) -> int | None:
    """What is left under a ceiling; None where an account is unknown, or there is none (a check of each call alone)."""
    counted = COUNTED[unit]
    left = ceiling
    for key in keys:
        row = known(key)
        if row is None:
            return None
        left -= sum(counted(row))
    return max(0, left) if keys else None
