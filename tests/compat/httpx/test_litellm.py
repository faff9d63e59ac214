"""
LiteLLM under ``farthing.install()``: its sync calls leave over httpx, its async ones over aiohttp in an httpx transport
of its own; OpenAI's by the OpenAI SDK, most others by its own HTTP client. It makes errors of its own of all that it
does not know, and its router tries again what has no status.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import farthing
from farthing.testing import FakeProvider, Reply
from tests.compat.ledger import HI, entries, holds

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for one where it is imported

import litellm
import openai

pytestmark = [
    pytest.mark.usefixtures("farthing_isolated"),
    # It leaves its clients, and tasks of its logging, to event loops that are gone.
    pytest.mark.filterwarnings("ignore"),
]
litellm.suppress_debug_info = True

Ask = Callable[[FakeProvider], str]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply("a coin")) as running:
        farthing.install()
        yield running
        farthing.uninstall()
        litellm.in_memory_llm_clients_cache.flush_cache()
        gc.collect()


def _about(provider: FakeProvider, model: str) -> dict[str, Any]:
    base = provider.openai_url if model.startswith("openai/") else provider.url
    if model.startswith("gemini/"):
        # What its own HTTP client sends there says of itself that it is Gemini's only by its host.
        farthing.install(hosts={provider.url.removeprefix("http://"): "google"})
        base += "/v1beta"
    return {"model": model, "messages": HI, "max_tokens": 20, "api_base": base, "api_key": "fake"}


def _sync(model: str) -> Ask:
    def ask(provider: FakeProvider) -> str:
        return str(litellm.completion(**_about(provider, model)).choices[0].message.content)

    return ask


def _stream(model: str) -> Ask:
    def ask(provider: FakeProvider) -> str:
        chunks = litellm.completion(**_about(provider, model), stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    return ask


def _async(model: str) -> Ask:
    def ask(provider: FakeProvider) -> str:
        async def read() -> str:
            answer = await litellm.acompletion(**_about(provider, model))
            return str(answer.choices[0].message.content)

        return asyncio.run(read())

    return ask


def _async_stream(model: str) -> Ask:
    def ask(provider: FakeProvider) -> str:
        async def read() -> str:
            chunks = await litellm.acompletion(**_about(provider, model), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        return asyncio.run(read())

    return ask


def _router(provider: FakeProvider) -> str:
    """One deployment, and another to fall back to: neither is in any budget that has nothing left."""
    about = _about(provider, "openai/gpt-4o")
    messages, ceiling = about.pop("messages"), about.pop("max_tokens")
    deployments = [{"model_name": name, "litellm_params": about} for name in ("first", "second")]
    router = litellm.Router(deployments, fallbacks=[{"first": ["second"]}], num_retries=2)
    return str(router.completion("first", messages, max_tokens=ceiling).choices[0].message.content)


MODELS = ("openai/gpt-4o", "anthropic/claude-haiku-4-5", "gemini/gemini-2.5-flash")
WAYS = {
    f"{kind.__name__[1:]} {model}": kind(model) for model in MODELS for kind in (_sync, _stream, _async, _async_stream)
}
WAYS["router"] = _router


@pytest.mark.parametrize("way", WAYS)
def test_a_call_is_counted_once_when_its_caller_has_the_end(way: str, provider: FakeProvider) -> None:
    with farthing.track(feature="desk"), farthing.budget(usd=1) as budget:
        assert WAYS[way](provider) == "a coin"
        assert budget.held.usd == 0
    (entry,), (billed,) = entries(), provider.bill
    assert dict(entry.usage) == billed.usage.to_dict()
    assert (entry.ending, entry.usage_source) == ("ok", "provider")
    assert budget.spent.tokens == provider.billed_tokens
    assert holds() == []


@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_is_one_and_nothing_is_sent(way: str, provider: FakeProvider) -> None:
    with farthing.budget("desk", tokens=5), pytest.raises(farthing.BudgetExceeded) as refused:
        WAYS[way](provider)
    assert refused.value.budget == "desk"
    assert provider.requests == []
    assert entries() == []


@pytest.mark.parametrize("model", MODELS)
def test_what_fails_after_a_refusal_is_told_as_it_is(model: str, provider: FakeProvider) -> None:
    """The refusal is in the context of what its handler raises, and has nothing to do with it."""
    provider.reply = Reply(status=401)
    budget = farthing.budget("desk", tokens=5)
    try:
        with budget:
            _sync(model)(provider)
    except farthing.BudgetExceeded:
        with pytest.raises(openai.APIStatusError):
            _sync(model)(provider)
    assert provider.posts == 1
