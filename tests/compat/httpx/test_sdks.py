"""
The door table for SDKs that stand on httpx: openai 2, groq and cohere, each handed over or found by install().

As in tests/doors, an untouched client makes the same call to a twin of the provider, and both callers must see the same
objects. Shapes are plain and streamed, sync and async; what else can differ (raw envelopes, helpers, beta) is generated
code around the same request, and shown with openai 3 in tests/doors.
"""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import cohere
import groq
import httpx
import httpx2
import openai
import pytest
from cohere.core.api_error import ApiError

import farthing
from farthing.testing import FakeProvider, Reply
from farthing.testing.bill import cost_nano
from tests.compat.ledger import HI, comes_from_the_right_place, entries, holds

pytestmark = pytest.mark.usefixtures("farthing_isolated")
_TLS = ssl.create_default_context()
ANSWER = Reply("a farthing is a coin")


def test_the_wheel_is_what_is_tested() -> None:
    assert comes_from_the_right_place()


@dataclass(frozen=True)
class Sdk:
    """One SDK: how to make its clients, and what to ask them."""

    provider: str
    model: str
    rates: tuple[str, str]
    base: type[Exception]
    make: Callable[[FakeProvider, Any], Any]
    """With an httpx client that the test closes: not every SDK closes its own."""
    make_async: Callable[[FakeProvider, Any], Any]
    begin: Callable[[Any, bool], Any]
    tries: int = 3
    """How often it posts a call whose answers are all 500."""


def _completion(model: str) -> Callable[[Any, bool], Any]:
    def begin(client: Any, stream: bool) -> Any:
        return client.chat.completions.create(model=model, messages=HI, max_tokens=50, stream=stream)

    return begin


def _cohere(client: Any, stream: bool) -> Any:
    method = client.chat_stream if stream else client.chat
    return method(model="command-a-03-2025", messages=HI, max_tokens=50)


def _azure(provider: FakeProvider) -> dict[str, Any]:
    return {"azure_endpoint": provider.url, "api_key": "fake", "api_version": "2024-10-21"}


OPENAI = Sdk(
    "openai",
    "gpt-4o",
    ("2.50", "10"),
    openai.OpenAIError,
    lambda provider, http: openai.OpenAI(base_url=provider.openai_url, api_key="fake", http_client=http),
    lambda provider, http: openai.AsyncOpenAI(base_url=provider.openai_url, api_key="fake", http_client=http),
    _completion("gpt-4o"),
)
AZURE = Sdk(
    "azure",
    "gpt-4o",
    ("2.50", "10"),
    openai.OpenAIError,
    lambda provider, http: openai.AzureOpenAI(**_azure(provider), http_client=http),
    lambda provider, http: openai.AsyncAzureOpenAI(**_azure(provider), http_client=http),
    _completion("gpt-4o"),
)
GROQ = Sdk(
    "groq",
    "llama-3.3-70b-versatile",
    ("0.59", "0.79"),
    groq.GroqError,
    lambda provider, http: groq.Groq(base_url=provider.url, api_key="fake", http_client=http),
    lambda provider, http: groq.AsyncGroq(base_url=provider.url, api_key="fake", http_client=http),
    _completion("llama-3.3-70b-versatile"),
)
COHERE = Sdk(
    "cohere",
    "command-a-03-2025",
    ("2.50", "10"),
    ApiError,
    lambda provider, http: cohere.ClientV2(base_url=provider.url, api_key="fake", httpx_client=http),
    lambda provider, http: cohere.AsyncClientV2(base_url=provider.url, api_key="fake", httpx_client=http),
    _cohere,
)
SDKS = {"openai2": OPENAI, "azure": AZURE, "groq": GROQ, "cohere": COHERE}


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    return SDKS[request.param]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(ANSWER, now_ms=lambda: 0) as running:
        yield running


Governing = Callable[[], AbstractContextManager[Callable[[Any], Any]]]


@pytest.fixture(params=["instrument", "install"])
def governing(request: pytest.FixtureRequest, provider: FakeProvider, sdk: Sdk) -> Governing:
    """What makes calls governed inside of it: it hands each client over, or does nothing and install() finds them."""

    @contextmanager
    def handing_over() -> Iterator[Callable[[Any], Any]]:
        yield farthing.instrument

    @contextmanager
    def installed() -> Iterator[Callable[[Any], Any]]:
        farthing.install(hosts={provider.url.removeprefix("http://"): sdk.provider})
        try:
            yield untouched
        finally:
            farthing.uninstall()

    return handing_over if request.param == "instrument" else installed


def untouched(client: Any) -> Any:
    return client


def call(sdk: Sdk, provider: FakeProvider, govern: Callable[[Any], Any], *, stream: bool) -> list[Any]:
    with httpx.Client(verify=_TLS, timeout=60) as http:
        made = sdk.begin(govern(sdk.make(provider, http)), stream)
        return [_shown(item) for item in made] if stream else [_shown(made)]


async def call_async(sdk: Sdk, provider: FakeProvider, govern: Callable[[Any], Any], *, stream: bool) -> list[Any]:
    async with httpx.AsyncClient(verify=_TLS, timeout=60) as http:
        made = sdk.begin(govern(sdk.make_async(provider, http)), stream)
        if hasattr(made, "__await__"):
            made = await made
        return [_shown(item) async for item in made] if stream else [_shown(made)]


def run(
    sdk: Sdk, provider: FakeProvider, govern: Callable[[Any], Any], *, stream: bool, asynchronous: bool
) -> list[Any]:
    if asynchronous:
        return asyncio.run(call_async(sdk, provider, govern, stream=stream))
    return call(sdk, provider, govern, stream=stream)


def _shown(item: Any) -> tuple[type, Any]:
    return type(item), item.model_dump(warnings=False)


SHAPES = pytest.mark.parametrize(
    ("stream", "asynchronous"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["plain-sync", "plain-async", "stream-sync", "stream-async"],
)


@SHAPES
def test_one_entry_with_the_providers_figures_and_the_sdks_own_objects(
    sdk: Sdk, provider: FakeProvider, governing: Governing, stream: bool, asynchronous: bool
) -> None:
    with FakeProvider(ANSWER, now_ms=lambda: 0) as twin:
        wanted = run(sdk, twin, untouched, stream=stream, asynchronous=asynchronous)
    with governing() as govern, farthing.budget(usd=1, tokens=1_000) as budget:
        seen = run(sdk, provider, govern, stream=stream, asynchronous=asynchronous)
    assert seen == wanted
    (billed,) = provider.bill
    (entry,) = entries()
    assert (entry.ending, entry.usage_source, entry.overrun) == ("ok", "provider", ())
    assert dict(entry.usage) == billed.usage.to_dict()
    assert (entry.facts.model, entry.facts.provider) == (sdk.model, sdk.provider)
    assert entry.cost_nano == cost_nano(billed.usage, sdk.rates)
    assert budget.spent.tokens == provider.billed_tokens
    assert holds() == []


@SHAPES
def test_a_refused_call_is_never_sent_and_the_error_comes_as_it_is(
    sdk: Sdk, provider: FakeProvider, governing: Governing, stream: bool, asynchronous: bool
) -> None:
    """groq retries and wraps whatever is raised while it sends: it gets an answer that raises instead."""
    with governing() as govern, farthing.budget(tokens=5), pytest.raises(farthing.BudgetExceeded) as refused:
        run(sdk, provider, govern, stream=stream, asynchronous=asynchronous)
    assert isinstance(refused.value, sdk.base)
    assert (refused.value.limit, refused.value.unit) == (5, "tokens")
    assert provider.requests == []
    assert entries() == []


def test_what_crossed_is_paid_once_and_is_on_the_error(sdk: Sdk, provider: FakeProvider, governing: Governing) -> None:
    with (
        governing() as govern,
        farthing.budget(tokens=5, on_exceed="raise"),
        pytest.raises(farthing.BudgetExceeded) as crossed,
    ):
        run(sdk, provider, govern, stream=False, asynchronous=False)
    package = type(crossed.value.result).__module__.partition(".")[0]
    assert package == sdk.base.__module__.partition(".")[0], "as that SDK would have handed it out"
    assert provider.posts == len(entries()) == 1


def test_each_of_an_sdks_own_tries_is_a_call(
    sdk: Sdk, provider: FakeProvider, governing: Governing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    provider.reply = Reply(status=500)
    with (
        governing() as govern,
        farthing.budget(usd=1, requests=10) as budget,
        pytest.raises(Exception, match="500"),
    ):
        run(sdk, provider, govern, stream=False, asynchronous=False)
    assert provider.posts == sdk.tries
    assert [entry.ending for entry in entries()] == ["http_500"] * sdk.tries
    assert (budget.spent.requests, budget.spent.usd) == (sdk.tries, 0)


def test_a_stream_left_half_way_costs_what_was_delivered(
    sdk: Sdk, provider: FakeProvider, governing: Governing
) -> None:
    provider.reply = Reply(output_tokens=40, pause_after_chunks=3)
    with (
        governing() as govern,
        farthing.budget(usd=1, tokens=1_000) as budget,
        httpx.Client(verify=_TLS, timeout=60) as http,
    ):
        stream = sdk.begin(govern(sdk.make(provider, http)), True)
        for _ in range(3):
            next(stream)
        del stream
        gc.collect()
        (entry,) = entries()
        assert budget.held.tokens == 0
    provider.wait_idle()
    (billed,) = provider.bill
    assert entry.ending == "abandoned"
    assert entry.tokens("output") >= billed.usage.output


def test_what_has_no_meter_is_refused_under_a_hard_budget(provider: FakeProvider) -> None:
    with httpx.Client(verify=_TLS, timeout=60) as http:
        client = farthing.instrument(COHERE.make(provider, http))
        with farthing.budget(tokens=1_000), pytest.raises(farthing.UnmeteredCall):
            client.embed(model="embed-v4.0", input_type="search_query", texts=["hi"])
    assert provider.requests == []


def test_both_http_modules_in_one_process(provider: FakeProvider) -> None:
    """What is made for a request, or in place of an answer, is of the module that its client is of."""
    body = {"model": "gpt-4o", "messages": HI, "max_tokens": 50}
    with (
        httpx.Client(verify=_TLS, timeout=60) as old,
        httpx2.Client(base_url=provider.url, verify=_TLS, timeout=60) as new,
    ):
        farthing.instrument(new)
        client = farthing.instrument(OPENAI.make(provider, old))
        with farthing.budget(tokens=1_000) as budget:
            client.chat.completions.create(**body)
            answer = new.post("/v1/chat/completions", json=body)
        assert isinstance(answer, httpx2.Response)
        assert budget.spent.tokens == provider.billed_tokens
    assert len(entries()) == 2
