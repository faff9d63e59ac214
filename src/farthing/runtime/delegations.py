"""
The end of delegations: what a child that is closed, or whose time is over, has not used goes back to its parent.

Whoever sweeps a ledger does this, so it happens within a sweep of the child's end even if the processes of parent and
child are gone. What a child's calls in flight hold (or, lost in a crash, may have cost) stays with it until they end;
then that follows.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from dataclasses import replace

from ..errors import FarthingError, HoldConflict, HoldNotFound
from ..kernel.balances import amount_of
from ..kernel.budget import Budget
from ..kernel.hold import DELEGATION, HELD, Hold, Outcome
from ..kernel.lending import Lending
from ..kernel.scope import account_key
from .ledgers import Ledger

log = logging.getLogger("farthing")
ORPHANED_AFTER_MS = 600_000
"""How long a debit may stand without its child: naming it is the next thing that whoever placed it does."""


def delegation_ids(child: Budget) -> dict[str, str]:
    """By unit, the hold on the parent that stands for a child: one, for ever."""
    debit = child.lending.delegation if child.lending is not None else ""
    return {unit: f"{_prefix(unit)}{child.name} {debit}".rstrip() for unit in ("tokens", "usd")}


def _prefix(unit: str) -> str:
    return f"delegation of {unit}: "


def closed(budget: Budget, lending: Lending) -> Budget:
    """The same agent, ended."""
    return replace(budget, lending=replace(lending, closed=True))


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


def _close(ledger: Ledger, found: Budget) -> None:
    if found.lending is None or (found.lending.closed and found.lending.returned):
        return
    child = found if found.lending.closed else _end(ledger, found.name, returned=False)
    if child is None or child.lending is None:
        return
    store = ledger.store
    limits = {unit: limit for unit in ("tokens", "usd") if (limit := child.limit(unit)) is not None}
    account = ledger.catalogue.account(child, {}, store.now())
    row = store.balances([account.key]).result()[account.key]
    ids = delegation_ids(child)
    done = True
    for unit, limit in limits.items():
        balance = row.of(unit)
        if balance.held or balance.suspect:
            done = False
            _shrink(ledger, ids[unit], min(limit, balance.total))
        else:
            _settle(ledger, ids[unit], unit, min(limit, balance.settled), child.lending.parent, child.lending.agent)
    if done:
        _end(ledger, child.name, returned=True)


def _end(ledger: Ledger, name: str, *, returned: bool) -> Budget | None:
    """Say in the ledger that a child is closed, or done with for good. Its terms as they are then; None: it is gone."""

    def ended(budget: Budget | None) -> Budget | None:
        if budget is None or budget.lending is None or (budget.lending.closed and not returned):
            return None
        return replace(budget, lending=replace(budget.lending, closed=True, returned=returned))

    return ledger.change(name, ended).now


def _shrink(ledger: Ledger, hold_id: str, used: int) -> None:
    """Give back what is certainly not used, while calls are still open."""
    try:
        ledger.store.resize(hold_id, x=used).result()
    except (ValueError, HoldConflict, HoldNotFound) as error:
        # Smaller already, or gone.
        log.debug("hold %s was not made smaller: %s", hold_id, error)


def give_back(ledger: Ledger, child: Budget) -> None:
    """A child that nobody can reach any more, and that is gone with all its pool: what stands for it goes too."""
    for hold_id in delegation_ids(child).values():
        try:
            ledger.store.void(hold_id).result()
        except (HoldConflict, HoldNotFound) as error:
            log.debug("hold %s was not given back: %s", hold_id, error)


def _settle(ledger: Ledger, hold_id: str, unit: str, used: int, parent: str | None, child: str) -> None:
    outcome = Outcome(
        amount_of(unit, used), cost_nano=0, ending="delegated", usage_source="counted", note=f"{parent} → {child}"
    )
    try:
        ledger.store.settle(hold_id, outcome).result()
    except (HoldConflict, HoldNotFound) as error:
        # Another process was faster, or the ledger in memory has forgotten both.
        log.debug("hold %s was not settled: %s", hold_id, error)


def give_back_orphans(ledger: Ledger) -> None:
    """
    End debits for children that are not there: whoever delegated was killed before it named the child, or somebody has
    removed it since. What a removed child spent stays spent.
    """
    store, catalogue = ledger.store, ledger.catalogue
    children = [budget for budget in catalogue.budgets.values() if budget.lending is not None]
    known = {hold_id for child in children for hold_id in delegation_ids(child).values()}
    names = {child.name for child in children}
    before_ms = store.now() - ORPHANED_AFTER_MS
    for hold in store.holds(HELD).result():
        if hold.facts.dialect == DELEGATION and hold.id not in known and hold.placed_ms < before_ms:
            _end_orphan(ledger, hold, names)


def _end_orphan(ledger: Ledger, hold: Hold, names: Container[str]) -> None:
    unit = "tokens" if hold.facts.price is None else "usd"
    name = hold.id.removeprefix(_prefix(unit)).rpartition(" ")[0]
    if name in names:
        # Another delegation of that name came to its end; this one never had a child.
        ledger.store.void(hold.id).result()
        return
    tags = dict(hold.facts.tags)
    scope = {"agent": tags.get("to"), "pool": tags.get("pool")}
    key = account_key(name, scope, None, "lifetime")
    balance = ledger.store.balances([key]).result()[key].of(unit)
    if not balance.total:
        log.warning("%s was debited from agent %r, and nobody named it: given back", name, tags.get("agent"))
        ledger.store.void(hold.id).result()
    elif not balance.held and not balance.suspect:
        used = min(hold.x, balance.settled)
        _settle(ledger, hold.id, unit, used, tags.get("agent"), tags.get("to") or name)
