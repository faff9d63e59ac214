"""
What lies below a call and may not matter to it: redirects, HTTP/2, transports within transports, clients that are
shared or copied, event loops that come and go.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import Any

import httpx2
import openai
import pytest
from anthropic import Anthropic
from google import genai
from google.genai.types import HttpOptions
from openai import AsyncOpenAI, AzureOpenAI, OpenAI

import farthing
from farthing.sdk.streaming import OpenStream
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


class Takes(httpx2.BaseTransport):
    """Sends by each of several in turn, and gives the last one's answer."""

    def __init__(self, *inner: httpx2.BaseTransport) -> None:
        self._inner = dict(enumerate(inner))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        for number, inner in self._inner.items():
            response = inner.handle_request(request)
            if number + 1 < len(self._inner):
                response.read()
        return response

    def close(self) -> None:
        for inner in self._inner.values():
            inner.close()


def test_each_of_several_transports_within_one_is_seen(fake_provider: FakeProvider) -> None:
    """They stood in a list, or in a mapping: what the first was paid for was in no figure."""
    with (
        httpx2.Client(timeout=60, transport=Takes(httpx2.HTTPTransport(), httpx2.HTTPTransport())) as http,
        farthing.budget(tokens=100) as budget,
    ):
        client = farthing.instrument(OpenAI(base_url=fake_provider.openai_url, api_key="fake", http_client=http))
        client.chat.completions.create(**CALL)
        assert budget.spent.tokens == fake_provider.billed_tokens == 2 * SIZE


class Logs(httpx2.HTTPTransport):
    """Reads every answer before its client does."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        response.read()
        return response


class LogsAsync(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        await response.aread()
        return response


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_its_transport_has_read_already(fake_provider: FakeProvider, stream: bool) -> None:
    """What was read is not to be had from the connection once more: the call hung until its timeout."""

    async def main() -> None:
        async with httpx2.AsyncClient(timeout=60, transport=LogsAsync()) as http:
            client = farthing.instrument(
                AsyncOpenAI(base_url=fake_provider.openai_url, api_key="fake", http_client=http)
            )
            answer = await client.chat.completions.create(**CALL, stream=stream)
            if stream:
                assert [chunk async for chunk in answer]

    with (
        httpx2.Client(timeout=60, transport=Logs()) as http,
        farthing.budget(tokens=100) as budget,
    ):
        client = farthing.instrument(OpenAI(base_url=fake_provider.openai_url, api_key="fake", http_client=http))
        answer = client.chat.completions.create(**CALL, stream=stream)
        if stream:
            assert list(answer)
        asyncio.run(main())
        assert budget.spent.tokens == fake_provider.billed_tokens == 2 * SIZE
    assert [entry.ending for entry in entries()] == ["ok", "ok"]


BIGGER = json.dumps({**CALL, "max_tokens": 500}).encode()
BIGGER_ROOM = 508


async def later(body: bytes) -> AsyncIterator[bytes]:
    yield body


def replaced(request: httpx2.Request, content: Any) -> None:
    """The body, by an event hook: a request remembers what it was made with, and sends the stream that it has."""
    request.headers["content-length"] = str(len(BIGGER))
    request.stream = httpx2.Request("POST", "http://x", content=content).stream


@pytest.mark.parametrize("content", [lambda: BIGGER, lambda: iter([BIGGER])], ids=["bytes", "iterator"])
@pytest.mark.parametrize("room", [BIGGER_ROOM - 1, BIGGER_ROOM])
def test_what_an_event_hook_puts_into_a_request_is_held_for(
    fake_provider: FakeProvider, content: Callable[[], Any], room: int
) -> None:
    fake_provider.reply = Reply(output_tokens=1_000_000)
    hooks = {"request": [lambda request: replaced(request, content())]}
    with httpx2.Client(timeout=60, event_hooks=hooks) as http, farthing.budget(tokens=room) as budget:
        client = farthing.instrument(OpenAI(base_url=fake_provider.openai_url, api_key="fake", http_client=http))
        refused = pytest.raises(farthing.BudgetExceeded) if room < BIGGER_ROOM else nullcontext()
        with refused:
            client.chat.completions.create(**CALL)
        assert budget.spent.tokens == fake_provider.billed_tokens == (0 if room < BIGGER_ROOM else BIGGER_ROOM)


@pytest.mark.parametrize("content", [lambda: BIGGER, lambda: later(BIGGER)], ids=["bytes", "iterator"])
def test_so_is_what_one_of_an_async_client_puts_there(fake_provider: FakeProvider, content: Callable[[], Any]) -> None:
    fake_provider.reply = Reply(output_tokens=1_000_000)

    async def replace(request: httpx2.Request) -> None:
        replaced(request, content())

    async def main() -> None:
        async with httpx2.AsyncClient(timeout=60, event_hooks={"request": [replace]}) as http:
            url = fake_provider.openai_url
            client = farthing.instrument(AsyncOpenAI(base_url=url, api_key="fake", http_client=http))
            await client.chat.completions.create(**CALL)
            with pytest.raises(farthing.BudgetExceeded):
                await client.chat.completions.create(**CALL)

    with farthing.budget(tokens=2 * BIGGER_ROOM - 1) as budget:
        asyncio.run(main())
        assert budget.spent.tokens == fake_provider.billed_tokens == BIGGER_ROOM


def test_what_a_test_puts_in_a_transports_place_is_asked(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its class, after the client was handed over, as mocks and tracers do: the provider itself was asked."""
    mocked = httpx2.HTTPTransport.handle_request
    paths = []

    def handle_request(self: httpx2.HTTPTransport, request: httpx2.Request) -> httpx2.Response:
        paths.append(request.url.path)
        return mocked(self, request)

    with (
        openai_client(fake_provider) as client,
        farthing.budget(tokens=100) as budget,
        monkeypatch.context() as patched,
    ):
        patched.setattr(httpx2.HTTPTransport, "handle_request", handle_request)
        client.chat.completions.create(**CALL)
        assert budget.spent.tokens == SIZE
    assert paths == ["/v1/chat/completions"]


def test_a_stream_that_was_read_leaves_nothing_behind(fake_provider: FakeProvider) -> None:
    """It stayed, with all that was read of it, until somebody looked for garbage."""
    with openai_client(fake_provider) as client, farthing.budget(tokens=100) as budget:
        gc.collect()
        gc.disable()
        try:
            for _ in client.chat.completions.create(stream=True, **CALL):
                pass
            left = [of for of in gc.get_objects() if type(of) is OpenStream]
        finally:
            gc.enable()
        assert budget.spent.tokens == SIZE
    assert left == []


class PassesOn:
    """Has nothing of its own: not even its class has what it sends by."""

    def __init__(self, inner: httpx2.HTTPTransport) -> None:
        self._inner = lambda: inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner(), name)


@pytest.mark.parametrize(
    ("encoding", "window", "behind"),
    [("gzip", 31, b""), ("gzip", 31, b"\0\0"), ("deflate", 15, b""), ("deflate", -15, b"")],
)
def test_an_answer_is_unpacked_however_its_client_can(encoding: str, window: int, behind: bytes) -> None:
    """Many servers send deflate without its frame, and pad: what their clients read was counted as if it were lost."""
    answer = {
        "id": "x", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9},
    }  # fmt: skip
    packer = zlib.compressobj(wbits=window)
    packed = packer.compress(json.dumps(answer).encode()) + packer.flush() + behind
    with FakeProvider(Reply(body=packed, headers={"content-encoding": encoding}), strict=False) as provider:
        with openai_client(provider) as client, farthing.budget(tokens=100) as budget:
            assert client.chat.completions.create(**CALL).choices[0].message.content == "hi"
        assert budget.spent.tokens == 9
        assert entries()[0].usage_source == "provider"


def test_a_transport_that_passes_everything_on(fake_provider: FakeProvider) -> None:
    """It was asked for what its class has: each call failed."""
    transport: Any = PassesOn(httpx2.HTTPTransport())
    with httpx2.Client(timeout=60, transport=transport) as http, farthing.budget(tokens=100) as budget:
        client = farthing.instrument(OpenAI(base_url=fake_provider.openai_url, api_key="fake", http_client=http))
        client.chat.completions.create(**CALL)
        assert budget.spent.tokens == fake_provider.billed_tokens == SIZE


def test_sdks_that_share_an_http_client_each_have_their_own_provider(fake_provider: FakeProvider) -> None:
    """Whoever was handed over first was taken for the sender of all: a budget of another provider was passed by."""
    with httpx2.Client(timeout=60) as http:
        options = HttpOptions(base_url=fake_provider.url, httpx_client=http)
        farthing.instrument(genai.Client(api_key="fake", http_options=options))
        client = farthing.instrument(OpenAI(base_url=fake_provider.openai_url, api_key="fake", http_client=http))
        claude = farthing.instrument(Anthropic(base_url=fake_provider.url, api_key="fake", http_client=http))
        client.chat.completions.create(**CALL)
        claude.messages.create(model="claude-haiku-4-5", messages=HI, max_tokens=10)
        with farthing.budget("openai", tokens=1, scope={"provider": "openai"}), pytest.raises(farthing.BudgetExceeded):
            client.chat.completions.create(**CALL)
    assert [entry.facts.provider for entry in entries()] == ["openai", "anthropic"]


def test_azures_client_and_openais_own_may_share_one_too() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(500, json={})

    azure = "https://mine.openai.azure.com"
    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        clients = [
            AzureOpenAI(azure_endpoint=azure, api_version="2025-01-01", api_key="x", http_client=http, max_retries=0),
            OpenAI(api_key="fake", http_client=http, max_retries=0),
        ]
        for client in clients:
            farthing.instrument(client)
        for client in clients:
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(**CALL)
    assert [entry.facts.provider for entry in entries()] == ["azure", "openai"]


class Rigid:
    """A transport that no attribute can be set on."""

    __slots__ = ()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(500, json={})

    def close(self) -> None:
        pass


def test_a_transport_that_takes_no_hook_is_said() -> None:
    http = httpx2.Client(transport=Rigid())  # type: ignore[arg-type]
    client = OpenAI(api_key="fake", http_client=http)
    with pytest.warns(farthing.UngovernedClientWarning, match="Rigid, which takes no hook"):
        assert farthing.instrument(client) is client


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
