"""One call as people and programs are shown it: flat, JSON types, the figures of this instant."""

from __future__ import annotations

from typing import Any

from ..kernel.hold import HELD, SUSPECT, VOIDED, Entry, Hold, Outcome
from ..kernel.money import usd_from_nano
from ..kernel.plan import CallFacts
from ..kernel.usage import KINDS
from ..kernel.window import datetime_from_ms

_INPUT = ("input", "cached", "cache_write", "cache_write_1h", "input_audio", "cached_audio", "input_image")
_OUTPUT = ("output", "output_audio", "output_image")


def shown_call(hold: Hold) -> dict[str, Any]:
    """
    What became of one call. ``state`` is ``held`` (in flight: the figures are what it holds), ``settled``, ``voided``
    or ``suspect`` (counted at its hold, nobody knows what it cost).
    """
    outcome = hold.outcome or _assumed(hold)
    return {
        "id": hold.id,
        "state": hold.state,
        "at": datetime_from_ms(hold.placed_ms).isoformat(),
        "ended_at": None if hold.state == HELD else datetime_from_ms(hold.changed_ms).isoformat(),
        **_whose(hold.facts),
        "answered_by": outcome.model,
        **_tokens({kind: getattr(outcome.usage, kind) for kind in KINDS}),
        "usd": _usd(outcome.cost_nano),
        "ending": None if hold.state == HELD else outcome.ending,
        "usage_source": outcome.usage_source,
        "note": outcome.note,
    }


def shown_entry(entry: Entry) -> dict[str, Any]:
    """One row of the ledger. In a correction the figures are differences."""
    return {
        "seq": entry.seq,
        "id": entry.hold_id,
        "kind": entry.kind,
        "at": datetime_from_ms(entry.started_ms).isoformat(),
        "ended_at": datetime_from_ms(entry.at_ms).isoformat(),
        **_whose(entry.facts),
        "answered_by": entry.model,
        **_tokens(dict(entry.usage)),
        "usd": _usd(entry.cost_nano),
        "ending": entry.ending,
        "usage_source": entry.usage_source,
        "suspect": entry.suspect,
        "overrun": {unit: _usd(amount) if unit == "usd" else amount for unit, amount in entry.overrun},
        "note": entry.note,
    }


def _assumed(hold: Hold) -> Outcome:
    """What is counted for a call that has said nothing itself."""
    if hold.state != VOIDED:
        ending = {HELD: "", SUSPECT: "suspect"}.get(hold.state, "settle_at_hold")
        return hold.estimate()._replace(ending=ending)
    return Outcome(cost_nano=None if hold.facts.price is None else 0, ending="voided", usage_source="estimate")


def _whose(facts: CallFacts) -> dict[str, Any]:
    return {
        "model": facts.model,
        "provider": facts.provider,
        "tags": dict(facts.tags),
        "budgets": list(facts.budgets),
    }


def _tokens(usage: dict[str, int]) -> dict[str, int]:
    return {
        "input_tokens": sum(usage.get(kind, 0) for kind in _INPUT),
        "cached_tokens": usage.get("cached", 0) + usage.get("cached_audio", 0),
        "cache_write_tokens": usage.get("cache_write", 0) + usage.get("cache_write_1h", 0),
        "output_tokens": sum(usage.get(kind, 0) for kind in _OUTPUT),
        "reasoning_tokens": usage.get("reasoning", 0),
    }


def _usd(cost_nano: int | None) -> str | None:
    return None if cost_nano is None else format(usd_from_nano(cost_nano), "f")
