"""
The audit: after the last call, the ledgers against the provider's bills.

I8: whatever reached the provider has exactly one entry in each ledger. A figure that the provider delivered is what is
settled, to the token and the nano-dollar; one that it did not deliver is never undercounted. Nothing is held any more,
except what a fault that is known by name has left behind; after the deadlines nothing at all.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from farthing.kernel.hold import Entry

from .faults import Command
from .handover import ProxiedCall, audit_handed_over
from .provider import Bill
from .world import KEEP, World, call_of

if TYPE_CHECKING:
    from .driven import SimulatedCall
    from .faults import SlowStore


def audit(world: World, calls: list[SimulatedCall]) -> None:
    """Everything has ended, no deadline has passed."""
    _crossed(world, calls)
    for process in world.processes:
        for store in process.stores:
            mine = calls if store.durable else [call for call in calls if call.process is process]
            _leaks(world, store)
            if store.durable:
                store.carry_out(Command("sweep", (KEEP,)))
            _entries(world, store, mine)
            store.oracle.check_journal()


def audit_leftovers(world: World, calls: list[SimulatedCall]) -> None:
    """All deadlines have passed, and the sweeps have run."""
    for process in world.processes:
        for store in process.stores:
            for row in store.oracle.rows.values():
                if row.state in ("held", "suspect"):
                    world.violate(f"{row.id} is still {row.state} after its deadline and a sweep")
            mine = calls if store.durable else [call for call in calls if call.process is process]
            _entries(world, store, mine)
            store.oracle.check_journal()


def _entries(world: World, store: SlowStore, calls: list[SimulatedCall]) -> None:
    rows: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.inner.entries().result():
        rows[call_of(entry.hold_id)].append(entry)
    # Holds that were admitted without their call's knowledge, by a simulated fault: nobody can end them. And one that
    # was given back has rows only if it expired meanwhile: they add up to nothing, as the balances have shown.
    unheard = store.unanswered | store.given_back
    for call in calls:
        if isinstance(call, ProxiedCall):
            if store.durable:
                audit_handed_over(world, store, call)
            continue
        entries = [entry for entry in rows[call.id] if entry.hold_id not in unheard]
        entries = [entry for entry in entries if store.oracle.rows[entry.hold_id].said != ("voided", None)]
        _one_call(world, store, call, entries)


def _crossed(world: World, calls: list[SimulatedCall]) -> None:
    """on_exceed="raise": only a call under such a budget may be told that it crossed it."""
    for call in calls:
        if call.finished is not None and call.finished.crossed is not None:
            world.seen["crossed"] += 1
            budgets = [binding.budget for binding in call.call.ambient.bindings]
            if not any(budget.on_exceed == "raise" for budget in (*budgets, *world.named)):
                world.violate(f"{call.id} crossed {call.finished.crossed.budget}, which never raises")


def _one_call(world: World, store: SlowStore, call: SimulatedCall, entries: list[Entry]) -> None:
    where = f"{call.id} in {'durable' if store.durable else 'memory'}"
    firsts = [entry for entry in entries if entry.kind == "call"]
    exchange = call.exchange
    if exchange is None:
        if not call.process.alive or call.fate:
            return
        if sum(count for entry in entries for _, count in entry.usage):
            world.violate(f"I8: {where} was never sent, and has {firsts}")
        return
    mine = [row for row in store.oracle.rows.values() if call_of(row.id) == call.id and row.counters]
    holds = {row.id for row in mine} - store.unanswered - store.given_back
    unwritten = call.id in {call_of(hold_id) for hold_id in store.unwritten}
    if not holds and (unwritten or not call.process.alive):
        return  # no ledger held it: its entry is written at its end, and there was none
    if unwritten and any(row.state == "held" for row in mine):
        return  # its end could not be written: it stands as held, and the next sweep after its deadline says so
    if len(firsts) != 1:
        world.violate(f"I8: {where} reached the provider and has {len(firsts)} entries: {firsts}")
        return
    hold_id = firsts[0].hold_id
    row = store.oracle.rows[hold_id]
    tokens = sum(count for entry in entries for kind, count in entry.usage if kind != "reasoning")
    costs = [entry.cost_nano for entry in entries]
    cost = None if None in costs else sum(cost for cost in costs if cost is not None)
    bill = exchange.bill
    priced_as = world.settings.price_as if bill.cost_nano() is None else None
    due = bill.cost_nano(priced_as)
    if due is None and cost and not all(entry.cost_nano is None for entry in entries):
        world.violate(f"I9: {where} costs {cost}, and nobody knows its price")
    word = row.said is not None and call.process.alive
    if word and exchange.usage_delivered and exchange.kind != "cut":
        if tokens != bill.tokens or (due is not None and cost != due):
            world.violate(f"{where} was billed {bill} ({due}), the ledger says {tokens} tokens and {cost}")
    elif row.state == "voided" and row.automatic:
        return  # released unseen, as the policy says
    elif exchange.kind != "overrun" and not _covers(tokens, cost, bill, due):
        world.violate(f"{where} is undercounted: billed {bill} ({due}), the ledger says {tokens} and {cost}: {entries}")


def _covers(tokens: int, cost: int | None, bill: Bill, due: int | None) -> bool:
    return tokens >= bill.tokens and (due is None or cost is None or cost >= due)


def _leaks(world: World, store: SlowStore) -> None:
    for row in store.oracle.rows.values():
        explained = row.id in store.unanswered or row.id in store.unwritten
        # An empty hold that a proxy was called away from holds nothing, and its deadline ends it.
        if row.state == "held" and row.counters and row.owner == store.owner and not explained:
            world.violate(f"{row.id} is held, and its call has ended: a leak")
