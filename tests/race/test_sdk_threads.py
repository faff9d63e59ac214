"""
Many calls at once in one process, with the real SDKs: what the provider billed never passes the cap, and of calls of
one size exactly as many are admitted as fit.

Every call is 8 tokens in (``hi``) and fills its ceiling of 10, so its cost is its hold: whatever the order in which
holds and settlements come, ⌊cap / 18⌋ calls fit. The cap leaves a rest of 17, one token short of another call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import cycle
from multiprocessing.pool import ThreadPool
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

import farthing
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import (
    HI,
    HI_TOKENS,
    NOTHING,
    RATES,
    anthropic_client,
    async_openai_client,
    entries,
    holds,
    openai_client,
)

pytestmark = pytest.mark.usefixtures("farthing_isolated")

CEILING = 10
SIZE = HI_TOKENS + CEILING
SIZE_NANO = HI_TOKENS * 2_500 + CEILING * 10_000
Job = Callable[[], bool]
"""Makes one call; whether it was admitted."""


def job(client: OpenAI, **keywords: Any) -> Job:
    def call() -> bool:
        arguments: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": CEILING, **keywords}
        try:
            answer = client.chat.completions.create(**arguments)
            if keywords.get("stream"):
                list(answer)
        except farthing.BudgetExceeded:
            return False
        return True

    return call


def plain_threads(call: Job, number: int) -> int:
    """A ``threading.Thread`` each, all held at a barrier."""
    barrier, admitted = threading.Barrier(number), []

    def run() -> None:
        barrier.wait()
        admitted.append(call())

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(admitted)


def executor(call: Job, number: int) -> int:
    with ThreadPoolExecutor(8) as pool:
        return sum(future.result() for future in [pool.submit(call) for _ in range(number)])


def executor_map(call: Job, number: int) -> int:
    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(lambda _: call(), range(number)))


def thread_pool(call: Job, number: int) -> int:
    with ThreadPool(8) as pool:
        return sum(pool.map(lambda _: call(), range(number)))


def nested_pools(call: Job, number: int) -> int:
    """Pools inside pools inside threads: the scope follows all the way down."""
    halves = [number // 2, number - number // 2]
    with ThreadPoolExecutor(2) as outer:
        return sum(outer.map(lambda half: plain_threads(lambda: bool(executor(call, 1)), half), halves))


def to_thread(call: Job, number: int) -> int:
    async def main() -> int:
        return sum(await asyncio.gather(*(asyncio.to_thread(call) for _ in range(number))))

    return asyncio.run(main())


def _exactly(provider: FakeProvider, budget: farthing.BudgetHandle, *, admitted: int, fit: int) -> None:
    provider.wait_idle()
    assert admitted == fit
    assert provider.billed_tokens == fit * SIZE
    assert provider.posts == fit
    assert budget.spent.tokens == fit * SIZE
    assert budget.held == budget.suspect == NOTHING
    assert len(entries()) == fit
    assert holds() == []


@pytest.mark.parametrize("number", [2, 5, 10, 50, 100])
@pytest.mark.parametrize(
    "launch",
    [plain_threads, executor, executor_map, thread_pool, nested_pools, to_thread],
    ids=lambda launch: launch.__name__,
)
def test_threads(provider: FakeProvider, client: OpenAI, launch: Callable[[Job, int], int], number: int) -> None:
    fit = (number + 1) // 2
    with farthing.budget(tokens=fit * SIZE + SIZE - 1) as budget:
        admitted = launch(job(client), number)
    _exactly(provider, budget, admitted=admitted, fit=fit)


def test_a_thousand_threads(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=100 * SIZE + SIZE - 1) as budget:
        admitted = plain_threads(job(client), 1_000)
    _exactly(provider, budget, admitted=admitted, fit=100)
    assert farthing.report().totals()["denied"] == 900


async def _tasks(client: AsyncOpenAI, number: int, *, stream: bool = False) -> int:
    async def call() -> bool:
        arguments: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": CEILING, "stream": stream}
        try:
            answer = await client.chat.completions.create(**arguments)
            if stream:
                async for _ in answer:
                    pass
        except farthing.BudgetExceeded:
            return False
        return True

    return sum(await asyncio.gather(*(call() for _ in range(number))))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("number", [2, 5, 10, 50, 100])
def test_tasks(provider: FakeProvider, number: int, stream: bool) -> None:
    fit = (number + 1) // 2

    async def main() -> int:
        async with async_openai_client(provider) as client:
            return await _tasks(client, number, stream=stream)

    with farthing.budget(tokens=fit * SIZE + SIZE - 1) as budget:
        admitted = asyncio.run(main())
    _exactly(provider, budget, admitted=admitted, fit=fit)


def test_a_thousand_tasks(provider: FakeProvider) -> None:
    async def main() -> int:
        async with async_openai_client(provider) as client:
            return await _tasks(client, 1_000)

    with farthing.budget(tokens=100 * SIZE + SIZE - 1) as budget:
        admitted = asyncio.run(main())
    _exactly(provider, budget, admitted=admitted, fit=100)


@pytest.mark.parametrize("number", [50])
def test_dollars(provider: FakeProvider, client: OpenAI, number: int) -> None:
    fit = 25
    with farthing.budget(usd=Decimal(fit * SIZE_NANO + SIZE_NANO - 1).scaleb(-9)) as budget:
        admitted = plain_threads(job(client), number)
    _exactly(provider, budget, admitted=admitted, fit=fit)
    assert budget.spent.usd == provider.billed_usd(RATES) == Decimal(fit * SIZE_NANO).scaleb(-9)


def test_plain_and_streamed_together(provider: FakeProvider, client: OpenAI) -> None:
    plain, stream = job(client), job(client, stream=True)
    turns = cycle([plain, stream])

    def either() -> bool:
        return next(turns)()

    with farthing.budget(tokens=25 * SIZE + SIZE - 1) as budget:
        admitted = plain_threads(either, 60)
    _exactly(provider, budget, admitted=admitted, fit=25)


def test_two_sdks_on_one_budget(provider: FakeProvider, client: OpenAI) -> None:
    """Claude's input is held by an upper estimate, so how many fit depends on the order; the cap holds all the same."""
    openai_call = job(client)
    cap = 40 * SIZE
    with anthropic_client(provider) as claude:

        def claude_call() -> bool:
            try:
                claude.messages.create(model="claude-haiku-4-5", messages=HI, max_tokens=CEILING)
            except farthing.BudgetExceeded:
                return False
            return True

        turns = cycle([openai_call, claude_call])

        def either() -> bool:
            return next(turns)()

        with farthing.budget(tokens=cap) as budget:
            admitted = plain_threads(either, 80)
    assert provider.calls == admitted
    assert budget.spent.tokens == provider.billed_tokens <= cap
    assert budget.held == NOTHING


@pytest.mark.parametrize("number", [10, 50])
def test_a_burst_under_clamp_uses_the_cap_up_and_not_one_token_more(
    provider: FakeProvider, client: OpenAI, number: int
) -> None:
    with farthing.budget(tokens=1_000, on_exceed="clamp") as budget:
        admitted = plain_threads(job(client, max_tokens=900), number)
    provider.wait_idle()
    assert admitted == provider.calls == 2
    assert provider.billed_tokens == budget.spent.tokens == 1_000


def test_a_burst_of_requests_without_a_ceiling(provider: FakeProvider, client: OpenAI) -> None:
    """The ceiling is ours then: it shrinks to what fits, under ``block`` too."""
    with farthing.budget(tokens=1_000) as budget:
        admitted = plain_threads(job(client, max_tokens=None), 50)
    provider.wait_idle()
    assert admitted == provider.calls >= 1
    assert provider.billed_tokens == budget.spent.tokens
    assert 1_000 - (8 + 16) < provider.billed_tokens <= 1_000


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_twenty_streams_launched_before_any_is_drained(provider: FakeProvider, asynchronous: bool) -> None:
    """Launched, then drained one chunk each in turn: what was held when they left decides, not what has been read."""
    cap = 12 * SIZE + SIZE - 1

    def launch(client: OpenAI) -> int:
        streams: list[Iterator[Any]] = []
        for _ in range(20):
            try:
                arguments: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": CEILING, "stream": True}
                streams.append(iter(client.chat.completions.create(**arguments)))
            except farthing.BudgetExceeded:
                continue
        admitted = len(streams)
        while streams:
            streams = [stream for stream in streams if next(stream, None) is not None]
        return admitted

    async def launch_async() -> int:
        async with async_openai_client(provider) as client:
            streams: list[Any] = []
            for _ in range(20):
                try:
                    arguments: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": CEILING, "stream": True}
                    streams.append(aiter(await client.chat.completions.create(**arguments)))
                except farthing.BudgetExceeded:
                    continue
            admitted = len(streams)
            while streams:
                streams = [stream for stream in streams if await anext(stream, None) is not None]
            return admitted

    with farthing.budget(tokens=cap) as budget:
        if asynchronous:
            admitted = asyncio.run(launch_async())
        else:
            with openai_client(provider) as client:
                admitted = launch(client)
    _exactly(provider, budget, admitted=admitted, fit=12)


def test_streams_drained_by_other_threads_than_they_were_launched_in(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=10 * SIZE) as budget:
        arguments: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": CEILING, "stream": True}
        streams = [client.chat.completions.create(**arguments) for _ in range(10)]
    assert budget.held.tokens == 10 * SIZE
    threads = [threading.Thread(target=list, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _exactly(provider, budget, admitted=10, fit=10)


def test_calls_at_once_are_bounded(provider: FakeProvider, client: OpenAI) -> None:
    """``concurrency=3``: three calls are answered late, the others are denied meanwhile; then three more may go."""
    provider.reply = Reply(output_tokens=10, pause_after_chunks=0)
    call, results = job(client), []
    with farthing.budget(concurrency=3):
        threads = [threading.Thread(target=lambda: results.append(call())) for _ in range(3)]
        for thread in threads:
            thread.start()
        provider.wait_in_flight(3)
        with ThreadPoolExecutor(8) as pool:
            assert [future.result() for future in [pool.submit(call) for _ in range(20)]] == [False] * 20
        provider.resume()
        for thread in threads:
            thread.join()
        provider.reply = Reply()
        assert results == [True] * 3
        assert [call() for _ in range(3)] == [True] * 3
    assert provider.max_in_flight == 3
