"""
Sessions: the run of a proxy that its ``--max-…-total`` counts.

A session's budgets are in the ledger, under its name. A clean stop of a session without a name of its own takes its
totals away, so that the next start begins anew; what is found at a start was left by an unclean exit, and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...admin.standing import changes_between
from ...kernel.budget import Budget
from ...kernel.window import datetime_from_ms
from ...stores.contract import Store
from ..flags import BudgetConfig, owner_of


def open_session(store: Store, flags: BudgetConfig, session: str) -> tuple[list[Budget], list[str]]:
    """
    Put the flags' budgets into the ledger. Returns them, and what there is to say: a session that goes on, limits that
    were changed.
    """
    owner = owner_of(session)
    known = [budget for budget in store.catalogue().result().budgets.values() if budget.defined_by == owner]
    since = _since(known, session) or _stamp(store.now())
    wanted = list(flags.budgets(session, since=since))
    said = []
    before = {budget.name: budget for budget in known}
    if any(_is_total(budget) and budget.name in before for budget in wanted):
        said.append(f"Session {session} goes on: what it has spent since {since} counts")
    for budget in wanted:
        old = before.pop(budget.name, None)
        store.put_budget(budget, update=True).result()
        if old is not None and old != budget:
            said.append(f"Budget {budget.title} changed: {'; '.join(changes_between(old, budget))}")
    for budget in before.values():
        store.remove_budget(budget.name, defined_by=owner).result()
        said.append(f"Budget {budget.title} is gone: {budget.terms_text()} is not limited any more")
    return wanted, said


def close_session(store: Store, budgets: Iterable[Budget], *, for_good: bool) -> None:
    """
    A clean stop: the totals of this session end with it. What was spent stays in every report. *for_good*: all its
    limits do, for its port was picked, and nobody comes back under the name of it.
    """
    for budget in budgets:
        if (for_good or _is_total(budget)) and budget.name in store.catalogue().result().budgets:
            store.remove_budget(budget.name, defined_by=budget.defined_by).result()


def _is_total(budget: Budget) -> bool:
    return budget.window.kind == "lifetime"


def _since(known: Iterable[Budget], session: str) -> str | None:
    """When the session that is open in the ledger began, as its budgets' names say it."""
    for budget in known:
        if _is_total(budget):
            return budget.name.removeprefix(f"{session} ").partition(" ")[0]
    return None


def _stamp(now_ms: int) -> str:
    return datetime_from_ms(now_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
