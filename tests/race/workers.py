"""
Processes that share a ledger: each made by a server that has read the packages once and has done nothing else, for
importing the SDKs takes seconds, and no test here is about that.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from farthing.testing import FakeProvider
from tests.race import sdk_worker

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([sdk_worker.__name__])


class Worker:
    """A process that stands ready, and goes when it is told to."""

    def __init__(
        self, ledger: str, provider: FakeProvider, limits: Mapping[str, Any], threads: int, calls: int
    ) -> None:
        self.pipe, theirs = processes.Pipe()
        given = (theirs, ledger, provider.openai_url, dict(limits), threads, calls)
        self.process = processes.Process(target=sdk_worker.main, args=given)
        self.process.start()
        theirs.close()

    def ready(self) -> None:
        assert self.pipe.recv() == "ready"

    def go(self) -> None:
        self.pipe.send("go")

    def kill(self) -> None:
        """SIGKILL: nothing of its own runs any more."""
        self.process.kill()
        self.process.join(60)

    def terminate(self) -> None:
        """SIGTERM, as a supervisor stops a service that has no handler for it."""
        os.kill(self.process.pid or 0, signal.SIGTERM)
        self.process.join(60)

    def admitted(self) -> int:
        """How many calls it was allowed, once it has ended well."""
        number = self.pipe.recv()
        self.process.join(60)
        assert self.process.exitcode == 0
        return int(number)


@contextmanager
def workers(
    number: int, ledger: str, provider: FakeProvider, limits: Mapping[str, Any], threads: int, calls: int
) -> Iterator[list[Worker]]:
    """So many of them, each with these limits of the budget "shared", so many threads, and calls a thread."""
    started = [Worker(ledger, provider, limits, threads, calls) for _ in range(number)]
    try:
        for worker in started:
            worker.ready()
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.pipe.close()
