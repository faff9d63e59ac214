"""
Memory over 200,000 calls: flat, once what is kept is full.

A process of its own makes calls through a governed transport (no SDK and no socket, whose own memory would be measured
too): plain and streamed, paid, refused by the provider, denied by a budget and abandoned, in anonymous budgets that
begin and end, under tags that change. It keeps the last ``max_records`` calls, and is warm when it has made four times
as many: until then dictionaries that lose their oldest rows have been built anew once, a little larger.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

import farthing
from farthing.sdk.hook import govern_transport

from .answers import ANSWER, sse_body
from .bars import Figure

URL = "http://bench.invalid/v1/chat/completions"
SAMPLES = 10
_PAGE = os.sysconf("SC_PAGE_SIZE")


def measure(*, quick: bool) -> list[Figure]:
    """How far memory goes from where it was after the warm-up, in percent; less memory is no fault."""
    calls, kept = (40_000, 2_000) if quick else (200_000, 10_000)
    durable_calls, durable_kept = (4_000, 500) if quick else (20_000, 2_000)
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as directory:
        ledger = f"sqlite:///{Path(directory, 'ledger.db')}"
        return [
            _figure(f"memory over {calls:,} calls, the last {kept:,} kept", _run(calls, kept, "")),
            _figure(f"the same, SQLite, {durable_calls:,} calls", _run(durable_calls, durable_kept, ledger)),
        ]


def _figure(what: str, sizes: list[int]) -> Figure:
    growth = 100 * (max(sizes) / sizes[0] - 1)
    beside = f"{sizes[0] / 2**20:.1f} MB when warm, {sizes[-1] / 2**20:.1f} MB at the end"
    return Figure(what, growth, "% more", 5, beside)


def _run(calls: int, kept: int, ledger: str) -> list[int]:
    argv = [sys.executable, "-m", "bench.memory", str(calls), str(kept), ledger]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    sizes: list[int] = json.loads(done.stdout)
    return sizes


class _Provider(httpx2.BaseTransport):
    """Answers each request by its number: a plain answer, a stream, an error."""

    def __init__(self) -> None:
        self._number = 0
        self._stream = sse_body(20)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self._number += 1
        if request.headers["x-bench"] == "stream":
            headers = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=headers, stream=_Chunks(self._stream))
        if self._number % 11 == 0:
            return httpx2.Response(500, headers={"content-type": "application/json"}, stream=httpx2.ByteStream(b"{}"))
        headers = {"content-type": "application/json"}
        return httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(ANSWER))


class _Chunks(httpx2.SyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


def _calls(calls: int, kept: int, ledger: str) -> list[int]:
    """The resident size in bytes, when warm and at *SAMPLES* later moments."""
    farthing.configure(max_records=kept, ledger=ledger or None)
    transport = _Provider()
    govern_transport(transport, sdk="openai")
    sizes = []
    with farthing.budget("all", usd=1_000_000, tokens=10**12), farthing.budget(tokens=10**12):
        for number in range(4 * kept):
            _call(transport, number)
        sizes.append(_resident())
        for _ in range(SAMPLES):
            for number in range(calls // SAMPLES):
                _call(transport, number)
            sizes.append(_resident())
    farthing.reset()
    return sizes


def _call(transport: _Provider, number: int) -> None:
    kind = number % 20
    streamed = kind in (3, 4)
    body = {
        "model": "gpt-4o" if number % 3 else "gpt-4o-mini",
        "messages": [{"role": "user", "content": f"call {number}"}],
        "max_tokens": 50,
        "stream": streamed,
    }
    headers = {"x-bench": "stream" if streamed else "plain"}
    limits: dict[str, Any] = {"tokens": 5} if kind == 5 else {"tokens": 10_000}
    with farthing.track(feature=f"feature-{number % 7}"), farthing.budget(**limits):
        try:
            response = transport.handle_request(httpx2.Request("POST", URL, headers=headers, json=body))
        except farthing.BudgetExceeded:
            return
        stream = response.stream
        assert isinstance(stream, httpx2.SyncByteStream)
        if kind == 3:
            for _ in stream:
                break
            stream.close()
        else:
            for _ in stream:
                pass


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE


if __name__ == "__main__":
    json.dump(_calls(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]), sys.stdout)
