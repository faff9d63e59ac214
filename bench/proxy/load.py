"""What is asked, how often, and how it went."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from .processes import LOAD_CORE

MODEL = "gpt-4o-2024-08-06"
PROMPT_TOKEN_NANO, COMPLETION_TOKEN_NANO = 2_500, 10_000
"""What MODEL costs, in nano-dollars a token; farthing's own table says the same, or the totals would differ."""


def request(*, stream: bool = False, marks: str = "", path: str = "", headers: tuple[str, ...] = ()) -> bytes:
    """A request of about a kilobyte, as bytes. *marks* are the mock's orders; *path* goes before ``/v1``."""
    body: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 64,
        "messages": [
            {"role": "system", "content": "You answer briefly, and you say what you do not know."},
            {"role": "user", "content": f"{marks} {'What is a budget, and who may spend it? ' * 20}"},
        ],
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body, separators=(",", ":")).encode()
    lines = [
        f"POST {path}/v1/chat/completions HTTP/1.1",
        "host: localhost",
        "user-agent: OpenAI/Python 3.54.0",
        "accept: application/json",
        "authorization: Bearer sk-bench",
        "content-type: application/json",
        *headers,
        f"content-length: {len(data)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@dataclass(frozen=True)
class Load:
    """One kind of load. ``rate``: as a part of what the same relay did at full load; None: as fast as it goes."""

    name: str
    connections: int
    seconds: float
    request: bytes
    count: int = 0
    rate: float | None = None
    status: int = 200


@dataclass(frozen=True)
class Measured:
    """How one load went. Times in microseconds, memory in bytes."""

    load: str
    relay: str
    good: int
    bad: int
    seconds: float
    p50: int
    p99: int
    first_p50: int
    first_p99: int
    cpu: float
    """Of the relay, for each good answer."""
    memory: int
    """The most that the relay had while it went on."""
    written: int
    """What the relay had written to disk meanwhile."""
    load_cpu: float
    """Of the load generator, for each good answer."""
    complaint: str

    @property
    def per_second(self) -> float:
        return self.good / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "per_second": round(self.per_second)}


def run(
    load: Load,
    relay: str,
    port: int,
    *,
    generator: Path,
    folder: Path,
    rate: float = 0.0,
    cpu: Callable[[], float],
    memory: Callable[[], int],
    written: Callable[[], int],
) -> Measured:
    """Puts a load on a port. *rate*: requests a second; 0: as fast as it goes."""
    file = folder / f"{load.name.replace(' ', '-')}.request"
    file.write_bytes(load.request)
    command = [port, load.connections, load.seconds, load.count, rate, load.status, file]
    before, written_before = cpu(), written()
    with _Peak(memory) as peak:
        done = subprocess.run(
            ["taskset", "-c", str(LOAD_CORE), str(generator), *map(str, command)],
            check=False,
            capture_output=True,
            text=True,
        )
    used = cpu() - before
    if done.returncode:
        raise SystemExit(f"the load generator failed: {done.stderr}")
    said = json.loads(done.stdout)
    good = max(1, said["good"])
    return Measured(
        load.name,
        relay,
        said["good"],
        said["bad"],
        said["seconds"],
        said["p50"],
        said["p99"],
        said["first_p50"],
        said["first_p99"],
        used * 1e6 / good,
        peak.most,
        written() - written_before,
        said["cpu_us"] / good,
        said["complaint"],
    )


class _Peak:
    """The most that a figure reaches while a block runs, looked at now and then."""

    def __init__(self, figure: Callable[[], int]) -> None:
        self.most = 0
        self._figure = figure
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.25):
            self.most = max(self.most, self._figure())


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it comes true in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True
