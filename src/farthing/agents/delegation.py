"""
Delegation: an agent gives a part of its budget to a child, which is an agent like any other until it ends.

What is given is held on the parent, in one step, until the child is closed; then it is settled at what the child used,
and the rest is the parent's again. So the parent can never be short of what it gave, whichever process the child works
in, and a crash on either side loses nothing.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..calls.lending import exceeded
from ..calls.lending import place as place_plan
from ..calls.steps import Finished, Life, advance
from ..errors import BudgetExceeded, ConfigError, StoreUnavailable
from ..kernel.budget import Budget
from ..kernel.decision import denial
from ..kernel.hold import DELEGATION, HELD, VOIDED
from ..kernel.instants import instant_ms
from ..kernel.ledger import Denied, Placed
from ..kernel.lending import lent_key
from ..kernel.money import nano_from_usd
from ..kernel.plan import Ask, CallFacts, Formula, Posting, make_plan
from ..runtime.ambient import NOWHERE
from ..runtime.delegations import close_ended, closed, delegation_ids
from ..runtime.ids import new_id
from ..runtime.pools import FOREVER_MS
from .contract import AgentContract

if TYPE_CHECKING:
    from .crew import Crew

log = logging.getLogger("farthing")
Expires = str | datetime | timedelta | float | None
ATTEMPTS_MAX = 100
OTHERS_SECONDS = 2.0
"""How long a name that another process is just giving to a child is waited for."""
PAUSE_SECONDS = 0.01


def expiry_ms(crew: Crew, expires: Expires, parent: Budget) -> int | None:
    """When a child ends: at the latest with its parent. Raises ValueError for an instant that is over."""
    now_ms = crew.ledger.store.now()
    latest = parent.lending.expires_ms if parent.lending is not None else None
    if expires is None:
        return latest
    if isinstance(expires, timedelta):
        at_ms = now_ms + round(expires.total_seconds() * 1000)
    elif isinstance(expires, (int, float)) and not isinstance(expires, bool):
        at_ms = now_ms + round(expires * 1000)
    else:
        at_ms = instant_ms(expires, now_ms, argument="expires", ahead=True)
    if at_ms <= now_ms:
        raise ValueError(f"expires={expires!r} is in the past")
    return at_ms if latest is None else min(at_ms, latest)


def grant(crew: Crew, parent: Budget, contract: AgentContract, expires_ms: int | None) -> None:
    """Debit the parent and name the child. Raises BudgetExceededError if the parent, loans included, has too little."""
    until = time.monotonic() + OTHERS_SECONDS
    while True:
        if crew.find(contract.agent_name, ended=True) is not None:
            raise _used(contract.agent_name)
        try:
            return _grant(crew, parent, contract, expires_ms)
        except BudgetExceeded:
            # Another process delegates this very name, and its debit stands: soon the name is taken, or that goes back.
            if time.monotonic() >= until or not _is_being_named(crew, contract.agent_name):
                raise
        time.sleep(PAUSE_SECONDS)


def _is_being_named(crew: Crew, agent: str) -> bool:
    tags = {("pool", crew.pool), ("to", agent)}
    debits = (hold for hold in crew.ledger.store.holds(HELD).result() if hold.facts.dialect == DELEGATION)
    return any(tags <= set(hold.facts.tags) for hold in debits)


def _grant(crew: Crew, parent: Budget, contract: AgentContract, expires_ms: int | None) -> None:
    child = contract.to_budget(crew.pool, anonymous=not crew.named, expires_ms=expires_ms, delegation=new_id())
    child = replace(child, standing=crew.named)
    amounts = {
        "tokens": contract.max_tokens,
        "usd": None if contract.max_usd is None else nano_from_usd(contract.max_usd, field="max_usd"),
    }
    ids = delegation_ids(child)
    held: list[str] = []
    try:
        for unit, amount in amounts.items():
            if amount is not None:
                advance(_debit(crew, parent, child, unit, amount, ids[unit]))
                held.append(ids[unit])
    except BaseException:  # a refusal, a lost ledger, a signal: what the parent gave for nothing is its own again
        _give_back(crew, held)
        raise
    try:
        # Whether a ledger that did not answer has named it nobody knows: then the debit stands until that is certain.
        crew.put(child)
    except ConfigError as error:
        _give_back(crew, held)
        raise _used(contract.agent_name) from error
    if any((hold := crew.ledger.store.find(of).result()) is None or hold.state == VOIDED for of in held):
        crew.ledger.refresh(crew.ledger.store.remove_budget(child.name).result())
        raise StoreUnavailable(crew.ledger.store.name, f"agent {contract.agent_name!r} took too long to be delegated")


def _give_back(crew: Crew, held: list[str]) -> None:
    for hold_id in held:
        crew.ledger.store.void(hold_id)


def _used(agent: str) -> ConfigError:
    return ConfigError(f"an agent named {agent!r} exists or existed in this pool; names are used once", key="agent")


def _debit(crew: Crew, parent: Budget, child: Budget, unit: str, amount: int, hold_id: str) -> Life:
    """Hold an amount on the parent until the child is closed: ``x`` is the amount, so that it can shrink later."""
    for _ in range(ATTEMPTS_MAX):
        ledger = crew.ledger
        now_ms, catalogue = ledger.store.now(), ledger.catalogue
        known = catalogue.budgets.get(parent.name, parent)
        account = catalogue.account(known, {}, now_ms)
        if account.ceiling(unit) is None:
            raise ValueError(f"max_{unit}: agent {_agent(parent)!r} has no limit in {unit} to give from")
        in_usd = unit == "usd"
        facts = CallFacts(
            dialect=DELEGATION,
            tags=(("agent", _agent(parent)), ("pool", crew.pool), ("to", _agent(child))),
            budgets=(known.title,),
            choices=0 if in_usd else 1,
            price=Formula(0, 1) if in_usd else None,
        )
        ask = Ask(hold_id, facts, amount, amount, FOREVER_MS)
        limited = replace(account, limits=tuple(limit for limit in account.limits if limit[0] == unit))
        plan = make_plan(ask, [limited], catalogue_version=catalogue.version)
        plan = plan._replace(postings=tuple(Posting(key, (unit,)) for key in (account.key, lent_key(account.key))))
        placed = yield from place_plan(ledger, plan, None)
        if isinstance(placed, Placed):
            return Finished()
        if isinstance(placed, Denied):
            raise exceeded(denial(placed.failed, now_ms=now_ms), placed.failed, NOWHERE)
        crew.refresh()
    raise ConfigError(f"agents changed {ATTEMPTS_MAX} times while one was delegated", key="agent")


def close(crew: Crew, agent: str) -> None:
    """
    End an agent, and everything that it has delegated. It spends nothing from now on; what it leaves goes to its
    parent, or, without one, stays in the pool for all to borrow. Calls in flight end, and what they leave follows.
    """
    for name, budget in crew.members(ended=True).items():
        if budget.lending is not None and budget.lending.parent == agent and not budget.lending.closed:
            close(crew, name)
    crew.change(agent, closed, ended=True)
    if crew.budget(agent, ended=True)[1].parent is not None:
        close_ended(crew.ledger)


def _agent(budget: Budget) -> str:
    return budget.title if budget.lending is None else budget.lending.agent
