"""
Frameworks that make SDK clients of their own, under ``farthing.install()``: a budget binds their calls, a refusal
reaches the caller as BudgetExceeded, and nothing is sent once a budget is used up.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agents import Agent as OpenAIAgent
from agents import (
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticResponses
from pydantic_ai.providers.openai import OpenAIProvider

import farthing
from farthing.testing import FakeProvider, Reply, ToolCall
from tests.compat.ledger import comes_from_the_right_place, entries, holds

pytestmark = [
    pytest.mark.usefixtures("farthing_isolated"),
    # Frameworks leave their clients to the garbage collector, and the event loop is gone by then: collected per test.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
set_tracing_disabled(True)


def test_the_wheel_is_what_is_tested() -> None:
    assert comes_from_the_right_place()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply("a coin")) as running:
        farthing.install()
        yield running
        farthing.uninstall()
        gc.collect()


def _langchain(provider: FakeProvider, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=provider.openai_url, api_key="fake", max_tokens=20, **options)  # type: ignore[call-arg]


def langchain_invoke(provider: FakeProvider) -> str:
    return str(_langchain(provider).invoke("hi").content)


def langchain_stream(provider: FakeProvider) -> str:
    return "".join(str(chunk.content) for chunk in _langchain(provider).stream([HumanMessage("hi")]))


def langchain_ainvoke(provider: FakeProvider) -> str:
    return str(asyncio.run(_langchain(provider).ainvoke("hi")).content)


def langchain_astream(provider: FakeProvider) -> str:
    async def read() -> str:
        return "".join([str(chunk.content) async for chunk in _langchain(provider).astream("hi")])

    return asyncio.run(read())


def langchain_responses(provider: FakeProvider) -> str:
    return str(_langchain(provider, use_responses_api=True, output_version="v0").invoke("hi").text)


def langchain_batch(provider: FakeProvider) -> str:
    """Runs in LangChain's own thread pool."""
    (only,) = _langchain(provider).batch(["hi"])
    return str(only.content)


def _pydantic(provider: FakeProvider, model: type[Any]) -> PydanticAgent[None, str]:
    made = OpenAIProvider(base_url=provider.openai_url, api_key="fake")
    return PydanticAgent(model("gpt-4o", provider=made), model_settings={"max_tokens": 20})


def pydantic_run_sync(provider: FakeProvider) -> str:
    return _pydantic(provider, OpenAIChatModel).run_sync("hi").output


def pydantic_responses(provider: FakeProvider) -> str:
    return _pydantic(provider, PydanticResponses).run_sync("hi").output


def pydantic_stream(provider: FakeProvider) -> str:
    async def read() -> str:
        async with _pydantic(provider, OpenAIChatModel).run_stream("hi") as answer:
            return str(await answer.get_output())

    return asyncio.run(read())


def _agent(provider: FakeProvider, model: type[Any], **options: Any) -> OpenAIAgent:
    client = AsyncOpenAI(base_url=provider.openai_url, api_key="fake")
    made = model(model="gpt-4o", openai_client=client)
    return OpenAIAgent(name="clerk", model=made, model_settings=ModelSettings(max_tokens=20), **options)


def agents_chat(provider: FakeProvider) -> str:
    return str(Runner.run_sync(_agent(provider, OpenAIChatCompletionsModel), "hi").final_output)


def agents_responses(provider: FakeProvider) -> str:
    return str(Runner.run_sync(_agent(provider, OpenAIResponsesModel), "hi").final_output)


def agents_streamed(provider: FakeProvider) -> str:
    async def read() -> str:
        run = Runner.run_streamed(_agent(provider, OpenAIResponsesModel), "hi")
        async for _ in run.stream_events():
            pass
        return str(run.final_output)

    return asyncio.run(read())


WAYS: tuple[Callable[[FakeProvider], str], ...] = (
    langchain_invoke,
    langchain_stream,
    langchain_ainvoke,
    langchain_astream,
    langchain_responses,
    langchain_batch,
    pydantic_run_sync,
    pydantic_responses,
    pydantic_stream,
    agents_chat,
    agents_responses,
    agents_streamed,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_budget_binds_its_calls(way: Callable[[FakeProvider], str], provider: FakeProvider) -> None:
    with farthing.track(feature="desk"), farthing.budget(usd=1, tokens=1_000) as budget:
        assert way(provider) == "a coin"
    (entry,) = entries()
    (billed,) = provider.bill
    assert dict(entry.usage) == billed.usage.to_dict()
    assert (entry.ending, entry.usage_source) == ("ok", "provider")
    assert entry.facts.tags == (("feature", "desk"),)
    assert budget.spent.tokens == provider.billed_tokens
    assert holds() == []


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_used_up_budget_reaches_the_caller_and_nothing_is_sent(
    way: Callable[[FakeProvider], str], provider: FakeProvider
) -> None:
    """
    As it is, not wrapped, out of all three: no framework here catches what is not its own. A loop that catches
    everything and tries again gets no further.
    """
    with farthing.budget("desk", tokens=5):
        for _ in range(3):
            with pytest.raises(farthing.BudgetExceeded) as refused:
                way(provider)
            assert refused.value.budget == "desk"
    assert provider.requests == []
    assert entries() == []


def test_an_agent_that_would_run_for_ever_is_stopped_by_its_budget(provider: FakeProvider) -> None:
    """A tool is called again and again: each turn is a call of its own, and the last one that fits is the last."""

    @function_tool
    def look() -> str:
        """Look once more."""
        return "nothing yet"

    provider.respond(lambda request: Reply(tool_calls=[ToolCall("look")]))
    agent = _agent(provider, OpenAIChatCompletionsModel, tools=[look])
    with farthing.budget(tokens=600) as budget, pytest.raises(farthing.BudgetExceeded):
        Runner.run_sync(agent, "look until you find it", max_turns=500)
    assert 3 <= provider.posts == len(entries()) < 30
    assert budget.spent.tokens == provider.billed_tokens <= 600


def test_without_install_a_frameworks_client_is_noticed(provider: FakeProvider) -> None:
    farthing.uninstall()
    client = _langchain(provider)
    with farthing.budget(tokens=5), pytest.warns(farthing.UngovernedClientWarning, match="past budget"):
        assert client.invoke("hi").content == "a coin"
    assert entries() == []
