"""
What one call costs, through the proxy and in an SDK, stage by stage, in executed bytecodes: a count, not a time, so
that it is the same on a busy machine. ``python -m bench.guard`` holds it against ``baseline.json`` and says which stage
grew.

Bytecodes say nothing of what runs in C (system calls, the parser, JSON, SQLite): how long that takes, the whole bench
says.
"""

from __future__ import annotations

import io
import logging
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from openai import OpenAI

import farthing
from farthing.proxy.process.server import ProxyServer

from .proxy.load import request
from .proxy.ours import settings
from .proxy.processes import LOAD_CORE, compiled, free_port, running
from .sdk_calls import ask, governed, ungoverned

CALLS = {
    "plain": request(),
    "denied": request(path="/denied", headers=("x-farthing-tags: team=nobody",)),
    "stream": request(stream=True),
    # So slow that no two events come at once, traced as the proxy is.
    "paced stream": request(stream=True, marks="PACE=3000;EVENTS=20;"),
}
WARM_UP, COUNTED = 20, 40
_HOUSEKEEPING = "farthing-housekeeper"

_ROOT = str(Path(farthing.__file__).parent)
_STAGES = (
    ("proxy/http1", "upstream client"),
    ("proxy", "proxy"),
    ("sdk", "SDK door"),
    ("wire", "wire"),
    ("tokens", "tokens"),
    ("prices", "prices"),
    ("kernel", "kernel"),
    ("calls", "calls"),
    ("runtime", "calls"),
    ("scopes", "calls"),
    ("reports", "calls"),
    ("stores/memory", "memory store"),
    ("stores/contract", "memory store"),
    ("stores", "SQLite store"),
)
ELSEWHERE = "library"
"""The standard library, and code that ``dataclass`` and ``namedtuple`` generate."""


def stage_of(code: CodeType) -> str:
    """Where a piece of code belongs."""
    name = code.co_filename
    if name.startswith(_ROOT):
        rest = name[len(_ROOT) + 1 :]
        return next((stage for prefix, stage in _STAGES if rest.startswith(prefix)), "farthing")
    return "web server" if "uvicorn" in name else ELSEWHERE


class Count:
    """Bytecodes executed in every thread that starts while it is in force, while it is told to count."""

    def __init__(self) -> None:
        self.counting = False
        self.by_code: Counter[CodeType] = Counter()
        self._ignored: set[int] = set()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        threading.settrace(self.called)
        try:
            yield
        finally:
            threading.settrace(None)

    def by_stage(self, calls: int) -> dict[str, int]:
        """Bytecodes a call."""
        stages: Counter[str] = Counter()
        for code, count in self.by_code.items():
            stages[stage_of(code)] += count
        return {stage: round(count / calls) for stage, count in sorted(stages.items())}

    def called(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event != "call" or threading.get_ident() in self._ignored:
            return None
        if threading.current_thread().name == _HOUSEKEEPING:
            # It works by the clock, not by the call.
            self._ignored.add(threading.get_ident())
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._executed

    def _executed(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode" and self.counting:
            self.by_code[frame.f_code] += 1
        return self._executed


def measure() -> dict[str, dict[str, int]]:
    """Bytecodes a call, by kind of call and stage."""
    # A line for each denial is part of its cost; reading them is not what anybody wants here.
    logging.getLogger("farthing").addHandler(logging.StreamHandler(io.StringIO()))
    found = {}
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as name:
        folder, upstream_port = Path(name), free_port()
        mock = compiled("mock", folder)
        with running([str(mock), str(upstream_port)], core=LOAD_CORE, port=upstream_port, log=folder / "mock.log"):
            upstream = f"http://127.0.0.1:{upstream_port}"
            for kind, data in CALLS.items():
                found[kind] = _count(data, settings(0, upstream, upstream, f"sqlite:///{folder}/{kind}.db"))
    found["SDK"] = _count_sdk()
    return found


def _count(data: bytes, given: Any) -> dict[str, int]:
    count = Count()
    with count.in_force():
        server = ProxyServer(given)
        server.start()
        try:
            with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
                for _ in range(WARM_UP):
                    _ask(client, data)
                count.counting = True
                for _ in range(COUNTED):
                    _ask(client, data)
                count.counting = False
        finally:
            server.stop()
    return count.by_stage(COUNTED)


def _count_sdk() -> dict[str, int]:
    """What farthing adds to an SDK's call, in memory: the governed call, less the same ungoverned."""
    with farthing.budget(usd=1_000_000, tokens=10**12):
        with_us, without = _count_calls(governed()), _count_calls(ungoverned())
    with_us.by_code.subtract(without.by_code)
    return with_us.by_stage(COUNTED)


def _count_calls(client: OpenAI) -> Count:
    count = Count()
    ask(client, ["hi"] * WARM_UP)
    sys.settrace(count.called)
    count.counting = True
    ask(client, ["hi"] * COUNTED)
    sys.settrace(None)
    return count


def _ask(client: socket.socket, data: bytes) -> None:
    """One call, and its whole answer."""
    client.sendall(data)
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(client)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None)
    while not body.endswith(b"0\r\n\r\n") if length is None else len(body) < int(length.partition(b":")[2]):
        body += _some(client)


def _some(client: socket.socket) -> bytes:
    data = client.recv(65536)
    if not data:
        raise SystemExit("the proxy ended a connection in the middle of an answer")
    return data
