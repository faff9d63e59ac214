"""
Tallies: what metrics count. Sums over rows, told apart by how calls ended.

They only grow: a correction, whose figures are differences, is counted apart from the calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .hold import Entry
from .usage import KINDS


class TallyKey(NamedTuple):
    """What rows are told apart by."""

    kind: str
    """``call`` or ``correction``."""
    provider: str
    model: str
    ending: str
    usage_source: str


class Tally(NamedTuple):
    """Sums over rows with one key."""

    calls: int = 0
    priced: int = 0
    """Of these, with a known price."""
    cost_nano: int = 0
    overrun: int = 0
    """Calls that cost more than was held."""
    milliseconds: int = 0
    """From hold to end."""
    usage: tuple[int, ...] = (0,) * len(KINDS)
    """By ``KINDS``."""

    def plus(self, other: Tally) -> Tally:
        return Tally(
            self.calls + other.calls,
            self.priced + other.priced,
            self.cost_nano + other.cost_nano,
            self.overrun + other.overrun,
            self.milliseconds + other.milliseconds,
            tuple(map(int.__add__, self.usage, other.usage)),
        )


NOTHING = Tally()


def tally_entries(entries: Iterable[Entry], onto: dict[TallyKey, Tally] | None = None) -> dict[TallyKey, Tally]:
    """The sums of these rows, on top of others."""
    sums = dict(onto or {})
    for entry in entries:
        facts = entry.facts
        key = TallyKey(entry.kind, facts.provider or "", facts.model or "", entry.ending, entry.usage_source)
        row = Tally(
            1,
            int(entry.cost_nano is not None),
            entry.cost_nano or 0,
            int(bool(entry.overrun)),
            entry.at_ms - entry.started_ms,
            entry.said.usage,
        )
        sums[key] = sums.get(key, NOTHING).plus(row)
    return sums
