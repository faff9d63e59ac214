"""
Pools: the agents of a ledger that lend to each other, as one catalogue has them.

Made once for each catalogue, so that a call which has to borrow finds its lenders in order, with the account of each.
"""

from __future__ import annotations

from typing import NamedTuple

from ..kernel.budget import Budget
from ..kernel.catalogue import Catalogue
from ..kernel.lending import Lending
from ..kernel.plan import Account

FOREVER_MS = 2**52
LENT_UNITS = ("tokens", "usd")


class Member(NamedTuple):
    """One agent of a pool, in one unit."""

    account: str
    rank: int
    most: int
    """What its account may reach by lending: its limit without its reserve."""
    child: Lending | None
    """Its terms, if it ends by itself: then it may not lend any more."""


class Rank(NamedTuple):
    """The members of one rank, in order of registration, and the account of each."""

    rank: int
    members: list[Member]
    accounts: tuple[str, ...]


class Pool:
    """The agents that may lend to each other, as one catalogue has them; in order of registration."""

    def __init__(self, accounts: list[Account]) -> None:
        self._members = {
            unit: [
                Member(
                    account.key,
                    account.budget.lending.rank,
                    ceiling - account.budget.lending.reserve(unit),
                    None if account.budget.lending.parent is None else account.budget.lending,
                )
                for account in accounts
                if account.budget.lending is not None and (ceiling := account.ceiling(unit)) is not None
            ]
            for unit in LENT_UNITS
        }
        self.most = {
            unit: {member.account: member.most for member in members} for unit, members in self._members.items()
        }
        """By unit and account, what it may reach by lending."""
        self._below: dict[tuple[str, int], tuple[Rank, ...]] = {}

    def below(self, unit: str, priority: int) -> tuple[Rank, ...]:
        """Whoever may lend to this priority in this unit, lowest first."""
        found = self._below.get((unit, priority))
        if found is None:
            ranks: dict[int, list[Member]] = {}
            for member in self._members[unit]:
                if member.rank <= priority:
                    ranks.setdefault(member.rank, []).append(member)
            found = self._below[unit, priority] = tuple(
                Rank(rank, members, tuple(member.account for member in members))
                for rank, members in sorted(ranks.items())
            )
        return found


class Pools:
    """The pools of one catalogue, each made when it is first asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._made: dict[str, Pool] = {}

    def of(self, name: str) -> Pool:
        """The agents that lend to each other under this name."""
        found = self._made.get(name)
        if found is None:
            budgets = self.catalogue.budgets.values()
            mine = [budget for budget in budgets if budget.lending is not None and budget.lending.pool == name]
            found = self._made[name] = Pool([lasting(self.catalogue, budget) for budget in mine])
        return found


def lasting(catalogue: Catalogue, budget: Budget) -> Account:
    """The account of an agent as a lender: without what was granted to it for a time, which is not lent on."""
    return catalogue.account(budget, {}, FOREVER_MS)
