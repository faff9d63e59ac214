"""Holds as an operator looks at them: what is in flight, what is suspect, and how a suspect is resolved by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..kernel.hold import HELD, SUSPECT, Hold
from ..kernel.money import usd_decimal
from ..kernel.window import datetime_from_ms
from ..stores.contract import Store, SweepPolicy

KEEP = SweepPolicy(suspect_policy="keep")
"""Looking at a ledger resolves nothing in it: that is for the programs that use it, or for a person who says so."""


@dataclass(frozen=True, slots=True)
class OpenHold:
    """
    A hold that is still counted. ``tokens`` and ``usd_nano`` are what it holds (None: no price is known). ``state`` is
    ``held`` (its process lives) or ``suspect``; ``since`` is when it became so.
    """

    id: str
    state: str
    model: str | None
    budgets: tuple[str, ...]
    tags: dict[str, str]
    tokens: int
    usd_nano: int | None
    owner: str
    placed_at: datetime
    since: datetime
    age_ms: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: USD as a decimal string, instants as ISO 8601."""
        return {
            "id": self.id,
            "state": self.state,
            "model": self.model,
            "budgets": list(self.budgets),
            "tags": self.tags,
            "tokens": self.tokens,
            "usd": None if self.usd_nano is None else usd_decimal(self.usd_nano),
            "owner": self.owner,
            "placed_at": self.placed_at.isoformat(),
            "since": self.since.isoformat(),
            "age_seconds": self.age_ms // 1000,
        }


def open_holds(store: Store) -> list[OpenHold]:
    """
    Every hold that is still counted, oldest first. Holds of processes that are gone are suspect: the ledger is swept.
    """
    while store.sweep(KEEP).result():
        pass
    now_ms = store.now()
    return [_open_hold(hold, now_ms) for hold in store.holds(HELD, SUSPECT).result()]


def resolve_holds(store: Store, ids: list[str], policy: str, *, note: str | None = None) -> list[OpenHold]:
    """
    End suspect holds without their calls' word: ``settle_at_hold`` counts all that was held as spent, ``release`` gives
    it back. Returns them as they were. Should a call still report what it cost, that truth corrects the figure.

    Raises HoldNotFound; HoldConflict for one that is not suspect; ValueError for an unknown policy.
    """
    now_ms = store.now()
    resolved = []
    for hold_id in ids:
        settled = store.resolve(hold_id, policy, note=note).result()
        resolved.append(_open_hold(settled.hold, now_ms))
    return resolved


def _open_hold(hold: Hold, now_ms: int) -> OpenHold:
    held = hold.estimate()
    return OpenHold(
        id=hold.id,
        state=hold.state,
        model=hold.facts.model,
        budgets=hold.facts.budgets,
        tags=dict(hold.facts.tags),
        tokens=held.usage.total_tokens,
        usd_nano=held.cost_nano,
        owner=hold.owner,
        placed_at=datetime_from_ms(hold.placed_ms),
        since=datetime_from_ms(hold.changed_ms),
        age_ms=max(0, now_ms - hold.placed_ms),
    )
