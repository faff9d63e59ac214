"""
What is in force for a call: the budgets that bind it, ledger by ledger, the strictest of their terms, their accounts.

All of it depends on where the call is made, on its model and on the catalogues, and none of that changes from one call
to the next. So it is looked up once and kept beside the ambient scope, until another catalogue is known: a forked child
begins with one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..kernel.budget import Budget
from ..kernel.plan import Account
from ..kernel.scope import matches
from ..kernel.strictest import Strictest
from .ambient import Ambient
from .ledgers import Ledger
from .pools import FOREVER_MS

if TYPE_CHECKING:
    from .runtime import Runtime

FOUND_MAX = 16
"""Models at most for one scope: whoever calls through a proxy chooses their names."""


class Side:
    """The budgets of one ledger that bind a call, as one version of its catalogue has them."""

    __slots__ = ("_prepared", "_tags", "budgets", "ledger", "version")

    def __init__(self, ledger: Ledger, version: int, budgets: Sequence[Budget], tags: dict[str, str]) -> None:
        self.ledger = ledger
        self.version = version
        self.budgets = budgets
        self._tags = tags
        self._prepared: tuple[int, int, tuple[Account, ...]] = (0, 0, ())

    def accounts(self, priced: bool = True) -> tuple[Account, ...]:
        """
        The account of each budget that a call falls into now: the same tuple until a window ends. One that is not
        *priced* (``tokens_only``) counts on them, and not in USD.
        """
        now_ms = self.ledger.store.now()
        since_ms, until_ms, accounts = self._prepared
        if not since_ms <= now_ms < until_ms:
            accounts = self.ledger.accounts(self.budgets, self._tags, now_ms)
            starts = [account.valid_from_ms for account in accounts if account.valid_from_ms is not None]
            ends = [account.valid_until_ms for account in accounts if account.valid_until_ms is not None]
            self._prepared = max(starts, default=0), min(ends, default=FOREVER_MS), accounts
        return accounts if priced else without_usd(accounts)


def without_usd(accounts: tuple[Account, ...]) -> tuple[Account, ...]:
    """The same accounts without their limits in USD."""
    return tuple(
        replace(account, limits=tuple(limit for limit in account.limits if limit[0] != "usd")) for account in accounts
    )


class InForce:
    """What binds the calls of one scope to one model."""

    __slots__ = ("budgets", "durable", "here", "inherited", "memory", "strictest", "tags", "there", "work")

    def __init__(self, runtime: Runtime, ambient: Ambient, model: str | None, provider: str | None) -> None:
        memory, durable = runtime.memory, runtime.durable
        # Looked at before the budgets are. If another call learns of a change meanwhile, a plan of these is stale, and
        # never a new version with old terms.
        self.memory = memory.catalogue
        self.durable = None if durable is None else durable.catalogue
        said = {"model": model, "provider": provider}
        self.tags = dict(ambient.tags) | {name: value for name, value in said.items() if value is not None}
        """What budgets match: the ambient tags, and what the call itself says."""
        here, there = budgets_of(memory, durable, ambient, self.tags)
        self.here = Side(memory, self.memory.version, here, self.tags) if here else None
        """In memory; None where no budget there binds them."""
        self.there: Side | None = None
        """On the durable ledger; None where no budget there binds them, or there is none."""
        if durable is not None and self.durable is not None and there:
            self.there = Side(durable, self.durable.version, there, self.tags)
        self.budgets = (*here, *there)
        self.strictest = Strictest.of(self.budgets)
        self.inherited = runtime.inherited(ambient, self.tags)
        """A budget that binds them, and whose account stayed in the memory of the parent process; or None."""
        self.work: Any = ambient.work
        """The innermost piece of an agent's work that a call made here belongs to."""


def in_force(runtime: Runtime, ambient: Ambient, model: str | None = None, provider: str | None = None) -> InForce:
    """What binds a call that is made here now, to this model (None: to none that its caller names)."""
    memory, durable = runtime.memory, runtime.durable
    found = ambient.found.get((model, provider))
    if (
        found is None
        or found.memory is not memory.catalogue
        or found.durable is not (None if durable is None else durable.catalogue)
    ):
        if len(ambient.found) >= FOUND_MAX:
            ambient.found.clear()
        found = ambient.found[model, provider] = InForce(runtime, ambient, model, provider)
    return found


def budgets_of(
    memory: Ledger, durable: Ledger | None, ambient: Ambient, tags: dict[str, str]
) -> tuple[list[Budget], list[Budget]]:
    """The budgets that bind a call with these tags: those in memory, and those on the durable ledger."""
    standing = (durable or memory).standing(tags)
    here: dict[str, Budget] = {}
    there: dict[str, Budget] = {}
    for bound in ambient.bindings:
        budget = bound.budget
        side, ledger = (here, memory) if budget.anonymous or durable is None else (there, durable)
        if budget.anonymous and budget.lending is None:
            here[budget.name] = budget
            continue
        known = ledger.catalogue.budgets.get(budget.name, budget)
        # An agent's work is charged to it whatever tags its calls carry.
        if budget.lending is not None or matches(dict(known.scope), tags):
            side[known.name] = known
    for budget in standing:
        (here if durable is None else there).setdefault(budget.name, budget)
    return list(here.values()), list(there.values())
