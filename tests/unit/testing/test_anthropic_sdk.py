"""
The real ``anthropic`` package reads every answer into its own typed objects: plain, streamed, by helper, beta, async.
"""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic as sdk
import pytest
from anthropic import Anthropic, AsyncAnthropic

from farthing.kernel.usage import Usage
from farthing.testing import FakeProvider, Reply, ToolCall
from tests.unit.testing.words import HI, HI_TOKENS, TEN_WORDS

MODEL = "claude-sonnet-5"
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def test_messages(provider: FakeProvider, anthropic: Anthropic) -> None:
    provider.reply = Reply(input_tokens=100, cached_tokens=50, cache_write_tokens=20)
    message = anthropic.messages.create(model=MODEL, max_tokens=4, messages=HI)
    (block,) = message.content
    assert block.type == "text"
    assert block.text == "a small coin is"
    assert "citations" not in block.model_fields_set  # the real one has none there, and Vercel's client takes no null
    assert message.stop_reason == "max_tokens"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (30, 50, 20)
    assert usage.output_tokens == 4
    assert message._request_id == "req_fake00000001"
    assert provider.billed() == Usage(input=30, cached=50, cache_write=20, output=4)


def test_stream_helper_with_thinking_and_tools(provider: FakeProvider, anthropic: Anthropic) -> None:
    provider.reply = Reply("Let me see.", tool_calls=[ToolCall("weather", {"city": "Berlin"})], reasoning_tokens=6)
    with anthropic.messages.stream(
        model=MODEL,
        max_tokens=2000,
        messages=HI,
        tools=[WEATHER],
        thinking={"type": "enabled", "budget_tokens": 1024},
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    thinking, text, tool = final.content
    assert thinking.type == "thinking"
    assert len(thinking.thinking.split()) == 6
    assert text.type == "text"
    assert text.text == "Let me see."
    assert tool.type == "tool_use"
    assert tool.input == {"city": "Berlin"}
    assert final.stop_reason == "tool_use"
    assert final.usage.output_tokens == provider.billed().output
    assert provider.billed().reasoning == 6


def test_raw_stream_reports_input_first_and_output_last(provider: FakeProvider, anthropic: Anthropic) -> None:
    with anthropic.messages.create(model=MODEL, max_tokens=50, messages=HI, stream=True) as stream:
        events = list(stream)
    first, last = events[0], events[-2]
    assert first.type == "message_start"
    assert first.message.usage.input_tokens == HI_TOKENS
    assert first.message.usage.output_tokens == 1
    assert last.type == "message_delta"
    assert last.usage.output_tokens == 10


def test_beta_count_raw_and_models(provider: FakeProvider, anthropic: Anthropic) -> None:
    beta = anthropic.beta.messages.create(model=MODEL, max_tokens=50, messages=HI, betas=["some-beta"])
    assert beta.content[0].type == "text"
    assert provider.requests[0].headers["anthropic-beta"] == "some-beta"
    assert provider.calls == 1
    with anthropic.beta.messages.stream(model=MODEL, max_tokens=50, messages=HI) as stream:
        assert stream.get_final_text() == TEN_WORDS
    raw = anthropic.messages.with_raw_response.create(model=MODEL, max_tokens=50, messages=HI)
    assert raw.headers["request-id"]
    assert provider.calls == 3
    assert anthropic.messages.count_tokens(model=MODEL, messages=HI).input_tokens == HI_TOKENS
    assert MODEL in [model.id for model in anthropic.models.list()]
    assert anthropic.models.retrieve("mine").id == "mine"
    with pytest.raises(sdk.NotFoundError):
        anthropic.messages.batches.list()
    assert provider.calls == 3


def test_async(provider: FakeProvider) -> None:
    async def calls() -> None:
        async with AsyncAnthropic(base_url=provider.anthropic_url, api_key="fake", max_retries=0) as client:
            plain = await client.messages.create(model=MODEL, max_tokens=50, messages=HI)
            assert plain.usage.output_tokens == 10
            async with client.messages.stream(model=MODEL, max_tokens=50, messages=HI) as stream:
                assert await stream.get_final_text() == TEN_WORDS

    asyncio.run(calls())
    assert provider.billed() == Usage(input=2 * HI_TOKENS, output=20)


def test_hidden_thinking_is_billed_and_not_shown(provider: FakeProvider, anthropic: Anthropic) -> None:
    provider.reply = Reply(output_tokens=30, reasoning_tokens=20)
    message = anthropic.messages.create(model=MODEL, max_tokens=50, messages=HI)
    assert [block.type for block in message.content] == ["text"]
    assert message.usage.output_tokens == provider.billed().output == 30


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens: Field required"),
    ({"messages": None}, "messages: Field required"),
    ({"messages": []}, "at least one message"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_completion_tokens": 5}, "max_completion_tokens: Extra inputs"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, "budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "must be greater"),
]


@pytest.mark.parametrize(("body", "named"), REFUSED)
def test_refuses_what_the_real_one_refuses(
    provider: FakeProvider, anthropic: Anthropic, body: dict[str, Any], named: str
) -> None:
    whole = {"model": MODEL, "max_tokens": 2000, "messages": HI, **body}
    whole = {field: value for field, value in whole.items() if value is not None}
    with pytest.raises(sdk.BadRequestError, match=named) as refused:
        anthropic.post("/v1/messages", body=whole, cast_to=object)
    assert refused.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    assert provider.bill == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "authentication_error"), (429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")],
)
def test_errors_have_the_providers_shape(provider: FakeProvider, anthropic: Anthropic, status: int, kind: str) -> None:
    provider.reply = Reply(status=status)
    with pytest.raises(sdk.APIStatusError) as failed:
        anthropic.messages.create(model=MODEL, max_tokens=50, messages=HI)
    assert failed.value.status_code == status
    assert failed.value.body["error"]["type"] == kind  # type: ignore[index]
    assert provider.bill == []


def test_an_error_in_a_stream_is_the_sdks_error(provider: FakeProvider, anthropic: Anthropic) -> None:
    provider.reply = Reply(fault="error_first_event")
    with (
        pytest.raises(sdk.APIStatusError),
        anthropic.messages.create(model=MODEL, max_tokens=50, messages=HI, stream=True) as stream,
    ):
        list(stream)
    assert provider.bill == []
