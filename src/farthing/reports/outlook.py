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


def outlooks(store: Store, found: Sequence[BudgetFigures]) -> list[list[Outlook]]:
    """For each budget, in order, the outlook of each of its accounts."""
    now_ms = store.now()
    since_ms = now_ms - max(LOOKBACK_MS.values())
    sums = store.sums(("hour", "model", "provider", "tags", "budgets"), since_ms=since_ms).result()
    denials = store.denials().result()
    return [[_outlook(budget, account, sums, denials, now_ms) for account in budget.accounts] for budget in found]


def _outlook(
    found: BudgetFigures, account: AccountFigures, sums: Sums, denials: Mapping[DenialKey, int], now_ms: int
) -> Outlook:
    budget = found.budget
    start_ms, _ = budget.window.span(now_ms)
    if budget.window.kind == "rolling":
        start_ms = now_ms - budget.window.length_ms
    hour_ms = 0 if start_ms is None else start_ms - start_ms % HOUR_MS
    counts = [0, 0]
    for denial, count in denials.items():
        if denial.budget == budget.name and denial.hour_ms >= hour_ms:
            tags = {**dict(denial.tags), "model": denial.model, "provider": denial.provider}
            if _falls_into(account, tags):
                counts[denial.shadow] += count
    back_ms = lookback_ms(budget.window)
    exhausted = {} if back_ms is None else _exhausted(found, account, sums, now_ms, back_ms)
    return Outlook(exhausted, *counts)


def _exhausted(
    found: BudgetFigures, account: AccountFigures, sums: Sums, now_ms: int, back_ms: int
) -> dict[str, datetime]:
    recent, first_ms = _recent(found, account, sums, now_ms - back_ms)
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


def _recent(found: BudgetFigures, account: AccountFigures, sums: Sums, since_ms: int) -> tuple[Figures, int]:
    """What this account's calls came to, and from when on: the hour of the first of them, at the earliest *since*."""
    total, first_ms = Figures(), None
    for key, figures in sums.items():
        # The hour that the span begins in counts as a whole, and so does its time.
        if key.start_ms is None or key.start_ms < since_ms - since_ms % HOUR_MS:
            continue
        if found.budget.name in key.budgets and _falls_into(account, _tags(key)):
            total = total.plus(figures)
            first_ms = key.start_ms if first_ms is None else min(first_ms, key.start_ms)
    return total, since_ms - since_ms % HOUR_MS if first_ms is None else first_ms


def _tags(key: SumKey) -> dict[str, str]:
    return {**dict(key.tags), "model": key.model or "", "provider": key.provider or ""}


def _falls_into(account: AccountFigures, tags: Mapping[str, str]) -> bool:
    return all(tags.get(name) == value for name, value in account.scope.items())
