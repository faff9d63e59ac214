"""
One sink in use: a bounded queue, and a thread that writes what is in it.

Telling it only enqueues. The thread starts with the first fact; in a forked child the queue is empty and the thread a
new one, for what the parent had in line the parent writes.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol, Self

from ..kernel.hold import Entry
from ..reports.rows import Row, row_of
from ..runtime.events import BudgetEvent, Fact

log = logging.getLogger("farthing.sinks")

QUEUE_MAX = 10_000
BATCH_MAX = 512
SAY_SECONDS = 60.0
"""A sink that fails is said once, and again after this long."""


class Sink(Protocol):
    """
    What :func:`farthing.use_sink` takes: ``write`` is all that is needed, and a function is a ``write``.

    Others are used where they are there: ``write_many(rows)`` instead of it, ``write_event(event)`` for what budgets
    did, ``flush()`` and ``close()``. All are called by one thread, never by the code that makes calls.
    """

    def write(self, row: Row) -> object:
        """Keep one row: see :func:`farthing.reports.rows.row_of`."""
        ...


class Subscription:
    """
    What :func:`farthing.use_sink` returns. Leaving it as a ``with`` closes it.

    ``dropped`` counts what came while the queue was full, ``failed`` what the sink raised on; neither is lost to the
    ledger.
    """

    def __init__(
        self,
        sink: Any,
        *,
        events: Callable[[BudgetEvent], object] | None = None,
        max_queue: int = QUEUE_MAX,
        on_drop: Callable[[BaseException | None], object] | None = None,
        catch_up: Callable[[], None] = lambda: None,
        ended: Callable[[Subscription], None] = lambda subscription: None,
    ) -> None:
        self.sink = sink
        self.dropped = 0
        self.failed = 0
        self._max_queue = max_queue
        self._on_drop = on_drop
        self._catch_up = catch_up
        self._ended = ended
        write = getattr(sink, "write", sink)
        self._write: Callable[[Row], object] | None = write if callable(write) else None
        self._write_entry: Callable[[Entry, object], object] | None = getattr(sink, "write_entry", None)
        self._write_many: Callable[[list[Row]], object] | None = getattr(sink, "write_many", None)
        self._write_event: Callable[[BudgetEvent], object] | None = events or getattr(sink, "write_event", None)
        self._capture: Callable[[], object] | None = getattr(sink, "capture", None)
        self._said_at = float("-inf")
        self._start()
        _subscriptions.add(self)

    def _start(self) -> None:
        self._process = os.getpid()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    # -- the caller's side -------------------------------------------------------------------------------------------

    def tell(self, fact: Fact) -> None:
        """Enqueue a fact, if there is room."""
        if isinstance(fact, BudgetEvent):
            wanted = self._write_event is not None
        else:
            wanted = self._write is not None or self._write_entry is not None
        if self._closed or not wanted:
            return
        if self._queue.qsize() >= self._max_queue:
            self._drop(None)
            return
        self._queue.put((fact, None if self._capture is None else self._capture()))
        if self._thread is None:
            self._run_thread()

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until all that happened so far, alerts included, is written; False if that takes longer."""
        self._catch_up()
        done = threading.Event()
        self._queue.put(done)
        self._run_thread()
        thread = self._thread
        if thread is None or not thread.is_alive():
            # The interpreter is on its way out and starts no thread any more.
            self._work_off()
            return done.is_set()
        return done.wait(seconds)

    def close(self, seconds: float = 5.0) -> None:
        """Write what is in line, for at most so long, and close the sink. Idempotent."""
        if self._closed:
            return
        self._ended(self)
        if not self.flush(seconds):
            self._say(f"{self._name()} did not take all that was in line within {seconds:g} s", None)
        self._closed = True
        self._queue.put(None)
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(seconds)
        if thread is None or not thread.is_alive():
            self._call("close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the thread's side -------------------------------------------------------------------------------------------

    def _run_thread(self) -> None:
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return
            thread = threading.Thread(target=self._loop, name="farthing-sink", daemon=True)
            try:
                # In no context: it would keep its caller's budgets open.
                Context().run(thread.start)
            except RuntimeError:
                # At the interpreter's end: close() works off what is in line itself.
                return
            self._thread = thread

    def _loop(self) -> None:
        while self._take_batch(self._queue.get()):
            pass

    def _work_off(self) -> None:
        while not self._queue.empty():
            self._take_batch(self._queue.get_nowait())

    def _take_batch(self, item: Any) -> bool:
        """Write this item and what is behind it. False when it is time to end."""
        batch: list[Any] = []
        while item is not None and not isinstance(item, threading.Event):
            batch.append(item)
            item = ()
            if len(batch) == BATCH_MAX:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
        self._write_batch(batch)
        if isinstance(item, threading.Event):
            self._call("flush")
            item.set()
        return item is not None

    def _write_batch(self, batch: list[Any]) -> None:
        rows: list[Row] = []
        for fact, captured in batch:
            if isinstance(fact, BudgetEvent):
                if self._write_event is not None:
                    self._attempt(1, self._write_event, fact)
            elif self._write_entry is not None:
                self._attempt(1, self._write_entry, fact, captured)
            else:
                rows.append(row_of(fact))
        if rows and self._write_many is not None:
            self._attempt(len(rows), self._write_many, rows)
        elif self._write is not None:
            for row in rows:
                self._attempt(1, self._write, row)

    def _attempt(self, count: int, write: Callable[..., object], *what: object) -> None:
        try:
            write(*what)
        except Exception as error:  # noqa: BLE001 - whatever a sink raises stays here: the ledger has it, the caller too
            self.failed += count
            if self._on_drop is not None:
                self._tell_drop(error)
            self._say(f"{self._name()} failed: {error}; the ledger has what it missed", error)

    def _drop(self, error: BaseException | None) -> None:
        self.dropped += 1
        if self._on_drop is not None:
            self._tell_drop(error)
        self._say(f"{self._name()} is too slow: its queue of {self._max_queue:,} is full, and rows are dropped", None)

    def _tell_drop(self, error: BaseException | None) -> None:
        try:
            assert self._on_drop is not None
            self._on_drop(error)
        except Exception:  # a user's own function: what goes wrong in it reaches no call
            log.exception("on_drop_error failed")

    def _call(self, name: str) -> None:
        method = getattr(self.sink, name, None)
        if callable(method):
            try:
                method()
            except Exception as error:  # noqa: BLE001 - as above
                self._say(f"{self._name()} could not {name}: {error}", error)

    def _say(self, message: str, error: BaseException | None) -> None:
        now = time.monotonic()
        if now - self._said_at >= SAY_SECONDS:
            self._said_at = now
            log.error(message, exc_info=error)

    def _name(self) -> str:
        return f"sink {getattr(self.sink, '__name__', type(self.sink).__name__)}"


_subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()


def _in_child() -> None:
    for subscription in list(_subscriptions):
        subscription._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
