"""A call as one flat row of plain types: what sinks are given, and what an export has."""

from __future__ import annotations

from typing import Any

from ..kernel.hold import Entry
from ..kernel.money import usd_decimal
from ..kernel.usage import CACHED_KINDS, INPUT_KINDS, OUTPUT_KINDS
from ..kernel.window import datetime_from_ms

Row = dict[str, Any]
COLUMNS = (
    "id",
    "kind",
    "at",
    "started_at",
    "model",
    "provider",
    "tags",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "usd",
    "ending",
    "usage_source",
    "budget",
)


def row_of(entry: Entry) -> Row:
    """
    The row of one entry, ready for JSON::

        {"id": "3f…", "kind": "call", "at": "2026-11-22T09:30:00.125+00:00", "started_at": "…", "model": "gpt-4o",
         "provider": "openai", "tags": {"feature": "search"}, "input_tokens": 400, "cached_tokens": 0,
         "cache_write_tokens": 0, "output_tokens": 120, "reasoning_tokens": 0, "usd": "0.0022", "ending": "ok",
         "usage_source": "provider", "budget": "search-team"}

    ``input_tokens`` contain the cached ones, ``output_tokens`` the reasoning. ``usd`` is None where no price is known.
    The figures of a ``correction`` are differences to what was counted before: sums over rows are always right.
    """
    facts = entry.facts
    return {
        "id": entry.id,
        "kind": entry.kind,
        "at": datetime_from_ms(entry.at_ms).isoformat(),
        "started_at": datetime_from_ms(entry.started_ms).isoformat(),
        "model": facts.model,
        "provider": facts.provider,
        "tags": dict(facts.tags),
        "input_tokens": entry.tokens(*INPUT_KINDS),
        "cached_tokens": entry.tokens(*CACHED_KINDS),
        "cache_write_tokens": entry.tokens("cache_write", "cache_write_1h"),
        "output_tokens": entry.tokens(*OUTPUT_KINDS),
        "reasoning_tokens": entry.tokens("reasoning"),
        "usd": None if entry.cost_nano is None else usd_decimal(entry.cost_nano),
        "ending": entry.ending,
        "usage_source": entry.usage_source,
        "budget": ", ".join(facts.budgets) or None,
    }
