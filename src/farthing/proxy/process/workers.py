"""
Several workers on one port and one ledger.

Each is a process of its own; this one only watches: it replaces a worker that dies, passes on what it is told, and
stops when it is asked to. A worker whose watcher has died stops by itself.

What a worker held when it died is found by its owner's lock: whoever sweeps the ledger next makes it suspect.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from ...runtime.runtime import Runtime
from .. import log
from ..assembly import identify_for, pages_for, warm_up
from ..settings import ProxySettings
from .collecting import collect_rarely
from .signals import hang_up
from .worker import Worker

READY = "ready"
STOP = "stop"
QUICK_DEATH_SECONDS = 5.0
"""A worker that lives shorter than this is replaced more slowly each time."""
PAUSE_MOST_SECONDS = 5.0
TICK_SECONDS = 0.5
EXTRA_SECONDS = 5.0
"""Beyond the time that requests in flight are given, before a worker that does not end is killed."""


class _Child:
    """One worker process, as the watcher sees it."""

    def __init__(self, settings: ProxySettings, listening: socket.socket, reloads: bool) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.line, theirs = spawning.Pipe()
        self.began_seconds = time.monotonic()
        self.silent = False
        self.process: BaseProcess = spawning.Process(
            target=work, args=(settings, listening, theirs, reloads), name="farthing-worker", daemon=True
        )
        self.process.start()
        theirs.close()

    def hear(self) -> None:
        """Take what it says. A line that ends is said by its process's end, which is looked at for itself."""
        try:
            said = self.line.recv()
        except (EOFError, OSError):
            self.silent = True
            return
        if said == READY:
            log.logger.info("Worker %s is ready", self.process.pid)

    def tell(self, message: object) -> None:
        try:
            self.line.send(message)
        except OSError:
            # It has died: whoever looks at its process next replaces it.
            return

    def end(self) -> None:
        self.line.close()
        self.process.close()


class Workers:
    """As many workers as the settings say. *reloads*: a SIGHUP to this process has the configuration read anew."""

    def __init__(self, settings: ProxySettings, listening: socket.socket, *, reloads: bool = False) -> None:
        self._settings = settings
        self._reloads = reloads
        self._listening = listening
        self._children: list[_Child] = []
        self._stopping = threading.Event()
        self._forced = False
        self._pause_seconds = 0.0

    @property
    def pids(self) -> list[int]:
        """The processes that serve now."""
        return [child.process.pid for child in self._children if child.process.pid is not None]

    def stop(self) -> None:
        """From any thread or a signal handler. Asked twice, nobody is waited for."""
        self._forced = self._stopping.is_set()
        self._stopping.set()

    def reload(self, settings: ProxySettings) -> None:
        """Tell every worker; those that come later know it from the start."""
        self._settings = settings
        for child in list(self._children):
            child.tell(settings)

    def run(self) -> None:
        """Keep them running until :meth:`stop`; then let them end, for a bounded time."""
        try:
            while len(self._children) < self._settings.workers:
                self._begin(len(self._children))
            while not self._stopping.is_set():
                lines = {child.line: child for child in self._children if not child.silent}
                for ready in wait([*lines, *(child.process.sentinel for child in self._children)], TICK_SECONDS):
                    if isinstance(ready, Connection):
                        lines[ready].hear()
                self._replace_dead()
        finally:
            self._end()

    def _replace_dead(self) -> None:
        for index, child in enumerate(self._children):
            code = child.process.exitcode
            if code is None or self._stopping.is_set():
                continue
            log.logger.error("worker %s died (%s); it is replaced", child.process.pid, _cause(code))
            quick = time.monotonic() - child.began_seconds < QUICK_DEATH_SECONDS
            self._pause_seconds = min(PAUSE_MOST_SECONDS, self._pause_seconds * 2 or 0.1) if quick else 0.0
            if self._stopping.wait(self._pause_seconds):
                return
            child.end()
            self._begin(index)

    def _begin(self, index: int) -> None:
        """A worker in this place. A signal may bring other settings while it is started."""
        given = self._settings
        child = _Child(given, self._listening, self._reloads)
        self._children[index : index + 1] = [child]
        if self._settings is not given:
            child.tell(self._settings)

    def _end(self) -> None:
        self._listening.close()
        for child in self._children:
            child.tell(STOP)
        patience_seconds = self._settings.bounds.shutdown_seconds + EXTRA_SECONDS
        until = time.monotonic() + patience_seconds
        forced = False
        for child in self._children:
            while child.process.exitcode is None:
                child.process.join(TICK_SECONDS)
                if self._forced and not forced:
                    forced = True
                    for other in self._children:
                        other.tell(STOP)
                if child.process.exitcode is None and time.monotonic() > until:
                    log.logger.error("worker %s does not end and is killed; its calls are suspect", child.process.pid)
                    child.process.kill()
                    child.process.join()
            child.end()


def work(settings: ProxySettings, listening: socket.socket, line: Connection, reloads: bool) -> None:
    """What a worker process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the watcher says when to stop
    log.to_stream(settings.log_format)
    runtime = Runtime(settings.calls, warns=False, reports=False)
    warm_up(runtime)
    collect_rarely()
    worker = Worker(settings, runtime, listening, identify=identify_for(runtime), pages=pages_for)
    worker.ask_reload = hang_up(os.getppid()) if reloads else None
    signal.signal(signal.SIGTERM, lambda number, frame: worker.stop())
    threading.Thread(target=_listen, args=(worker, line), name="farthing-watcher", daemon=True).start()
    worker.run()


def _listen(worker: Worker, line: Connection) -> None:
    """What the watcher says; its silence, when it has died."""
    worker.ready.wait()
    try:
        line.send(READY)
        while True:
            told = line.recv()
            if told == STOP:
                worker.stop()
            else:
                worker.reload(told)
    except (EOFError, OSError):
        log.logger.error("the process that watches worker %s has died; it stops", os.getpid())
        worker.stop()


def _cause(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
