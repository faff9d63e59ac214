"""
Governed streams of 50 chunks beside raw ones, in turn: what farthing adds to a stream, and to each chunk.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
from openai import OpenAI

import farthing

from .answers import sse_body
from .bars import Figure

CHUNKS = 50


class _Stream(httpx2.SyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


class _Streaming(httpx2.BaseTransport):
    """Answers every request with the same stream, at once."""

    def __init__(self) -> None:
        self._chunks = sse_body(CHUNKS)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Stream(self._chunks))


def measure(*, quick: bool) -> list[Figure]:
    """Microseconds of processor time, governed by three budgets over raw."""
    rounds, streams = (5, 20) if quick else (15, 50)
    plain, governed = _client(), farthing.instrument(_client())
    farthing.reset()
    added, raw = [], []
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(farthing.budget(usd=1_000_000, tokens=10**12))
        for turn in range(rounds + 1):
            without, with_us = _time(plain, streams), _time(governed, streams)
            if turn:
                added.append(with_us - without)
                raw.append(without)
    a_stream, alone = statistics.median(added), statistics.median(raw)
    return [
        Figure(
            f"governed stream of {CHUNKS} chunks, 3 nested budgets: added", a_stream, "µs", 1_000,
            f"the stream without us: {alone:,.0f} µs",
        ),
        Figure(
            "the same, by chunk", a_stream / CHUNKS, "µs", 20, f"a chunk without us: {alone / CHUNKS:.0f} µs",
        ),
    ]  # fmt: skip


def _client() -> OpenAI:
    return OpenAI(api_key="x", base_url="http://bench.invalid/v1", http_client=httpx2.Client(transport=_Streaming()))


def _time(client: OpenAI, streams: int) -> float:
    started = time.process_time()
    for _ in range(streams):
        for _ in client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=100,
            stream=True,
            stream_options={"include_usage": True},
        ):
            pass
    return (time.process_time() - started) / streams * 1e6
