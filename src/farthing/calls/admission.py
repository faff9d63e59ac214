"""
Admission: on which terms a call may go out, if on any. The first half of its life.

What it asks is held (:mod:`.holding`); what fails there is tried again on the terms that its failing budgets allow: an
exact count, a cheaper model, what a callable says, or a while later.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BudgetExceeded, StoreUnavailable
from ..kernel.budget import Budget
from ..kernel.decision import Decision, denial, refusal
from ..kernel.hold import Hold
from ..kernel.ledger import Stale
from ..kernel.plan import LineResult
from ..kernel.strictest import Strictest
from ..prices import Rates
from ..runtime.ambient import Ambient
from ..runtime.in_force import InForce, in_force
from ..runtime.runtime import Runtime, UnpricedModelWarning, log
from ..runtime.waiting import Place, queue_of
from ..stores.contract import Ticket
from . import lending
from .asking import Asked, asked_of
from .call import Call, History
from .exceeding import Allow, Consult, Deny, Downgrade, Wait, next_step
from .holding import REPLANS_MAX, Granted, give_back, hold_once, numbered, restless, take_back
from .steps import Pause
from .telling import say_advisory, say_changed, say_denied


@dataclass(slots=True, eq=False)
class Admitted:
    """A call that may be sent. Without budgets ``granted`` is None, and nothing was held."""

    model: str
    asked: Asked | None = None
    granted: Granted | None = None
    ceiling: int | None = None
    """The output ceiling that has to go on the wire, or None where the caller's request says it already."""
    raises: bool = False
    """A budget lets it finish, and raises if it was crossed by it."""


def admit(call: Call) -> Generator[Ticket[Any] | Pause, Any, Admitted]:
    """
    Place every hold that this call needs, or raise what says why not: BudgetExceeded, UnpricedModel, UnmeteredCall,
    StoreUnavailable. Nothing is held then.
    """
    runtime, request = call.runtime, call.request
    terms = Terms(request.model)
    answer: Granted | tuple[LineResult, ...] | Stale = ()
    try:
        while True:
            bound = in_force(runtime, call.ambient, terms.model, request.provider)
            if bound.inherited is not None or not bound.budgets:
                return (yield from _unbound(call, terms.model, bound.inherited))
            if (terms.place is not None or runtime.line.waiting) and (yield from in_line(runtime, terms, bound)):
                continue
            if request.previous_response_id is not None and call.history is None:
                call.history = yield from _history(runtime, request.previous_response_id)
            asked = asked_of(call, terms.model, bound.strictest, terms.output_tokens)
            if isinstance(asked, Decision):
                raise _denied(call, terms.model, asked)
            if asked.rates is None or call.started_ms >= runtime.prices_due_ms:
                # Only now: a call that the policy refuses is not one whose tokens are counted.
                _look_at_prices(call, terms.model, asked.rates, bound.budgets)
            ask = numbered(asked.ask, terms.tries) if terms.tries else asked.ask
            answer = yield from hold_once(runtime, ask, bound.here, bound.there, bound.work, call.replaces)
            if isinstance(answer, Granted):
                return _admitted(call, terms, bound.strictest, asked, answer)
            terms.tries += 1
            if isinstance(answer, Stale):
                terms.stale += 1
                if terms.stale > REPLANS_MAX:
                    raise restless(runtime)
            elif asked.countable:
                # A cheap bound first; only what does not fit is worth counting.
                call.exact = True
            else:
                yield from _other_terms(call, terms, answer)
    except BaseException:  # a signal, while something was logged: nobody will send, or end, this call
        if isinstance(answer, Granted):
            give_back(answer)
        raise
    finally:
        if terms.place is not None:
            terms.place.leave()


def _unbound(call: Call, model: str, inherited: Budget | None) -> Generator[Ticket[Any], Any, Admitted]:
    """No budget of this process binds it. One that stayed in the memory of the parent refuses it."""
    if inherited is not None:
        raise BudgetExceeded(refused_by_fork(inherited))
    if call.replaces is not None:
        yield from take_back(call.runtime.main.store, call.replaces.id)
    return Admitted(model)


def _look_at_prices(call: Call, model: str, rates: Rates | None, budgets: Sequence[Budget]) -> None:
    """Say what there is to say of the prices that it is held by."""
    if rates is None:
        warn_unpriced(call.runtime, model)
    else:
        call.runtime.check_prices(budgets, call.started_ms)


class Terms:
    """On what terms a call is being tried, and what has been tried before."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.output_tokens: int | None = None
        """A lower ceiling that a callable allowed."""
        self.tries = 0
        self.place: Place | None = None
        """In the line of those who wait."""

    downgraded_by: LineResult | None = None
    """The line that failed with the model before, of the budget that asked for the one it has now."""
    consulted: tuple[str, ...] = ()
    """The budgets whose callables were asked."""
    tried: tuple[str, ...] = ()
    """The models before this one."""
    stale: int = 0
    waits_until: float = 0.0


def _history(runtime: Runtime, answer_id: str) -> Generator[Ticket[Any], Any, History | None]:
    """The call whose answer has this id, if it is in a ledger with the provider's own figure."""
    for ledger in (runtime.memory, runtime.durable):
        try:
            hold: Hold | None = None if ledger is None else (yield ledger.store.answered(answer_id))
        except StoreUnavailable as error:
            log.warning("%s; so the call that continues answer %s is held as if that were not known", error, answer_id)
            continue
        if hold is not None and hold.outcome is not None and hold.outcome.usage_source == "provider":
            return History(hold.facts.model or "", hold.outcome.usage.total_tokens)
    return None


def _admitted(call: Call, terms: Terms, strictest: Strictest, asked: Asked, granted: Granted) -> Admitted:
    """It is held; said, where it goes out on other terms than it asked for, or not as every budget would have it."""
    ask, output, model, asked_model = asked.ask, asked.output, terms.model, call.request.model
    lowered = granted.x < ask.x_want
    if granted.advisory or lowered or model != asked_model:
        who = call.who(model)
        if granted.advisory:
            say_advisory(call.runtime, who, granted.advisory)
        if lowered or model != asked_model:
            say_changed(call.runtime, who, ask, granted, asked_model=asked_model, by=terms.downgraded_by)
    ceiling = granted.x if (lowered or output.injected) and not output.watched else None
    return Admitted(model, asked, granted, ceiling, strictest.raises)


def _other_terms(call: Call, terms: Terms, failed: tuple[LineResult, ...]) -> Generator[Pause, Any, None]:
    """What the failing budgets allow instead; raises where they allow nothing."""
    runtime = call.runtime
    now_ms = runtime.memory_store.now()
    match next_step(failed, model=terms.model, consulted=terms.consulted, tried=terms.tried, now_ms=now_ms):
        case Downgrade(cheaper, budget):
            log.info("downgrade: %s → %s for call %s (%s)", terms.model, cheaper, call.id, budget.title)
            terms.tried += (terms.model,)
            terms.model = cheaper
            terms.downgraded_by = next(result for result in failed if result.line.budget is budget)
        case Consult(name):
            terms.consulted += (name,)
            decision = denial(failed, now_ms=now_ms)
            allowed = consulted(call.ambient, name, decision)
            if allowed is None:
                raise _denied(call, terms.model, decision, failed)
            if allowed.model is not None:
                terms.model = allowed.model
                terms.downgraded_by = next(result for result in failed if result.line.budget.name == name)
            limits = (terms.output_tokens, allowed.max_output_tokens)
            terms.output_tokens = min((limit for limit in limits if limit is not None), default=None)
        case Wait() as wait:
            if not (yield from waited(runtime, terms, wait)):
                raise _denied(call, terms.model, denial(failed, now_ms=now_ms), failed)
        case Deny(truncates):
            raise _denied(call, terms.model, denial(failed, now_ms=now_ms), failed, truncates)


def waited(runtime: Runtime, terms: Terms, wait: Wait) -> Generator[Pause, Any, bool]:
    """Wait a little, in the line for what failed; False where this call has waited for as long as it may."""
    if terms.place is None:
        terms.place = runtime.line.join(wait.queues)
        terms.waits_until = runtime.monotonic() + wait.seconds
    else:
        terms.place.widen(wait.queues)
    if runtime.monotonic() >= terms.waits_until:
        return False
    yield Pause(terms.place.pause(runtime.random))
    return True


def in_line(runtime: Runtime, terms: Terms, bound: InForce) -> Generator[Pause, Any, bool]:
    """Whether others came before: then wait a little, in the line."""
    if terms.place is not None:
        # What it waits for may be held by a call that was left since: nobody else may come by to end that.
        runtime.housekeeper.catch_up()
    else:
        waiting = [budget for budget in bound.budgets if budget.on_exceed == "wait"]
        queues = frozenset([queue_of(budget, bound.tags) for budget in waiting])
        if not waiting or not runtime.line.waits_for(queues):
            return False
        terms.place = runtime.line.join(queues)
        terms.waits_until = runtime.monotonic() + min(budget.wait_seconds for budget in waiting)
    if terms.place.is_first or runtime.monotonic() >= terms.waits_until:
        return False
    yield Pause(terms.place.pause(runtime.random))
    return True


def consulted(ambient: Ambient, name: str, decision: Decision) -> Allow | None:
    """What the callable of this budget says. A process that named the budget without one denies."""
    for binding in reversed(ambient.bindings):
        if binding.budget.name == name and binding.handler is not None:
            allowed = binding.handler(decision)
            if allowed is not None and not isinstance(allowed, Allow):
                raise ValueError(
                    f"on_exceed of budget {decision.budget!r} must return Allow(…) or None, not {allowed!r}"
                )
            return allowed
    return None


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
    reasons = call.request.open_reasons
    if reasons and call.history is None and decision.failed and decision.asked > decision.limit:
        # Its own prompt is small: a shorter one would not help.
        decision = decision.with_remedy(
            f"What this request continues or refers to ({', '.join(reasons)}) is not known here, so all that {model} "
            "can read is held: raise the limit, or let such calls pass with open_bound='overrun'."
        )
    say_denied(call.runtime, call.who(model), decision, failed)
    return lending.exceeded(decision, failed, call.ambient, truncates=truncates)


def refused_by_fork(budget: Budget) -> Decision:
    """The denial of a call that a budget binds whose account stayed in the memory of the parent."""
    if budget.anonymous:
        remedy = (
            f"budget {budget.title!r} was entered before this process was forked, and its account is in the parent's "
            "memory: to share it between processes, name it and configure(ledger=…)."
        )
    else:
        remedy = (
            f"budget {budget.title!r} was named before this process was forked, and its ledger is in the parent's "
            "memory: configure(ledger=…) gives all processes one account."
        )
    return refusal(budget=budget.title, remedy=remedy)
