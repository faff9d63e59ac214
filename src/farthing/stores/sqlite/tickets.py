"""
Tickets: the answer of a command that the writer has not carried out yet.

A ticket is for one waiter, a thread or a task. A waiter may give up (its patience ends, its task is cancelled, a signal
interrupts it), or be gone before it began to wait. What then becomes of the command depends on its kind: a hold that
nobody waits for is voided, the end of a hold is carried out whoever waits.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ...errors import StoreUnavailable
from ...kernel.hold import Hold
from ...kernel.ledger import NOTHING, Change, Placed, Settled
from ...loops import Bell
from .books import Books
from .patience import wake_at_last

if TYPE_CHECKING:
    import asyncio

    _LoopWaiter = tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]
    _Waiter = _LoopWaiter | threading.Lock | Bell

T = TypeVar("T")

# Kinds of commands: those of a group are one number.
PLACE = 1
"""Admits a hold: durable before its answer, given back if nobody takes it."""
END = 2
"""Says how a call ended: never lost, whoever waits."""
CHANGE = 4
"""Any other change of the books."""
LOOK = 8
"""Reads within the group, between the commands before and after it."""
READ = 16
"""Reads much, after the group, by a thread and connection of its own."""

KEPT = "what this call said is kept, and written as soon as that is possible"
"""Said where the end of a call cannot be written now: it must not be said again."""


class Desk(Protocol):
    """Where tickets are handed in: the writer, as they see it."""

    name: str
    patience_seconds: float
    closed: str | None
    """Why nothing is written any more; None while it is."""

    def give_up(self, ticket: Ticket[Any]) -> None:
        """Nobody waits for this ticket any more. May be called by a finaliser: it only enqueues."""
        ...

    def known(self, hold_id: str) -> Hold | None:
        """The hold as it was last known, without reading anything."""
        ...

    def why_not_wait(self) -> str | None:
        """Why waiting here would never end, or None."""
        ...


class Ticket(Generic[T]):
    """
    One command and its answer.

    ``result()`` and ``await`` raise what the command raised, or StoreUnavailable. The end of a hold that cannot be
    written now is kept and written as soon as that is possible: its ticket answers ``Settled(hold, None)`` with the
    hold as it was, for a call that has been paid must not fail because a disk is full.
    """

    answer: T | None = None
    change = NOTHING
    """What the command did to the books; nothing, if it repeated an earlier one."""
    error: BaseException | None = None
    done = False
    """Set last, by the writer: the answer or the error is there for good."""
    abandoned = False
    read_until = 0.0
    """Set when a read is in the reader's hands: until when (monotonic seconds) it is waited for."""
    _waiter: _Waiter | None = None
    _collected = False

    def __init__(
        self,
        desk: Desk,
        kind: int,
        run: Callable[[Books, int], tuple[T, Change]] | Callable[[sqlite3.Connection], T],
        hold_id: str | None = None,
    ) -> None:
        self._desk = desk
        self.kind = kind
        self.run = run
        self.hold_id = hold_id

    def result(self) -> T:
        try:
            if not self.done:
                self._wait()
            return self._take()
        finally:
            # The traceback of an error keeps its frames: with the ticket in them, that would be a cycle.
            del self

    def __await__(self) -> Generator[Any, None, T]:
        try:
            if not self.done:
                yield from self._wait_in_loop()
            return self._take()
        finally:
            del self

    def __del__(self) -> None:
        # A signal may come between the verb and the wait, and a finaliser may only enqueue. The writer looks at it.
        if not self._collected and (self.error is not None or self.kind == PLACE):
            self._desk.give_up(self)

    @property
    def collected(self) -> bool:
        """Somebody has the answer."""
        return self._collected

    @property
    def placed(self) -> bool:
        """This very command admitted a hold (a repetition of an earlier one did not)."""
        return self.change is not NOTHING and type(self.answer) is Placed

    def publish(self) -> _LoopWaiter | None:
        """
        The writer is done with this ticket: wake its waiting thread, or return what is to be woken in an event loop.

        The waiter looks at ``done`` after it has made itself known, and this looks for waiters after it has set it:
        one of both sees the other.
        """
        self.done = True
        waiter = self._waiter
        if waiter is None or isinstance(waiter, tuple):
            return waiter
        waiter.release()
        return None

    def fail(self, error: BaseException) -> None:
        self.answer = None
        self.change = NOTHING
        # The writer's frames say nothing to who asked, and would keep the whole group alive.
        self.error = error.with_traceback(None)

    def _take(self) -> T:
        self._collected = True
        try:
            if self.error is not None:
                raise self.error
            return self.answer  # type: ignore[return-value]  # set before done
        finally:
            del self

    def _wait(self) -> None:
        reason = self._desk.why_not_wait()
        if reason is not None and not self.done:
            # Waiting is pointless: answered as if patience had ended.
            self._lose_patience(reason)
            return
        lock = threading.Lock()
        lock.acquire()
        self._waiter = lock
        if self.done:
            return
        try:
            lock.acquire(timeout=self._desk.patience_seconds)
            while not self.done and self._is_being_read():
                lock.acquire(timeout=self._desk.patience_seconds)
        except BaseException:  # called away: nobody waits here any more
            self._leave()
            raise
        if not self.done:
            self._lose_patience()

    def _wait_in_loop(self) -> Generator[Any, None, None]:
        import asyncio

        reason = self._desk.why_not_wait()
        if reason is not None and not self.done:
            # Waiting is pointless: answered as if patience had ended.
            self._lose_patience(reason)
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            yield from self._wait_elsewhere()
            return
        while True:
            future: asyncio.Future[None] = loop.create_future()
            self._waiter = (loop, future)
            if self.done:
                return
            wake_at_last(loop, future, self._desk.patience_seconds)
            try:
                yield from future
            except BaseException:  # called away: nobody waits here any more
                self._leave()
                raise
            if self.done:
                return
            if not self._is_being_read():
                break
        self._lose_patience()

    def _wait_elsewhere(self) -> Generator[Any, None, None]:
        """In an event loop that is not asyncio's."""
        while (bell := Bell.here()) is not None:
            self._waiter = bell
            if self.done:
                return
            try:
                yield from bell.wait(self._desk.patience_seconds).__await__()
            except BaseException:  # called away: nobody waits here any more
                self._leave()
                raise
            if self.done:
                return
            if not self._is_being_read():
                self._lose_patience()
                return
        self._wait()

    def _is_being_read(self) -> bool:
        """Whether the ledger is at work on this answer: a report over many rows is neither locked nor silent."""
        return time.monotonic() < self.read_until

    def _leave(self) -> None:
        """The waiter is called away: its exception goes on, nobody will ask again."""
        self._collected = True
        self.abandoned = True
        self._desk.give_up(self)

    def _lose_patience(self, reason: str | None = None) -> None:
        if self.kind == END and self.hold_id is not None:
            hold = self._desk.known(self.hold_id)
            if hold is not None:
                # Stays in the queue, and is written whenever the file lets it.
                self._answer_early(hold)
                return
        self._leave()
        why = reason or f"no answer within {self._desk.patience_seconds:g} s: locked, or its disk does not respond"
        if self.kind == END and self._desk.closed is None:
            why += f"; {KEPT}"
        raise StoreUnavailable(self._desk.name, why)

    def _answer_early(self, hold: Hold) -> None:
        # The writer may finish this ticket at the same moment: then either answer is true.
        if not self.done:
            self.answer = Settled(hold, None)  # type: ignore[assignment]


def publish(tickets: Iterable[Ticket[Any]]) -> None:
    """All answers of a group are there: wake who waits, each event loop once."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = defaultdict(list)
    for ticket in tickets:
        waiter = ticket.publish()
        if waiter is not None:
            loop, future = waiter
            by_loop[loop].append(future)
    for loop, futures in by_loop.items():
        try:
            loop.call_soon_threadsafe(wake, futures)
        except RuntimeError:
            # The loop was closed with tasks still waiting. They will never ask; their tickets' finalisers will.
            pass


def wake(futures: Iterable[asyncio.Future[None]]) -> None:
    """In an event loop's own thread."""
    for future in futures:
        if not future.done():
            future.set_result(None)
