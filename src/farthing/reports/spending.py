"""
Reports: where the money went. Read models over a ledger's sums and its count of denials.

A report covers this process; ``since="all"`` or a date covers the configured ledger. Corrections are rows too, with the
difference as their figures, so sums are always the truth of the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, SupportsIndex

from ..kernel.instants import instant_ms
from ..kernel.money import format_usd, nano_from_usd, usd_from_nano
from ..kernel.scope import check_tags, one_line
from ..kernel.sums import HOUR_MS, KEYS, NOTHING, Figures, SumKey, Sums
from ..kernel.window import datetime_from_ms
from ..runtime.default import runtime
from ..stores.contract import DenialKey, Store

_PARTS = {"model": "model", "provider": "provider", "budget": "budgets", "day": "day", "hour": "hour"}
Group = tuple[str | None, ...]


@dataclass(slots=True)
class Row:
    """The sums of one row, and the calls that were denied, or would have been by a ``warn`` budget."""

    figures: Figures = NOTHING
    denied: int = 0
    shadow_denied: int = 0

    def deny(self, key: DenialKey, count: int) -> None:
        if key.shadow:
            self.shadow_denied += count
        else:
            self.denied += count

    def to_dict(self) -> dict[str, Any]:
        figures = self.figures
        return {
            "usd": usd_from_nano(figures.usd_nano),
            "tokens": figures.input_tokens + figures.output_tokens,
            "input_tokens": figures.input_tokens,
            "cached_tokens": figures.cached_tokens,
            "output_tokens": figures.output_tokens,
            "reasoning_tokens": figures.reasoning_tokens,
            "calls": figures.calls,
            "denied": self.denied,
            "shadow_denied": self.shadow_denied,
            "unpriced_calls": figures.unpriced_calls,
            "suspect": figures.suspect,
        }


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """
    Rows of sums, largest cost first; by ``day`` or ``hour`` first of all in their order. Each is a dict, whether you go
    through them or ask for one (``report[0]``)::

        {"tags": {"feature": "search"}, "usd": Decimal("0.0123"), "tokens": 4120, "input_tokens": …, "cached_tokens": …,
         "output_tokens": …, "reasoning_tokens": …, "calls": 9, "denied": 0, "shadow_denied": 0, "unpriced_calls": 0,
         "suspect": 0}

    ``tags`` has the group keys; a key that a call does not have is None. ``usd`` leaves out calls without a known
    price, which ``unpriced_calls`` counts; ``shadow_denied`` counts what ``on_exceed="warn"`` would have denied.
    """

    group_by: tuple[str, ...]
    rows: tuple[tuple[Group, Row], ...]
    whole: Row
    dropped: int
    """Calls of this process that it no longer knows (``max_records``), and that are in no row."""
    _sums: Sums
    _parts: frozenset[str]
    _read: Callable[[Collection[str]], Sums]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_dicts())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        return self.to_dicts()[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as dicts of plain types; ``usd`` is a Decimal."""
        return [{"tags": dict(zip(self.group_by, key, strict=True)), **row.to_dict()} for key, row in self.rows]

    def total(self) -> Decimal:
        """What all of it cost, in USD."""
        return usd_from_nano(self.whole.figures.usd_nano)

    def totals(self) -> dict[str, Any]:
        """The sums over all rows, with the keys of a row."""
        return self.whole.to_dict()

    def assert_under(self, usd: Decimal | int | float, **tags: object) -> None:
        """
        Cost as a test assertion: raises AssertionError, naming the figure, if these calls cost more than *usd*, or if
        one of them has no known price (then nobody can say what they cost), or if *tags* are given that no call
        carries: a misspelt tag must not pass for ever. ``usd=0`` says that no call is meant to be there.
        """
        limit_nano = nano_from_usd(usd, field="usd")
        wanted = check_tags(tags, field="assert_under")
        parts = _parts_of(wanted)
        # What was not told apart when this report was made is read again.
        sums = self._sums if parts <= self._parts else self._read(self._parts | parts)
        figures = _total(figures for key, figures in sums.items() if _matches(key, wanted))
        if wanted and limit_nano and not figures.calls:
            carried = " and ".join(f"{name}={value!r}" for name, value in wanted.items())
            raise AssertionError(f"no call carries {carried}, so nothing was asserted; usd=0 would say that none may")
        of = " for " + ", ".join(f"{name}={value}" for name, value in wanted.items()) if wanted else ""
        if figures.unpriced_calls:
            raise AssertionError(
                f"{figures.unpriced_calls} of {figures.calls} calls{of} have no known price: their cost is unknown"
            )
        if figures.usd_nano > limit_nano:
            raise AssertionError(
                f"{figures.calls} calls{of} cost {format_usd(figures.usd_nano)}, more than {format_usd(limit_nano)}"
            )

    def __repr__(self) -> str:
        # What a shell or a notebook shows of it.
        return str(self)

    def __str__(self) -> str:
        heads = [*self.group_by, "usd", "tokens", "input", "output", "calls", "denied"]
        if self.whole.shadow_denied:
            heads.append("would deny")
        lines = [[*(_shown(part) for part in key), *_cells(row)] for key, row in self.rows]
        if len(self.rows) != 1:
            total = ["total", *[""] * (len(self.group_by) - 1)] if self.group_by else []
            lines.append([*total, *_cells(self.whole)])
        lines = [line[: len(heads)] for line in lines]
        widths = [max(len(line[index]) for line in [heads, *lines]) for index in range(len(heads))]
        texts = len(self.group_by)
        table = [
            "  ".join(
                cell.ljust(width) if index < texts else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in [heads, *lines]
        ]
        if unpriced := self.whole.figures.unpriced_calls:
            table.append(f"* without {unpriced:,} {'call' if unpriced == 1 else 'calls'} whose price is not known")
        if self.dropped:
            table.append(f"({self.dropped:,} earlier calls are not in it: a process keeps max_records)")
        return "\n".join(table)


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
        since: None covers this process; ``"all"``, a date, an ISO text or a span back from now (``"7d"``, a timedelta)
            covers the calls that the configured ledger (without one: this process) has from then on.
        until: up to, but not including, this instant (a date: its midnight, UTC).
        where: only calls with these tags (or model, provider, budget, day, hour).

    Raises ValueError naming the argument; StoreUnavailable.
    """
    here = runtime()
    here.housekeeper.catch_up()
    now_ms = here.memory_store.now()
    store: Store = here.memory_store
    # Of the calls in memory everything is told apart at once: it costs little, and assert_under() needs no second look.
    parts: Collection[str] = KEYS
    if since is not None and here.durable is not None:
        store, parts = here.durable.store, ()
        here.housekeeper.flush_denials(store)
    since_ms = None if since is None or since == "all" else instant_ms(since, now_ms, argument="since")
    until_ms = None if until is None else instant_ms(until, now_ms, argument="until")
    return read_report(
        store,
        group_by=group_by,
        since_ms=since_ms,
        until_ms=until_ms,
        where=where,
        parts=parts,
        dropped=here.memory_store.dropped if store is here.memory_store else 0,
    )


def read_report(
    store: Store,
    *,
    group_by: str | Sequence[str] = (),
    since_ms: int | None = None,
    until_ms: int | None = None,
    where: Mapping[str, object] | None = None,
    parts: Collection[str] = (),
    dropped: int = 0,
) -> Report:
    """
    A report over one store, of the calls that were made between two instants in milliseconds. *parts* of the calls
    are told apart besides what the report needs.
    """
    keys = _group_keys(group_by)
    wanted = check_tags(where or {}, field="where")
    told_apart = frozenset(parts) | _parts_of((*keys, *wanted))

    def read(by: Collection[str]) -> Sums:
        found = store.sums(tuple(by), since_ms=since_ms, until_ms=until_ms).result()
        return {key: figures for key, figures in found.items() if _matches(key, wanted)}

    sums = read(told_apart)
    rows: dict[Group, Row] = {}
    for key, figures in sums.items():
        for group in _groups(keys, key):
            row = rows.setdefault(group, Row())
            row.figures = row.figures.plus(figures)
    whole = Row(_total(sums.values()))
    # Denials are counted by the hour: that of the first instant counts as a whole.
    hour_ms = None if since_ms is None else since_ms - since_ms % HOUR_MS
    for denial, count in store.denials(since_ms=hour_ms, until_ms=until_ms).result().items():
        if all(_denial_key(denial, name) == value for name, value in wanted.items()):
            whole.deny(denial, count)
            rows.setdefault(tuple(_denial_key(denial, name) for name in keys), Row()).deny(denial, count)
    return Report(keys, _ordered(keys, rows), whole, dropped, sums, told_apart, read)


def _ordered(keys: tuple[str, ...], rows: dict[Group, Row]) -> tuple[tuple[Group, Row], ...]:
    by_time = bool(keys) and keys[0] in ("day", "hour")

    def rank(item: tuple[Group, Row]) -> tuple[str, int, int, list[str]]:
        group, row = item
        texts = [part or "" for part in group]
        return (texts[0] if by_time else "", -row.figures.usd_nano, -row.figures.calls, texts)

    return tuple(sorted(rows.items(), key=rank))


def _total(sums: Iterable[Figures]) -> Figures:
    total = NOTHING
    for figures in sums:
        total = total.plus(figures)
    return total


def _parts_of(names: Iterable[str]) -> frozenset[str]:
    """What sums have to be told apart by, so that these keys can be read."""
    return frozenset(_PARTS.get(name, "tags") for name in names)


def _group_keys(group_by: object) -> tuple[str, ...]:
    if isinstance(group_by, str):
        return (group_by,)
    if not isinstance(group_by, Sequence) or not all(isinstance(key, str) and key for key in group_by):
        raise ValueError(f"group_by must be tag names, not {group_by!r}")
    return tuple(group_by)


def _groups(keys: tuple[str, ...], key: SumKey) -> list[Group]:
    """The rows a sum belongs to: one, unless it is grouped by budget and its calls were held on several."""
    if "budget" not in keys:
        return [tuple(_key(key, name) for name in keys)]
    budgets: Sequence[str | None] = key.budgets or (None,)
    return [tuple(budget if name == "budget" else _key(key, name) for name in keys) for budget in budgets]


def _matches(key: SumKey, wanted: Mapping[str, str]) -> bool:
    return all(value in key.budgets if name == "budget" else _key(key, name) == value for name, value in wanted.items())


def _key(key: SumKey, name: str) -> str | None:
    match name:
        case "model":
            return key.model
        case "provider":
            return key.provider
        case "budget":
            return ", ".join(key.budgets) or None
        case "day" | "hour":
            return None if key.start_ms is None else _time_key(key.start_ms, name)
    return next((value for tag, value in key.tags if tag == name), None)


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


def _cells(row: Row) -> list[str]:
    figures = row.figures
    return [
        format_usd(figures.usd_nano) + ("*" if figures.unpriced_calls else ""),
        f"{figures.input_tokens + figures.output_tokens:,}",
        f"{figures.input_tokens:,}",
        f"{figures.output_tokens:,}",
        f"{figures.calls:,}",
        f"{row.denied:,}",
        f"{row.shadow_denied:,}",
    ]


def _shown(part: str | None) -> str:
    return "—" if part is None else one_line(part)
