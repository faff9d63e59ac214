"""``farthing serve`` as a process of its own, with all its workers in one process group that a test may kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import farthing
from tests.waiting import eventually

SOURCE = str(Path(farthing.__file__).parents[1])
SECONDS = 60.0


class Served:
    """A running command. ``lines`` is what it has said so far."""

    def __init__(self, *arguments: str) -> None:
        path = os.pathsep.join([SOURCE, *filter(None, [os.environ.get("PYTHONPATH", "")])])
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from farthing.cli import main; main()", "serve", *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str, *, times: int = 1) -> list[str]:
        """Wait until it has said this so often; returns what the pattern's groups found."""

        def found() -> list[str] | None:
            if ended := self.process.poll() is not None:
                self._reader.join(SECONDS)  # its last words may still be on their way
            matches = re.findall(pattern, self.said)
            if len(matches) < times and ended:
                raise AssertionError(f"it ended with {self.process.returncode}: {self.said}")
            return matches if len(matches) >= times else None

        matches: list[str] = eventually(found, seconds=SECONDS)
        return matches

    def ready(self, workers: int = 1) -> str:
        """Its URL, once it answers."""
        (url,) = self.wait_for(r"listening on (http://\S+)")
        if workers > 1:
            self.wait_for(r"Worker (\d+) is ready", times=workers)
        return url

    def worker_pids(self) -> list[int]:
        """Of every worker that was ever ready."""
        return [int(pid) for pid in re.findall(r"Worker (\d+) is ready", self.said)]

    def stop(self) -> int:
        """SIGTERM, as a service manager does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def kill_tree(self) -> None:
        """SIGKILL to it and all its workers at once: nothing of them runs any more."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """Its exit code, once it has ended and all that it said was read."""
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code

    def _read(self) -> None:
        if self.process.stderr is not None:
            for line in self.process.stderr:
                self.lines.append(line)
            self.process.stderr.close()


@contextmanager
def served(*arguments: str) -> Iterator[Served]:
    """The command with these arguments; whatever is left of it at the end is killed."""
    running = Served(*arguments)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill_tree()
        else:
            running._reader.join(SECONDS)
