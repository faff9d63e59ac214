"""
Clients that nobody handed over, and libraries that cannot be governed: seen, said once for each client, never changed;
and with install() governed, or refused under a hard budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import sys
import types
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import aiohttp
import openai
import pytest
import requests
from google import genai
from google.genai.types import HttpOptions
from openai import AsyncOpenAI, OpenAI

import farthing
from farthing.sdk import seams
from farthing.testing import FakeProvider, Reply
from farthing.wire import hosts
from tests.doors.clients import HI, entries, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")
CALL: dict[str, Any] = {"model": "gpt-4o", "messages": HI, "max_tokens": 20}
HEADERS = {"x-stainless-lang": "python"}
"""By which a call of an SDK is known at a host that is not."""


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    farthing.uninstall()  # another test may have begun to watch: what a test here loads is then not looked for
    yield
    farthing.uninstall()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply("a coin")) as running:
        yield running


def host_of(provider: FakeProvider) -> str:
    return provider.url.removeprefix("http://")


# -- httpx: a client that was not handed over -------------------------------------------------------------------------


def test_it_is_said_once_for_each_client_and_nothing_changes(provider: FakeProvider) -> None:
    """predecessors 2.4: an un-instrumented client in a block budget, cap 10: one call of 3,008 tokens, no warning."""
    with openai_client(provider, governed=False) as first, openai_client(provider, governed=False) as second:
        for client in (first, second):
            with farthing.budget("small", tokens=10):
                with pytest.warns(farthing.UngovernedClientWarning, match=r"past budget 'small'.*instrument"):
                    made = client.chat.completions.create(**CALL)
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    client.chat.completions.create(**CALL)
            assert made.choices[0].message.content == "a coin"
    assert provider.posts == 4
    assert entries() == []


def test_where_warnings_are_errors_every_call_is_one(provider: FakeProvider) -> None:
    with openai_client(provider, governed=False) as client, farthing.budget(tokens=10):
        for _ in range(2):
            with pytest.raises(farthing.UngovernedClientWarning):
                client.chat.completions.create(**CALL)
    assert provider.posts == 0


@pytest.mark.parametrize("mode", ["warn", "outside", "off", "not a provider"])
def test_nothing_is_said_where_there_is_nothing_to_say(provider: FakeProvider, mode: str) -> None:
    farthing.configure(watch=mode != "off")
    with openai_client(provider, governed=False) as client:
        if mode == "outside":
            with farthing.budget(tokens=10):
                pass
            client.chat.completions.create(**CALL)
        elif mode == "not a provider":
            with farthing.budget(tokens=10):
                client._client.get(f"{provider.url}/v1/models")
                client._client.post(f"{provider.url}/v1/chat/completions", json=CALL)
        else:
            farthing.uninstall()  # what an earlier test watches is put back
            with farthing.budget(tokens=10, on_exceed="block" if mode == "off" else "warn"):
                client.chat.completions.create(**CALL)


def test_a_copy_with_an_http_client_of_its_own_does_not_pass_unseen(provider: FakeProvider) -> None:
    with openai_client(provider) as client, openai.DefaultHttpxClient() as http, farthing.budget(tokens=1):
        copy = client.with_options(http_client=http)
        with pytest.raises(farthing.UngovernedClientWarning):
            copy.chat.completions.create(**CALL)
        farthing.instrument(copy)
        with pytest.raises(farthing.BudgetExceeded):
            copy.chat.completions.create(**CALL)


def test_an_async_client_too(provider: FakeProvider) -> None:
    async def main() -> None:
        async with AsyncOpenAI(base_url=provider.openai_url, api_key="fake") as client:
            with farthing.budget(tokens=1), pytest.warns(farthing.UngovernedClientWarning):
                await client.chat.completions.create(**CALL)

    asyncio.run(main())


def test_install_governs_it_and_says_nothing(provider: FakeProvider) -> None:
    farthing.install()
    with openai_client(provider, governed=False) as client, farthing.budget(tokens=100) as budget:
        client.chat.completions.create(**CALL)
        assert budget.spent.tokens == provider.billed_tokens
    assert len(entries()) == 1
    farthing.uninstall()
    with openai_client(provider, governed=False) as client:
        client.chat.completions.create(**CALL)
    assert len(entries()) == 1


def test_both_ways_at_once_count_once(provider: FakeProvider) -> None:
    farthing.install(hosts={host_of(provider): "openai"})
    with openai_client(provider) as client, farthing.budget(tokens=100) as budget:
        client.chat.completions.create(**CALL)
        assert budget.spent.tokens == provider.billed_tokens
    assert len(entries()) == 1


# -- aiohttp ----------------------------------------------------------------------------------------------------------


def _over_aiohttp(provider: FakeProvider, *, governed: bool) -> None:
    _call_over_aiohttp(provider.openai_url, governed=governed)


def _call_over_aiohttp(url: str, *, governed: bool) -> None:
    async def main() -> None:
        http = openai.DefaultAioHttpClient()
        async with AsyncOpenAI(base_url=url, api_key="fake", http_client=http, max_retries=0) as client:
            made = farthing.instrument(client) if governed else client
            answer = await made.chat.completions.create(**CALL)
            assert answer.choices[0].message.content == "a coin"
            stream = await made.chat.completions.create(**CALL, stream=True)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "a coin"

    asyncio.run(main())
    gc.collect()


@pytest.mark.parametrize("way", ["instrument", "install"])
def test_openai_over_aiohttp_is_governed(provider: FakeProvider, way: str) -> None:
    if way == "install":
        farthing.install()
    with farthing.budget(tokens=200) as budget:
        _over_aiohttp(provider, governed=way == "instrument")
    assert budget.spent.tokens == provider.billed_tokens
    assert [(entry.ending, entry.usage_source) for entry in entries()] == [("ok", "provider")] * 2
    with farthing.budget(tokens=1), pytest.raises(farthing.BudgetExceeded):
        _over_aiohttp(provider, governed=way == "instrument")
    assert provider.posts == 2


@pytest.mark.parametrize("fault", ["reset", "close_before_answer"])
def test_a_connection_over_aiohttp_that_is_lost_after_sending_is_suspect(provider: FakeProvider, fault: Any) -> None:
    """The transport calls it a ConnectTimeout, as it does one that was never made; the provider has billed it."""
    provider.reply = Reply("a coin", fault=fault, bill_anyway=True)
    farthing.install()
    with farthing.budget(tokens=200) as budget, pytest.raises(openai.APIConnectionError):
        _over_aiohttp(provider, governed=False)
    (entry,) = entries()
    assert (entry.ending, entry.suspect) == ("connection_lost", True)
    assert budget.suspect.tokens >= provider.billed_tokens > 0


def test_a_connection_over_aiohttp_that_was_never_made_costs_nothing(provider: FakeProvider) -> None:
    farthing.install()
    url = provider.openai_url
    provider.stop()
    with farthing.budget(tokens=200) as budget, pytest.raises(openai.APIConnectionError):
        _call_over_aiohttp(url, governed=False)
    assert (budget.spent.tokens, budget.suspect.tokens, budget.held.tokens) == (0, 0, 0)
    assert [entry.ending for entry in entries()] == ["connect_error"]


def test_openai_over_aiohttp_that_was_not_handed_over_is_said(provider: FakeProvider) -> None:
    with farthing.budget(tokens=1), pytest.warns(farthing.UngovernedClientWarning) as said:
        _over_aiohttp(provider, governed=False)
    assert len(said) == 1


def _plain_aiohttp(provider: FakeProvider) -> int:
    async def main() -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{provider.openai_url}/chat/completions", json=CALL, headers=HEADERS) as answer,
        ):
            return answer.status

    return asyncio.run(main())


def _plain_requests(provider: FakeProvider) -> int:
    with requests.Session() as session:
        return session.post(f"{provider.openai_url}/chat/completions", json=CALL, headers=HEADERS).status_code


def _plain_urllib(provider: FakeProvider) -> int:
    body = json.dumps(CALL).encode()
    headers = {**HEADERS, "content-type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{provider.openai_url}/chat/completions", body, headers)
    ) as answer:
        return int(answer.status)


def _plain_http_client(provider: FakeProvider) -> int:
    connection = http.client.HTTPConnection(host_of(provider))
    # Arguments however they are given; and a query may have a URL in it.
    url = "/v1/chat/completions?from=http://a.example/"
    connection.request("POST", url=url, body=json.dumps(CALL), headers={**HEADERS, "content-type": "application/json"})
    with contextlib.closing(connection):
        return connection.getresponse().status


@pytest.mark.parametrize("call", [_plain_aiohttp, _plain_requests, _plain_urllib, _plain_http_client])
def test_a_library_that_cannot_be_governed(provider: FakeProvider, call: Any) -> None:
    with farthing.budget(tokens=1_000), pytest.warns(farthing.UngovernedClientWarning, match="ungoverned"):
        assert call(provider) == 200
    farthing.install()
    with farthing.budget(tokens=1_000), pytest.raises(farthing.UnmeteredCall, match="leaves by"):
        call(provider)
    assert provider.posts == 1
    assert entries() == []


# -- google-genai: async calls over aiohttp, where that is installed --------------------------------------------------

GEMINI = "gemini-2.5-flash"


def _google(provider: FakeProvider, **options: Any) -> genai.Client:
    return genai.Client(api_key="fake", http_options=HttpOptions(base_url=provider.url, **options))


def _ask_google(client: genai.Client, *, stream: bool) -> str:
    """On an event loop of its own: google-genai keeps a client for each."""

    async def main() -> str:
        if not stream:
            return str((await client.aio.models.generate_content(model=GEMINI, contents="hi")).text)
        chunks = await client.aio.models.generate_content_stream(model=GEMINI, contents="hi")
        return "".join([chunk.text or "" async for chunk in chunks])

    said = asyncio.run(main())
    gc.collect()
    return said


# It leaves the connections of a loop that is closed to the garbage collector.
leaves_connections = pytest.mark.filterwarnings("ignore::ResourceWarning")


@leaves_connections
@pytest.mark.parametrize("way", ["instrument", "install"])
def test_google_genai_is_moved_to_httpx_and_governed_on_every_event_loop(provider: FakeProvider, way: str) -> None:
    client = _google(provider)
    assert client._api_client._use_aiohttp()  # so without us
    if way == "instrument":
        farthing.instrument(client)
    else:
        farthing.install(hosts={host_of(provider): "google"})
    with farthing.budget(tokens=1_000_000) as budget:
        for stream in (False, True, False, True):
            assert _ask_google(client, stream=stream) == "a coin"
    assert budget.spent.tokens == provider.billed_tokens > 0
    assert [entry.ending for entry in entries()] == ["ok"] * 4
    with farthing.budget(tokens=1), pytest.raises(farthing.BudgetExceeded):
        _ask_google(client, stream=False)
    assert provider.posts == 4
    farthing.uninstall()
    assert client._api_client._use_aiohttp() == (way == "install")
    client.close()
    del client
    gc.collect()


def test_google_genai_with_an_aiohttp_session_of_ones_own_is_said_and_refused(provider: FakeProvider) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            client = _google(provider, aiohttp_client=session)
            with pytest.warns(farthing.UngovernedClientWarning, match="aiohttp session of yours"):
                farthing.instrument(client)
            farthing.install(hosts={host_of(provider): "google"})
            with farthing.budget(tokens=1_000), pytest.raises(farthing.UnmeteredCall):
                await client.aio.models.generate_content(model=GEMINI, contents="hi")
            client.close()

    asyncio.run(main())
    assert provider.posts == 0


# -- connections of their own -----------------------------------------------------------------------------------------


def test_realtime_is_refused_before_it_connects(provider: FakeProvider) -> None:
    farthing.install(hosts={host_of(provider): "openai"})
    url = provider.openai_url.replace("http", "ws")
    with (
        OpenAI(base_url=provider.openai_url, websocket_base_url=url, api_key="fake") as client,
        farthing.budget(tokens=1_000),
        pytest.raises(farthing.UnmeteredCall, match="websockets"),
    ):
        client.realtime.connect(model="gpt-realtime").enter()
    assert provider.requests == []

    async def main() -> None:
        async with AsyncOpenAI(base_url=provider.openai_url, websocket_base_url=url, api_key="fake") as client:
            with farthing.budget(tokens=1_000), pytest.raises(farthing.UnmeteredCall, match="websockets"):
                await client.realtime.connect(model="gpt-realtime").enter()

    asyncio.run(main())
    assert provider.requests == []


def test_a_grpc_channel_to_a_provider_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for grpc, which is 12 MB that no test needs otherwise: it is the name that is wrapped."""
    made: list[str] = []
    grpc = types.ModuleType("grpc")
    grpc.secure_channel = lambda target, credentials=None: made.append(target)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "grpc", grpc)
    with farthing.budget(tokens=1), pytest.warns(farthing.UngovernedClientWarning, match="grpc"):
        grpc.secure_channel("us-central1-aiplatform.googleapis.com:443")
    with farthing.budget(tokens=1):
        grpc.secure_channel("storage.googleapis.com:443")
    assert made == ["us-central1-aiplatform.googleapis.com:443", "storage.googleapis.com:443"]


def test_a_session_over_websocket_client_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for that library, too: its method is wrapped by name, and called with a URL as it calls it."""
    made: list[str] = []

    class WebSocket:
        def connect(self, url: str, **options: Any) -> None:
            made.append(url)

    core = types.ModuleType("websocket._core")
    core.WebSocket = WebSocket  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "websocket._core", core)
    url = "wss://api.openai.com/v1/realtime?model=gpt-realtime"
    with farthing.budget(tokens=1), pytest.warns(farthing.UngovernedClientWarning, match="websocket-client"):
        WebSocket().connect(url, header=["Authorization: Bearer fake"])
    farthing.install()
    with farthing.budget(tokens=1):
        WebSocket().connect("wss://chat.example/room")
        with pytest.raises(farthing.UnmeteredCall, match="websocket-client"):
            WebSocket().connect(url)
    assert made == [url, "wss://chat.example/room"]


@pytest.mark.parametrize(
    "host",
    [
        "bedrock-runtime.us-east-1.amazonaws.com",
        "bedrock-runtime-fips.us-east-1.amazonaws.com",
        "bedrock-runtime.us-east-1.api.aws",
        "vpce-0123-abcd.bedrock-runtime.us-east-1.vpce.amazonaws.com",
    ],
)
def test_bedrocks_hosts_are_known_for_a_providers(host: str) -> None:
    """botocore sends by urllib3, whose seam is shown above; boto3 itself is not installed here."""
    assert hosts.provider_of(host, {}) == "aws"


def test_every_seam_is_put_back() -> None:
    farthing.install()
    wrapped = [(owner, seam.method, original) for seam, (owner, original) in seams._wrapped.items()]
    assert {seam.library for seam in seams._wrapped} >= {"httpx2", "aiohttp", "urllib3", "websockets", "google-genai"}
    farthing.uninstall()
    for owner, method, original in wrapped:
        assert getattr(owner, method) is original
