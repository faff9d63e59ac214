"""
What an operator wants to know of a budget beside its figures.

When it is used up at this rate, what it denied in its window, and what it would have denied if it were not in shadow
mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ..kernel.forecast import LOOKBACK_MS, exhausted_ms, lookback_ms
from ..kernel.sums import HOUR_MS, Figures, SumKey, Sums
from ..kernel.window import datetime_from_ms, ms_from_datetime
from ..stores.contract import DenialKey, Store
from .accounts import AccountFigures, BudgetFigures

_FIRST_ROWS = 2_000
"""Read of an hour, to see when in it something began."""

_Scope = tuple[str | None, ...]
"""Which account of a budget: the values of the tags that tell its accounts apart."""


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

    sums: Mapping[str, Sequence[tuple[SumKey, Figures]]]
    """By budget: of each hour."""
    begun: Mapping[SumKey, int]
    """When the first call of an hour that is not long ago was made: minutes count there."""
    denials: Mapping[DenialKey, int]


def outlooks(store: Store, found: Sequence[BudgetFigures]) -> list[list[Outlook]]:
    """For each budget, in order, the outlook of each of its accounts."""
    now_ms = store.now()
    since_ms = now_ms - max(LOOKBACK_MS.values())
    sums = store.sums(("hour", "model", "provider", "tags", "budgets"), since_ms=since_ms).result()
    history = _History(_by_budget(sums), _begun(store, now_ms), store.denials().result())
    return [_outlooks(budget, history, now_ms) for budget in found]


def _by_budget(sums: Sums) -> dict[str, list[tuple[SumKey, Figures]]]:
    found: dict[str, list[tuple[SumKey, Figures]]] = {}
    for key, figures in sums.items():
        for name in dict.fromkeys(key.budgets):
            found.setdefault(name, []).append((key, figures))
    return found


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


def _outlooks(found: BudgetFigures, history: _History, now_ms: int) -> list[Outlook]:
    """Those of one budget. Of many accounts: its history is gone through once, not once for each."""
    if not found.accounts:
        return []
    window, names = found.budget.window, tuple(found.accounts[0].scope)
    denied = _denied(found, names, history, now_ms)
    back_ms = lookback_ms(window)
    recent = {} if back_ms is None else _recent(found, names, history, now_ms - back_ms)
    outlooks = []
    for account in found.accounts:
        of = tuple([account.scope[name] for name in names])
        exhausted = {} if back_ms is None else _exhausted(account, recent.get(of), now_ms)
        outlooks.append(Outlook(exhausted, *denied.get(of, (0, 0))))
    return outlooks


def _denied(
    found: BudgetFigures, names: tuple[str, ...], history: _History, now_ms: int
) -> dict[_Scope, tuple[int, int]]:
    """Since the window began: denied, and what would have been."""
    window = found.budget.window
    start_ms, _ = window.span(now_ms)
    if window.kind == "rolling":
        start_ms = now_ms - window.length_ms
    hour_ms = 0 if start_ms is None else start_ms - start_ms % HOUR_MS
    counts: dict[_Scope, tuple[int, int]] = {}
    for denial, count in history.denials.items():
        if denial.budget == found.budget.name and denial.hour_ms >= hour_ms:
            of = _scope(names, denial.tags, denial.model, denial.provider)
            denied, would_deny = counts.get(of, (0, 0))
            counts[of] = (denied, would_deny + count) if denial.shadow else (denied + count, would_deny)
    return counts


def _recent(
    found: BudgetFigures, names: tuple[str, ...], history: _History, since_ms: int
) -> dict[_Scope, tuple[Figures, int]]:
    """What each account's calls came to, and from when on: the first of them, or its hour."""
    # The hour that the span begins in counts as a whole, and so does its time.
    first_hour_ms = since_ms - since_ms % HOUR_MS
    recent: dict[_Scope, tuple[Figures, int]] = {}
    for key, figures in history.sums.get(found.budget.name, ()):
        if key.start_ms is None or key.start_ms < first_hour_ms:
            continue
        of = _scope(names, key.tags, key.model or "", key.provider or "")
        began_ms = history.begun.get(key, key.start_ms)
        total, first_ms = recent.get(of, (Figures(), began_ms))
        recent[of] = total.plus(figures), min(first_ms, began_ms)
    return recent


def _exhausted(account: AccountFigures, recent: tuple[Figures, int] | None, now_ms: int) -> dict[str, datetime]:
    total, first_ms = recent or (Figures(), now_ms)
    resets_ms = None if account.resets_at is None else ms_from_datetime(account.resets_at)
    amounts = {"usd": total.usd_nano, "tokens": total.input_tokens + total.output_tokens, "requests": total.calls}
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


def _scope(names: tuple[str, ...], tags: Iterable[tuple[str, str]], model: str, provider: str) -> _Scope:
    """Which account of a budget calls with these tags fall into."""
    of = {**dict(tags), "model": model, "provider": provider}
    return tuple([of.get(name) for name in names])
