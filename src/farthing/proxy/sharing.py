"""
Calls of programs that are governed themselves, on the ledger of this proxy: what they hold is taken over, so that
nothing is held or counted twice (:mod:`farthing.calls.handover`).
"""

from __future__ import annotations

import os

from ..calls import endings
from ..calls.call import OFFERED, Call
from ..calls.handover import ID_LENGTH_MAX
from ..errors import HoldConflict, StoreUnavailable
from ..kernel.budget import Budget
from ..kernel.hold import LIVE, Hold
from ..kernel.ledger import Placed
from ..kernel.plan import CallFacts, empty_plan
from ..kernel.scope import concrete, read_account_key
from ..runtime.ambient import Ambient, Binding
from ..runtime.in_force import in_force
from ..runtime.ledgers import Ledger
from ..runtime.runtime import log


async def shared(call: Call, offered: bytes) -> Call:
    """
    The call as it is to be held for, where its sender offers a hold: in that hold's place, on its accounts too. The
    call as it is, where that hold has ended already, or cannot be replaced whole.
    """
    durable, offered_id = call.runtime.durable, offered.decode("latin-1")
    if durable is None or not offered_id.startswith(OFFERED) or len(offered_id) > ID_LENGTH_MAX:
        return call
    if not offered_id.isprintable():
        return call
    # Whoever sent it may ask for a report as soon as it has the answer.
    call.awaited = True
    try:
        # The budgets that it is on may have been named a moment ago.
        hold = await _find(durable, call, offered_id)
        durable.refresh(await durable.store.catalogue())
    except StoreUnavailable:
        # Admission meets the same, and knows what to do.
        return call
    if hold is None or hold.state not in LIVE or hold.facts.dialect != call.request.dialect:
        return call
    joined = _joined(call, hold, durable)
    return call if joined is None else joined


async def _find(durable: Ledger, call: Call, offered_id: str) -> Hold | None:
    """What is offered. Its sender may hold nothing: then an empty hold stands for what it would say at its end."""
    store, request = durable.store, call.request
    hold = await store.find(offered_id)
    if hold is not None:
        return hold
    # Not what its sender says of itself in the request: anybody may send one, and what a hold says, budgets match.
    facts = CallFacts(request.model, request.provider, request.dialect, call.ambient.tags)
    version = (await store.catalogue()).version
    plan = empty_plan(offered_id, facts, call.deadline_ms(store.now()), catalogue_version=version)
    try:
        placed = await store.place(plan)
    except HoldConflict:
        # Its sender has left just now.
        return await store.find(offered_id)
    return placed.hold if isinstance(placed, Placed) else None


async def refused(call: Call, status: int) -> None:
    """The call is not sent. Its sender would say the same of what it holds, but may have left."""
    durable = call.runtime.durable
    if durable is None or call.replaces is None:
        return
    try:
        await durable.store.void(call.replaces.id, endings.refused(f"http_{status}").outcome)
    except (HoldConflict, StoreUnavailable) as error:
        log.debug("what was offered for refused call %s stays as it is: %s", call.id, error)


def _joined(call: Call, hold: Hold, durable: Ledger) -> Call | None:
    """The call on the accounts of both; None where one of the hold's would be left out."""
    wanted = dict.fromkeys(_account(posting.key) for posting in hold.postings)
    budgets = [durable.catalogue.budgets.get(name) for name, _ in wanted]
    bindings = tuple(Binding(budget, os.getpid()) for budget in budgets if budget is not None)
    # What a governed program says of itself stands in the ledger, so it is as good as the ledger. Who pays here is
    # told by the key all the same.
    tags = {**dict(hold.facts.tags), **dict(call.ambient.tags)}
    ambient = Ambient(bindings, tuple(tags.items()))
    both = call.instead_of(hold, ambient)
    both.awaited = True
    there = in_force(call.runtime, ambient, call.request.model, call.request.provider).there
    accounts = () if there is None else there.accounts()
    had = {(account.budget.name, tuple(sorted(account.scope))) for account in accounts}
    # What was held under other terms than a budget has now (it was split by users since) is on no account that counts.
    said = {**dict(hold.facts.tags), "model": hold.facts.model or "", "provider": hold.facts.provider or ""}
    due = {(budget.name, _scope(budget, said)) for budget in budgets if budget is not None}
    return both if due & set(wanted) <= had else None


def _scope(budget: Budget, tags: dict[str, str]) -> tuple[tuple[str, str | None], ...]:
    return tuple(sorted(concrete(dict(budget.scope), budget.each, tags).items()))


def _account(key: str) -> tuple[str, tuple[tuple[str, str | None], ...]]:
    """Which account this is, whatever its window: the budget's name, and its scope."""
    name, scope, _ = read_account_key(key)
    return name, tuple(sorted(scope.items()))
