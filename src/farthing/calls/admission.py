"""
Admission: identify, plan, hold. The first half of the life of a call.

A call holds on memory and on at most one durable ledger, all or nothing: memory first, then durable with at most the
output that memory granted, then memory shrinks to what durable granted. If durable refuses, memory is voided; if memory
refuses, the durable lines are still read, so that the denial names every budget that said no.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import replace
from typing import Any, NamedTuple

from ..errors import BudgetExceeded, HoldConflict, HoldNotFound, StoreUnavailable
from ..kernel.budget import Budget
from ..kernel.decision import Decision, denial, refusal
from ..kernel.hold import Hold
from ..kernel.ledger import Denied, Placed, Stale
from ..kernel.plan import Account, Ask, LineResult, Plan, evaluate, make_plan
from ..runtime.ambient import Ambient
from ..runtime.ledgers import Ledger
from ..runtime.runtime import Runtime, UnpricedModelWarning, log
from ..runtime.waiting import Place
from ..stores.contract import Ticket
from . import lending
from .asking import Asked, ask_for, continued, find_rates, terms_of
from .call import Call, History
from .exceeding import Allow, Consult, Deny, Downgrade, Wait, next_step
from .steps import Pause
from .telling import say_advisory, say_changed, say_denied

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


class Admitted(NamedTuple):
    """A call that may be sent. Without budgets ``granted`` is None, and nothing was held."""

    model: str
    asked: Asked | None
    granted: Granted | None

    @property
    def ceiling(self) -> int | None:
        """The output ceiling that has to go on the wire, or None where the caller's request says it already."""
        if self.asked is None or self.granted is None or self.asked.watched:
            return None
        lowered = self.granted.x < self.asked.ask.x_want
        return self.granted.x if lowered or self.asked.injected else None


def admit(call: Call) -> Generator[Ticket[Any] | Pause, Any, Admitted]:
    """
    Place every hold that this call needs, or raise what says why not: BudgetExceeded, UnpricedModel, UnmeteredCall,
    StoreUnavailable. Nothing is held then.
    """
    runtime = call.runtime
    inherited = runtime.inherited(call.ambient) if call.ambient.bindings else None
    if inherited is not None:
        raise BudgetExceeded(_inherited(inherited))
    terms = _Terms(call.request.model)
    try:
        for tries in itertools.count():
            admitted = yield from _try(call, terms, tries)
            if admitted is not None:
                return admitted
    finally:
        if terms.place is not None:
            terms.place.leave()
    raise AssertionError("counting never ends")


class _Terms:
    """On what terms a call is being tried, and what has been tried before."""

    def __init__(self, model: str) -> None:
        self.model = model

    output_tokens: int | None = None
    """A lower ceiling that a callable allowed."""
    downgraded_by: str = ""
    """The budget that asked for the model it has now."""
    consulted: tuple[str, ...] = ()
    """The budgets whose callables were asked."""
    tried: tuple[str, ...] = ()
    """The models before this one."""
    stale: int = 0
    place: Place | None = None
    """In the line of those who wait."""
    waits_until: float = 0.0


def _try(call: Call, terms: _Terms, tries: int) -> Generator[Ticket[Any] | Pause, Any, Admitted | None]:
    """One attempt to hold: admitted, or None with other terms to try next, or raised."""
    runtime = call.runtime
    tags = call.scope_tags(terms.model)
    versions = _versions(runtime)
    here, there = runtime.budgets(call.ambient, tags)
    budgets = [*here, *there]
    if not budgets:
        return Admitted(terms.model, None, None)
    if (terms.place is not None or runtime.line.is_waited_in) and (yield from _in_line(call, terms, budgets)):
        return None
    if call.request.previous_response_id is not None and call.history is None:
        call.history = yield from _history(runtime, call.request.previous_response_id)
    asked = asked_of(call, terms.model, budgets, allowed_output=terms.output_tokens)
    if isinstance(asked, Decision):
        raise _denied(call, terms.model, asked)
    if asked.rates is None:
        # Only now: a call that the policy refuses is not one whose tokens are counted.
        warn_unpriced(runtime, terms.model)
    elif call.started_ms >= runtime.prices_due_ms:
        runtime.check_prices(budgets, call.started_ms)
    answer = yield from _hold_once(runtime, _numbered(asked.ask, tries), here, there, tags, versions, call.ambient)
    if isinstance(answer, Granted):
        _say_terms(call, terms, asked.ask, answer)
        return Admitted(terms.model, asked, answer)
    if isinstance(answer, Stale):
        terms.stale += 1
        if terms.stale > REPLANS_MAX:
            raise _restless(runtime)
        return None
    if asked.countable:
        # A cheap bound first; only what does not fit is worth counting.
        call.exact = True
        return None
    yield from _other_terms(call, terms, answer)
    return None


def _history(runtime: Runtime, answer_id: str) -> Generator[Ticket[Any], Any, History | None]:
    """The call whose answer has this id, if it is in a ledger with the provider's own figure."""
    for ledger in (runtime.memory, runtime.durable):
        try:
            hold: Hold | None = None if ledger is None else (yield ledger.store.answered(answer_id))
        except StoreUnavailable as error:
            log.warning("%s; answer %s is taken to be unknown", error, answer_id)
            continue
        if hold is not None and hold.outcome is not None and hold.outcome.usage_source == "provider":
            return History(hold.facts.model or "", hold.outcome.usage.total_tokens)
    return None


def _say_terms(call: Call, terms: _Terms, ask: Ask, granted: Granted) -> None:
    """On what terms it goes out, where those are not what was asked for, or not what every budget would have said."""
    if granted.advisory:
        say_advisory(call.runtime, call.who(terms.model), granted.advisory)
    asked_model = call.request.model
    if terms.model != asked_model or granted.x < ask.x_want:
        who = call.who(terms.model)
        say_changed(call.runtime, who, ask, granted.x, asked_model=asked_model, by=terms.downgraded_by)


def _other_terms(call: Call, terms: _Terms, failed: tuple[LineResult, ...]) -> Generator[Pause, Any, None]:
    """What the failing budgets allow instead; raises where they allow nothing."""
    runtime = call.runtime
    now_ms = runtime.memory_store.now()
    match next_step(failed, model=terms.model, consulted=terms.consulted, tried=terms.tried, now_ms=now_ms):
        case Downgrade(cheaper, budget):
            log.info("downgrade: %s → %s for call %s (%s)", terms.model, cheaper, call.id, budget.title)
            terms.tried += (terms.model,)
            terms.model, terms.downgraded_by = cheaper, budget.title
        case Consult(name):
            terms.consulted += (name,)
            decision = denial(failed, now_ms=now_ms)
            allowed = _consulted(call, name, decision)
            if allowed is None:
                raise _denied(call, terms.model, decision, failed)
            terms.model, terms.downgraded_by = allowed.model or terms.model, name
            limits = (terms.output_tokens, allowed.max_output_tokens)
            terms.output_tokens = min((limit for limit in limits if limit is not None), default=None)
        case Wait(names, seconds):
            if terms.place is None:
                terms.place = runtime.line.join(names)
                terms.waits_until = runtime.monotonic() + seconds
            else:
                terms.place.widen(names)
            if runtime.monotonic() >= terms.waits_until:
                raise _denied(call, terms.model, denial(failed, now_ms=now_ms), failed)
            yield Pause(terms.place.pause(runtime.random))
        case Deny(truncates):
            raise _denied(call, terms.model, denial(failed, now_ms=now_ms), failed, truncates)


def _in_line(call: Call, terms: _Terms, budgets: list[Budget]) -> Generator[Pause, Any, bool]:
    """Whether others came before: then wait a little, in the line."""
    runtime = call.runtime
    if terms.place is None:
        waiting = [budget for budget in budgets if budget.on_exceed == "wait"]
        names = frozenset([budget.name for budget in waiting])
        if not waiting or not runtime.line.waits_for(names):
            return False
        terms.place = runtime.line.join(names)
        terms.waits_until = runtime.monotonic() + min(budget.wait_seconds for budget in waiting)
    if terms.place.is_first or runtime.monotonic() >= terms.waits_until:
        return False
    yield Pause(terms.place.pause(runtime.random))
    return True


def _consulted(call: Call, name: str, decision: Decision) -> Allow | None:
    """What the callable of this budget says. A process that named the budget without one denies."""
    for binding in reversed(call.ambient.bindings):
        if binding.budget.name == name and binding.handler is not None:
            allowed = binding.handler(decision)
            if allowed is not None and not isinstance(allowed, Allow):
                raise ValueError(f"on_exceed of budget {decision.budget!r} must return Allow(…) or None: {allowed!r}")
            return allowed
    return None


def hold(
    runtime: Runtime, ask: Ask, ambient: Ambient, tags: dict[str, str]
) -> Generator[Ticket[Any], Any, Granted | tuple[LineResult, ...]]:
    """Hold an ask that depends on no budget's terms, on both ledgers or on neither: the grant, or all that failed."""
    for tries in range(REPLANS_MAX):
        # Looked up each time: a plan is stale because a budget was changed, and the old terms must not be held on.
        versions = _versions(runtime)
        here, there = runtime.budgets(ambient, tags)
        answer = yield from _hold_once(runtime, _numbered(ask, tries), here, there, tags, versions, ambient)
        if not isinstance(answer, Stale):
            return answer
    raise _restless(runtime)


def _versions(runtime: Runtime) -> tuple[int, int]:
    """
    Of the two catalogues. Asked before their budgets are: if another call learns of a change while this one is planned,
    its plan is stale, and never a new version with old terms.
    """
    durable = runtime.durable
    return runtime.memory.catalogue.version, -1 if durable is None else durable.catalogue.version


def _restless(runtime: Runtime) -> StoreUnavailable:
    return StoreUnavailable(
        runtime.main.store.name, f"its budgets changed {REPLANS_MAX} times while one call was planned"
    )


def _hold_once(
    runtime: Runtime,
    ask: Ask,
    here: list[Budget],
    there: list[Budget],
    tags: dict[str, str],
    versions: tuple[int, int],
    ambient: Ambient,
) -> Generator[Ticket[Any], Any, Granted | tuple[LineResult, ...] | Stale]:
    """Hold on each ledger; whatever is raised meanwhile, nothing stays held."""
    held: list[tuple[Ledger, tuple[Account, ...]]] = []
    try:
        answer = yield from _hold_each(runtime, ask, here, there, tags, versions, ambient, held)
    except BaseException as error:  # a signal's too: then nothing stays held
        _give_back(held, ask.id)
        if not isinstance(error, StoreUnavailable) or runtime.settings.on_store_failure != "allow" or not there:
            raise
        log.error("%s; the call goes out without a durable hold (on_store_failure='allow')", error)
        # A new id: nobody knows what became of the durable hold, and its id is not to be used again.
        other = ask._replace(id=f"{ask.id}m")
        return (
            (yield from _hold_once(runtime, other, here, [], tags, versions, ambient))
            if here
            else Granted(other.id, ask.x_want, (), ())
        )
    if not isinstance(answer, Granted):
        _give_back(held, ask.id)
    return answer


def _hold_each(
    runtime: Runtime,
    ask: Ask,
    here: list[Budget],
    there: list[Budget],
    tags: dict[str, str],
    versions: tuple[int, int],
    ambient: Ambient,
    held: list[tuple[Ledger, tuple[Account, ...]]],
) -> Generator[Ticket[Any], Any, Granted | tuple[LineResult, ...] | Stale]:
    """Hold on memory, then on the durable ledger. *held* says at any time what would have to be given back."""
    memory, durable = runtime.memory, runtime.durable
    work = lending.work_of(ambient)
    advisory: tuple[LineResult, ...] = ()
    holds: tuple[Hold, ...] = ()
    x = ask.x_want
    if here:
        accounts = accounts_for(memory, ask, here, tags)
        plan = make_plan(ask, accounts, catalogue_version=versions[0])
        # Before it is placed: memory holds at once, and an exception may come between the hold and its answer.
        held.append((memory, accounts))
        placed: Placed | Denied | Stale = yield from _place(memory, plan, work)
        if not isinstance(placed, Placed):
            held.clear()
            if isinstance(placed, Stale):
                yield from _catch_up(memory, placed)
                return placed
            return placed.failed + (yield from _failing(durable, ask, there, tags))
        advisory, x, holds = placed.advisory, placed.hold.x, (placed.hold,)
    if there and durable is not None:
        accounts = accounts_for(durable, ask, there, tags)
        plan = make_plan(ask, accounts, catalogue_version=versions[1])._replace(x_most=x)
        # A durable store takes a hold back by itself if its answer was not waited for.
        placed = yield from _place(durable, plan, work)
        if not isinstance(placed, Placed):
            if isinstance(placed, Stale):
                yield from _catch_up(durable, placed)
                return placed
            return placed.failed
        held.append((durable, accounts))
        if here and placed.hold.x < x:
            yield from _shrink(memory, ask.id, placed.hold.x)
            holds = (holds[0]._replace(x=placed.hold.x),)
        advisory, x, holds = advisory + placed.advisory, placed.hold.x, (*holds, placed.hold)
    if work is not None:
        lending.measured(runtime, work)
    return Granted(ask.id, x, tuple(held), advisory, holds)


def _place(
    ledger: Ledger, plan: Plan, work: lending.Work | None
) -> Generator[Ticket[Any], Any, Placed | Denied | Stale]:
    if ledger.lends or work is not None:
        return (yield from lending.place(ledger, plan, work))
    placed: Placed | Denied | Stale = yield ledger.store.place(plan)
    return placed


def _give_back(held: list[tuple[Ledger, tuple[Account, ...]]], hold_id: str) -> None:
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


def accounts_for(ledger: Ledger, ask: Ask, budgets: list[Budget], tags: dict[str, str]) -> tuple[Account, ...]:
    """The accounts to hold on. A call that was let through without a price (``tokens_only``) is not held in USD."""
    accounts = ledger.accounts(budgets, tags, ledger.store.now())
    if ask.facts.price is not None:
        return accounts
    return tuple(
        replace(account, limits=tuple(limit for limit in account.limits if limit[0] != "usd")) for account in accounts
    )


def _catch_up(ledger: Ledger, stale: Stale) -> Generator[Ticket[Any], Any, None]:
    """Learn what other budgets there are since the plan was made."""
    if stale.catalogue_version != ledger.catalogue.version:
        ledger.refresh((yield ledger.store.catalogue()))


def _failing(
    ledger: Ledger | None, ask: Ask, budgets: list[Budget], tags: dict[str, str]
) -> Generator[Ticket[Any], Any, tuple[LineResult, ...]]:
    """The lines of the durable ledger that would fail too; nothing is placed."""
    if ledger is None or not budgets:
        return ()
    plan = make_plan(ask, accounts_for(ledger, ask, budgets, tags))
    try:
        balances = yield ledger.store.balances({key for line in plan.lines for key in line.keys})
    except StoreUnavailable as error:
        log.warning("%s; the denial names the budgets in memory only", error)
        return ()
    failed = evaluate(plan, balances.__getitem__).failed
    # Others might have lent an agent what it is short of: nobody asked them.
    return tuple(result for result in failed if result.line.budget.lending is None)


def asked_of(call: Call, model: str, budgets: list[Budget], *, allowed_output: int | None = None) -> Asked | Decision:
    """What this call asks of these budgets with this model; raises what their policies refuse (see ``ask_for``)."""
    runtime = call.runtime
    now_ms = call.started_ms
    provider = call.request.provider
    told = terms_of(budgets)
    rates = find_rates(runtime.prices, model=model, provider=provider, at_ms=now_ms, price_as=runtime.settings.price_as)
    request = call.request if call.history is None else continued(call.request, call.history, model)
    return ask_for(
        request,
        told,
        call_id=call.id,
        model=model,
        rates=rates,
        tags=tuple(call.tags.items()),
        titles=told.titles,
        deadline_ms=call.deadline_ms(now_ms),
        unpriced=runtime.settings.unpriced,
        url=str(call.url) if request.open_reasons else "",
        allowed_output=allowed_output,
        exact=call.exact,
        family=runtime.learner.family(model, call.request.dialect),
        cut_margin=_cut_margin(call) if told.breaks or told.uncapped == "watch" else None,
    )


def _cut_margin(call: Call) -> int | None:
    """How many tokens its provider may still bill after a cut of ours; None where there is no stream to cut."""
    request = call.request
    # What runs in the background goes on, whoever hangs up.
    alone = request.stream and "background" not in request.open_reasons
    cuttable = alone and call.dialect.closer(request) is not None
    return call.runtime.settings.abort_margin_tokens if cuttable else None


def warn_unpriced(runtime: Runtime, model: str) -> None:
    """Say once per model that its cost is unknown."""
    message = (
        f"no price is known for model {model!r}: its tokens are counted, its cost is not. "
        f"Name it with farthing.prices.register({model!r}, input=…, output=…)."
    )
    runtime.warn_once(f"unpriced:{model}", UnpricedModelWarning, message)


def _denied(
    call: Call,
    model: str,
    decision: Decision,
    failed: tuple[LineResult, ...] = (),
    truncates: frozenset[str] = frozenset(),
) -> BudgetExceeded:
    say_denied(call.runtime, call.who(model), decision, failed)
    return lending.exceeded(decision, failed, call.ambient, truncates=truncates)


def _inherited(budget: Budget) -> Decision:
    if budget.anonymous:
        remedy = (
            f"budget {budget.title!r} was entered before this process was forked, and its account is in the parent's "
            "memory: to share it between processes, name it and configure(ledger=…)."
        )
    else:
        remedy = (
            f"budget {budget.title!r} was entered before this process was forked, and its ledger is in the parent's "
            "memory: configure(ledger=…) gives all processes one account."
        )
    return refusal(budget=budget.title, remedy=remedy)


def _numbered(ask: Ask, number: int) -> Ask:
    """An id names one plan for ever, and memory may have placed (and voided) an earlier one of this call."""
    return ask if number == 0 else ask._replace(id=f"{ask.id}.{number}")
