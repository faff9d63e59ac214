"""The calls of a ledger's history, as :mod:`.replaying` makes them again: what each asked for, and what it used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..kernel.hold import DELEGATION, Entry
from ..kernel.money import div_ceil
from ..kernel.plan import CallFacts, Formula
from ..kernel.usage import Usage
from ..stores.contract import Asked, Store

PAGE = 10_000
_UNASKED = Asked(0, 0)


class Past(NamedTuple):
    """
    One call. ``facts`` are what it asked; ``usage`` and ``cost_nano`` what it came to, corrections included.

    ``x_want`` is the output per choice that it asked for. Where nothing was held nobody wrote that down: then what it
    used stands for what it asked.
    """

    id: str
    started_ms: int
    ended_ms: int
    facts: CallFacts
    x_want: int
    x_floor: int
    usage: Usage
    cost_nano: int | None
    ending: str

    @property
    def output_per_choice(self) -> int:
        """The output that one choice used, rounded up."""
        return div_ceil(self.usage.output_tokens, max(1, self.facts.choices))


def read_past(
    store: Store,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Past]:
    """The calls that ended between two instants, by when they began. *progress* is told how many rows are read."""
    asked = store.asked(since_ms=since_ms, until_ms=until_ms).result()
    rows: dict[str, list[Entry]] = {}
    done = after_seq = 0
    while page := store.entries(since_ms=since_ms, until_ms=until_ms, after_seq=after_seq, limit=PAGE).result():
        for entry in page:
            rows.setdefault(entry.hold_id, []).append(entry)
        after_seq = page[-1].seq
        done += len(page)
        progress(done)
    calls = [_call(found, asked) for found in rows.values() if found[0].kind == "call"]
    return sorted((call for call in calls if call.facts.dialect != DELEGATION), key=lambda call: call.started_ms)


def _call(rows: Iterable[Entry], asked: Mapping[str, Asked]) -> Past:
    first, *corrections = rows
    counts = dict(first.usage)
    cost_nano = first.cost_nano
    for row in corrections:
        for kind, count in row.usage:
            counts[kind] = counts.get(kind, 0) + count
        if cost_nano is not None or row.cost_nano is not None:
            cost_nano = (cost_nano or 0) + (row.cost_nano or 0)
    usage = Usage(**{kind: max(0, count) for kind, count in counts.items()})
    facts, (x_want, x_floor) = first.facts, asked.get(first.hold_id, _UNASKED)
    if not x_want and usage.output_tokens:
        x_want, x_floor = div_ceil(usage.output_tokens, max(1, facts.choices)), 1
    if facts.price is None and cost_nano is not None:
        facts = facts._replace(price=Formula(cost_nano))
    if facts.input_tokens < usage.input_tokens:
        facts = facts._replace(input_tokens=usage.input_tokens)
    return Past(
        id=first.hold_id,
        started_ms=first.started_ms,
        ended_ms=max(first.at_ms, first.started_ms),
        facts=facts,
        x_want=x_want,
        x_floor=x_floor,
        usage=usage,
        cost_nano=cost_nano,
        ending=first.ending,
    )
