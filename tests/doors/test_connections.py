"""
What lies below a call and may not matter to it: redirects, HTTP/2, transports within transports, clients that are
shared or copied, event loops that come and go.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

import farthing
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, NOTHING, async_openai_client, entries, holds, openai_client
from tests.doors.http2 import http2_provider

pytestmark = pytest.mark.usefixtures("farthing_isolated")
SIZE, ROOM = 18, 28
"""What ``CALL`` comes to, and what is held for it."""
CALL: dict[str, Any] = {"model": "gpt-4o", "messages": HI, "max_tokens": 20}


# -- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["instrument", "install"])
def test_a_redirect_to_another_host_is_two_attempts_and_one_cost(fake_provider: FakeProvider, way: str) -> None:
    elsewhere = fake_provider.openai_url.replace("127.0.0.1", "localhost")
    fake_provider.script([Reply(status=307, headers={"location": f"{elsewhere}/chat/completions"})])
    if way == "install":
        farthing.install()
    with (
        openai_client(fake_provider, governed=way == "instrument") as client,
        farthing.budget(tokens=100, requests=5) as budget,
    ):
        client.chat.completions.create(**CALL)
        assert (budget.spent.tokens, budget.spent.requests) == (fake_provider.billed_tokens, 2)
    farthing.uninstall()
    assert [entry.ending for entry in entries()] == ["http_307", "ok"]
    assert fake_provider.posts == 2


def test_a_redirect_cannot_lead_past_the_meter(fake_provider: FakeProvider) -> None:
    """To a path that nothing can meter: refused there, after an attempt that cost nothing."""
    fake_provider.script([Reply(status=307, headers={"location": f"{fake_provider.url}/v1/batches"})])
    with openai_client(fake_provider) as client, farthing.budget(tokens=100) as budget:
        with pytest.raises(farthing.UnmeteredCall):
            client.chat.completions.create(**CALL)
        assert budget.spent.tokens == 0
    assert fake_provider.posts == 1


def test_the_target_of_a_redirect_is_held_for_too(fake_provider: FakeProvider) -> None:
    fake_provider.script([Reply(status=308, headers={"location": f"{fake_provider.openai_url}/chat/completions"})])
    with (
        openai_client(fake_provider) as client,
        farthing.budget(requests=1),
        pytest.raises(farthing.BudgetExceeded) as refused,
    ):
        client.chat.completions.create(**CALL)
    assert refused.value.unit == "requests"
    assert fake_provider.posts == 1


# -- HTTP/2 -----------------------------------------------------------------------------------------------------------


def test_http2_plain_and_streamed() -> None:
    with (
        http2_provider() as (url, seen),
        httpx2.Client(http1=False, http2=True, timeout=60) as http,
        farthing.budget(usd=1, tokens=1_000) as budget,
    ):
        client = farthing.instrument(OpenAI(base_url=url, api_key="fake", http_client=http))
        raw = client.chat.completions.with_raw_response.create(**CALL)
        assert raw.http_response.http_version == "HTTP/2"
        assert raw.parse().choices[0].message.content == "a coin"
        chunks = list(client.chat.completions.create(**CALL, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "a coin"
    assert seen == ["plain", "stream"]
    assert [(entry.ending, entry.usage_source) for entry in entries()] == [("ok", "provider")] * 2
    assert (budget.spent.tokens, budget.held) == (20, NOTHING)


def test_http2_streams_of_one_connection_are_left_and_read_alike() -> None:
    """One is closed half way: the others, on the same connection, come to their ends."""

    async def main(url: str) -> list[str]:
        async with httpx2.AsyncClient(http1=False, http2=True, timeout=60) as http:
            client = farthing.instrument(AsyncOpenAI(base_url=url, api_key="fake", http_client=http, max_retries=0))
            streams = [await client.chat.completions.create(**CALL, stream=True) for _ in range(3)]
            async for _ in streams[1]:
                break
            await streams[1].close()
            return [
                "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
                for stream in (streams[0], streams[2])
            ]

    with http2_provider() as (url, seen), farthing.budget(usd=1, tokens=1_000) as budget:
        assert asyncio.run(main(url)) == ["a coin", "a coin"]
        rows = entries()
        assert sorted(row.ending for row in rows if row.ending == "ok") == ["ok", "ok"]
        assert len(rows) == len(seen) == 3
        assert budget.held == NOTHING


# -- transports within transports -------------------------------------------------------------------------------------


class Again(httpx2.BaseTransport):
    """Tries again by itself, as retrying transports do."""

    def __init__(self, inner: httpx2.BaseTransport, tries: int) -> None:
        self._inner, self._tries = inner, tries

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        for _ in range(self._tries):
            response = self._inner.handle_request(request)
            if response.status_code != 500:
                break
            response.close()
        return response

    def close(self) -> None:
        self._inner.close()


class Remembers(Again):
    """Answers from memory, as caching transports do."""

    def __init__(self, inner: httpx2.BaseTransport) -> None:
        super().__init__(inner, 1)
        self._known: dict[bytes, bytes] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        key = request.read()
        if key not in self._known:
            self._known[key] = super().handle_request(request).read()
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=self._known[key])


WAYS: dict[str, Callable[[Any], Any]] = {"instrument": farthing.instrument, "install": lambda client: client}


@pytest.mark.parametrize("way", WAYS)
def test_a_transport_that_tries_again_pays_for_each_try(fake_provider: FakeProvider, way: str) -> None:
    fake_provider.script([Reply(status=500), Reply(status=500), Reply("a coin")])
    if way == "install":
        farthing.install()
    with (
        httpx2.Client(timeout=60, transport=Again(httpx2.HTTPTransport(), 3)) as http,
        farthing.budget(requests=5) as budget,
    ):
        client = WAYS[way](OpenAI(base_url=fake_provider.openai_url, api_key="fake", http_client=http))
        client.chat.completions.create(**CALL)
        assert budget.spent.requests == 3
    farthing.uninstall()
    assert [entry.ending for entry in entries()] == ["http_500", "http_500", "ok"]


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_from_a_cache_costs_nothing(fake_provider: FakeProvider, way: str) -> None:
    if way == "install":
        farthing.install()
    with (
        httpx2.Client(timeout=60, transport=Remembers(httpx2.HTTPTransport())) as http,
        farthing.budget(tokens=100) as budget,
    ):
        client = WAYS[way](OpenAI(base_url=fake_provider.openai_url, api_key="fake", http_client=http))
        for _ in range(3):
            client.chat.completions.create(**CALL)
        assert budget.spent.tokens == fake_provider.billed_tokens == SIZE
    farthing.uninstall()
    assert fake_provider.posts == len(entries()) == 1


def test_a_proxys_transport_is_governed(fake_provider: FakeProvider) -> None:
    mounts = {"http://": httpx2.HTTPTransport(proxy=fake_provider.url)}
    with (
        httpx2.Client(mounts=mounts, timeout=60) as http,
        farthing.budget(tokens=1),
        pytest.raises(farthing.BudgetExceeded),
    ):
        farthing.instrument(
            OpenAI(base_url="http://llm.internal/v1", api_key="fake", http_client=http)
        ).chat.completions.create(**CALL)
    assert fake_provider.requests == []


# -- clients and event loops ------------------------------------------------------------------------------------------


def test_one_client_in_many_threads_with_budgets_of_their_own(fake_provider: FakeProvider) -> None:
    spent: list[int | None] = []

    def work(client: OpenAI) -> None:
        with farthing.budget(tokens=100) as budget:
            client.chat.completions.create(**CALL)
            spent.append(budget.spent.tokens)

    with openai_client(fake_provider) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert spent == [SIZE] * 8
    assert fake_provider.billed_tokens == 8 * SIZE


@pytest.mark.parametrize("ledger", [None, "sqlite"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a closed loop leaves its connections to the collector
def test_event_loops_come_and_go(fake_provider: FakeProvider, ledger: str | None, tmp_path: Any) -> None:
    """One budget, one handle, and a client on each of several loops in turn; then two loops at once."""
    if ledger:
        farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
    budget = farthing.budget("loops", tokens=SIZE * 4 + ROOM * 2)

    async def call(client: AsyncOpenAI, *, stream: bool) -> None:
        made = await client.chat.completions.create(**CALL, stream=stream)
        if stream:
            async for _ in made:
                pass

    async def main() -> None:
        async with async_openai_client(fake_provider) as client, budget:
            await asyncio.gather(call(client, stream=False), call(client, stream=True))

    asyncio.run(main())
    asyncio.run(main())
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert budget.spent.tokens == fake_provider.billed_tokens == SIZE * 6
    assert budget.held == NOTHING
    with pytest.raises(farthing.BudgetExceeded):
        asyncio.run(main())
    assert fake_provider.posts == len(entries()) == 6


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_async_client_on_several_loops_behaves_as_without_us(fake_provider: FakeProvider) -> None:
    """Its pooled connections belong to a loop that is gone; whatever the SDK makes of that, it makes of it here too."""

    def outcomes(client: AsyncOpenAI) -> list[str]:
        async def once() -> str:
            try:
                return str((await client.chat.completions.create(**CALL)).choices[0].message.content)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
                return type(error).__name__

        return [asyncio.run(once()) for _ in range(3)]

    fake_provider.reply = Reply("a coin", output_tokens=10)
    with FakeProvider(fake_provider.reply) as twin:
        wanted = outcomes(async_openai_client(twin, governed=False))
    with farthing.budget(tokens=1_000) as budget:
        seen = outcomes(async_openai_client(fake_provider))
        gc.collect()
        # What failed on a dead connection was sent, and billed, all the same: it stays counted at its hold.
        assert [entry.ending for entry in entries()] == [
            "ok" if said == "a coin" else "connection_lost" for said in seen
        ]
        assert fake_provider.billed_tokens == SIZE * 3
        assert budget.spent.tokens + budget.suspect.tokens >= fake_provider.billed_tokens
        assert holds("held") == []
    assert seen == wanted


def test_a_client_that_was_closed_leaves_no_trace(fake_provider: FakeProvider) -> None:
    client = openai_client(fake_provider)
    client.close()
    with farthing.budget(tokens=100) as budget, pytest.raises((openai.APIConnectionError, RuntimeError)):
        client.chat.completions.create(**CALL)
    assert budget.held == budget.spent == NOTHING
    assert entries() == []
    with openai_client(fake_provider) as again, farthing.budget(tokens=100) as budget:
        again.chat.completions.create(**CALL)
    assert len(entries()) == 1
