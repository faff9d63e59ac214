"""
Standing budgets: what an operator sets, changes, raises and takes away, in a ledger that programs share.

A standing budget binds every call that its scope matches. One that a program named itself (``with budget("search",
…)``) keeps binding only what it binds there, also when an operator changes its terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..kernel.budget import ALERT_WHOLE, Budget, make_budget
from ..kernel.catalogue import Grant
from ..kernel.instants import instant_ms
from ..kernel.money import format_usd, nano_from_usd, nano_of_usd, usd_from_nano
from ..kernel.scope import check_tags
from ..runtime.pools import LENT_UNITS
from ..stores.changing import change_budget
from ..stores.contract import Store
from ..tokens.models import check_one_provider


class Set(NamedTuple):
    """A budget's terms before (None: it is new) and now."""

    before: Budget | None
    now: Budget

    def changes(self) -> list[str]:
        """What differs, term by term, as people write it: ``usd $5.00 → $8.00``; nothing for a new budget."""
        return [] if self.before is None else changes_between(self.before, self.now)


def set_budget(store: Store, name: str, *, update: bool = False, **terms: Any) -> Set:
    """
    Name a standing budget. *terms* are those of :func:`farthing.kernel.budget.make_budget`; None: not given.

    With *update* a budget that exists is changed: terms that are not given stay as they are. Raises ValueError naming
    the field; ConfigError if the name exists with other terms, and *update* is not set.
    """

    def wanted(before: Budget | None) -> Budget:
        given = {term: value for term, value in terms.items() if value is not None}
        if before is None:
            return replace(make_budget(name, **given), standing=True)
        if update:
            given = {**_terms_of(before), **given}
            if given.get("on_exceed") != "downgrade" and terms.get("downgrade") is None:
                given.pop("downgrade", None)
        budget = _stays(before, make_budget(name, **given))
        if not update and before.defined_by is None and before != budget:
            differences = "; ".join(changes_between(before, budget))
            raise ConfigError(
                f'budget {name!r} exists with other terms ({differences}): update it (--update, or "update": true) '
                "to change it for everyone, or grant more for a while",
                key="budget",
            )
        return budget

    def checked(before: Budget | None) -> Budget:
        budget = wanted(before)
        check_one_provider(budget.downgrade)
        return budget

    changed = change_budget(store, name, checked, update=update)
    return Set(changed.before, changed.catalogue.budgets[name])


def _stays(before: Budget, budget: Budget) -> Budget:
    """What terms do not say: whom it binds, and that it is an agent's."""
    lending = before.lending
    if lending is None:
        return replace(budget, standing=before.standing)
    for unit in LENT_UNITS:
        if lending.parent is not None and budget.limit(unit) != before.limit(unit):
            raise ConfigError(
                f"budget {before.name!r} is what agent {lending.parent!r} gave its agent {lending.agent!r}, so its "
                "limits are not changed alone: grant more for a while, or delegate another",
                key="budget",
            )
    return replace(budget, standing=before.standing, lending=lending, label=before.label, anonymous=before.anonymous)


def grant_more(
    store: Store,
    name: str,
    *,
    usd: Decimal | int | float | None = None,
    tokens: int | None = None,
    requests: int | None = None,
    until: str | None = None,
    scope: Mapping[str, object] | None = None,
    reason: str | None = None,
    who: str | None = None,
) -> tuple[Grant, ...]:
    """
    Raise a budget for its current window: one grant for each unit that is given.

    Args:
        until: a date, an ISO time, or a span from now (``"7d"``); None: as long as the window lasts.
        scope: the ``each`` values it is for; none: every account of the budget.

    Raises ValueError naming the argument; ConfigError for an unknown budget, or one without a limit in that unit.
    """
    now_ms = store.now()
    until_ms = None if until is None else instant_ms(until, now_ms, argument="until", ahead=True)
    if until_ms is not None and until_ms <= now_ms:
        raise ValueError(f"until={until!r} is in the past")
    amounts = {"usd": None if usd is None else nano_from_usd(usd, field="usd"), "tokens": tokens, "requests": requests}
    budget = store.catalogue().result().budgets.get(name)
    tags = check_tags(scope or {}, field="scope")
    for tag in tags:
        if budget is not None and tag not in budget.each:
            raise ValueError(f"scope: budget {name!r} has no account of its own for each {tag!r}")
    grants = tuple(
        Grant(name, unit, amount, now_ms, until_ms, tuple(sorted(tags.items())), reason, who)
        for unit, amount in amounts.items()
        if amount is not None
    )
    if not grants:
        raise ValueError("a grant needs an amount in usd, tokens or requests")
    for grant in grants:
        if budget is not None and budget.limit(grant.unit) is None:
            # Before the first is made: two amounts are one command, which happens whole or not at all.
            raise ConfigError(f"budget {name!r} has no limit in {grant.unit} to raise", key="grant")
    for grant in grants:
        store.grant(grant).result()
    return grants


def changes_between(before: Budget, now: Budget) -> list[str]:
    """What differs, term by term, as people write it: ``usd $5.00 → $8.00``."""
    old, new = _terms_of(before), _terms_of(now)
    return [
        f"{term} {_written(term, old.get(term))} → {_written(term, new.get(term))}"
        for term in dict.fromkeys((*old, *new))
        if old.get(term) != new.get(term)
    ]


def _written(term: str, value: object) -> str:
    if term == "usd" and isinstance(value, Decimal):
        return format_usd(nano_of_usd(value))
    if isinstance(value, (int, float)):
        return f"{value:,g}" if isinstance(value, float) else f"{value:,}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={of}" for name, of in value.items())
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def _terms_of(budget: Budget) -> dict[str, Any]:
    """The arguments of :func:`make_budget` that give this budget."""
    terms = {
        "usd": None if budget.usd_nano is None else usd_from_nano(budget.usd_nano),
        "tokens": budget.tokens,
        "requests": budget.requests,
        "concurrency": budget.concurrency,
        "per": str(budget.window),
        "on_exceed": budget.on_exceed,
        "downgrade": dict(budget.downgrade) or None,
        "scope": dict(budget.scope) or None,
        "each": list(budget.each) or None,
        "description": budget.description,
        "min_output_tokens": budget.min_output_tokens,
        "default_output_tokens": budget.default_output_tokens,
        "wait_seconds": budget.wait_seconds,
        "uncapped": budget.uncapped,
        "open_bound": budget.open_bound,
        "alerts": [Decimal(part) / ALERT_WHOLE for part in budget.alerts] or None,
    }
    return {term: value for term, value in terms.items() if value is not None}
