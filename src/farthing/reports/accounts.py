"""
Accounts as an operator looks at them: every budget of a ledger, each with the accounts in use and their figures.

A budget without ``each`` has one account, used or not. One with ``each`` has an account for every value that was seen
in the current window; before the first call it has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..kernel.balances import UNITS, ZERO, Balances, total
from ..kernel.budget import Budget
from ..kernel.catalogue import Catalogue, Grant, no_budget
from ..kernel.lending import account_of
from ..kernel.money import usd_decimal
from ..kernel.plan import Account
from ..kernel.scope import read_account_key
from ..kernel.window import datetime_from_ms
from ..stores.contract import Store


@dataclass(frozen=True, slots=True)
class UnitFigures:
    """One unit of one account, in the unit's integer (nano-dollars for ``usd``)."""

    unit: str
    limit: int | None
    """The ceiling of this instant, live grants included; None where the unit is counted but not limited."""
    granted: int
    """The part of the limit that live grants add."""
    spent: int
    held: int
    suspect: int

    @property
    def counted(self) -> int:
        """What is taken off the limit: spent, held and suspect."""
        return self.spent + self.held + self.suspect

    @property
    def remaining(self) -> int | None:
        """What is left of the limit, never below 0; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.counted)

    @property
    def overrun(self) -> int:
        """By how much the limit is passed: what providers billed beyond a hold, or a limit that was lowered since."""
        return 0 if self.limit is None else max(0, self.counted - self.limit)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: integers, USD as decimal strings."""
        names = ("limit", "granted", "spent", "held", "suspect", "remaining", "overrun")
        return {name: _json_amount(self.unit, getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True)
class AccountFigures:
    """One account of a budget. ``scope`` has its tags; None stands for calls without that tag."""

    budget: Budget
    scope: Mapping[str, str | None]
    resets_at: datetime | None
    """When its window ends; None for lifetimes and for rolling windows, which empty little by little."""
    units: tuple[UnitFigures, ...]

    def figures(self, unit: str) -> UnitFigures | None:
        """The figures of one unit, if it is counted."""
        return next((figures for figures in self.units if figures.unit == unit), None)

    def to_dict(self, *, frozen: bool) -> dict[str, Any]:
        """Flat, ready for JSON: its budget's terms, and the figures of each unit under the unit's name."""
        return {
            **_terms(self.budget, frozen=frozen),
            "scope": dict(self.scope),
            "resets_at": self.resets_at.isoformat() if self.resets_at else None,
            **{figures.unit: figures.to_dict() for figures in self.units},
        }


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """One budget of a ledger, its accounts in use, and what was granted on top of it."""

    budget: Budget
    frozen: bool
    accounts: tuple[AccountFigures, ...]
    grants: tuple[Grant, ...]
    """All that are not over, for this window or an earlier one."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """
        One flat dict per account, ready for JSON; a budget without an account in use gives one with its limits.
        """
        rows = [account.to_dict(frozen=self.frozen) for account in self.accounts]
        terms = _terms(self.budget, frozen=self.frozen)
        unused = {unit: {"limit": _json_amount(unit, self.budget.limit(unit))} for unit in limited_units(self.budget)}
        return rows or [{**terms, "scope": dict(self.budget.scope), "resets_at": None, **unused}]


def limited_units(budget: Budget) -> tuple[str, ...]:
    """The units that a budget limits."""
    return tuple(unit for unit in UNITS if budget.limit(unit) is not None)


def list_accounts(store: Store, name: str | None = None) -> list[BudgetFigures]:
    """
    The budgets of a ledger, by name; only the one called *name* if it is given (ConfigError if there is none).
    """
    catalogue = store.catalogue().result()
    if name is not None and name not in catalogue.budgets:
        raise no_budget(name, catalogue.budgets)
    now_ms = store.now()
    balances = store.balances(at_ms=now_ms).result()
    scopes = _scopes_in_use(balances)
    return [
        _budget_figures(catalogue, budget, scopes.get(budget.name, ()), balances, now_ms)
        for budget in sorted(catalogue.budgets.values(), key=lambda budget: budget.name)
        if name in (None, budget.name)
    ]


def _budget_figures(
    catalogue: Catalogue,
    budget: Budget,
    scopes: tuple[dict[str, str | None], ...],
    balances: Mapping[str, Balances],
    now_ms: int,
) -> BudgetFigures:
    accounts = []
    for scope in scopes if budget.each else ({},):
        tags = {name: value for name, value in scope.items() if value is not None}
        account = catalogue.account(budget, tags, now_ms)
        in_use = any(key in balances for key in account.keys)
        if in_use or not budget.each:
            accounts.append(account_figures(account, balances))
    grants = tuple(
        grant
        for grant in catalogue.grants
        if grant.budget == budget.name and (grant.until_ms is None or now_ms < grant.until_ms)
    )
    return BudgetFigures(budget, budget.name in catalogue.frozen, tuple(accounts), grants)


def account_figures(account: Account, balances: Mapping[str, Balances]) -> AccountFigures:
    """The figures of one account, from the rows that it is the sum of."""
    budget = account.budget
    row = total(balances.get(key, ZERO) for key in account.keys)
    units = []
    for unit in UNITS:
        limit = account.ceiling(unit)
        if limit is None and unit == "concurrency":
            continue
        granted = 0 if limit is None else limit - (budget.limit(unit) or 0)
        units.append(UnitFigures(unit, limit, granted, *row.of(unit)))
    calendar = budget.window.kind not in ("lifetime", "request", "rolling") and account.ends_ms is not None
    resets_at = datetime_from_ms(account.ends_ms) if calendar and account.ends_ms is not None else None
    return AccountFigures(budget, dict(account.scope), resets_at, tuple(units))


def _terms(budget: Budget, *, frozen: bool) -> dict[str, Any]:
    return {
        "name": budget.name,
        "title": budget.title,
        "per": str(budget.window),
        "on_exceed": budget.on_exceed,
        "each": list(budget.each),
        "standing": budget.standing,
        "defined_by": budget.defined_by,
        "frozen": frozen,
    }


def _scopes_in_use(balances: Mapping[str, Balances]) -> dict[str, tuple[dict[str, str | None], ...]]:
    """By budget, the concrete scopes of these accounts, sorted."""
    found: dict[str, dict[tuple[tuple[str, str | None], ...], dict[str, str | None]]] = {}
    for key in balances:
        name, scope, _ = read_account_key(account_of(key))
        found.setdefault(name, {}).setdefault(tuple(scope.items()), scope)
    return {
        name: tuple(scopes[key] for key in sorted(scopes, key=lambda key: [(tag, value or "") for tag, value in key]))
        for name, scopes in found.items()
    }


def _json_amount(unit: str, amount: int | None) -> int | str | None:
    return amount if amount is None or unit != "usd" else usd_decimal(amount)
