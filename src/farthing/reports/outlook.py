"""
What an operator wants to know of a budget beside its figures.

When it is used up at this rate, what it denied in its window, and what it would have denied if it were not in shadow
mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ..kernel.forecast import LOOKBACK_MS, exhausted_ms, lookback_ms
from ..kernel.sums import HOUR_MS, Figures, SumKey, Sums
from ..kernel.window import datetime_from_ms, ms_from_datetime
from ..stores.contract import DenialKey, Store
from .accounts import AccountFigures, BudgetFigures

_FIRST_ROWS = 2_000
"""Read of an hour, to see when in it something began."""


class Outlook(NamedTuple):
    """
    Of one account. ``exhausted_at`` has, by unit, when its limit is used up at the present rate, for those that are
    before the window resets; ``denied`` and ``would_deny`` count calls since the window began, by the hour.
    """

    exhausted_at: Mapping[str, datetime]
    denied: int
    would_deny: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "exhausted_at": {unit: at.isoformat() for unit, at in self.exhausted_at.items()},
            "denied": self.denied,
            "would_deny": self.would_deny,
        }


class _History(NamedTuple):
    """What the ledger knows of the time that forecasts look back on."""

    sums: Sums
    """By the hour."""
    begun: Mapping[SumKey, int]
    """When the first call of an hour that is not long ago was made: minutes count there."""
    denials: Mapping[DenialKey, int]


def outlooks(store: Store, found: Sequence[BudgetFigures]) -> list[list[Outlook]]:
    """For each budget, in order, the outlook of each of its accounts."""
    now_ms = store.now()
    since_ms = now_ms - max(LOOKBACK_MS.values())
    sums = store.sums(("hour", "model", "provider", "tags", "budgets"), since_ms=since_ms).result()
    history = _History(sums, _begun(store, now_ms), store.denials().result())
    return [[_outlook(budget, account, history, now_ms) for account in budget.accounts] for budget in found]


def _begun(store: Store, now_ms: int) -> dict[SumKey, int]:
    """
    When the first call of this hour was made, and of the hour before, by the key of its sum. Only the first rows are
    read: calls that begin behind them are taken to have begun with the hour.
    """
    hour_ms = now_ms - now_ms % HOUR_MS
    begun: dict[SumKey, int] = {}
    for start_ms in (hour_ms - HOUR_MS, hour_ms):
        for entry in store.entries(since_ms=start_ms, until_ms=start_ms + HOUR_MS, limit=_FIRST_ROWS).result():
            facts = entry.facts
            hour = entry.started_ms - entry.started_ms % HOUR_MS
            key = SumKey(hour, facts.model, facts.provider, facts.tags, facts.budgets)
            begun[key] = min(entry.started_ms, begun.get(key, entry.started_ms))
    return begun


def _outlook(found: BudgetFigures, account: AccountFigures, history: _History, now_ms: int) -> Outlook:
    budget = found.budget
    start_ms, _ = budget.window.span(now_ms)
    if budget.window.kind == "rolling":
        start_ms = now_ms - budget.window.length_ms
    hour_ms = 0 if start_ms is None else start_ms - start_ms % HOUR_MS
    counts = [0, 0]
    for denial, count in history.denials.items():
        if denial.budget == budget.name and denial.hour_ms >= hour_ms:
            tags = {**dict(denial.tags), "model": denial.model, "provider": denial.provider}
            if _falls_into(account, tags):
                counts[denial.shadow] += count
    back_ms = lookback_ms(budget.window)
    exhausted = {} if back_ms is None else _exhausted(found, account, history, now_ms, back_ms)
    return Outlook(exhausted, *counts)


def _exhausted(
    found: BudgetFigures, account: AccountFigures, history: _History, now_ms: int, back_ms: int
) -> dict[str, datetime]:
    recent, first_ms = _recent(found, account, history, now_ms - back_ms)
    resets_ms = None if account.resets_at is None else ms_from_datetime(account.resets_at)
    amounts = {
        "usd": recent.usd_nano,
        "tokens": recent.input_tokens + recent.output_tokens,
        "requests": recent.calls,
    }
    instants = {}
    for figures in account.units:
        if figures.remaining is None or figures.unit not in amounts:
            continue
        at_ms = exhausted_ms(
            remaining=figures.remaining,
            recent=amounts[figures.unit],
            recent_ms=now_ms - first_ms,
            now_ms=now_ms,
            resets_ms=resets_ms,
        )
        if at_ms is not None:
            instants[figures.unit] = datetime_from_ms(at_ms)
    return instants


def _recent(found: BudgetFigures, account: AccountFigures, history: _History, since_ms: int) -> tuple[Figures, int]:
    """What this account's calls came to, and from when on: the first of them, or its hour; at the earliest *since*."""
    total, first_ms = Figures(), None
    for key, figures in history.sums.items():
        # The hour that the span begins in counts as a whole, and so does its time.
        if key.start_ms is None or key.start_ms < since_ms - since_ms % HOUR_MS:
            continue
        if found.budget.name in key.budgets and _falls_into(account, _tags(key)):
            total = total.plus(figures)
            began_ms = history.begun.get(key, key.start_ms)
            first_ms = began_ms if first_ms is None else min(first_ms, began_ms)
    return total, since_ms - since_ms % HOUR_MS if first_ms is None else first_ms


def _tags(key: SumKey) -> dict[str, str]:
    return {**dict(key.tags), "model": key.model or "", "provider": key.provider or ""}


def _falls_into(account: AccountFigures, tags: Mapping[str, str]) -> bool:
    return all(tags.get(name) == value for name, value in account.scope.items())
