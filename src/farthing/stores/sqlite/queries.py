"""Reads of any size, each a function of a connection inside one snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import Any

from ...kernel.balances import Amounts, Balances, bare
from ...kernel.hold import HELD, LIVE, SETTLED, SUSPECT, VOIDED, Entry, Hold
from ...kernel.sums import DAY_MS, KEYS, NOTHING, SPANS_MS, Figures, SumKey, Sums, coarser
from ...kernel.tallies import NOTHING as NO_TALLY
from ...kernel.tallies import Tally, TallyKey
from ...kernel.usage import CACHED_KINDS, INPUT_KINDS, KINDS, OUTPUT_KINDS
from ..contract import Asked, DenialKey, Journal, Tallies
from . import rows

_STATES = (HELD, SUSPECT, SETTLED, VOIDED)
_SELECT_NUMBERED = rows.SELECT_HOLD.replace("SELECT ", "SELECT holds.no, ", 1)


def holds(connection: sqlite3.Connection, states: Sequence[str]) -> tuple[Hold, ...]:
    """Holds in these states, oldest first."""
    found: list[tuple[int, Hold]] = []
    for state in _STATES:
        if state in states:
            # The state is written out, and the order is not asked of SQL, so that the indexes of live holds are used:
            # a report of what is open must not walk over every call there ever was.
            for no, *row in connection.execute(f"{_SELECT_NUMBERED} WHERE holds.state = '{state}'"):
                found.append((no, rows.hold_from_row(row)))
    return tuple(hold for _, hold in sorted(found, key=itemgetter(0)))


def balances(connection: sqlite3.Connection, at_ms: int | None) -> dict[str, Balances]:
    """Every account, or those that a window of this instant may look at."""
    where, values = ("", ()) if at_ms is None else ("WHERE ends_ms IS NULL OR ends_ms > ?", (at_ms,))
    found = connection.execute(f"SELECT key, {', '.join(Balances._fields)} FROM balances {where}", values)
    return {key: bare(Balances, row) for key, *row in found}


def entries(
    connection: sqlite3.Connection, since_ms: int | None, until_ms: int | None, after_seq: int, limit: int | None
) -> list[Entry]:
    """Rows with ``since <= at < until``, in order; at most *limit* that come after *after_seq*."""
    where, values = _between("entries.at_ms", since_ms, until_ms)
    # The plus keeps SQLite from walking all rows in order where the index by time finds the few that are meant.
    order = "+entries.seq" if where and limit is None else "entries.seq"
    after = f"{'AND' if where else 'WHERE'} entries.seq > ?" if after_seq or limit is not None else ""
    values += [after_seq] if after else []
    most = "" if limit is None else f"LIMIT {int(limit)}"
    found = connection.execute(f"{rows.SELECT_ENTRY} {where} {after} ORDER BY {order} {most}", values)
    return [rows.entry_from_row(row) for row in found]


def sums(connection: sqlite3.Connection, by: Collection[str], since_ms: int | None, until_ms: int | None) -> Sums:
    """As :meth:`farthing.stores.contract.Store.sums` says: of the rows, by SQL, and of the days that were rolled up."""
    span_ms = next((SPANS_MS[name] for name in ("hour", "day") if name in by), None)
    start = "NULL" if span_ms is None else f"entries.started_ms - entries.started_ms % {span_ms}"
    keys = ", ".join(f"holds.{name}" if name in by else "NULL" for name in KEYS)
    where, values = _between("entries.started_ms", since_ms, until_ms)
    if since_ms is not None:
        # No row is written before its call is placed; the index is by the time of writing.
        where += " AND entries.at_ms >= ?"
        values.append(since_ms)
    grouped = ", ".join(["start_ms"] * (span_ms is not None) + [f"holds.{name}" for name in KEYS if name in by])
    group = f"GROUP BY {grouped}" if grouped else ""
    found = connection.execute(
        f"SELECT {start} AS start_ms, {keys}, {_FIGURES} FROM entries JOIN holds ON holds.id = entries.hold_id "
        f"{where} {group}",
        values,
    )
    result: Sums = {}
    for row in found:
        if row[-3] is not None:  # a sum over no rows at all
            result[_sum_key(row)] = bare(Figures, row[5:])
    day_ms = None if since_ms is None else since_ms - since_ms % DAY_MS
    where, values = _between("day_ms", day_ms, until_ms)
    names = ", ".join(Figures._fields)
    for row in connection.execute(f"SELECT day_ms, {', '.join(KEYS)}, {names} FROM sums {where}", values):
        key = coarser(_sum_key(row), by)
        result[key] = result.get(key, NOTHING).plus(Figures(*row[5:]))
    return result


def _sum_key(row: Sequence[Any]) -> SumKey:
    start_ms, model, provider, tags, budgets = row[:5]
    fields = (start_ms, model or None, provider or None, rows.pairs(tags or "[]"), rows.names(budgets or "[]"))
    return bare(SumKey, fields)


def _total(kinds: Sequence[str]) -> str:
    return f"sum({' + '.join(f'entries.{kind}' for kind in kinds)})"


_NO_COST = "entries.cost_nano IS NULL"
_FIGURES = ", ".join(
    (  # in the order of Figures, and as its figures_of() says
        "sum(coalesce(entries.cost_nano, 0))",
        _total(INPUT_KINDS),
        _total(CACHED_KINDS),
        _total(OUTPUT_KINDS),
        "sum(entries.reasoning)",
        "sum(entries.kind = 'call')",
        "sum(iif(entries.kind = 'call', entries.suspect, -entries.resolves_suspect))",
        f"sum(iif(entries.kind = 'call', {_NO_COST}, -(NOT {_NO_COST} AND holds.price IS NULL)))",
    )
)


def asked(connection: sqlite3.Connection, since_ms: int | None, until_ms: int | None) -> dict[str, Asked]:
    """What the holds of these rows asked for, by id."""
    where, values = _between("entries.at_ms", since_ms, until_ms)
    found = connection.execute(
        f"SELECT holds.id, holds.x_want, holds.x_floor FROM entries JOIN holds ON holds.id = entries.hold_id {where}",
        values,
    )
    return {hold_id: Asked(*figures) for hold_id, *figures in found}


def journal(connection: sqlite3.Connection) -> Journal:
    """All rows, the holds that are still counted, and the snapshot of what went before them."""
    found = connection.execute("SELECT key, tokens, usd, requests FROM snapshot")
    snapshot: dict[str, Amounts] = {key: (tokens, usd, requests, 0) for key, tokens, usd, requests in found}
    return Journal(snapshot, entries(connection, None, None, 0, None), holds(connection, LIVE))


_TALLY_ENTRIES = (
    "SELECT entries.kind, ifnull(holds.provider, ''), ifnull(holds.model, ''), entries.ending, entries.usage_source, "
    "count(*), count(entries.cost_nano), ifnull(sum(entries.cost_nano), 0), count(entries.overrun), "
    f"sum(entries.at_ms - entries.started_ms), {', '.join(f'sum(entries.{kind})' for kind in KINDS)} "
    "FROM entries JOIN holds ON holds.id = entries.hold_id WHERE entries.seq > ? GROUP BY 1, 2, 3, 4, 5"
)


def tally(connection: sqlite3.Connection, after_seq: int) -> Tallies:
    """Sums over the rows after this number, or over all that there ever were."""
    (seq,) = connection.execute("SELECT ifnull(max(seq), 0) FROM entries").fetchone()
    (tallied,) = connection.execute("SELECT value FROM meta WHERE key = 'tallied_seq'").fetchone()
    whole = after_seq < max(1, tallied)
    found = connection.execute(_TALLY_ENTRIES, (0 if whole else after_seq,)).fetchall()
    if whole:
        found += connection.execute(f"SELECT {', '.join(rows.TALLIED)} FROM tallies").fetchall()
    sums: dict[TallyKey, Tally] = {}
    for row in found:
        key = TallyKey(*row[:5])
        sums[key] = sums.get(key, NO_TALLY).plus(Tally(row[5], row[6], row[7], row[8], row[9], row[10:]))
    return Tallies(max(seq, tallied, after_seq), sums, whole)


def denials(connection: sqlite3.Connection, since_ms: int | None, until_ms: int | None) -> dict[DenialKey, int]:
    """Counts of the hours that began in this span."""
    where, values = _between("hour_ms", since_ms, until_ms)
    found = connection.execute(f"{rows.SELECT_DENIAL} {where} ORDER BY hour_ms", values)
    return dict(rows.denial_from_row(row) for row in found)


def _between(column: str, since_ms: int | None, until_ms: int | None) -> tuple[str, list[int]]:
    bounds = [(f"{column} >= ?", since_ms), (f"{column} < ?", until_ms)]
    given = [(text, at_ms) for text, at_ms in bounds if at_ms is not None]
    where = " AND ".join(text for text, _ in given)
    return (f"WHERE {where}" if where else ""), [at_ms for _, at_ms in given]
