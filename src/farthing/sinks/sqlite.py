"""Two tables in a SQLite file of your own: calls, and what budgets did."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from decimal import Decimal

from ..kernel.money import nano_of_usd
from ..reports.rows import COLUMNS, Row
from ..runtime.events import BudgetEvent
from .jsonl import is_elsewhere

BUSY_SECONDS = 5.0
_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    id TEXT NOT NULL, kind TEXT NOT NULL, at TEXT NOT NULL, started_at TEXT NOT NULL, model TEXT, provider TEXT,
    tags TEXT NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, usd TEXT,
    ending TEXT NOT NULL, usage_source TEXT NOT NULL, budget TEXT, usd_nano INTEGER
);
CREATE TABLE IF NOT EXISTS events (
    at TEXT NOT NULL, action TEXT NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL, body TEXT NOT NULL
);
CREATE VIEW IF NOT EXISTS spend AS
    SELECT tags, usd, input_tokens, output_tokens, reasoning_tokens, model FROM calls;
"""
_INSERT_EVENT = "INSERT INTO events (at, action, name, reason, body) VALUES (?, ?, ?, ?, ?)"
_NAMES = ", ".join((*COLUMNS, "usd_nano"))
_MARKS = ", ".join("?" * (len(COLUMNS) + 1))
_INSERT_CALL = f"INSERT INTO calls ({_NAMES}) VALUES ({_MARKS})"  # noqa: S608 - the names are ours, the values bound


class SQLiteSink:
    """
    A row of table ``calls`` for each call, with the columns of a row; ``tags`` is JSON, and ``usd_nano`` has the cost
    in billionths of a dollar, to be added up exactly. What budgets did is in ``events``; view ``spend`` has the calls
    as the table of that name in tokenguard's files had them, for queries that were written for it.

    This file is yours: the ledger, which budgets go by, is another one. Several processes may write to it; each waits
    at most five seconds for the others. Where it is moved away or removed, another is begun under its name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._place = self.path if self.path in ("", ":memory:") else os.path.abspath(self.path)
        self._known: os.stat_result | None = None
        """The file that is open; None for one that has no name."""
        try:
            self._execute(_INSERT_CALL, [])
        except sqlite3.Error as error:
            raise OSError(f"SQLiteSink: {self.path} cannot be written to: {error}") from error
        _sinks.add(self)

    def write(self, row: Row) -> None:
        self.write_many([row])

    def write_many(self, rows: list[Row]) -> None:
        self._execute(_INSERT_CALL, [_values(row) for row in rows])

    def write_event(self, event: BudgetEvent) -> None:
        plain = event.to_dict()
        body = json.dumps(plain, ensure_ascii=False)
        self._execute(_INSERT_EVENT, [(plain["at"], event.action, event.name, event.reason, body)])

    def close(self) -> None:
        with self.lock:
            self.disconnect()

    def _execute(self, sql: str, values: list[tuple[object, ...]]) -> None:
        with self.lock:
            if self._known is not None and is_elsewhere(self._place, self._known):
                # Moved away, or removed: SQLite would go on in a file that nobody finds.
                self.disconnect()
            if self._connection is None:
                self._connection = sqlite3.connect(self._place, timeout=BUSY_SECONDS, check_same_thread=False)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.executescript(_TABLES)
                self._known = os.stat(self._place) if os.path.exists(self._place) else None
            with self._connection:
                self._connection.executemany(sql, values)

    def disconnect(self) -> None:
        """Under the lock: close the connection; the next write opens another."""
        connection, self._connection, self._known = self._connection, None, None
        if connection is not None:
            connection.close()


def _values(row: Row) -> tuple[object, ...]:
    usd = row["usd"]
    nano = None if usd is None else nano_of_usd(Decimal(usd))
    return (*(json.dumps(row[name]) if name == "tags" else row[name] for name in COLUMNS), nano)


_sinks: weakref.WeakSet[SQLiteSink] = weakref.WeakSet()


def _before_fork() -> None:
    """A child inherits no connection: its locks are the process's, but SQLite's notes of them are in memory."""
    for sink in list(_sinks):
        sink.lock.acquire()
        sink.disconnect()


def _after_fork() -> None:
    for sink in list(_sinks):
        sink.lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
