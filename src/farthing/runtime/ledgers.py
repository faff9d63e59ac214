"""
A ledger as this process sees it: its store, the last known catalogue of its budgets, and the accounts in use.

An account is prepared once and used until its window or the catalogue changes; the store refuses a plan that was made
from an older catalogue, so what is kept here can be late but never wrong.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..kernel.budget import Budget
from ..kernel.catalogue import Catalogue
from ..kernel.plan import Account
from ..kernel.scope import Tags, matches
from ..stores.contract import Store
from .pools import Pool, make_pool

ACCOUNTS_MAX = 10_000


class Ledger:
    """One store and what is known of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.catalogue = Catalogue(version=-1)
        self._accounts: dict[tuple[str, tuple[str | None, ...]], Account] = {}
        self._standing: tuple[Budget, ...] = ()
        self.lends = False
        """Whether agents have budgets in it: where none has, no call looks for lenders."""
        self.short: set[str] = set()
        """Counters of agents whose last call had to borrow."""
        self._pools: dict[str, Pool] = {}
        self.alerting = False
        """Whether a budget in it has thresholds: where none has, no call looks for them."""

    def refresh(self, catalogue: Catalogue) -> None:
        """Take a newer catalogue over; prepared accounts are made again."""
        if catalogue.version != self.catalogue.version:
            self.catalogue = catalogue
            self._accounts = {}
            self._standing = tuple(budget for budget in catalogue.budgets.values() if budget.standing)
            self.lends = any(budget.lending is not None for budget in catalogue.budgets.values())
            self._pools = {}
            self.short = set()
            self.alerting = self.alerting or any(budget.alerts for budget in catalogue.budgets.values())

    def standing(self, tags: Tags) -> list[Budget]:
        """The budgets that bind every call which their scope matches."""
        return [budget for budget in self._standing if not budget.scope or matches(dict(budget.scope), tags)]

    def put_away(self, name: str) -> None:
        """No call will ask for the account of this unit of work again."""
        self._accounts.pop((name, ()), None)

    def pool(self, name: str) -> Pool:
        """The agents that lend to each other under this name."""
        pools = self._pools
        found = pools.get(name)
        if found is None:
            found = pools[name] = make_pool(self.catalogue, name)
        return found

    def accounts(self, budgets: Iterable[Budget], tags: Tags, now_ms: int) -> tuple[Account, ...]:
        """The account of each budget that a call with these tags falls into now."""
        found = []
        # Taken before the catalogue is looked at: an account of an old one then lands where nobody looks any more.
        prepared = self._accounts
        for budget in budgets:
            key = (budget.name, tuple([tags.get(name) for name in budget.each]) if budget.each else ())
            account = prepared.get(key)
            if (
                account is None
                or account.budget is not budget
                or (account.valid_until_ms is not None and now_ms >= account.valid_until_ms)
                or (account.valid_from_ms is not None and now_ms < account.valid_from_ms)
            ):
                account = self.catalogue.account(budget, tags, now_ms)
                if len(prepared) >= ACCOUNTS_MAX:
                    prepared.clear()
                prepared[key] = account
            found.append(account)
        return tuple(found)
