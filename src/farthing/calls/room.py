"""What is left of the budgets that a call was held on, for showing: figures of this instant, never asked of a disk."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from .admission import Granted


class Room(NamedTuple):
    """The tightest account of a call: its budget's title, and what is left in each unit that it limits."""

    budget: str
    remaining: tuple[tuple[str, int], ...]
    """Unit and amount, never below 0 (nano-dollars for ``usd``)."""


def tightest(granted: Granted) -> Room | None:
    """The account with the smallest share left, in any unit; None where none is known now."""
    found: Room | None = None
    least: Fraction | None = None
    for ledger, accounts in granted.held:
        known = ledger.store.known_balances(
            [key for account in accounts for _, _, keys in account.limits for key in keys]
        )
        for account in accounts:
            remaining = []
            share: Fraction | None = None
            for unit, ceiling, keys in account.limits:
                if not keys or not all(key in known for key in keys):
                    continue
                left = max(0, ceiling - sum([known[key].total for key in keys]))
                remaining.append((unit, left))
                of_this = Fraction(left, ceiling) if ceiling else Fraction(0)
                share = of_this if share is None or of_this < share else share
            if share is not None and (least is None or share < least):
                least, found = share, Room(account.budget.title, tuple(remaining))
    return found
