"""
The one writer of a process: takes what is queued as a group, carries it out in one transaction, answers.

A group is all that was asked while the one before was being written, so that many concurrent holds share one sync of
the disk. Answers, denials too, go out after the COMMIT: what a caller was told is in the file. What fails with one
command (a conflict, an unknown name) is that command's answer; what fails with the file fails the group, except that
the ends of calls are kept and written later: see :mod:`.backlog`.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from contextvars import Context
from typing import Any, TypeVar

from ...errors import FarthingError, InvariantError, StoreUnavailable
from ...kernel import ledger
from ...kernel.hold import Hold
from ...kernel.ledger import NOTHING
from ..contract import Clock
from .backlog import Backlog
from .books import Books
from .connection import connect, said_of
from .files import FileLock, LedgerFile
from .owners import Owner
from .reader import Reader
from .tickets import CHANGE, END, LOOK, PLACE, READ, Ticket, publish

T = TypeVar("T")
_log = logging.getLogger("farthing.stores")

GROUP_MAX = 512
QUEUE_MAX = 65_536
CHECKPOINT_ROWS = 8_192
"""Checkpoint after this many rows if nothing is waiting, after four times as many whatever waits."""
IDLE_SECONDS = 1.0
_FULL, _NORMAL = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"

_FILE_ERRORS = (sqlite3.Error, OSError, StoreUnavailable)
_COMMAND_ERRORS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""SQLite's errors about what one command wanted to write, not about the file."""


class _Stop:
    """In the queue: write what came before, then end."""


class Writer:
    """See the module. Public methods may be called from any thread; finalisers may submit and give up."""

    def __init__(
        self,
        file: str,
        connection: sqlite3.Connection,
        lock: FileLock,
        owner: Owner,
        *,
        clock: Clock,
        patience_seconds: float,
        full: bool,
    ) -> None:
        self.name = file
        self.patience_seconds = patience_seconds
        self.owner = owner
        self.books = Books(file, clock)
        self.looked_at = float("-inf")
        """When the file was last looked at (monotonic seconds): nothing that is known of it is older."""
        self.closed: str | None = None
        """Why nothing is written any more."""
        self._file = file
        self._place = LedgerFile(file)
        self._connection: sqlite3.Connection | None = connection
        self._log = self._place.log()
        """The file of SQLite's log that the connection has open."""
        self._lock = lock
        self._full = full
        self._synchronous = ""
        self._gate = threading.Lock()
        """Held while the connection is used; a fork waits for it."""
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._backlog = Backlog(file, self.books)
        self._reader = Reader(file, self._place, patience_seconds)
        self._busy_since: float | None = None
        self._rows = 0
        """Written since the log was last moved into the file."""
        self._moved = connection.total_changes
        """How many this connection had written by then."""
        self._ident = 0
        """The writer's thread, once it runs."""
        self._thread = threading.Thread(target=self._loop, name="farthing-writer", daemon=True)
        # In no context: one that it inherited would keep its caller's budgets open for as long as the ledger is.
        Context().run(self._thread.start)

    # -- any thread --------------------------------------------------------------------------------------------------

    def submit(self, ticket: Ticket[T]) -> Ticket[T]:
        """Queue a command. Only enqueues: no lock that a finaliser could find taken by the code it interrupted."""
        if self.closed is not None:
            ticket.fail(StoreUnavailable(self.name, self.closed))
            ticket.done = True
        elif ticket.kind != END and self._queue.qsize() >= QUEUE_MAX:
            ticket.fail(StoreUnavailable(self.name, f"{QUEUE_MAX} commands are waiting to be written"))
            ticket.done = True
        else:
            self._queue.put(ticket)
        return ticket

    def give_up(self, ticket: Ticket[Any]) -> None:
        ticket.abandoned = True
        if self.closed is None:
            self._queue.put((ticket,))

    def known(self, hold_id: str) -> Hold | None:
        return self.books.known(hold_id)

    def why_not_wait(self) -> str | None:
        if self.closed is not None and not self._thread.is_alive():
            return self.closed
        if threading.get_ident() == self._ident:
            return "asked from inside its own writer, by a finaliser"
        since = self._busy_since
        if since is not None and time.monotonic() - since > self.patience_seconds:
            return f"it has not responded for {time.monotonic() - since:.0f} s: locked, or its disk hangs"
        return None

    def stop_soon(self) -> None:
        """Write what is queued, then end; does not wait."""
        self._queue.put(_Stop)

    def stop(self) -> None:
        """Write what is queued, then end; waits for that as long as patience goes."""
        self.stop_soon()
        self._thread.join(self.patience_seconds)
        if self._thread.is_alive():
            self.closed = "closed"
            _log.error("ledger %s does not respond; what it was not given in time is lost at exit", self.name)
        self._reader.join(self.patience_seconds)

    # -- forks -------------------------------------------------------------------------------------------------------

    def before_fork(self) -> bool:
        """
        Close the connections, so that a child inherits nothing of SQLite: its locks are the process's, but its notes
        of them are in memory, and a child that believed those notes could damage the file. False if that cannot be
        done in time.
        """
        if not self._gate.acquire(timeout=self.patience_seconds):
            return False
        if not self._reader.pause(self.patience_seconds):
            self._gate.release()
            return False
        self._disconnect()
        return True

    def after_fork_in_parent(self) -> None:
        self._reader.go_on()
        self._gate.release()

    def after_fork_in_child(self) -> None:
        """The thread, the queue and the locks are the parent's. Closing our copies of the files releases none."""
        self.closed = "it was opened, and this was asked, by the process that this one was forked from"
        self._lock.drop()
        self.owner.drop()

    # -- the writer's thread -----------------------------------------------------------------------------------------

    def _loop(self) -> None:
        stopping = False
        self._ident = threading.get_ident()
        while not stopping:
            items = self._take_group()
            stopping = _Stop in items
            self._busy_since = time.monotonic()
            try:
                self._serve(self._tickets_of(items))
                if not items or (self._rows >= CHECKPOINT_ROWS and self._may_checkpoint()):
                    self._checkpoint()
            except Exception:  # noqa: BLE001
                # Whatever happens, the thread lives: without it every budget of this process would be closed.
                _log.exception("the writer of ledger %s went on after an error of its own", self.name)
            self._busy_since = None
            # Tickets that nobody else holds go now, not at the next group: their finalisers may have something to say.
            del items
        self._finish()

    def _take_group(self) -> list[Any]:
        """All that waits, bounded; blocks while nothing does, but for an idle moment's work (an empty group)."""
        try:
            items = [self._queue.get(timeout=IDLE_SECONDS if self._rows or self._backlog.tickets else None)]
        except queue.Empty:
            return []
        if waiting := min(self._queue.qsize(), GROUP_MAX - 1):
            items += [self._queue.get_nowait() for _ in range(waiting)]
        return items

    def _tickets_of(self, items: list[Any]) -> list[Ticket[Any]]:
        tickets = []
        for item in items:
            if isinstance(item, tuple):
                tickets += self._clean_up(item[0])
            elif item is not _Stop:
                tickets.append(item)
        return tickets

    def _clean_up(self, ticket: Ticket[Any]) -> list[Ticket[Any]]:
        """Nobody took this answer. A hold that was admitted is given back; an error is said where it can be."""
        if ticket.error is not None and not ticket.collected and ticket.kind != PLACE:
            _log.error(
                "a command on ledger %s failed, and nobody asked for its answer", self.name, exc_info=ticket.error
            )
        if not ticket.done or not ticket.placed or ticket.hold_id is None:
            return []
        hold_id = ticket.hold_id
        return [Ticket(self, END, lambda books, now_ms: ledger.void(books, hold_id, None, now_ms=now_ms), hold_id)]

    def _serve(self, tickets: list[Ticket[Any]]) -> None:
        if self._backlog.tickets:
            self._work_off_backlog()
            if self._backlog.tickets:
                tickets = self._backlog.refuse(tickets)
        reads = [ticket for ticket in tickets if ticket.kind == READ]
        commands = [ticket for ticket in tickets if ticket.kind != READ] if reads else tickets
        if commands:
            self._carry_out(commands)
        for ticket in reads:
            self._reader.submit(ticket)

    def _carry_out(self, tickets: list[Ticket[Any]]) -> None:
        """Run a group, and answer it whatever happens."""
        try:
            self._transact(tickets)
        except Exception as error:  # noqa: BLE001
            # Any error at all: an answer is owed to every ticket.
            self._disconnect_safely()
            if not isinstance(error, _FILE_ERRORS) or isinstance(error, _COMMAND_ERRORS):
                self._carry_out_one_by_one(tickets, error)
                return
            self._backlog.keep(tickets, reason=said_of(error))
        publish(tickets)

    def _carry_out_one_by_one(self, tickets: list[Ticket[Any]], error: Exception) -> None:
        """One of them cannot be written (a number that is too large, text that is no text): the others can."""
        if len(tickets) > 1:
            for ticket in tickets:
                self._carry_out([ticket])
            return
        (ticket,) = tickets
        _log.error("a command on ledger %s cannot be written", self.name, exc_info=error)
        ticket.fail(InvariantError(f"this cannot be written to ledger {self.name}: {error}"))
        publish(tickets)

    def _work_off_backlog(self) -> None:
        """Write what was kept, in order, until none is left or the file fails again."""
        count = GROUP_MAX
        while batch := self._backlog.batch(count):
            try:
                self._transact(batch)
            except Exception as error:  # noqa: BLE001
                # As in _carry_out, except that these have their answers.
                self._disconnect_safely()
                if isinstance(error, _FILE_ERRORS) and not isinstance(error, _COMMAND_ERRORS):
                    return
                if len(batch) > 1:
                    count = 1
                    continue
                _log.error("what a call said at its end cannot be written", exc_info=error)
            self._backlog.written(batch)

    def _transact(self, tickets: list[Ticket[Any]]) -> None:
        kinds = 0
        for ticket in tickets:
            kinds |= ticket.kind
        writing = kinds != LOOK
        # The end of a call may follow with the next sync: lost with the power, it leaves a durable hold, hence suspect.
        synchronous = _FULL if self._full and kinds & (PLACE | CHANGE) else _NORMAL
        with self._gate:
            connection = self._connected()
            if writing:
                self._lock.acquire()
            try:
                if synchronous != self._synchronous:
                    connection.execute(synchronous)
                    self._synchronous = synchronous
                connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
                looked_at = time.monotonic()
                books = self.books
                books.begin(connection)
                if len(tickets) > 1 and kinds & PLACE:
                    books.expect([ticket.hold_id for ticket in tickets if ticket.kind == PLACE and ticket.hold_id])
                now_ms = books.now()
                unsaid = [ticket for ticket in tickets if self._evaluate(ticket, now_ms)]
                books.write()
                connection.execute("COMMIT")
                self._rows = connection.total_changes - self._moved
                books.committed()
                self.looked_at = looked_at
                for ticket in unsaid:
                    _log.error("what a call said at its end could not be carried out", exc_info=ticket.error)
            except BaseException:  # whatever it was: half a group is never left in the file
                if connection.in_transaction:
                    connection.rollback()
                raise
            finally:
                if writing:
                    self._lock.release()

    def _evaluate(self, ticket: Ticket[Any], now_ms: int) -> bool:
        """Carry out one command in the group's books. True if it failed, and its caller has gone on already."""
        if ticket.abandoned and ticket.kind != END:
            return False
        if ticket.error is not None and not ticket.done:
            # What was said of a kept one stays said: its caller may be about to look.
            ticket.error = None
        try:
            answer, change = ticket.run(self.books, now_ms)  # type: ignore[call-arg, arg-type]  # not a READ
        except sqlite3.Error:
            raise
        except (FarthingError, ValueError) as error:
            ticket.fail(error)
            return ticket.collected
        except Exception as error:  # noqa: BLE001
            # A fault of ours in one command is that command's answer: nothing of it is in the books.
            _log.exception("a command on ledger %s failed in an unforeseen way", self.name)
            ticket.fail(error)
            return False
        ticket.change = change
        if change is not NOTHING:
            self.books.apply(change)
        ticket.answer = answer
        return False

    def _may_checkpoint(self) -> bool:
        return self._queue.empty() or self._rows >= 4 * CHECKPOINT_ROWS

    def _checkpoint(self) -> None:
        """Move the log into the file, while no group waits for it. Under the lock nobody writes, so it gets through."""
        if not self._rows:
            return
        self._rows = 0
        with self._gate:
            connection = self._connected()
            self._moved = connection.total_changes
            self._lock.acquire()
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as error:
                _log.warning("ledger %s: its log could not be moved into the file: %s", self.name, error)
            finally:
                self._lock.release()

    def _connected(self) -> sqlite3.Connection:
        self._place.check()
        if self._connection is not None and self._place.log() != self._log:
            _log.error("ledger %s: another program has removed its log; the file is opened anew", self.name)
            self._disconnect()
        if self._connection is None:
            self._connection = connect(self._file, busy_seconds=self.patience_seconds)
            self._log = self._place.log()
            self._synchronous = ""
            self._moved = 0
        return self._connection

    def _disconnect_safely(self) -> None:
        """After an error: a new connection knows no half-done transaction."""
        with self._gate:
            self._disconnect()

    def _disconnect(self) -> None:
        self.books.forget()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                _log.warning("ledger %s: closing its file failed: %s", self.name, error)

    def _finish(self) -> None:
        self.closed = "closed"
        while not self._queue.empty():
            self._serve(self._tickets_of(self._take_group()))
        self._backlog.say_lost()
        self._reader.stop_soon()
        with self._gate:
            self._disconnect()
        self._lock.drop()
        self.owner.retire()
