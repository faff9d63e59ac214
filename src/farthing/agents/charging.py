"""
Charging what a call of an agent really used.

At most what was held for it, else by borrowing the rest, else as an overrun: money that is spent is always recorded.
Life steps, for the sync and the async driver.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ..calls.holding import Granted, hold
from ..calls.lending import exceeded
from ..calls.manual import HOLD_MS, end_held, write_paid
from ..errors import BudgetExceeded, BudgetExceededError
from ..kernel.decision import denial
from ..kernel.hold import Outcome, estimated
from ..kernel.plan import Ask, CallFacts, Formula
from ..runtime.ambient import Ambient
from ..runtime.in_force import in_force
from ..runtime.runtime import Runtime


class Held:
    """What is held for a piece of an agent's work until somebody says what it used."""

    def __init__(self, granted: Granted, facts: CallFacts) -> None:
        self.granted = granted
        self.facts = facts

    @property
    def tokens(self) -> int:
        """How many it may use without more being held."""
        return self.facts.input_tokens + self.granted.x

    def estimate(self) -> Outcome:
        """All of it, where nobody knows better."""
        return estimated(self.facts, self.granted.x)


def settle(
    runtime: Runtime, inside: Ambient, held: Held, outcome: Outcome
) -> Generator[Any, Any, BudgetExceeded | None]:
    """
    Settle a piece of work at what it used. What it used beyond its hold is held first, in exchange for it, with loans:
    the work in force *inside* has the estimate.

    Returns what refused that: then all is recorded on the hold, as an overrun.
    """
    cost_nano, price = outcome.cost_nano, held.facts.price
    fits = outcome.usage.total_tokens <= held.tokens
    if cost_nano is not None and price is not None:
        fits = fits and cost_nano <= price.at(held.granted.x)
    refused = None if fits else (yield from _charged_anew(runtime, inside, outcome, held.facts))
    if fits or refused is not None:
        yield from end_held(runtime, held.granted, held.facts, outcome)
    return refused


def charge(
    runtime: Runtime, inside: Ambient, outcome: Outcome, *, dialect: str
) -> Generator[Any, Any, BudgetExceeded | None]:
    """Charge what nothing was held for. What cannot be covered is recorded beyond the limits; returns what refused."""
    facts = CallFacts(dialect=dialect, tags=inside.tags)
    refused = yield from _charged_anew(runtime, inside, outcome, facts)
    if refused is not None:
        write_paid(runtime, in_force(runtime, inside), _facts(runtime, inside, facts, outcome), outcome)
    return refused


def _charged_anew(
    runtime: Runtime, inside: Ambient, outcome: Outcome, facts: CallFacts
) -> Generator[Any, Any, BudgetExceeded | None]:
    facts = _facts(runtime, inside, facts, outcome)
    now_ms = runtime.memory_store.now()
    ask = Ask(runtime.new_id(), facts, 0, 0, now_ms + HOLD_MS)
    answer = yield from hold(runtime, ask, inside)
    if isinstance(answer, Granted):
        yield from end_held(runtime, answer, facts, outcome)
        return None
    return exceeded(denial(answer, now_ms=now_ms), answer, inside)


def _facts(runtime: Runtime, inside: Ambient, facts: CallFacts, outcome: Outcome) -> CallFacts:
    return facts._replace(
        budgets=in_force(runtime, inside).strictest.titles,
        input_tokens=outcome.usage.total_tokens,
        price=None if outcome.cost_nano is None else Formula(outcome.cost_nano),
    )


def with_result(error: BudgetExceeded, result: Any) -> BudgetExceeded:
    """The refusal of what is paid already: the answer is attached to it."""
    if type(error) is BudgetExceededError:
        return BudgetExceededError(
            error.agent_name, error.requested, error.available, decision=error.decision, result=result
        )
    return BudgetExceeded(error.decision, result=result)
