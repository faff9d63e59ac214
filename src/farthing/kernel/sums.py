"""
Sums over entries: what reports are made of, and what a roll-up keeps of a day.

The figures of a correction are differences, so a sum over rows is the truth of the moment. A row counts where its call
was placed (as windows do), however late it ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from .hold import Entry
from .usage import CACHED_KINDS, INPUT_KINDS, OUTPUT_KINDS

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
SPANS_MS = {"day": DAY_MS, "hour": HOUR_MS}
KEYS = ("model", "provider", "tags", "budgets")
"""What calls are told apart by, beside the ``day`` or ``hour`` (UTC) that they were placed in."""


class Figures(NamedTuple):
    """What is added up. ``usd_nano`` leaves out calls without a known price: ``unpriced_calls`` counts them."""

    usd_nano: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    calls: int = 0
    suspect: int = 0
    unpriced_calls: int = 0

    def plus(self, other: Figures) -> Figures:
        return Figures(*map(int.__add__, self, other))


NOTHING = Figures()


class SumKey(NamedTuple):
    """Whose calls: what was not asked for is empty."""

    start_ms: int | None = None
    """Start of the day or hour. Of a day that was rolled up there are no hours: then it is the day's."""
    model: str | None = None
    provider: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    budgets: tuple[str, ...] = ()


Sums = dict[SumKey, Figures]


def figures_of(entry: Entry) -> Figures:
    """What one row adds."""
    is_call = entry.kind == "call"
    if is_call:
        unpriced = int(entry.cost_nano is None)
    else:
        # The call had no price when it was placed; now somebody says what it cost.
        unpriced = -1 if entry.cost_nano is not None and entry.facts.price is None else 0
    return Figures(
        entry.cost_nano or 0,
        entry.tokens(*INPUT_KINDS),
        entry.tokens(*CACHED_KINDS),
        entry.tokens(*OUTPUT_KINDS),
        entry.tokens("reasoning"),
        int(is_call),
        int(entry.suspect) if is_call else -int(entry.resolves_suspect),
        unpriced,
    )


def sum_entries(entries: Iterable[Entry], by: Collection[str]) -> Sums:
    """The sums of these rows, told apart by these keys."""
    sums: Sums = {}
    for entry in entries:
        key = key_of(entry, by)
        found = sums.get(key)
        figures = figures_of(entry)
        sums[key] = figures if found is None else found.plus(figures)
    return sums


def key_of(entry: Entry, by: Collection[str]) -> SumKey:
    """Which sum a row belongs to."""
    facts = entry.facts
    return SumKey(
        start_of(entry.started_ms, by),
        facts.model if "model" in by else None,
        facts.provider if "provider" in by else None,
        facts.tags if "tags" in by else (),
        facts.budgets if "budgets" in by else (),
    )


def coarser(key: SumKey, by: Collection[str]) -> SumKey:
    """The same key with only these parts told apart."""
    return SumKey(
        None if key.start_ms is None else start_of(key.start_ms, by),
        key.model if "model" in by else None,
        key.provider if "provider" in by else None,
        key.tags if "tags" in by else (),
        key.budgets if "budgets" in by else (),
    )


def start_of(at_ms: int, by: Collection[str]) -> int | None:
    """Start of the hour or day that this instant lies in, if they are told apart."""
    for name in ("hour", "day"):
        if name in by:
            return at_ms - at_ms % SPANS_MS[name]
    return None


def check_keys(by: Collection[str]) -> None:
    """Raises ValueError for a key that there is none of."""
    unknown = set(by) - {*KEYS, *SPANS_MS}
    if unknown:
        raise ValueError(f"sums are told apart by {', '.join((*KEYS, *SPANS_MS))}, not {', '.join(sorted(unknown))}")
