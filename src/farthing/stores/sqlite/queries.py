"""Reads of any size, each a function of a connection inside one snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ...kernel.hold import LIVE, Entry, Hold
from ...kernel.plan import Balance
from ..contract import DenialKey, Journal
from . import rows


def holds(connection: sqlite3.Connection, states: Sequence[str]) -> tuple[Hold, ...]:
    """Holds in these states, oldest first."""
    marks = ", ".join("?" * len(states))
    found = connection.execute(f"{rows.SELECT_HOLD} WHERE holds.state IN ({marks}) ORDER BY holds.no", tuple(states))
    return tuple(rows.hold_from_row(row) for row in found)


def balances(connection: sqlite3.Connection) -> dict[str, Balance]:
    """Every counter."""
    found = connection.execute("SELECT key, settled, held, suspect FROM counters")
    return {key: Balance(settled, held, suspect) for key, settled, held, suspect in found}


def entries(connection: sqlite3.Connection, since_ms: int | None, until_ms: int | None) -> list[Entry]:
    """Rows with ``since <= at < until``, in order."""
    where, values = _between("entries.at_ms", since_ms, until_ms)
    found = connection.execute(f"{rows.SELECT_ENTRY} {where} ORDER BY entries.seq", values)
    return [rows.entry_from_row(row) for row in found]


def journal(connection: sqlite3.Connection) -> Journal:
    """All rows, and the holds that are still counted."""
    return Journal({}, entries(connection, None, None), holds(connection, LIVE))


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
