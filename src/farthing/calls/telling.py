"""
What is said of a call where it happens: counted for reports, looked at for alerts, told to whoever listens.

One function for each thing that can happen. The pipeline calls them; nothing they do can change what becomes of the
call.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..kernel.budget import Budget
from ..kernel.decision import Decision, line_figures
from ..kernel.hold import Entry
from ..kernel.plan import Account, Ask, LineResult
from ..kernel.window import datetime_from_ms
from ..runtime.events import BROKEN, CLAMPED, RAISED, BudgetEvent, Who, denied, downgraded, would_deny
from ..runtime.ledgers import Ledger
from ..runtime.runtime import Runtime, log
from .holding import Granted


def say_denied(runtime: Runtime, who: Who, decision: Decision, failed: tuple[LineResult, ...]) -> None:
    """It was denied before it was sent."""
    runtime.count_denial(
        budget=decision.budget or "",
        unit=decision.unit,
        model=who.model,
        provider=who.provider,
        tags=dict(who.tags),
        shadow=False,
    )
    runtime.alerts.denied(failed)
    if runtime.events.subscribers:
        runtime.events.tell(denied(decision, failed, who, at_ms=runtime.memory_store.now()))


def say_raised(runtime: Runtime, who: Who, decision: Decision, crossed: tuple[LineResult, ...]) -> None:
    """Its answer took a budget that raises past its limit."""
    if runtime.events.subscribers:
        runtime.events.tell(denied(decision, crossed, who, at_ms=runtime.memory_store.now(), action=RAISED))


def say_advisory(runtime: Runtime, who: Who, advisory: Iterable[LineResult]) -> None:
    """It goes out; these lines of ``warn`` budgets would have denied it."""
    for result in advisory:
        budget = result.line.budget
        if log.isEnabledFor(logging.WARNING):
            amounts = line_figures(result, runtime.memory_store.now()).amounts_text()
            text = "budget %r (on_exceed='warn') would have denied call %s to %s: %s"
            log.warning(text, budget.title, who.call_id, who.model or "(no model)", amounts)
        runtime.count_denial(
            budget=budget.title,
            unit=result.line.unit,
            model=who.model,
            provider=who.provider,
            tags=dict(who.tags),
            shadow=True,
        )
        if runtime.events.subscribers:
            runtime.events.tell(would_deny(result, who, at_ms=runtime.memory_store.now()))


def say_changed(
    runtime: Runtime, who: Who, ask: Ask, granted: Granted, *, asked_model: str, by: LineResult | None
) -> None:
    """It goes out on other terms than it was asked for: another model (for *by* failed), a lower output ceiling."""
    at_ms = runtime.memory_store.now()
    events, found = runtime.events, []
    if by is not None and who.model != asked_model:
        event = downgraded(by, who, asked_model=asked_model, at_ms=at_ms)
        events.downgrades.append(event)
        found.append(event)
    if granted.x < ask.x_want:
        names = ", ".join(ask.facts.budgets)
        event = BudgetEvent(
            CLAMPED,
            names,
            datetime_from_ms(at_ms),
            reason=f"budget {names!r}: at most {granted.x:,} output tokens instead of {ask.x_want:,}",
            description=_descriptions(granted),
            model=who.model,
            provider=who.provider,
            unit="tokens",
            asked=ask.x_want,
            remaining=granted.x,
            tags=dict(who.tags),
            call_id=who.call_id,
        )
        events.clamps.append(event)
        found.append(event)
    if events.subscribers:
        for event in found:
            events.tell(event)


def say_broken(runtime: Runtime, who: Who, granted: Granted, delivered_tokens: int) -> None:
    """Its stream was cut: what was held for it is used up."""
    if not runtime.events.subscribers:
        return
    names = ", ".join(dict.fromkeys(budget.title for budget in _held_on(granted)))
    runtime.events.tell(
        BudgetEvent(
            BROKEN,
            names,
            datetime_from_ms(runtime.memory_store.now()),
            reason=f"budget {names!r}: the stream was cut after {delivered_tokens:,} output tokens",
            description=_descriptions(granted),
            model=who.model,
            provider=who.provider,
            unit="tokens",
            spent=delivered_tokens,
            tags=dict(who.tags),
            call_id=who.call_id,
        )
    )


def say_ended(runtime: Runtime, entry: Entry | None, held: Iterable[tuple[Ledger, tuple[Account, ...]]]) -> None:
    """It has ended, and the ledgers have it: this is its row there."""
    if entry is not None and runtime.events.subscribers:
        runtime.events.tell(entry)
    for ledger, accounts in held:
        if ledger.alerting:
            runtime.alerts.spent_on(ledger, accounts)


def _held_on(granted: Granted) -> Iterable[Budget]:
    return (account.budget for _, accounts in granted.held for account in accounts)


def _descriptions(granted: Granted) -> str | None:
    """Of all budgets that a call was held on, as their names are."""
    told = dict.fromkeys(budget.description for budget in _held_on(granted) if budget.description)
    return ", ".join(told) or None
