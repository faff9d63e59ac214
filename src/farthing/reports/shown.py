"""One call, or one row, as the proxy shows it: the columns of an exported row, and what else is known of it."""

from __future__ import annotations

from typing import Any

from ..kernel.hold import HELD, SUSPECT, VOIDED, Entry, Hold, Outcome
from ..kernel.money import usd_decimal
from ..kernel.window import datetime_from_ms
from .rows import row_of


def shown_call(hold: Hold) -> dict[str, Any]:
    """
    What became of one call. ``state`` is ``held`` (in flight: the figures are what it holds, ``at`` and ``ending`` are
    None), ``settled``, ``voided`` or ``suspect`` (counted at its hold, nobody knows what it cost).
    """
    outcome = hold.outcome or _assumed(hold)
    in_flight = hold.state == HELD
    facts, usage = hold.facts, outcome.usage
    return {
        "id": hold.id,
        "state": hold.state,
        "at": None if in_flight else datetime_from_ms(hold.changed_ms).isoformat(),
        "started_at": datetime_from_ms(hold.placed_ms).isoformat(),
        "model": facts.model,
        "provider": facts.provider,
        "tags": dict(facts.tags),
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning,
        "usd": _usd(outcome.cost_nano),
        "ending": None if in_flight else outcome.ending,
        "usage_source": outcome.usage_source,
        "budget": ", ".join(facts.budgets) or None,
        "answered_by": outcome.model,
        "note": outcome.note,
    }


def shown_entry(entry: Entry) -> dict[str, Any]:
    """One row of the ledger, with its number. In a correction the figures are differences."""
    return {
        "seq": entry.seq,
        **row_of(entry),
        "answered_by": entry.model,
        "suspect": entry.suspect,
        "overrun": {unit: _usd(amount) if unit == "usd" else amount for unit, amount in entry.overrun},
        "note": entry.note,
    }


def _assumed(hold: Hold) -> Outcome:
    """What is counted for a call that has said nothing itself."""
    if hold.state != VOIDED:
        return hold.estimate()._replace(ending="suspect" if hold.state == SUSPECT else "settle_at_hold")
    return Outcome(cost_nano=None if hold.facts.price is None else 0, ending="voided", usage_source="estimate")


def _usd(cost_nano: int | None) -> str | None:
    return None if cost_nano is None else usd_decimal(cost_nano)
