"""
One piece of an agent's work: from the gate and the hold before a governed function runs to the charge after it.

Before: the arguments are counted, and a range is held: at least them, at most what the agent's calls usually say beside
(loans included), shrunk to what is left. During: a measured call inside takes that hold's place. After: without one,
what went in and came out is counted. Life steps, for the sync and the async driver.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..calls.asking import find_rates
from ..calls.holding import Granted, hold
from ..calls.lending import Work, exceeded, give_back, measured
from ..calls.manual import HOLD_MS
from ..calls.steps import Finished, Life, Pause
from ..calls.telling import say_denied
from ..errors import AgentFunctionError, BudgetExceeded, UnpricedModel
from ..kernel.budget import Budget
from ..kernel.decision import denial, refusal
from ..kernel.hold import HELD, Hold, Outcome, paid
from ..kernel.money import COUNTER_MAX
from ..kernel.plan import Ask, CallFacts, LineResult
from ..kernel.usage import Usage
from ..prices import Rates
from ..runtime.ambient import Ambient, current
from ..runtime.default import runtime
from ..runtime.events import Who
from ..runtime.in_force import in_force
from ..runtime.runtime import Runtime
from ..wire.reported import usage_from
from .charging import Held, charge, settle, with_result
from .contract import check_confidence
from .counting import read_usage, tokens_in, usage_in

if TYPE_CHECKING:
    from .manager import BudgetManager

ESTIMATE = "agents.estimate"
ON_OVERRUN = ("raise", "return")


@dataclass(frozen=True, slots=True)
class Governing:
    """On what terms a function is governed: what was given to ``govern``."""

    manager: BudgetManager
    agent: str
    name: str
    """Of the function: the note on its entries."""
    confidence_fn: Callable[[Any], Any] | None = None
    usage_fn: Callable[[Any], Any] | None = None
    task_fn: Callable[..., Any] | None = None
    on_overrun: str = "raise"
    model: str | None = None
    method: bool = False
    """Its first argument is an object, or a class, and nothing that a model reads."""


class Piece:
    """One call of a governed function."""

    def __init__(self, governing: Governing, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._governing = governing
        self._args = args
        self._kwargs = kwargs
        self._work = Work()
        self._around: Work | None = None
        """The piece of work that this one is a part of."""
        self._held: Held | None = None
        self._task: str | None = None
        self._input_tokens = 0
        self._budget: Budget
        self._inside: Ambient
        self._rates: Rates | None = None

    def opened(self) -> tuple[Ambient, None]:
        """The scope that its body runs in; no budget of an agent ends it quietly."""
        return self._inside, None

    # -- before --------------------------------------------------------------------------------------------------

    def begin(self) -> Life:
        """Hold an estimate. Raises ConfidenceReached, BudgetExceededError, UnknownAgent: then nothing may be called."""
        governing, manager = self._governing, self._governing.manager
        here, outside = runtime(), current()
        self._around = outside.work
        here.housekeeper.catch_up()
        self._budget, _ = manager.crew.budget(governing.agent)
        self._work.expected_output = manager.past(governing.agent).expected_output()
        self._inside = manager.crew.enter(outside, self._budget, self._work)
        inherited = in_force(here, self._inside, governing.model or "", "").inherited
        if inherited is not None:
            remedy = "entered before this process was forked: give the manager a name and configure(ledger=…)"
            raise BudgetExceeded(refusal(budget=inherited.title, remedy=remedy))
        self._task = self._ask_task()
        manager.check_gate(governing.agent, self._task)
        values = self._args[1:] if governing.method else self._args
        self._input_tokens = min(COUNTER_MAX, tokens_in(*values, *self._kwargs.values(), model=governing.model))
        bare = manager.crew.enter(outside, self._budget, None)
        facts = self._facts(here, bare)
        granted = yield from self._hold(here, bare, facts)
        self._held = Held(granted, facts)
        for (ledger, _), placed in zip(granted.held, granted.holds, strict=True):
            self._work.estimates[id(ledger)] = placed
        return Finished()

    def _ask_task(self) -> str | None:
        if self._governing.task_fn is None:
            return None
        try:
            task = self._governing.task_fn(*self._args, **self._kwargs)
        except Exception as error:  # a given function may raise anything; it is raised again, named
            raise self._failed("task_fn", f"raised {type(error).__name__}: {error}") from error
        return None if task is None else str(task)

    def _facts(self, here: Runtime, scope: Ambient) -> CallFacts:
        model = self._governing.model
        price = None
        if model is not None:
            now_ms = here.memory_store.now()
            self._rates = find_rates(here.prices, here.settings, model=model, provider=None, at_ms=now_ms)
        if self._rates is not None:
            price = self._rates.bound(input_tokens=self._input_tokens, writes_cache=True, cache_1h=True)
        return CallFacts(
            model=model,
            provider=None if self._rates is None else self._rates.provider,
            dialect=ESTIMATE,
            tags=scope.tags,
            budgets=in_force(here, scope).strictest.titles,
            input_tokens=self._input_tokens,
            price=price,
            price_version=None if self._rates is None else self._rates.version,
            bound="open",
            ceiling_ours=True,
        )

    def _hold(self, here: Runtime, scope: Ambient, facts: CallFacts) -> Generator[Any, Any, Granted]:
        """Hold the range; where only others of unknown size are in the way, after them."""
        line = frozenset({(None, self._governing.manager.crew.pool)})
        place = here.line.join(line) if here.line.waits_for(line) else None
        waits_until = here.monotonic() + self._governing.manager.wait_seconds
        expected = self._work.expected_output
        try:
            for _ in itertools.count():
                if place is not None and not place.is_first and here.monotonic() < waits_until:
                    yield Pause(place.pause(here.random))
                    continue
                # All that it can be expected to say; or what is left, where that is not for others in flight.
                for least in (expected, 1):
                    now_ms = here.memory_store.now()
                    ask = Ask(here.new_id(), facts, expected, min(expected, least), now_ms + HOLD_MS)
                    answer = yield from hold(here, ask, scope)
                    if isinstance(answer, Granted):
                        return answer
                    waits = here.monotonic() < waits_until and (yield from self._may_fit(answer))
                    if waits:
                        break
                    if least == 1:
                        raise self._denied(here, answer, scope)
                place = place or here.line.join(line)
                yield Pause(place.pause(here.random))
                here.housekeeper.catch_up()
            raise AssertionError("counting never ends")
        finally:
            if place is not None:
                place.leave()

    def _may_fit(self, failed: tuple[LineResult, ...]) -> Generator[Any, Any, bool]:
        """Whether this call would fit if the estimates that are in flight in its pool came to nothing."""
        crew = self._governing.manager.crew
        mine = [result for result in failed if crew.has(result.line.budget)]
        if len(mine) < len(failed) or any(result.line.frozen for result in mine):
            return False
        holds: tuple[Hold, ...] = yield crew.ledger.store.holds(HELD)
        others = [of for of in holds if of.facts.dialect == ESTIMATE and ("pool", crew.pool) in of.facts.tags]
        return all(
            result.asked <= crew.most(self._governing.agent, result.line.unit, without=others) for result in mine
        )

    def _denied(self, here: Runtime, failed: tuple[LineResult, ...], scope: Ambient) -> BudgetExceeded:
        decision = denial(failed, now_ms=here.memory_store.now())
        say_denied(here, Who("", self._governing.model or "", "", dict(scope.tags)), decision, failed)
        return exceeded(decision, failed, scope)

    # -- after ---------------------------------------------------------------------------------------------------

    def finish(self, result: Any, *, said: list[Any] | None = None) -> Life:
        """
        Charge what was used, then look at the confidence. *said*: all that a generator yielded.

        Raises BudgetExceededError with the result attached where
        more was used than the agent could have (unless ``on_overrun="return"``), and what a given function did wrong.
        """
        trouble: Exception | None = None
        refused: BudgetExceeded | None = None
        if self._work.measured or self._work.refused is not None:
            yield from self._let_go()
        else:
            outcome, trouble = self._outcome(result, said)
            refused = yield from self._charge(outcome)
            if outcome.cost_nano is None and trouble is None:
                trouble = self._unpriced(result)
        trouble = self._confidence(_answer(result, said)) or trouble
        if refused is not None and self._governing.on_overrun == "raise":
            raise with_result(refused, result)
        if trouble is not None:
            raise trouble
        return Finished()

    def leave(self, said: list[Any]) -> Life:
        """A generator was left half-way: it is charged for what it had yielded, and nobody is told any more."""
        if self._work.measured or self._work.refused is not None:
            yield from self._let_go()
        else:
            yield from self._charge(self._outcome(None, said)[0])
        return Finished()

    def fail(self, error: BaseException) -> Life:
        """The function raised. Nobody knows what was billed before it did, so all that was held is charged."""
        if self._work.measured or self._work.refused is not None or self._held is None:
            yield from self._let_go()
            return Finished()
        note = f"{self._governing.name}: {type(error).__name__}"
        outcome = self._held.estimate()._replace(ending="raised", note=note)
        yield from self._charge(outcome)
        return Finished()

    def _let_go(self) -> Life:
        """
        What was held for an estimate is not needed: calls inside were charged by themselves, or refused. A function
        around this one, of another agent, passes its texts on and back: if they were measured here, they count once.
        """
        here = runtime()
        give_back(self._work, here)
        if self._work.measured and self._around is not None:
            measured(here, self._around)
        return Finished()
        yield  # a life, as the others are

    def _charge(self, outcome: Outcome) -> Generator[Any, Any, BudgetExceeded | None]:
        here, held = runtime(), self._held
        estimates = self._work.close()
        total = outcome.usage.total_tokens
        past = self._governing.manager.past(self._governing.agent)
        if outcome.usage_source != "estimate":
            past.add(output=max(0, total - self._input_tokens), total=total)
        work = Work(self._work.expected_output, estimates)
        inside = self._governing.manager.crew.enter(self._inside, self._budget, work)
        if held is not None and len(estimates) == len(held.granted.held):
            return (yield from settle(here, inside, held, outcome))
        # Another ledger refused a call inside after this one had admitted it in exchange for the estimate.
        give_back(work, here)
        yield from charge(here, inside, outcome, dialect=ESTIMATE)
        return None

    def _outcome(self, result: Any, said: list[Any] | None) -> tuple[Outcome, Exception | None]:
        """What was used, and what was wrong with the function that should have said it."""
        governing, trouble = self._governing, None
        answer = _answer(result, said)
        # A stream's figure comes with one of its last pieces.
        carriers = [result, *reversed((said or [])[-3:])]
        found = next((found for of in carriers if (found := usage_in(of)) is not None), None)
        usage, source = None if found is None else self._as_usage(found), "provider"
        if governing.usage_fn is not None:
            try:
                usage = self._as_usage(governing.usage_fn(answer))
            except Exception as error:  # noqa: BLE001 - a given function may raise anything; it is raised again, named
                trouble = self._failed("usage_fn", f"raised {type(error).__name__}: {error}", answer)
                trouble.__cause__ = error
        if usage is None:
            output = min(COUNTER_MAX, tokens_in(result, *_joined(said or ()), model=governing.model))
            usage, source = Usage(input=self._input_tokens, output=output), "counted"
        cost_nano = None if self._rates is None else self._rates.cost_nano(usage)
        return paid(usage, cost_nano, source=source)._replace(note=governing.name), trouble

    def _as_usage(self, value: Any) -> Usage:
        found = value if type(value) is int else read_usage(value)
        if found is None:
            return usage_from(value)  # which says what is wrong with it
        if isinstance(found, Usage):
            return found
        if not 0 <= found <= COUNTER_MAX:
            raise ValueError(f"tokens must be at least 0, not {found}")
        known = min(found, self._input_tokens)
        return Usage(input=known, output=found - known)

    def _unpriced(self, result: Any) -> Exception | None:
        if self._budget.usd_nano is None or runtime().settings.unpriced != "reject":
            return None
        error = UnpricedModel(self._governing.model or self._governing.name, budget=self._budget.title)
        if self._governing.model is None:
            text = (
                f"agent {self._governing.agent!r} is limited in USD, and nobody said what {self._governing.name} cost: "
                "its calls were not measured. Name its model with govern(…, model=…), or instrument its client. Its "
                "tokens are counted; its answer is the `result` of this error."
            )
            error.args = (text,)
        error.result = result  # type: ignore[attr-defined]
        return error

    def _confidence(self, result: Any) -> Exception | None:
        governing = self._governing
        if governing.confidence_fn is None:
            return None
        try:
            value = governing.confidence_fn(result)
        except Exception as error:  # noqa: BLE001 - a given function may raise anything; it is raised again, named
            trouble = self._failed("confidence_fn", f"raised {type(error).__name__}: {error}", result)
            trouble.__cause__ = error
            return trouble
        if value is None:
            return None
        try:
            confidence = check_confidence(value, field="its answer")
        except ValueError as error:
            return self._failed("confidence_fn", f"returned no confidence: {error}", result)
        governing.manager.answered(governing.agent, self._task, confidence, result)
        return None

    def _failed(self, function: str, problem: str, result: Any = None) -> AgentFunctionError:
        return AgentFunctionError(function, self._governing.agent, problem, result=result)


def _answer(result: Any, said: list[Any] | None) -> Any:
    """What given functions look at: the result, or all that a generator yielded if it returned nothing."""
    return said if result is None and said is not None else result


def _joined(said: Iterable[Any]) -> Iterator[Any]:
    """What was yielded, pieces of text put together again: a word may come in several."""
    text: list[str] = []
    for value in said:
        if isinstance(value, str):
            text.append(value)
        else:
            yield value
    yield "".join(text)
