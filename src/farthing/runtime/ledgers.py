"""
A ledger as this process sees it: its store, the last known catalogue of its budgets, and the accounts in use.

An account is prepared once and used until its window or the catalogue changes; the store refuses a plan that was made
from an older catalogue, so what is kept here can be late but never wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ..kernel.budget import Budget
from ..kernel.catalogue import Catalogue
from ..kernel.plan import Account
from ..kernel.scope import Tags, matches
from ..stores.changing import Changed, change_budget
from ..stores.contract import Store
from .pools import Pools

ACCOUNTS_MAX = 10_000


class _Accounts(dict[tuple[str, tuple[str | None, ...]], Account]):
    """Accounts as one catalogue has them."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__()
        self.catalogue = catalogue


class Ledger:
    """One store and what is known of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._start()

    def _start(self) -> None:
        """Nothing is known yet."""
        self._refreshing = threading.RLock()
        self.catalogue = Catalogue(version=-1)
        self._accounts = _Accounts(self.catalogue)
        self._standing: tuple[Budget, ...] = ()
        self._near: dict[tuple[str, str] | None, list[tuple[int, Budget]]] = {}
        """The same, each with its place among them, by the first tag of its scope: there may be one for every user."""
        self.lends = False
        """Whether agents have budgets in it: where none has, no call looks for lenders."""
        self.short: set[str] = set()
        """Accounts of agents whose last call had to borrow."""
        self.pools = Pools(self.catalogue)
        """Who lends to whom, as one catalogue has it."""
        self.alerting = False
        """Whether a budget in it has thresholds: where none has, no call looks for them."""

    def refresh(self, catalogue: Catalogue) -> None:
        """
        Take a newer catalogue over; what was prepared from the one before is made again.

        Other threads ask for its version first, and make their plans of what they find after that. So it comes last,
        and never goes back: then nothing that they find is older than the version that they name, and a plan of old
        terms is always one that the store refuses.
        """
        if catalogue is self.catalogue:
            return
        with self._refreshing:
            if catalogue.version < self.catalogue.version:
                # Asked for before another thread's that was faster.
                return
            budgets = catalogue.budgets.values()
            self._standing = tuple(budget for budget in budgets if budget.standing)
            near: dict[tuple[str, str] | None, list[tuple[int, Budget]]] = {}
            for place, budget in enumerate(self._standing):
                near.setdefault(budget.scope[0] if budget.scope else None, []).append((place, budget))
            self._near = near
            self.lends = any(budget.lending is not None for budget in budgets)
            self.alerting = self.alerting or any(budget.alerts for budget in budgets)
            self._accounts = _Accounts(catalogue)
            self.pools = Pools(catalogue)
            self.short = set()
            self.catalogue = catalogue

    def change(self, name: str, make: Callable[[Budget | None], Budget | None]) -> Changed:
        """Change a budget from what its terms are at that instant; see :mod:`farthing.stores.changing`."""
        changed = change_budget(self.store, name, make)
        self.refresh(changed.catalogue)
        return changed

    def in_child(self) -> tuple[Budget, ...]:
        """
        After a fork: the thread that was refreshing may have stayed behind, and so have the budgets in memory. Returns
        those of them that bound whatever their scope matched.
        """
        self._refreshing = threading.RLock()
        if self.store.durable:
            return ()
        left = self._standing
        self._start()
        return left

    def standing(self, tags: Tags) -> list[Budget]:
        """The budgets that bind every call which their scope matches."""
        near = self._near
        found = [*near.get(None, ())]
        for tag in tags.items():
            found += near.get(tag, ())
        return [budget for _, budget in sorted(found) if matches(dict(budget.scope), tags)]

    def put_away(self, name: str) -> None:
        """No call will ask for the account of this unit of work again."""
        self._accounts.pop((name, ()), None)

    def accounts(self, budgets: Iterable[Budget], tags: Tags, now_ms: int) -> tuple[Account, ...]:
        """The account of each budget that a call with these tags falls into now."""
        found = []
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
                account = prepared.catalogue.account(budget, tags, now_ms)
                if len(prepared) >= ACCOUNTS_MAX:
                    prepared.clear()
                prepared[key] = account
            found.append(account)
        return tuple(found)
