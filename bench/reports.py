"""
A report by tag and day over a month of 200,000 calls, in a ledger on the disk: see :mod:`.history` for the calls.

Processor time of the whole process, for nothing is waited for: on a machine that does nothing else it is the time that
passes. Beside it, in the same run: reading the same rows one by one without adding anything up.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farthing.reports.spending import read_report
from farthing.stores.sqlite import SQLiteStore

from .bars import Figure
from .history import DAY_MS, DAYS, START_MS, Clock, write

CALLS = 200_000
ROUNDS = 3


def measure(*, quick: bool = False) -> list[Figure]:
    """Seconds of the fastest of three rounds; the bar is for what the month is reported by: a tag, and the day."""
    calls = CALLS // 10 if quick else CALLS
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as directory:
        file = Path(directory, "ledger.db")
        clock = Clock()
        store = SQLiteStore(file, clock=clock)
        try:
            write(store, clock, calls)
            beside = f"reading {calls:,} rows: {_fastest(lambda: _read(file)):.2f} s"
            week_ms = START_MS + (DAYS - 7) * DAY_MS
            figures = [
                _figure(f"report of {calls:,} calls by feature, day", lambda: _rows(store, ["feature", "day"]), beside),
                _figure(
                    "the same by user, model and day", lambda: _rows(store, ["user", "model", "day"]), beside, bar=None
                ),
                _figure("report of the last week by hour", lambda: _rows(store, ["hour"], week_ms), beside),
            ]
        finally:
            store.close()
    return figures


def _figure(what: str, run: Callable[[], Any], beside: str, bar: float | None = 1.0) -> Figure:
    return Figure(what, _fastest(run), "s", bar=bar, beside=beside)


def _fastest(run: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return min(seconds)


def _rows(store: SQLiteStore, group_by: list[str], since_ms: int | None = None) -> None:
    found = read_report(store, group_by=group_by, since_ms=since_ms)
    assert found.totals()["calls"] > 0
    assert len(found) > 1


def _read(file: Path) -> None:
    connection = sqlite3.connect(file)
    try:
        for _ in connection.execute("SELECT * FROM entries"):
            pass
    finally:
        connection.close()
