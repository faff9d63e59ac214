"""What is left of the budgets that a call was held on, for showing: figures of this instant, never asked of a disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..calls.holding import Granted
from ..kernel.balances import COUNTED
from ..kernel.plan import Account


class Room(NamedTuple):
    """The tightest account of a call: its budget's title, and what is left in each unit that it limits."""

    budget: str
    remaining: tuple[tuple[str, int], ...]
    """Unit and amount, never below 0 (nano-dollars for ``usd``)."""


def tightest(granted: Granted) -> Room | None:
    """The account with the smallest share left, in any unit; None where none is known now."""
    found: tuple[Account, Sequence[int]] | None = None
    least, of_least = 1, 0
    for ledger, accounts in granted.held:
        known = ledger.store.known_balances()
        for account in accounts:
            row = _whole([*map(known, account.rolling)]) if account.rolling else known(account.key)
            if row is None or not account.kept:
                continue
            for unit, ceiling, _ in account.limits:
                left = ceiling - sum(COUNTED[unit](row))
                # left / ceiling < least / of_least, in integers; nothing is a share of nothing.
                if least and left * of_least < least * (ceiling or 1):
                    found, least, of_least = (account, row), max(0, left), ceiling or 1
    if found is None:
        return None
    account, row = found
    remaining = [(unit, max(0, ceiling - sum(COUNTED[unit](row)))) for unit, ceiling, _ in account.limits]
    return Room(account.budget.title, tuple(remaining))


def _whole(rows: Sequence[Any]) -> Sequence[int] | None:
    """What a window has that is made of several rows; None where one of them is not known."""
    return [*map(sum, zip(*rows, strict=True))] if all(rows) else None
