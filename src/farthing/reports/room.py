"""What is left of the budgets that a call was held on, for showing: figures of this instant, never asked of a disk."""

from __future__ import annotations

from typing import NamedTuple

from ..calls.holding import Granted
from ..kernel.balances import COUNTED


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
            rows = [row for row in map(known, account.keys) if row is not None]
            if len(rows) < len(account.keys) or not account.kept:
                continue
            remaining = []
            tighter = False
            for unit, ceiling, _ in account.limits:
                left = max(0, ceiling - sum(map(sum, map(COUNTED[unit], rows))))
                remaining.append((unit, left))
                # left / ceiling < least / of_least, in integers; nothing is a share of nothing.
                if not of_least or left * of_least < least * ceiling or (not ceiling and least):
                    tighter, least, of_least = True, left, ceiling or 1
            if tighter:
                found = Room(account.budget.title, tuple(remaining))
    return found
