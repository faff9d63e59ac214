"""
Goal: what refuses a call is caught as ours and as its SDK's own, also where the SDK would let a foreign one through.
Method: google-genai and mistralai (openai, anthropic, groq and cohere have it in their own tables), every way to call
them, handed over or found; then what handlers and retries of that SDK read from it.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google.genai import Client, errors, types
from mistralai.client import Mistral
from mistralai.client.errors import MistralError

import farthing
from farthing import BudgetExceeded, UnmeteredCall, UnpricedModel
from farthing.sdk.errors import sdk_of_request
from farthing.sdk.opening import Sender, recognise_request
from farthing.testing import FakeProvider
from tests.doors import clients

pytestmark = pytest.mark.usefixtures("farthing_isolated")
FLASH, SMALL = "gemini-2.5-flash", "mistral-small-latest"
HI = [{"role": "user", "content": "hi"}]


async def _all(stream: Any) -> None:
    async for _ in await stream:
        pass


GEMINI: dict[str, Callable[[Client], Any]] = {
    "plain": lambda client: client.models.generate_content(model=FLASH, contents="hi"),
    "stream": lambda client: list(client.models.generate_content_stream(model=FLASH, contents="hi")),
    "async": lambda client: asyncio.run(client.aio.models.generate_content(model=FLASH, contents="hi")),
    "async stream": lambda client: asyncio.run(
        _all(client.aio.models.generate_content_stream(model=FLASH, contents="hi"))
    ),
}


@pytest.fixture(params=["instrument", "install"])
def govern(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    if request.param == "instrument":
        yield farthing.instrument
        return
    farthing.install()
    yield lambda client: client
    farthing.uninstall()


@pytest.mark.parametrize("way", GEMINI)
def test_gemini(way: str, govern: Callable[[Any], Any], fake_provider: FakeProvider) -> None:
    """Its own retries, asked for, see nothing to try again."""
    asked: list[object] = []
    retry = types.HttpRetryOptions(attempts=3, initial_delay=0)
    options = types.HttpOptions(base_url=fake_provider.gemini_url, retry_options=retry)
    with (
        Client(api_key="fake", http_options=options) as client,
        farthing.budget(tokens=5, on_exceed=asked.append),
        pytest.raises(errors.APIError) as refused,
    ):
        GEMINI[way](govern(client))
    error = refused.value
    assert isinstance(error, BudgetExceeded)
    assert (error.limit, len(asked), fake_provider.posts) == (5, 1, 0)
    assert (error.code, error.message, str(error)) == (402, str(error), error.decision.message())
    assert error.details["error"]["code"] == "budget_exceeded"
    assert isinstance(pickle.loads(pickle.dumps(error)), BudgetExceeded)
    assert "BudgetExceeded" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("way", ["plain", "stream", "async"])
def test_mistral(way: str, govern: Callable[[Any], Any], fake_provider: FakeProvider) -> None:
    ways: dict[str, Callable[[Mistral], Any]] = {
        "plain": lambda client: client.chat.complete(model=SMALL, messages=HI),  # type: ignore[arg-type]
        "stream": lambda client: list(client.chat.stream(model=SMALL, messages=HI)),  # type: ignore[arg-type]
        "async": lambda client: asyncio.run(client.chat.complete_async(model=SMALL, messages=HI)),  # type: ignore[arg-type]
    }
    with (
        Mistral(api_key="fake", server_url=fake_provider.url) as client,
        farthing.budget(tokens=5),
        pytest.raises(MistralError) as refused,
    ):
        ways[way](govern(client))
    error = refused.value
    assert isinstance(error, BudgetExceeded)
    assert (error.limit, error.status_code, fake_provider.posts) == (5, 402, 0)
    assert error.message == str(error) == error.decision.message()
    assert {error} == {error}
    assert repr(error).startswith("BudgetExceeded(")


NAMED_OTHERWISE: dict[str, tuple[Callable[..., Any], Callable[[Any], Any], type[Exception]]] = {
    "openai": (
        clients.openai_client,
        lambda client: client.chat.completions.create(model="gpt-4o", messages=HI),
        openai.OpenAIError,
    ),
    "anthropic": (
        clients.anthropic_client,
        lambda client: client.messages.create(model="claude-haiku-4-5", messages=HI, max_tokens=20),
        anthropic.AnthropicError,
    ),
}


def test_the_headers_that_many_sdks_send_say_less_than_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """One generator makes the clients of OpenAI, Groq, and of many that have nothing to do with models."""
    headers = {"user-agent": "Cloudflare/Python 4.0", "x-stainless-lang": "python"}
    request = httpx2.Request("POST", "https://api.cloudflare.com/client/v4/zones", headers=headers, json={})
    monkeypatch.setitem(sys.modules, "groq", ModuleType("groq"))
    assert sdk_of_request(request, "groq") == "groq"
    assert sdk_of_request(request, None) == "openai"
    monkeypatch.delitem(sys.modules, "openai")
    assert sdk_of_request(request, None) == "groq"
    assert recognise_request(request, Sender(in_care=False)) is None


@pytest.mark.parametrize("sdk", NAMED_OTHERWISE)
def test_a_client_that_names_itself_otherwise(sdk: str, fake_provider: FakeProvider) -> None:
    """As frameworks do, and users behind gateways: known all the same, so not tried again, nor a broken connection."""
    make, ask, family = NAMED_OTHERWISE[sdk]
    asked: list[object] = []
    farthing.install()
    with (
        make(fake_provider, governed=False, default_headers={"User-Agent": "desk/1.0"}, max_retries=2) as client,
        farthing.budget(tokens=5, on_exceed=asked.append),
        pytest.raises(BudgetExceeded) as refused,
    ):
        ask(client)
    farthing.uninstall()
    assert isinstance(refused.value, family)
    assert (len(asked), fake_provider.posts) == (1, 0)


def test_every_refusal_is_of_the_family(fake_provider: FakeProvider) -> None:
    options = types.HttpOptions(base_url=fake_provider.gemini_url)
    with Client(api_key="fake", http_options=options) as client, farthing.budget(usd=1):
        farthing.instrument(client)
        with pytest.raises(errors.APIError) as unpriced:
            client.models.generate_content(model="gemini-of-nobody", contents="hi")
        with pytest.raises(errors.APIError) as unmetered:
            client.batches.create(model=FLASH, src="files/x")
    assert isinstance(unpriced.value, UnpricedModel)
    assert isinstance(unpriced.value, KeyError)
    assert str(unpriced.value).startswith("budget 'unnamed ($1.00)' counts USD")
    assert isinstance(unmetered.value, UnmeteredCall)
