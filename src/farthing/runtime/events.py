"""
What a process tells others: how calls ended, and what budgets did about them.

The ledger is told first, always; then whoever subscribed. A subscriber may only enqueue: what it does with a fact it
does elsewhere, and what goes wrong there reaches no call. Without a subscriber nothing is made to be told, apart from
the last clamps and downgrades, which :func:`clamps` and :func:`downgrades` look back on.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from ..kernel.decision import Decision, FailedLine, line_figures
from ..kernel.hold import Entry
from ..kernel.plan import LineResult
from ..kernel.scope import Tags
from ..kernel.window import datetime_from_ms

log = logging.getLogger("farthing")

NOTED_MAX = 1_000
"""How many clamps, and how many downgrades, a process looks back on."""
BLOCKED, RAISED, WOULD_BLOCK, CLAMPED, DOWNGRADED, BROKEN, ALERT = (
    "blocked",
    "raised",
    "would_block",
    "clamped",
    "downgraded",
    "broken",
    "alert",
)


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """
    Something that a budget did, or that is to be said about it.

    Args:
        action: ``blocked`` (denied before it was sent), ``raised`` (its answer crossed a limit that raises),
            ``would_block`` (a ``warn`` budget would have denied it), ``clamped`` (its output ceiling was lowered),
            ``downgraded``, ``broken`` (the stream was cut), ``alert`` (a threshold is passed).
        name: the budget; of a clamp all that the call was held on, for any of them may have been the tightest.
        reason: a sentence for people.
        description: the budget's own.
        model: the model that was asked for; ``to_model``: the one that is taken instead.
        scope: the tags of the account.
        unit: what the figures count: ``tokens``, ``usd``, ``requests`` or ``concurrency``; ``usd`` in Decimals.
        limit, spent, held, suspect, asked, remaining: the account at that instant; None where they do not apply. Of a
            clamp ``asked`` and ``remaining`` are the output tokens that were asked for and that were given; of a
            downgrade ``asked`` is what did not fit.
        threshold: of an alert: the part of the limit.
        tags: the call's; empty for an alert, which is about many calls.
        call_id: the call's id; None for an alert.
        at: when, in UTC.
    """

    action: str
    name: str
    at: datetime
    reason: str = ""
    description: str | None = None
    model: str | None = None
    to_model: str | None = None
    provider: str | None = None
    scope: dict[str, str] = field(default_factory=dict)
    unit: str | None = None
    limit: int | Decimal | None = None
    spent: int | Decimal | None = None
    held: int | Decimal | None = None
    suspect: int | Decimal | None = None
    asked: int | Decimal | None = None
    remaining: int | Decimal | None = None
    threshold: Decimal | None = None
    tags: dict[str, str] = field(default_factory=dict)
    call_id: str | None = None

    @property
    def ts(self) -> float:
        """:attr:`at` as seconds since the epoch."""
        return self.at.timestamp()

    def to_dict(self) -> dict[str, Any]:
        """JSON types: USD and thresholds as decimal strings, the instant as ISO 8601."""
        return {of.name: _plain(getattr(self, of.name)) for of in fields(self)}


Fact = Entry | BudgetEvent
"""What subscribers are told: the ledger's row of a call, or what a budget did."""


class Who(NamedTuple):
    """The call that something is said of."""

    call_id: str
    model: str
    provider: str
    tags: Tags


class Subscriber(Protocol):
    """Who is told. None of these may block a call, or raise."""

    def tell(self, fact: Fact) -> None:
        """Take a fact: only enqueue it."""
        ...

    def close(self, seconds: float) -> None:
        """Pass on what is enqueued, for at most so long, and stop."""
        ...


class Events:
    """The subscribers of one runtime, and what it looks back on."""

    def __init__(self) -> None:
        self.subscribers: tuple[Subscriber, ...] = ()
        """Empty where nobody listens: asked before anything is made for them."""
        self.clamps: deque[BudgetEvent] = deque(maxlen=NOTED_MAX)
        self.downgrades: deque[BudgetEvent] = deque(maxlen=NOTED_MAX)

    def subscribe(self, subscriber: Subscriber) -> None:
        """From now on, tell this one too."""
        self.subscribers = (*self.subscribers, subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Tell it no more. It is not closed."""
        self.subscribers = tuple(other for other in self.subscribers if other is not subscriber)

    def tell(self, fact: Fact) -> None:
        """Tell every subscriber. Never raises: the ledger has it already, and so has the caller."""
        for subscriber in self.subscribers:
            try:
                subscriber.tell(fact)
            except Exception:  # whatever it is: a fault of a subscriber is not the call's
                log.exception("a subscriber could not take what it was told")

    def close(self, seconds: float) -> None:
        """Let every subscriber pass on what it has, for at most *seconds* each."""
        subscribers, self.subscribers = self.subscribers, ()
        for subscriber in subscribers:
            subscriber.close(seconds)


def denied(
    decision: Decision, failed: tuple[LineResult, ...], who: Who, *, at_ms: int, action: str = BLOCKED
) -> BudgetEvent:
    """A call was denied before it was sent; or, ``raised``, its answer was the one that crossed the limit."""
    budgets = (result.line.budget for result in failed)
    return BudgetEvent(
        action=action,
        name=decision.budget or "",
        reason=decision.message(),
        description=next((budget.description for budget in budgets if budget.title == decision.budget), None),
        model=who.model,
        provider=who.provider,
        tags=dict(who.tags),
        call_id=who.call_id,
        at=datetime_from_ms(at_ms),
        **_figures(decision),
    )


def would_deny(result: LineResult, who: Who, *, at_ms: int) -> BudgetEvent:
    """A call went out that a ``warn`` budget would have denied."""
    line = line_figures(result, at_ms)
    return BudgetEvent(
        action=WOULD_BLOCK,
        name=line.budget,
        reason=f"on_exceed='warn': this call would have been denied. {line.figures_text()}",
        description=result.line.budget.description,
        model=who.model,
        provider=who.provider,
        tags=dict(who.tags),
        call_id=who.call_id,
        at=datetime_from_ms(at_ms),
        **_figures(line),
    )


def downgraded(result: LineResult, who: Who, *, asked_model: str, at_ms: int) -> BudgetEvent:
    """A call went out with another model, since with the one asked for this line failed."""
    line = line_figures(result, at_ms)
    return BudgetEvent(
        action=DOWNGRADED,
        name=line.budget,
        reason=f"budget {line.budget!r}: {who.model} instead of {asked_model}",
        description=result.line.budget.description,
        model=asked_model,
        to_model=who.model,
        provider=who.provider,
        tags=dict(who.tags),
        call_id=who.call_id,
        at=datetime_from_ms(at_ms),
        **_figures(line),
    )


def _figures(of: Decision | FailedLine) -> dict[str, Any]:
    return {name: getattr(of, name) for name in _FIGURES}


_FIGURES = ("scope", "unit", "limit", "spent", "held", "suspect", "asked", "remaining")


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    return value.isoformat() if isinstance(value, datetime) else value
