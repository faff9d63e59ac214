"""
The last words of a call: its ending, said once to every ledger.

What an ending is and what it costs stands in :mod:`.endings`; here it is written. Where something was held it is ended,
elsewhere it is recorded, and then it is asked whether a limit that lets the crossing call finish was crossed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from .. import tokens
from ..errors import HoldConflict, HoldError, InvariantError, StoreUnavailable
from ..kernel.balances import AT, NONE, Amounts, Balances, bare
from ..kernel.decision import Decision, denial
from ..kernel.hold import Entry, Outcome
from ..kernel.ledger import Settled
from ..kernel.plan import CallFacts, Formula, LineResult, Plan, empty_plan, spent_line
from ..kernel.strictest import Strictest
from ..prices import Rates
from ..runtime.events import Who
from ..runtime.runtime import Runtime, UnpricedModelWarning, log
from ..stores.contract import Store, Ticket
from . import endings
from .admission import Admitted, warn_unpriced
from .asking import DEFAULT_OUTPUT_TOKENS, Asked, asked_of, find_rates, input_bound
from .call import Call
from .endings import Bounds, Ending, Limits, Lost, Settle
from .holding import Granted, as_open_now
from .telling import say_ended, say_raised


def limits(call: Call, admitted: Admitted) -> Limits:
    """What an ending of this call needs to know: the rates pinned at its hold, and its bounds."""
    runtime, request = call.runtime, call.request
    model, asked, granted = admitted.model, admitted.asked, admitted.granted
    others = _rates_of(call) if request.open_reasons else None
    if asked is not None and granted is not None:
        return bare(Limits, (model, asked.rates, partial(_held_bounds, call, asked, granted), request, others))
    rates = find_rates(runtime.prices, runtime.settings, model, request.provider, call.started_ms)
    if rates is None:
        try:
            warn_unpriced(runtime, model)
        except UnpricedModelWarning:
            # Warnings are errors here. It is in the log; what was paid for is settled, and belongs to its caller.
            pass
    return Limits(model, rates, partial(_bounds, call, model), request, others)


def _rates_of(call: Call) -> Callable[[str], Rates | None]:
    """How to find the price of another model than the one that was asked, where others may have a part in it."""
    runtime, provider = call.runtime, call.request.provider
    return lambda model: find_rates(runtime.prices, runtime.settings, model, provider, call.started_ms)


def _held_bounds(call: Call, asked: Asked, granted: Granted) -> Bounds:
    """The bounds of a call that was held for."""
    facts, known = asked.ask.facts, asked.model
    request, most = call.request, facts.choices * granted.x
    unseen = request.no_text or (known.hidden_reasoning and not request.no_reasoning)
    return Bounds(facts.input_tokens, most, asked.output.told, unseen, known.known, _margin_tokens(call))


def _bounds(call: Call, model: str) -> Bounds:
    """The bounds of a call that nothing was held for."""
    request = call.request
    known = tokens.facts_of(model, request.provider)
    told = (request.output_ceiling, request.implied_ceiling, known.default_output, DEFAULT_OUTPUT_TOKENS)
    ceiling = next(ceiling for ceiling in told if ceiling is not None)
    return Bounds(
        input_bound(request, model),
        ceiling * request.choices,
        request.output_ceiling is not None or request.implied_ceiling is not None,
        request.no_text or (known.hidden_reasoning and not request.no_reasoning),
        known.known,
        _margin_tokens(call),
    )


def _margin_tokens(call: Call) -> int:
    """What its provider may go on to bill after its stream was cut."""
    own = call.abort_margin_tokens
    return call.runtime.settings.abort_margin_tokens if own is None else own


def end(
    call: Call, admitted: Admitted, ending: Ending, *, kept_as: str | None = None
) -> Generator[Ticket[Any], Any, None]:
    """
    Write the ending on every ledger: where something was held it is ended, elsewhere it is recorded. *kept_as* is the
    id under which a later request may name the answer.

    Once: a call that is called away while it ends (a cancelled task, a signal) has said its word already, and a second
    one would contradict it.
    """
    if call.ended:
        return
    asked, granted = admitted.asked, admitted.granted
    if asked is not None and asked.weight is not None and type(ending) is Settle:
        call.runtime.learner.observe(asked.ask.facts, asked.weight, ending.outcome)
    words = iter(_last_words(call, admitted, ending, kept_as))
    call.ended = True
    call.ending = ending
    entry: Entry | None = None
    try:
        for say, waits in words:
            try:
                ticket = say()
                if waits:
                    settled: Settled | None = yield ticket
                    # The durable ledger's row, where both have one: it may be a correction of what was swept before.
                    # None from a driver that does not wait.
                    entry = (settled and settled.entry) or entry
            except StoreUnavailable as error:
                # The answer is paid for and belongs to its caller. The hold stays, and becomes suspect.
                log.error("call %s could not be settled: %s; what it held stays counted", call.id, error)
            except (HoldError, InvariantError) as error:
                if call.offers and isinstance(error, HoldConflict):
                    # A proxy has taken the hold over, and its word about that was lost on the way.
                    log.debug("the hold of call %s was taken over", call.id)
                else:
                    # So is this one. The ledger knows the hold no more, or otherwise, or cannot keep such a figure.
                    log.error(
                        "call %s ended, and its ledger stays as it is: %s. It ended with %r", call.id, error, ending
                    )
    except BaseException:  # called away: what was given is carried out; so is the rest, and nobody waits for it
        for other, _ in words:
            other()
        raise
    finally:
        say_ended(call.runtime, entry, () if granted is None else granted.held + granted.unheld)


def _last_words(
    call: Call, admitted: Admitted, ending: Ending, kept_as: str | None
) -> list[tuple[Callable[[], Ticket[Any]], bool]]:
    """What to say to each ledger, in order, and whether to wait for its answer."""
    granted, stores = admitted.granted, call.runtime.stores
    hold_id, held = (call.id, ()) if granted is None else (granted.id, granted.stores)
    if call.counted_elsewhere:
        stores = tuple(store for store in stores if not store.durable)
        held = tuple(store for store in held if not store.durable)
    words: list[tuple[Callable[[], Ticket[Any]], bool]] = []
    if stores != held:
        held = as_open_now(held, stores)
        words += [_recording(store, call, admitted, ending, hold_id) for store in stores if store not in held]
    for store in held:
        if isinstance(ending, Lost):
            words.append((partial(store.suspect, hold_id, ending=ending.ending, note=ending.note), True))
        else:
            words.append(
                (partial(store.settle if type(ending) is Settle else store.void, hold_id, ending.outcome), True)
            )
    if kept_as is not None:
        words += [(partial(store.name_answer, kept_as, hold_id), False) for store in stores]
    return words


def _recording(
    store: Store, call: Call, admitted: Admitted, ending: Ending, hold_id: str
) -> tuple[Callable[[], Ticket[Any]], bool]:
    """What to say to a ledger where nothing was held."""
    granted = admitted.granted
    # In memory nobody resolves it, and there may be very many: what it may have cost is what it cost.
    lost = isinstance(ending, Lost) and (store.durable or ending.kept_as is not None)
    outcome = _said(call, admitted, ending)
    if lost:
        plan = _lost_plan(call, admitted, hold_id)
    else:
        plan = empty_plan(hold_id, _facts(call, admitted), call.started_ms)
    if granted is not None and granted.unheld:
        plan = plan._replace(postings=granted.unheld_postings(store))
    # Memory answers at once. Of a durable row of a call that was not held there, nobody waits for the answer.
    return partial(store.record, plan, outcome, lost=lost), call.awaited or not store.durable


def _lost_plan(call: Call, admitted: Admitted, hold_id: str) -> Plan:
    """A plan that says what a call may cost, for a ledger in which nothing was held for it."""
    if admitted.asked is not None and admitted.granted is not None:
        facts, x = admitted.asked.ask.facts, admitted.granted.x
    else:
        asked = asked_of(call, admitted.model, Strictest.of(()))
        if isinstance(asked, Decision):
            raise InvariantError(f"without a budget a call was denied: {asked!r}")
        facts, x = asked.ask.facts, asked.ask.x_want
    return empty_plan(hold_id, facts, call.started_ms, x=x)


def _said(call: Call, admitted: Admitted, ending: Ending) -> Outcome:
    if isinstance(ending, Lost):
        return endings.unknown(limits(call, admitted), ending=ending.ending, note=ending.note)
    return ending.outcome


def _facts(call: Call, admitted: Admitted) -> CallFacts:
    if admitted.asked is not None:
        return admitted.asked.ask.facts
    request = call.request
    return CallFacts(
        model=admitted.model,
        provider=request.provider,
        dialect=request.dialect,
        tags=call.tags,
        choices=request.choices,
        asked_model=None if admitted.model == request.model else request.model,
    )


def crossed(call: Call, admitted: Admitted) -> Generator[Ticket[Any], Any, Decision | None]:
    """Whether this call took a budget with on_exceed="raise" past its limit: strictly over."""
    granted = admitted.granted
    if granted is None:
        return None
    amounts = call.ending.outcome.amounts if isinstance(call.ending, Settle) else NONE
    return (yield from crossed_by(call.runtime, granted, call.who(admitted.model), amounts))


def crossed_by(
    runtime: Runtime, granted: Granted, who: Who, amounts: Amounts
) -> Generator[Ticket[Any], Any, Decision | None]:
    """The same of any settled call that came to these *amounts*."""
    found: list[LineResult] = []
    for ledger, accounts in granted.held:
        for account in accounts:
            if account.budget.on_exceed != "raise":
                continue
            for unit, ceiling, keys in account.limits:
                try:
                    balances: dict[str, Balances] | None = yield ledger.store.balances(keys)
                except StoreUnavailable as error:
                    # The answer is paid for and belongs to its caller; the budget refuses the next call anyway.
                    log.error(
                        "call %s: whether it crossed budget %r is unknown: %s", who.call_id, account.budget.title, error
                    )
                    continue
                if balances is None:
                    return None  # a driver that does not wait: its caller is gone, and could not be told
                spent = tuple(balances[key].of(unit) for key in keys)
                if sum(balance.settled for balance in spent) > ceiling:
                    used = amounts[AT[unit]]  # for the evidence
                    found.append(LineResult(spent_line(account, unit, ceiling, keys), spent, used, Formula(used)))
    if not found:
        return None
    decision = denial(tuple(found), now_ms=runtime.memory_store.now())
    say_raised(runtime, who, decision, tuple(found))
    return decision
