"""
Reports: where the money went. Read models over a ledger's entries and its count of denials.

A report covers this process; ``since="all"`` or a date covers the configured ledger. Corrections are rows too, with the
difference as their figures, so sums are always the truth of the moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from ..kernel.hold import Entry
from ..kernel.money import format_usd, nano_from_usd, usd_from_nano
from ..kernel.scope import check_tags
from ..kernel.window import datetime_from_ms
from ..stores.contract import DenialKey, Store
from .default import runtime
from .instants import instant_ms

OWN_KEYS = ("model", "provider", "budget", "day", "hour")
"""Group keys that every call has by itself; any other key is a tag."""
_INPUT = ("input", "cached", "cache_write", "cache_write_1h", "input_audio", "cached_audio", "input_image")
_CACHED = ("cached", "cached_audio")
_OUTPUT = ("output", "output_audio", "output_image")


@dataclass(slots=True)
class Figures:
    """The sums of one row. ``usd_nano`` leaves out calls without a known price: ``unpriced_calls`` counts them."""

    usd_nano: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    calls: int = 0
    suspect: int = 0
    denied: int = 0
    shadow_denied: int = 0
    unpriced_calls: int = 0

    def add(self, entry: Entry) -> None:
        for kind, count in entry.usage:
            if kind in _INPUT:
                self.input_tokens += count
                if kind in _CACHED:
                    self.cached_tokens += count
            elif kind in _OUTPUT:
                self.output_tokens += count
            elif kind == "reasoning":
                self.reasoning_tokens += count
        self.usd_nano += entry.cost_nano or 0
        if entry.kind == "call":
            self.calls += 1
            self.suspect += entry.suspect
            self.unpriced_calls += entry.cost_nano is None
        elif entry.resolves_suspect:
            self.suspect -= 1

    def deny(self, key: DenialKey, count: int) -> None:
        if key.shadow:
            self.shadow_denied += count
        else:
            self.denied += count


@dataclass(frozen=True, slots=True)
class Report:
    """
    Rows of sums, largest cost first. Iterating gives dicts::

        {"tags": {"feature": "search"}, "usd": Decimal("0.0123"), "tokens": 4120, "input_tokens": …, "cached_tokens": …,
         "output_tokens": …, "reasoning_tokens": …, "calls": 9, "denied": 0, "unpriced_calls": 0, "suspect": 0}

    ``tags`` has the group keys; a key that a call does not have is None.
    """

    group_by: tuple[str, ...]
    rows: tuple[tuple[tuple[str | None, ...], Figures], ...]
    whole: Figures
    _entries: Sequence[Entry] = field(repr=False)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_dicts())

    def __len__(self) -> int:
        return len(self.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as dicts of plain types; ``usd`` is a Decimal."""
        return [{"tags": dict(zip(self.group_by, key, strict=True)), **_row(figures)} for key, figures in self.rows]

    def total(self) -> Decimal:
        """What all of it cost, in USD."""
        return usd_from_nano(self.whole.usd_nano)

    def totals(self) -> dict[str, Any]:
        """The sums over all rows, with the keys of a row."""
        return _row(self.whole)

    def assert_under(self, usd: Decimal | int | float, **tags: object) -> None:
        """
        Cost as a test assertion: raises AssertionError, naming the figure, if these calls cost more than *usd*, or if
        one of them has no known price (then nobody can say what they cost), or if *tags* are given that no call
        carries: a misspelt tag must not pass for ever. ``usd=0`` says that no call is meant to be there.
        """
        limit_nano = nano_from_usd(usd, field="usd")
        wanted = check_tags(tags, field="assert_under")
        figures = Figures()
        for entry in self._entries:
            if all(_key(entry, name) == value for name, value in wanted.items()):
                figures.add(entry)
        if wanted and limit_nano and not figures.calls:
            carried = " and ".join(f"{name}={value!r}" for name, value in wanted.items())
            raise AssertionError(f"no call carries {carried}, so nothing was asserted; usd=0 would say that none may")
        of = " for " + ", ".join(f"{name}={value}" for name, value in wanted.items()) if wanted else ""
        if figures.unpriced_calls:
            raise AssertionError(f"{figures.unpriced_calls} of {figures.calls} calls{of} have no known price")
        if figures.usd_nano > limit_nano:
            raise AssertionError(
                f"{figures.calls} calls{of} cost {format_usd(figures.usd_nano)}, more than {format_usd(limit_nano)}"
            )

    def __str__(self) -> str:
        heads = [*self.group_by, "usd", "tokens", "input", "output", "calls", "denied"]
        lines = [[*(_shown(part) for part in key), *_cells(figures)] for key, figures in self.rows]
        if len(self.rows) != 1:
            lines.append([*("total" if index == 0 else "" for index in range(len(self.group_by))), *_cells(self.whole)])
        widths = [max(len(line[index]) for line in [heads, *lines]) for index in range(len(heads))]
        texts = len(self.group_by)
        return "\n".join(
            "  ".join(
                cell.ljust(width) if index < texts else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in [heads, *lines]
        )


def report(
    group_by: str | Sequence[str] = (),
    *,
    since: str | date | datetime | None = None,
    until: str | date | datetime | None = None,
    where: Mapping[str, object] | None = None,
) -> Report:
    """
    Where the money went.

    Args:
        group_by: tags, or ``model provider budget day hour``: one row per combination; none: one row in all.
        since: None covers this process; ``"all"``, a date, an ISO text or a span back from now (``"7d"``, ``"12h"``)
            covers the configured ledger (without one: this process) from then on.
        until: up to, but not including, this instant (a date: its midnight, UTC).
        where: only calls with these tags.

    Raises ValueError naming the argument; StoreUnavailable.
    """
    here = runtime()
    here.housekeeper.catch_up()
    now_ms = here.memory_store.now()
    store: Store = here.memory_store
    if since is not None and here.durable is not None:
        store = here.durable.store
        here.housekeeper.flush_denials(store)
    since_ms = None if since is None or since == "all" else instant_ms(since, now_ms, argument="since")
    until_ms = None if until is None else instant_ms(until, now_ms, argument="until")
    return read_report(store, group_by=group_by, since_ms=since_ms, until_ms=until_ms, where=where)


def read_report(
    store: Store,
    *,
    group_by: str | Sequence[str] = (),
    since_ms: int | None = None,
    until_ms: int | None = None,
    where: Mapping[str, object] | None = None,
) -> Report:
    """A report over one store, between two instants in milliseconds."""
    keys = _group_keys(group_by)
    wanted = check_tags(where or {}, field="where")
    entries = [
        entry
        for entry in store.entries(since_ms=since_ms, until_ms=until_ms).result()
        if all(_key(entry, name) == value for name, value in wanted.items())
    ]
    rows: dict[tuple[str | None, ...], Figures] = {}
    whole = Figures()
    for entry in entries:
        whole.add(entry)
        for group in _groups(keys, entry):
            rows.setdefault(group, Figures()).add(entry)
    for denial, count in store.denials(since_ms=since_ms, until_ms=until_ms).result().items():
        if all(_denial_key(denial, name) == value for name, value in wanted.items()):
            whole.deny(denial, count)
            group = tuple(_denial_key(denial, name) for name in keys)
            rows.setdefault(group, Figures()).deny(denial, count)
    ordered = sorted(rows.items(), key=lambda row: (-row[1].usd_nano, -row[1].calls, [part or "" for part in row[0]]))
    return Report(keys, tuple(ordered), whole, entries)


def _group_keys(group_by: object) -> tuple[str, ...]:
    if isinstance(group_by, str):
        return (group_by,)
    if not isinstance(group_by, Sequence) or not all(isinstance(key, str) and key for key in group_by):
        raise ValueError(f"group_by must be tag names, not {group_by!r}")
    return tuple(group_by)


def _groups(keys: tuple[str, ...], entry: Entry) -> list[tuple[str | None, ...]]:
    """The rows an entry belongs to: one, unless it is grouped by budget and was held on several."""
    if "budget" not in keys:
        return [tuple(_key(entry, name) for name in keys)]
    budgets: Sequence[str | None] = entry.facts.budgets or (None,)
    return [tuple(budget if name == "budget" else _key(entry, name) for name in keys) for budget in budgets]


def _key(entry: Entry, name: str) -> str | None:
    facts = entry.facts
    match name:
        case "model":
            return facts.model
        case "provider":
            return facts.provider
        case "budget":
            return ", ".join(facts.budgets) or None
        case "day" | "hour":
            return _time_key(entry.started_ms, name)
    return next((value for tag, value in facts.tags if tag == name), None)


def _denial_key(key: DenialKey, name: str) -> str | None:
    match name:
        case "model":
            return key.model or None
        case "provider":
            return key.provider or None
        case "budget":
            return key.budget
        case "day" | "hour":
            return _time_key(key.hour_ms, name)
    return next((value for tag, value in key.tags if tag == name), None)


def _time_key(at_ms: int, name: str) -> str:
    return f"{datetime_from_ms(at_ms):{'%Y-%m-%d' if name == 'day' else '%Y-%m-%d %H:00'}}"


def _row(figures: Figures) -> dict[str, Any]:
    return {
        "usd": usd_from_nano(figures.usd_nano),
        "tokens": figures.input_tokens + figures.output_tokens,
        "input_tokens": figures.input_tokens,
        "cached_tokens": figures.cached_tokens,
        "output_tokens": figures.output_tokens,
        "reasoning_tokens": figures.reasoning_tokens,
        "calls": figures.calls,
        "denied": figures.denied,
        "shadow_denied": figures.shadow_denied,
        "unpriced_calls": figures.unpriced_calls,
        "suspect": figures.suspect,
    }


def _cells(figures: Figures) -> list[str]:
    return [
        format_usd(figures.usd_nano) + ("*" if figures.unpriced_calls else ""),
        f"{figures.input_tokens + figures.output_tokens:,}",
        f"{figures.input_tokens:,}",
        f"{figures.output_tokens:,}",
        f"{figures.calls:,}",
        f"{figures.denied:,}",
    ]


def _shown(part: str | None) -> str:
    return "—" if part is None else part
