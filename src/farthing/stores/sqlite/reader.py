"""
Reads of any size, by a thread and a connection of their own: a report over a year of rows delays no hold.

A read is handed over after the group that was queued before it, so it sees all that its caller did.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from typing import Any

from ...errors import StoreUnavailable
from .connection import check_version, connect, said_of
from .files import LedgerFile
from .tickets import Ticket, publish

READ_SECONDS_MAX = 120.0
"""The longest that a read may take, and wait for those before it."""


class Reader:
    """Made and fed by the writer. Its thread starts at the first read."""

    def __init__(self, file: str, place: LedgerFile, patience_seconds: float) -> None:
        self._file = file
        self._place = place
        self._log: tuple[int, int] | None = None
        self._patience_seconds = patience_seconds
        self._queue: queue.SimpleQueue[Ticket[Any] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None

    def submit(self, ticket: Ticket[Any]) -> None:
        """From the writer's thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="farthing-reader", daemon=True)
            self._thread.start()
        # From here on the answer is being worked at: patience is for a file that is locked or silent.
        ticket.read_until = time.monotonic() + READ_SECONDS_MAX
        self._queue.put(ticket)

    def stop_soon(self) -> None:
        """From the writer's thread: answer what was handed over, then end."""
        self._queue.put(None)

    def join(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)

    def pause(self, seconds: float) -> bool:
        """Close the connection until :meth:`go_on`, for a fork. False if a read takes longer than that."""
        if not self._gate.acquire(timeout=seconds):
            return False
        self._disconnect()
        return True

    def go_on(self) -> None:
        self._gate.release()

    def _loop(self) -> None:
        while (ticket := self._queue.get()) is not None:
            if not ticket.abandoned:
                with self._gate:
                    self._read(ticket)
            publish([ticket])
            del ticket
        with self._gate:
            self._disconnect()

    def _read(self, ticket: Ticket[Any]) -> None:
        try:
            self._place.check()
            if self._place.log() != self._log:
                self._disconnect()
            if self._connection is None:
                self._connection = connect(self._file, busy_seconds=self._patience_seconds)
                self._connection.execute("PRAGMA query_only = ON")
                self._log = self._place.log()
            # One snapshot, however many statements the read takes.
            self._connection.execute("BEGIN")
            check_version(self._connection, self._file)
            ticket.answer = ticket.run(self._connection)  # type: ignore[call-arg, arg-type]  # a READ
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it is this ticket's answer, and the thread lives on for the next.
            self._disconnect()
            known = isinstance(error, (sqlite3.Error, OSError))
            ticket.fail(StoreUnavailable(self._file, said_of(error)) if known else error)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
