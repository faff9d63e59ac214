"""
Overspend and wrong refusals: bursts of calls of one size at a budget that fits some of them.

A call is 8 tokens of input and a fixed number of output tokens; the budget fits a number of whole calls and not one
token more for half of the bursts, and half a call more for the others. What counts is the provider's own bill.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAI

import farthing
from farthing.testing import FakeProvider, Reply

from .bars import Figure

INPUT = 8
OUTPUT = 120
SIZE = INPUT + OUTPUT
STREAMS_MAX = 100
"""As many as one client's pool of connections keeps open at once: each stream holds one until it is drained."""
MESSAGES: Any = [{"role": "user", "content": "hi"}]
Burst = Callable[[FakeProvider, int, int], None]


def measure(*, quick: bool) -> list[Figure]:
    """Overspend in tokens, and calls refused though they would have fit, over all bursts; each must be 0."""
    sizes = (1, 10, 100) if quick else (1, 2, 5, 10, 50, 100, 1_000)
    figures = []
    for name, burst in BURSTS.items():
        over = refused = calls = 0
        started = time.perf_counter()
        for count in sizes:
            if burst is _streams and count > STREAMS_MAX:
                continue
            for fits in {max(1, count // 2), count}:
                cap = SIZE * fits + (SIZE // 2 if fits == count // 2 else 0)
                with FakeProvider(Reply(output_tokens=OUTPUT, latency_seconds=0.02)) as provider:
                    burst(provider, count, cap)
                    provider.wait_idle()
                    over += max(0, provider.billed_tokens - cap)
                    refused += min(fits, count) - provider.calls
                    calls += count
        beside = (
            f"{calls:,} calls, {time.perf_counter() - started:.1f} s; check-then-record: +{_naive(100):,} tokens at 100"
        )
        figures.append(Figure(f"overspend, {name}", over, "tokens", 0, beside))
        figures.append(Figure(f"refused though it fits, {name}", refused, "calls", 0))
    return figures


def _in_threads(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _threads(provider: FakeProvider, count: int, cap: int) -> None:
    client = farthing.instrument(OpenAI(base_url=provider.openai_url, api_key="fake", max_retries=0))

    def work() -> None:
        try:
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=OUTPUT)
        except farthing.BudgetExceeded:
            pass

    with farthing.budget(tokens=cap):
        _in_threads(work, count)
    client.close()


def _tasks(provider: FakeProvider, count: int, cap: int) -> None:
    async def run() -> None:
        client = farthing.instrument(AsyncOpenAI(base_url=provider.openai_url, api_key="fake", max_retries=0))

        async def work() -> None:
            try:
                await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=OUTPUT)
            except farthing.BudgetExceeded:
                pass

        with farthing.budget(tokens=cap):
            await asyncio.gather(*(work() for _ in range(count)))
        await client.close()

    asyncio.run(run())


def _streams(provider: FakeProvider, count: int, cap: int) -> None:
    """All streams are launched before any is drained."""
    client = farthing.instrument(OpenAI(base_url=provider.openai_url, api_key="fake", max_retries=0))
    streams = []
    with farthing.budget(tokens=cap):
        for _ in range(count):
            try:
                streams.append(
                    client.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=OUTPUT, stream=True)
                )
            except farthing.BudgetExceeded:
                pass
    for stream in streams:
        for _ in stream:
            pass
    client.close()


def _processes(provider: FakeProvider, count: int, cap: int) -> None:
    """Four processes on one SQLite file."""
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as directory:
        ledger = f"sqlite:///{Path(directory, 'ledger.db')}"
        context = multiprocessing.get_context("spawn")
        share = [count // 4 + (index < count % 4) for index in range(4)]
        children = [
            context.Process(target=_child, args=(provider.openai_url, ledger, calls, cap)) for calls in share if calls
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()


def _child(url: str, ledger: str, calls: int, cap: int) -> None:
    farthing.configure(ledger=ledger)
    client = farthing.instrument(OpenAI(base_url=url, api_key="fake", max_retries=0))
    shared = farthing.budget("burst", tokens=cap)

    def work() -> None:
        try:
            with shared:
                client.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=OUTPUT)
        except farthing.BudgetExceeded:
            pass

    _in_threads(work, calls)


def _naive(count: int) -> int:
    """What check-then-record spends over a budget of half the burst, measured here: the reference."""
    spent, billed, cap = 0, 0, SIZE * (count // 2)
    barrier = threading.Barrier(count)
    lock = threading.Lock()

    def work() -> None:
        nonlocal spent, billed
        passes = spent + SIZE <= cap
        barrier.wait()
        if passes:
            with lock:
                billed += SIZE
                spent += SIZE

    _in_threads(work, count)
    return max(0, billed - cap)


BURSTS: dict[str, Burst] = {
    "threads": _threads,
    "tasks": _tasks,
    "up to 100 streams at once": _streams,
    "4 processes, SQLite": _processes,
}
