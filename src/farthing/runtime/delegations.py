"""
The end of delegations: what a child that is closed, or whose time is over, has not used goes back to its parent.

Whoever sweeps a ledger does this, so it happens within a sweep of the child's end even if the processes of parent and
child are gone. What a child's calls in flight hold (or, lost in a crash, may have cost) stays with it until they end;
then that follows.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from ..errors import FarthingError, HoldConflict, HoldNotFound
from ..kernel.budget import Budget
from ..kernel.hold import Outcome
from ..kernel.plan import Balance
from .ledgers import Ledger

log = logging.getLogger("farthing")


def delegation_ids(child: str) -> dict[str, str]:
    """By unit, the hold on the parent that stands for a child: one, for ever, by the child's budget name."""
    return {unit: f"delegation of {unit}: {child}" for unit in ("tokens", "usd")}


def close_ended(ledger: Ledger) -> None:
    """
    Give back what ended children have not used, to parents that have ended too as well: theirs then goes further up.

    Children that are done with for good are remembered as closed, with a limit of what they used.
    """
    for budget in _deepest_first(ledger):
        try:
            _close(ledger, budget)
        except FarthingError:
            # The next sweep tries again; what is not given back stays held, on the safe side.
            log.exception("what agent %r left could not be given back yet", budget.title)


def _deepest_first(ledger: Ledger) -> list[Budget]:
    now_ms = ledger.store.now()
    found = [
        budget
        for budget in ledger.catalogue.budgets.values()
        if budget.lending is not None and budget.lending.parent is not None and budget.lending.ended(now_ms)
    ]
    # A child is registered after its parent.
    return found[::-1]


def _close(ledger: Ledger, child: Budget) -> None:
    store, lending = ledger.store, child.lending
    limits = {unit: limit for unit in ("tokens", "usd") if (limit := child.limit(unit)) is not None}
    if lending is None or (lending.closed and lending.returned):
        return
    if not lending.closed:
        child = replace(child, lending=replace(lending, closed=True))
        ledger.refresh(store.put_budget(child, update=True).result())
        lending = child.lending
    account = ledger.catalogue.account(child, {}, store.now())
    counters = {unit: account.counters(unit)[0] for unit in limits}
    balances = store.balances(counters.values()).result()
    ids = delegation_ids(child.name)
    done = True
    for unit, limit in limits.items():
        balance: Balance = balances[counters[unit]]
        if balance.held or balance.suspect:
            done = False
            _shrink(ledger, ids[unit], min(limit, balance.total))
        else:
            _settle(ledger, ids[unit], unit, min(limit, balance.settled), child)
    if done and lending is not None:
        over = replace(child, lending=replace(lending, returned=True))
        ledger.refresh(store.put_budget(over, update=True).result())


def _shrink(ledger: Ledger, hold_id: str, used: int) -> None:
    """Give back what is certainly not used, while calls are still open."""
    try:
        ledger.store.resize(hold_id, x=used).result()
    except (ValueError, HoldConflict, HoldNotFound) as error:
        # Smaller already, or gone.
        log.debug("hold %s was not made smaller: %s", hold_id, error)


def _settle(ledger: Ledger, hold_id: str, unit: str, used: int, child: Budget) -> None:
    parent = child.lending.parent if child.lending is not None else ""
    name = child.lending.agent if child.lending is not None else child.title
    outcome = Outcome(
        ((unit, used),), cost_nano=0, ending="delegated", usage_source="counted", note=f"{parent} → {name}"
    )
    try:
        ledger.store.settle(hold_id, outcome).result()
    except (HoldConflict, HoldNotFound) as error:
        # Another process was faster, or the ledger in memory has forgotten both.
        log.debug("hold %s was not settled: %s", hold_id, error)
