"""
Holding: on memory and on at most one durable ledger, all or nothing.

Memory first, then durable with at most the output that memory granted, then memory shrinks to what durable granted. If
durable refuses, memory is voided; if memory refuses, the durable lines are still read, so that the denial names every
budget that said no.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from ..errors import HoldConflict, HoldNotFound, StoreUnavailable
from ..kernel.balances import bare
from ..kernel.hold import Hold
from ..kernel.ledger import Denied, Placed, Stale
from ..kernel.plan import Account, Ask, LineResult, Plan, Posting, evaluate, make_frame, make_plan
from ..runtime.ambient import Ambient
from ..runtime.in_force import Side, in_force
from ..runtime.ledgers import Ledger
from ..runtime.runtime import Runtime, log
from ..stores.contract import Store, Ticket
from . import lending

REPLANS_MAX = 100
"""How often a plan may be found stale. Each time the catalogue or a window really changed, so this is never reached."""


class Granted(NamedTuple):
    """The holds of one call: ``x`` output tokens per choice, on these ledgers, under this id."""

    id: str
    x: int
    held: tuple[tuple[Ledger, tuple[Account, ...]], ...]
    advisory: tuple[LineResult, ...]
    holds: tuple[Hold, ...] = ()
    """As they were placed: beside *held*."""
    stores: tuple[Store, ...] = ()
    """Of *held*."""
    unheld: tuple[tuple[Ledger, tuple[Account, ...]], ...] = ()
    """Where it could not be held, and goes out all the same: what it costs is posted there at its end."""

    def unheld_postings(self, store: Store) -> tuple[Posting, ...]:
        """What its end is posted to in a store that could not hold for it."""
        accounts = next((accounts for ledger, accounts in self.unheld if ledger.store is store), ())
        return make_frame(accounts, False).postings if accounts else ()


def hold(
    runtime: Runtime, ask: Ask, ambient: Ambient, model: str | None = None, provider: str | None = None
) -> Generator[Ticket[Any], Any, Granted | tuple[LineResult, ...]]:
    """Hold an ask that depends on no budget's terms, on both ledgers or on neither: the grant, or all that failed."""
    for tries in range(REPLANS_MAX):
        # Looked up each time: a plan is stale because a budget was changed, and the old terms must not be held on.
        bound = in_force(runtime, ambient, model, provider)
        answer = yield from hold_once(runtime, numbered(ask, tries), bound.here, bound.there, bound.work)
        if not isinstance(answer, Stale):
            return answer
    raise restless(runtime)


def restless(runtime: Runtime) -> StoreUnavailable:
    return StoreUnavailable(
        runtime.main.store.name, f"its budgets changed {REPLANS_MAX} times while one call was planned"
    )


def hold_once(
    runtime: Runtime,
    ask: Ask,
    here: Side | None,
    there: Side | None,
    work: lending.Work | None,
    replaces: Hold | None = None,
) -> Generator[Ticket[Any], Any, Granted | tuple[LineResult, ...] | Stale]:
    """
    Hold in memory, then on the durable ledger; whatever is raised meanwhile, nothing stays held. *replaces*: the
    durable hold that this one takes the place of, if it is still there.
    """
    held: tuple[tuple[Ledger, tuple[Account, ...]], ...] = ()
    """What would have to be given back now."""
    advisory: tuple[LineResult, ...] = ()
    holds: tuple[Hold, ...] = ()
    stores: tuple[Store, ...] = ()
    x, priced = ask.x_want, ask.facts.price is not None
    placed: Placed | Denied | Stale
    if there is not None and there.ledger is not runtime.durable:
        # The settings were changed since the budgets were looked up: they are somewhere else now.
        return Stale(-1)
    try:
        if here is not None:
            ledger, accounts = here.ledger, here.accounts(priced)
            plan = make_plan(ask, accounts, catalogue_version=here.version)
            # Before it is placed: memory holds at once, and an exception may come between the hold and its answer.
            held = ((ledger, accounts),)
            if ledger.lends or work is not None:
                placed = yield from lending.place(ledger, plan, work)
            else:
                placed = yield ledger.store.place(plan)
            if not isinstance(placed, Placed):
                held = ()
                return (yield from _refused(ledger, placed, there, ask))
            hold = placed.hold
            advisory, x, holds, stores = placed.advisory, hold.x, (hold,), (ledger.store,)
        if there is not None:
            ledger, accounts = there.ledger, there.accounts(priced)
            plan = make_plan(ask, accounts, catalogue_version=there.version, x_most=x)
            # A durable store takes a hold back by itself if its answer was not waited for.
            if replaces is not None or ledger.lends or work is not None:
                placed = yield from _place(ledger, plan, work, replaces)
            else:
                placed = yield ledger.store.place(plan)
            if not isinstance(placed, Placed):
                _give_back(held, ask.id)
                held = ()
                return (yield from _refused(ledger, placed, None, ask))
            held = (*held, (ledger, accounts))
            hold = placed.hold
            if here is not None and hold.x < x:
                yield from _shrink(here.ledger, ask.id, hold.x)
                holds = (holds[0].shrunk(hold.x),)
            advisory, x, holds, stores = advisory + placed.advisory, hold.x, (*holds, hold), (*stores, ledger.store)
        if work is not None:
            lending.measured(runtime, work)
        return bare(Granted, (ask.id, x, held, advisory, holds, stores, ()))
    except BaseException as error:  # a signal's too: then nothing stays held
        _give_back(held, ask.id)
        if not isinstance(error, StoreUnavailable) or runtime.settings.on_store_failure != "allow" or there is None:
            raise
        log.error("%s; the call goes out without a durable hold (on_store_failure='allow')", error)
    # A new id: nobody knows what became of the durable hold, and its id is not to be used again.
    other = ask._replace(id=f"{ask.id}m")
    answer = yield from hold_once(runtime, other, here, None, work)
    return answer._replace(unheld=_unheld(other, there)) if isinstance(answer, Granted) else answer


def _unheld(ask: Ask, there: Side) -> tuple[tuple[Ledger, tuple[Account, ...]], ...]:
    """The accounts that a call counts on although the durable ledger could not hold for it."""
    try:
        return ((there.ledger, there.accounts(ask.facts.price is not None)),)
    except StoreUnavailable as error:
        log.error("%s; what the call costs will be on none of its accounts", error)
        return ()


def _refused(
    ledger: Ledger, placed: Denied | Stale, there: Side | None, ask: Ask
) -> Generator[Ticket[Any], Any, tuple[LineResult, ...] | Stale]:
    """Why it was not held: all lines that failed, here and *there*; or budgets that have to be looked at again."""
    if isinstance(placed, Denied):
        return placed.failed + (yield from _failing(there, ask))
    if placed.catalogue_version != ledger.catalogue.version:
        ledger.refresh((yield ledger.store.catalogue()))
    return placed


def _place(
    ledger: Ledger, plan: Plan, work: lending.Work | None, replaces: Hold | None
) -> Generator[Ticket[Any], Any, Placed | Denied | Stale]:
    """Place a plan, in the place of a hold that another process offered, or for an agent's work."""
    if replaces is not None:
        try:
            placed: Placed | Denied | Stale
            if ledger.lends:
                placed = yield from lending.exchange(ledger, plan, replaces)
            else:
                placed = yield ledger.store.place(plan, replaces=replaces.id)
        except (HoldConflict, HoldNotFound):
            # Its sender has left, and may have made it a suspect; or somebody else took it.
            yield from take_back(ledger.store, replaces.id)
        else:
            return placed
    return (yield from lending.place(ledger, plan, work))


def take_back(store: Store, offered: str) -> Generator[Ticket[Any], Any, None]:
    """What the sender of a call offered, or may have lost by it, is not counted any more: its receiver counts it."""
    try:
        yield store.void(offered)
    except (HoldConflict, HoldNotFound, StoreUnavailable) as error:
        log.debug("hold %s was not taken back: %s", offered, error)


def as_open_now(held: tuple[Store, ...], stores: tuple[Store, ...]) -> tuple[Store, ...]:
    """Where something was held, each as it is open now: a ledger may have been closed since, and opened again."""
    now = {store.name: store for store in stores if store.durable}
    return tuple([now.get(store.name, store) if store.durable else store for store in held])


def give_back(granted: Granted) -> None:
    """Void what no call will use."""
    _give_back(granted.held, granted.id)


def _give_back(held: tuple[tuple[Ledger, tuple[Account, ...]], ...], hold_id: str) -> None:
    """Void what no call will use. Not waited for: its caller may be on the way out."""
    for ledger, _ in held:
        try:
            ledger.store.void(hold_id)
        except (HoldNotFound, StoreUnavailable) as error:
            # The exception came before the hold was placed, or in the middle of it: then memory voids it afterwards.
            log.debug("hold %s was not given back: %s", hold_id, error)


def _shrink(memory: Ledger, hold_id: str, x: int) -> Generator[Ticket[Any], Any, None]:
    try:
        yield memory.store.resize(hold_id, x=x)
    except HoldConflict:
        # The machine slept past the hold's deadline: it is suspect by now, and counts as it is until the call settles.
        log.debug("hold %s could not shrink: it is past its deadline", hold_id)


def _failing(there: Side | None, ask: Ask) -> Generator[Ticket[Any], Any, tuple[LineResult, ...]]:
    """The lines of the durable ledger that would fail too; nothing is placed."""
    if there is None:
        return ()
    plan = make_plan(ask, there.accounts(ask.facts.price is not None))
    try:
        balances = yield there.ledger.store.balances({key for line in plan.lines for key in line.keys})
    except StoreUnavailable as error:
        log.warning("%s; the denial names the budgets in memory only", error)
        return ()
    failed = evaluate(plan, balances.__getitem__).failed
    # Others might have lent an agent what it is short of: nobody asked them.
    return tuple(result for result in failed if result.line.budget.lending is None)


def numbered(ask: Ask, number: int) -> Ask:
    """An id names one plan for ever, and memory may have placed (and voided) an earlier one of this call."""
    return ask._replace(id=f"{ask.id}.{number}") if number else ask
