"""
mistralai: OpenAI's chat in all but its details. A ceiling of ours goes into ``max_tokens``, a stream is not asked for
its usage, and what OpenAI gives away (storing a conversation) runs models here.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mistralai.client import Mistral
from mistralai.client.models import ChatCompletionResponse

import farthing
from farthing.kernel.usage import Usage
from farthing.testing import FakeProvider, Reply
from farthing.testing.bill import cost_nano
from tests.doors.clients import HI, entries

pytestmark = pytest.mark.usefixtures("farthing_isolated")
MODEL = "mistral-small-latest"
USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


def _chunk(delta: dict[str, str], reason: str | None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return b"data: " + json.dumps({"id": "1", "model": MODEL, "created": 0, "choices": choices, **more}).encode()


_LAST = _chunk({"content": ""}, "stop", usage=USAGE)
STREAM = b"\n\n".join((_chunk({"content": "a coin"}, None), _LAST, b"data: [DONE]", b""))
"""As Mistral sends it (public API docs, 2026-11): the figure stands in the last chunk, unasked."""


def call(client: Mistral, *, stream: bool, asynchronous: bool) -> str:
    request: dict[str, Any] = {"model": MODEL, "messages": HI}

    async def main() -> str:
        async with client:
            if not stream:
                return str((await client.chat.complete_async(**request)).choices[0].message.content)
            made = await client.chat.stream_async(**request)
            return "".join([str(event.data.choices[0].delta.content) async for event in made])

    if asynchronous:
        return asyncio.run(main())
    with client:
        if not stream:
            return str(client.chat.complete(**request).choices[0].message.content)
        return "".join(str(event.data.choices[0].delta.content) for event in client.chat.stream(**request))


SHAPES = pytest.mark.parametrize(
    ("stream", "asynchronous"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["plain-sync", "plain-async", "stream-sync", "stream-async"],
)


@SHAPES
@pytest.mark.parametrize("way", ["instrument", "install", "declared"])
def test_one_entry_at_mistrals_prices(stream: bool, asynchronous: bool, way: str) -> None:
    reply = Reply(body=STREAM) if stream else Reply("a coin")
    with FakeProvider(reply) as provider:
        client = Mistral(api_key="fake", server_url=provider.url)
        if way == "install":
            farthing.install()  # the client says whose it is
        elif way == "declared":
            farthing.install(hosts={provider.url.removeprefix("http://"): "mistral"})
        else:
            farthing.instrument(client)
        with farthing.budget(usd=1, tokens=10_000, default_output_tokens=700):
            assert call(client, stream=stream, asynchronous=asynchronous) == "a coin"
        farthing.uninstall()
        (sent,) = provider.requests
    assert sent.json["max_tokens"] == 700
    assert {"max_completion_tokens", "stream_options"} & set(sent.json) == set()
    (entry,) = entries()
    usage = Usage(input=8, output=2 if stream else entry.tokens("output"))
    assert (entry.ending, entry.usage_source, entry.facts.provider) == ("ok", "provider", "mistral")
    assert dict(entry.usage) == usage.to_dict()
    assert entry.cost_nano == cost_nano(usage, ("0.15", "0.60"))


@pytest.mark.parametrize("port", [True, False])
def test_what_is_declared_of_its_host_outweighs_what_a_client_says(fake_provider: FakeProvider, port: bool) -> None:
    """With its port or without: the user knows who is behind that gateway."""
    host = fake_provider.url.removeprefix("http://")
    farthing.install(hosts={host if port else host.partition(":")[0]: "azure"})
    with Mistral(api_key="fake", server_url=fake_provider.url) as client:
        call(client, stream=False, asynchronous=False)
    farthing.uninstall()
    (entry,) = entries()
    assert entry.facts.provider == "azure"


@SHAPES
def test_a_refusal_comes_as_it_is(stream: bool, asynchronous: bool, fake_provider: FakeProvider) -> None:
    client = farthing.instrument(Mistral(api_key="fake", server_url=fake_provider.url))
    with farthing.budget(tokens=5), pytest.raises(farthing.BudgetExceeded):
        call(client, stream=stream, asynchronous=asynchronous)
    assert fake_provider.requests == []


def test_what_runs_models_elsewhere_is_not_free_here(fake_provider: FakeProvider) -> None:
    with Mistral(api_key="fake", server_url=fake_provider.url) as client, farthing.budget(tokens=1_000):
        farthing.instrument(client)
        with pytest.raises(farthing.UnmeteredCall):
            client.beta.conversations.start(model=MODEL, inputs="hi")
        with pytest.raises(farthing.UnmeteredCall):
            client.fim.complete(model="codestral-latest", prompt="def")
    assert fake_provider.requests == []


def test_embeddings() -> None:
    with FakeProvider() as provider, farthing.budget(usd=1, tokens=1_000) as budget:
        client = farthing.instrument(Mistral(api_key="fake", server_url=provider.url))
        with client:
            answer = client.embeddings.create(model="mistral-embed", inputs=["a farthing", "two"])
        assert len(answer.data) == 2
        assert budget.spent.tokens == provider.billed_tokens > 0
    (entry,) = entries()
    assert (entry.ending, entry.facts.dialect, entry.facts.provider) == ("ok", "openai.embeddings", "mistral")


def test_a_paid_answer_on_an_error_is_mistrals_own(fake_provider: FakeProvider) -> None:
    with Mistral(api_key="fake", server_url=fake_provider.url) as client, farthing.budget(tokens=5, on_exceed="raise"):
        farthing.instrument(client)
        with pytest.raises(farthing.BudgetExceeded) as crossed:
            call(client, stream=False, asynchronous=False)
    assert isinstance(crossed.value.result, ChatCompletionResponse)
    assert crossed.value.result.choices
