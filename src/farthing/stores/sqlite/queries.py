"""Reads of any size, each a function of a connection inside one snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from operator import itemgetter

from ...kernel.hold import HELD, LIVE, SETTLED, SUSPECT, VOIDED, Entry, Hold
from ...kernel.plan import Balance
from ...kernel.usage import KINDS
from ..contract import DenialKey, Journal, Tallies, Tally, TallyKey
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


def balances(connection: sqlite3.Connection) -> dict[str, Balance]:
    """Every counter."""
    found = connection.execute("SELECT key, settled, held, suspect FROM counters")
    return {key: Balance(settled, held, suspect) for key, settled, held, suspect in found}


def entries(connection: sqlite3.Connection, since_ms: int | None, until_ms: int | None) -> list[Entry]:
    """Rows with ``since <= at < until``, in order."""
    where, values = _between("entries.at_ms", since_ms, until_ms)
    # The plus keeps SQLite from walking all rows in order where the index by time finds the few that are meant.
    order = "+entries.seq" if where else "entries.seq"
    found = connection.execute(f"{rows.SELECT_ENTRY} {where} ORDER BY {order}", values)
    return [rows.entry_from_row(row) for row in found]


def journal(connection: sqlite3.Connection) -> Journal:
    """All rows, and the holds that are still counted."""
    return Journal({}, entries(connection, None, None), holds(connection, LIVE))


_SUMS = (
    "SELECT entries.kind, ifnull(holds.provider, ''), ifnull(holds.model, ''), entries.ending, entries.usage_source, "
    "count(*), count(entries.cost_nano), ifnull(sum(entries.cost_nano), 0), count(entries.overrun), "
    f"sum(entries.at_ms - entries.started_ms), {', '.join(f'sum(entries.{kind})' for kind in KINDS)} "
    "FROM entries JOIN holds ON holds.id = entries.hold_id WHERE entries.seq > ? GROUP BY 1, 2, 3, 4, 5"
)


def tally(connection: sqlite3.Connection, after_seq: int) -> Tallies:
    """Sums over the rows after this number."""
    (seq,) = connection.execute("SELECT ifnull(max(seq), 0) FROM entries").fetchone()
    sums = {
        TallyKey(*row[:5]): Tally(row[5], row[6], row[7], row[8], row[9], row[10:])
        for row in connection.execute(_SUMS, (after_seq,))
    }
    return Tallies(max(seq, after_seq), sums)


def denials(connection: sqlite3.Connection, since_ms: int | None, until_ms: int | None) -> dict[DenialKey, int]:
    """Counts of the hours that began in this span."""
    where, values = _between("hour_ms", since_ms, until_ms)
    found = connection.execute(
        f"SELECT hour_ms, budget, unit, model, provider, tags, shadow, count FROM denials {where} ORDER BY hour_ms",
        values,
    )
    return dict(rows.denial_from_row(row) for row in found)


def _between(column: str, since_ms: int | None, until_ms: int | None) -> tuple[str, list[int]]:
    bounds = [(f"{column} >= ?", since_ms), (f"{column} < ?", until_ms)]
    given = [(text, at_ms) for text, at_ms in bounds if at_ms is not None]
    where = " AND ".join(text for text, _ in given)
    return (f"WHERE {where}" if where else ""), [at_ms for _, at_ms in given]
