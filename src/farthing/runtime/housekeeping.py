"""
The housekeeper: what must happen soon, but on nobody's path.

One daemon thread, started when it first has something to do: it ends calls whose streams were abandoned, flushes the
count of denials within a second, learns of changed budgets and of what others were billed, and sweeps the ledgers every
five seconds. A finaliser may only put work here: it never settles, logs or touches a store where it runs.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING

from ..errors import FarthingError, StoreUnavailable
from ..kernel.ledger import Settled
from ..kernel.sums import DAY_MS
from ..stores.contract import SWEEP_BATCH, SWEEP_SECONDS, DenialKey, Store
from .delegations import close_ended, give_back_orphans

if TYPE_CHECKING:
    from .ledgers import Ledger
    from .runtime import Runtime

TICK_SECONDS = 0.5
log = logging.getLogger("farthing.housekeeping")


class Housekeeper:
    """Belongs to one runtime. All methods may be called from any thread; :meth:`put` even from a finaliser."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = weakref.ref(runtime)
        self._abandoned: deque[Callable[[], None]] = deque()
        self._denials: deque[DenialKey] = deque()
        self._waits = False
        """The last round met a ledger that was unavailable."""
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._starting = threading.Lock()
        self._ending = threading.RLock()
        self._ends = False
        """A call is being ended right now."""
        self._stopping = threading.Event()
        self._open_calls: dict[int, Callable[[], None]] = {}
        self._at_exit = partial(_at_exit, weakref.ref(self))
        self._watched: int | None = None
        self._past_waits = False
        _housekeepers.add(self)
        self.watch_exit()

    def watch_exit(self) -> None:
        """
        Be there when this process stops, before the stores that are open now: the last registered runs first. A child
        of ``multiprocessing`` leaves without the interpreter's own exit, so there it is asked for too.
        """
        self._watched = os.getpid()
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)
        util = sys.modules.get("multiprocessing.util")
        process = sys.modules.get("multiprocessing.process")
        if util is not None and process is not None and process.parent_process() is not None:
            util.Finalize(None, partial(_at_end_of_work, weakref.ref(self)), exitpriority=0)

    def in_child(self) -> None:
        """After a fork: the parent ends its own calls, and its thread stayed with it."""
        self._abandoned.clear()
        self._denials.clear()
        self._open_calls.clear()
        runtime = self._runtime()
        if runtime is not None:
            runtime.in_child()
        self._starting = threading.Lock()
        self._ending, self._ends = threading.RLock(), False
        self._thread = None
        self._process = os.getpid()

    def put(self, end: Callable[[], None]) -> None:
        """End this call soon. Only appends: safe in a finaliser, inside any lock."""
        self._abandoned.append(end)

    def opened(self, call_id: int, end: Callable[[], None]) -> None:
        """A stream is open: if the interpreter stops before it ends, *end* settles it."""
        if self._watched != os.getpid():
            self.watch_exit()
        self._open_calls[call_id] = end

    def ended(self, call_id: int) -> None:
        self._open_calls.pop(call_id, None)

    def count_denial(self, key: DenialKey) -> None:
        """Flush this denial to the durable ledger within a second."""
        self._denials.append(key)
        if self._thread is None:
            self.start()

    def start(self) -> None:
        """Start the thread, if it does not run in this process yet."""
        with self._starting:
            if self._thread is not None and self._thread.is_alive() and self._process == os.getpid():
                return
            self._process = os.getpid()
            self._stopping = threading.Event()
            self._thread = threading.Thread(
                target=_run, args=(weakref.ref(self), self._stopping), name="farthing-housekeeper", daemon=True
            )
            # In no context: it would keep the budgets open that its caller is in.
            Context().run(self._thread.start)

    def catch_up(self) -> None:
        """End what was abandoned, now. Called before figures are read, so that they are right."""
        if not (self._abandoned or self._ends):
            return
        # One after the other: what another thread is just ending is not in the figures yet, nor in line any more.
        with self._ending:
            self._ends = True
            try:
                # Only what is in line now: an end that cannot happen yet puts itself in line again.
                for _ in range(len(self._abandoned)):
                    self._end_next()
            finally:
                self._ends = False

    def _end_next(self) -> None:
        try:
            end = self._abandoned.popleft()
        except IndexError:
            return
        try:
            end()
        except Exception:  # its caller is gone, and whoever runs this has no part in it: nobody else can be told
            log.exception("an abandoned call could not be settled; its hold stays until its deadline")

    def tick(self, *, sweep: bool) -> None:
        """One round of everything."""
        runtime = self._runtime()
        if runtime is None:
            return
        self.catch_up()
        ledger = runtime.durable
        runtime.put_units_away(most=1_000)
        runtime.alerts.look()
        if sweep:
            self._sweep_memory(runtime, ledger)
            if runtime.memory.lends:
                close_ended(runtime.memory)
                give_back_orphans(runtime.memory)
        if ledger is not None:
            self.flush_denials(ledger.store)
            ledger.refresh(ledger.store.catalogue().result())
            runtime.learner.exchange(ledger.store, everything=sweep)
            if sweep:
                for settled in _swept(runtime, ledger.store):
                    _tell(runtime, settled)
                if ledger.lends:
                    close_ended(ledger)
                    give_back_orphans(ledger)
            self._put_past_away(runtime, ledger.store, look=sweep)
        else:
            self.forget_denials()

    def tick_safely(self, *, sweep: bool) -> None:
        """The same for its own thread: the next round tries again, whatever went wrong in this one."""
        try:
            self.tick(sweep=sweep)
        except StoreUnavailable as error:
            # Once: calls are told so themselves, each time.
            if not self._waits:
                self._waits = True
                log.error("%s; it is swept, and looked at for changes, as soon as it answers again", error)
        except Exception:
            # Whatever it is: without this thread nothing would learn of budgets, end what was abandoned or sweep.
            log.exception("housekeeping failed")
        else:
            if self._waits:
                self._waits = False
                log.warning("the ledger answers again")

    def _sweep_memory(self, runtime: Runtime, durable: Ledger | None) -> None:
        for settled in _swept(runtime, runtime.memory_store):
            # What is held on both ledgers is swept, and told, by the durable one.
            if runtime.events.subscribers and (durable is None or durable.store.find(settled.hold.id).result() is None):
                _tell(runtime, settled)

    def _put_past_away(self, runtime: Runtime, store: Store, *, look: bool) -> None:
        """A small step at a time, and the next at the next tick while there is more."""
        if not (look or self._past_waits):
            return
        days = runtime.settings.retention_days
        self._past_waits = store.roll_up(keep_ms=None if days is None else days * DAY_MS).result() > 0

    def forget_denials(self) -> None:
        """There is no durable ledger to count them in: this process's own report has them already."""
        self._denials.clear()

    def flush_denials(self, store: Store) -> None:
        """Write the counted denials to a durable ledger."""
        counts: dict[DenialKey, int] = {}
        while self._denials:
            try:
                key = self._denials.popleft()
            except IndexError:
                break
            counts[key] = counts.get(key, 0) + 1
        if counts:
            store.add_denials(counts).result()

    def stop(self) -> None:
        """Stop the thread and end every call that is still open."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout=2.0)
        self.catch_up()
        for end in list(self._open_calls.values()):
            self.put(end)
        self.catch_up()

    def at_exit(self) -> None:
        """A clean stop of the interpreter."""
        runtime = self._runtime()
        if runtime is not None:
            try:
                runtime.close()
            except FarthingError:
                log.exception("the ledger could not be closed cleanly; open holds become suspect")


def _swept(runtime: Runtime, store: Store) -> Iterator[Settled]:
    """All that time has done to holds, a bounded pass after the other."""
    while swept := store.sweep(runtime.settings.sweep_policy).result():
        yield from swept
        if len(swept) < SWEEP_BATCH:
            return


def _tell(runtime: Runtime, settled: Settled) -> None:
    if settled.entry is not None and runtime.events.subscribers:
        runtime.events.tell(settled.entry)


_housekeepers: weakref.WeakSet[Housekeeper] = weakref.WeakSet()


def _in_child() -> None:
    for housekeeper in list(_housekeepers):
        housekeeper.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _at_exit(housekeeper: weakref.ref[Housekeeper]) -> None:
    keeper = housekeeper()
    if keeper is not None:
        keeper.at_exit()


def _at_end_of_work(housekeeper: weakref.ref[Housekeeper]) -> None:
    """
    A child of ``multiprocessing`` has done what it was started for. It still waits for its threads, as every process
    does, and their calls want the ledger; what goes last is a thread that waits for them too.
    """
    if next(_at_work(), None) is not None:
        last = threading.Thread(target=_close_last, args=(housekeeper,), name="farthing-closing", daemon=False)
        _closing.add(last)
        try:
            Context().run(last.start)
        except RuntimeError:
            log.warning("no thread could be started to close the ledger when all others have ended")
        else:
            return
    _at_exit(housekeeper)


def _close_last(housekeeper: weakref.ref[Housekeeper]) -> None:
    while (thread := next(_at_work(), None)) is not None:
        thread.join()
    _at_exit(housekeeper)


def _at_work() -> Iterator[threading.Thread]:
    """The threads that this process waits for before it ends."""
    kept = {threading.main_thread(), threading.current_thread(), *_closing}
    return (thread for thread in threading.enumerate() if not thread.daemon and thread not in kept)


_closing: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _run(housekeeper: weakref.ref[Housekeeper], stopping: threading.Event) -> None:
    next_sweep = 0.0
    while not stopping.wait(TICK_SECONDS):
        keeper = housekeeper()
        if keeper is None:
            return
        sweep = time.monotonic() >= next_sweep
        if sweep:
            next_sweep = time.monotonic() + SWEEP_SECONDS
        keeper.tick_safely(sweep=sweep)
        del keeper
