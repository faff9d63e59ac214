"""
The catalogue: which budgets exist in a ledger, what was granted on top of them, which are frozen.

It has a version; a plan carries the version it was made from, and is made again when that is not the ledger's any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from ..errors import ConfigError
from .budget import Budget
from .plan import Account, open_account
from .scope import Tags

NAMES_SAID = 8


def no_budget(name: str, known: Iterable[str]) -> ConfigError:
    """What is said of a name that no budget has: with those there are, if they are few."""
    names = sorted(known)
    said = ", ".join(map(repr, names[:NAMES_SAID])) + (", …" if len(names) > NAMES_SAID else "")
    there_is = f"known: {said}" if names else "the ledger has none"
    return ConfigError(f"no budget is named {name!r}; {there_is}", key="budget")


class Grant(NamedTuple):
    """
    A dated raise of a budget, for the window it was made in. Amount in the unit's integer (nano-dollars for ``usd``).

    ``scope`` names the ``each`` values it is for; empty: every account of the budget.
    """

    budget: str
    unit: str
    amount: int
    at_ms: int
    until_ms: int | None = None
    scope: tuple[tuple[str, str], ...] = ()
    reason: str | None = None
    who: str | None = None

    def live(self, account: Account, now_ms: int) -> bool:
        """Whether it raises this account's ceiling now: made in its window, not over, and for its scope."""
        if self.until_ms is not None and now_ms >= self.until_ms:
            return False
        if account.budget.window.kind != "rolling" and self.at_ms < (account.starts_ms or 0):
            return False
        scope = dict(account.scope)
        return all(scope.get(name) == value for name, value in self.scope)


class Catalogue(NamedTuple):
    """An immutable snapshot of a ledger's budgets."""

    version: int = 0
    budgets: Mapping[str, Budget] = {}
    grants: tuple[Grant, ...] = ()
    frozen: frozenset[str] = frozenset()

    def account(self, budget: Budget, tags: Tags, now_ms: int) -> Account:
        """The account that a call with these tags falls into now, with its live grants."""
        account = open_account(budget, tags, now_ms, frozen=budget.name in self.frozen)
        if not self.grants:
            return account
        own = [grant for grant in self.grants if grant.budget == budget.name]
        over = [grant.until_ms for grant in own if grant.until_ms is not None and grant.until_ms <= now_ms]
        if over:
            account = replace(account, valid_from_ms=max(account.valid_from_ms or 0, *over))
        granted = [(grant.unit, grant.amount) for grant in own if grant.live(account, now_ms)]
        if not granted:
            return account
        ends = [grant.until_ms for grant in own if grant.until_ms is not None and grant.until_ms > now_ms]
        until = [*ends, account.valid_until_ms] if account.valid_until_ms is not None else ends
        return account.raised(tuple(granted), min(until) if until else None)

    def with_budget(self, budget: Budget, *, update: bool) -> Catalogue:
        """
        The catalogue with this budget named in it; the same catalogue if it is there already with these terms.

        Raises ConfigError if the name is taken with other terms and *update* is not set, or if a file owns it.
        """
        known = self.budgets.get(budget.name)
        named = budget
        if known is not None and budget.defined_by is None:
            # Naming a budget with the terms it has claims nothing: it stays standing, and its file's.
            named = replace(budget, standing=known.standing, defined_by=known.defined_by)
        if known == named:
            return self
        self._check_owner(budget.name, budget.defined_by)
        if known is not None and not update:
            raise ConfigError(
                f"budget {budget.name!r} exists with other terms ({known.terms_text()}, on_exceed={known.on_exceed}): "
                "name it with those, or pass update=True to change it for everyone who names it",
                key="budget",
            )
        if known is not None and budget.defined_by is None and known.standing and not budget.standing:
            # Other terms do not make it a program's own: who set it for all goes on counting on it.
            budget = replace(budget, standing=True)
        return self._replace(version=self.version + 1, budgets={**self.budgets, budget.name: budget})

    def with_budgets(self, budgets: Iterable[Budget], *, catalogue_version: int) -> Catalogue:
        """With all of these named in it, in one step; the same catalogue if it is not of this version any more."""
        if catalogue_version != self.version:
            return self
        return self._replace(
            version=self.version + 1, budgets={**self.budgets, **{budget.name: budget for budget in budgets}}
        )

    def without_budget(self, name: str, *, defined_by: str | None = None) -> Catalogue:
        """Raises ConfigError if there is none of this name, or if another than *defined_by* owns it."""
        self._known(name)
        self._check_owner(name, defined_by)
        budgets = {key: budget for key, budget in self.budgets.items() if key != name}
        grants = tuple(grant for grant in self.grants if grant.budget != name)
        return Catalogue(self.version + 1, budgets, grants, self.frozen - {name})

    def with_grant(self, grant: Grant) -> Catalogue:
        """Raises ConfigError for an unknown budget, or one without a limit in that unit or accounts of that scope."""
        budget = self._known(grant.budget)
        if budget.limit(grant.unit) is None:
            raise ConfigError(f"budget {grant.budget!r} has no limit in {grant.unit} to raise", key="grant")
        if type(grant.amount) is not int or grant.amount <= 0:  # NaN would be above every limit
            raise ConfigError(f"a grant's amount must be an integer above 0, not {grant.amount!r}", key="grant")
        for tag, value in grant.scope:
            if tag not in budget.each and (tag, value) not in budget.scope:
                raise ConfigError(f"budget {grant.budget!r} has no account for {tag}={value}", key="grant")
        return self._replace(version=self.version + 1, grants=(*self.grants, grant))

    def with_frozen(self, name: str, frozen: bool) -> Catalogue:
        """Raises ConfigError for an unknown budget."""
        self._known(name)
        if (name in self.frozen) == frozen:
            return self
        names = self.frozen | {name} if frozen else self.frozen - {name}
        return self._replace(version=self.version + 1, frozen=names)

    def _check_owner(self, name: str, asking: str | None) -> None:
        known = self.budgets.get(name)
        if known is not None and known.defined_by not in (None, asking):
            raise ConfigError(
                f"budget {name!r} is defined by {known.defined_by} ({known.terms_text()}, "
                f"on_exceed={known.on_exceed}): change it there",
                key="budget",
            )

    def _known(self, name: str) -> Budget:
        budget = self.budgets.get(name)
        if budget is None:
            raise no_budget(name, self.budgets)
        return budget
