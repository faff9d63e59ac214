"""
The real ``openai`` package reads every answer into its own typed objects: plain, streamed, by helper, raw, async.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai as sdk
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from farthing.kernel.usage import Usage
from farthing.testing import FakeProvider, Reply, ToolCall
from tests.unit.testing.words import HI, HI_TOKENS, TEN_WORDS

WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


class Sum(BaseModel):
    value: int


def test_chat(provider: FakeProvider, openai: OpenAI) -> None:
    answer = openai.chat.completions.create(model="gpt-4o", messages=HI)
    assert answer.choices[0].message.content == TEN_WORDS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 10, 19)
    assert answer._request_id == "req_fake00000001"
    (line,) = provider.bill
    assert (line.model, line.path, line.aborted) == ("gpt-4o", "/v1/chat/completions", False)
    assert line.usage == Usage(input=HI_TOKENS, output=10)
    assert line.request.json["messages"] == HI


def test_chat_with_choices_reasoning_and_cache(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(output_tokens=30, reasoning_tokens=20, input_tokens=100, cached_tokens=64)
    answer = openai.chat.completions.create(model="gpt-5", messages=HI, n=3, max_completion_tokens=25)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 75
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 60
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 64
    assert provider.billed() == Usage(input=36, cached=64, output=75, reasoning=60)


@pytest.mark.parametrize("n", [1, 2])
def test_chat_stream(provider: FakeProvider, openai: OpenAI, n: int) -> None:
    with openai.chat.completions.create(
        model="gpt-4o", messages=HI, n=n, max_tokens=4, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4 * n == provider.billed().output
    for index in range(n):
        mine = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert "".join(choice.delta.content or "" for choice in mine) == "a small coin is"
        assert [choice.finish_reason for choice in mine if choice.finish_reason] == ["length"]


def test_chat_stream_says_no_usage_unless_asked(provider: FakeProvider, openai: OpenAI) -> None:
    with openai.chat.completions.create(model="gpt-4o", messages=HI, stream=True) as stream:
        chunks = list(stream)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert provider.billed() == Usage(input=HI_TOKENS, output=10)


def test_chat_stream_helper_with_tools(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply("I will look.", tool_calls=[ToolCall("weather", {"city": "Berlin"})])
    with openai.chat.completions.stream(model="gpt-4o", messages=HI, tools=[WEATHER]) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion()
    assert len(deltas) > 1
    message = final.choices[0].message
    assert message.content == "I will look."
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.name == "weather"
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Berlin"}
    assert final.choices[0].finish_reason == "tool_calls"


def test_chat_parse_and_raw(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply('{"value": 42}')
    parsed = openai.chat.completions.parse(model="gpt-4o", messages=HI, response_format=Sum)
    assert parsed.choices[0].message.parsed == Sum(value=42)
    raw = openai.chat.completions.with_raw_response.create(model="gpt-4o", messages=HI)
    assert raw.headers["x-request-id"]
    assert raw.parse().choices[0].message.content == '{"value": 42}'
    with openai.chat.completions.with_streaming_response.create(model="gpt-4o", messages=HI) as streaming:
        assert streaming.parse().choices[0].message.content == '{"value": 42}'


def test_responses(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(output_tokens=30, reasoning_tokens=8, cached_tokens=2)
    answer = openai.responses.create(model="gpt-5", input="Hi there", max_output_tokens=20)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert len(answer.output_text.split()) == 12
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (HI_TOKENS, 20)
    assert answer.usage.output_tokens_details.reasoning_tokens == 8
    assert answer.usage.input_tokens_details.cached_tokens == 2
    assert provider.billed() == Usage(input=HI_TOKENS - 2, cached=2, output=20, reasoning=8)


def test_what_codex_says_of_itself_is_taken(provider: FakeProvider, openai: OpenAI) -> None:
    said = {"client_metadata": {"session_id": "01a2"}}
    assert openai.responses.create(model="gpt-5", input="hi", extra_body=said).status == "completed"


def test_responses_stream_helper_with_tools(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply("Let me see.", tool_calls=[ToolCall("weather", {"city": "Berlin"})], reasoning_tokens=5)
    tool: Any = {"type": "function", "name": "weather", "strict": False, "parameters": {"type": "object"}}
    with openai.responses.stream(model="gpt-5", input="Hi there", tools=[tool]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.output_text == "Let me see."
    call = final.output[2]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Berlin"}
    assert final.usage is not None
    assert final.usage.total_tokens == provider.billed_tokens


def test_responses_stream_and_parse(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply('{"value": 7}')
    with openai.responses.create(model="gpt-4o", input="Hi", stream=True) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text == '{"value": 7}'
    assert openai.responses.parse(model="gpt-4o", input="Hi", text_format=Sum).output_parsed == Sum(value=7)


def test_simple_endpoints(provider: FakeProvider, openai: OpenAI) -> None:
    completion = openai.completions.create(model="davinci-002", prompt=["one two", "three"], n=2, best_of=3)
    assert len(completion.choices) == 4
    assert provider.billed("davinci-002") == Usage(input=3, output=60)
    with openai.completions.create(model="davinci-002", prompt="one", stream=True) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == TEN_WORDS
    vectors = openai.embeddings.create(model="text-embedding-3-small", input=["one two", "three"], dimensions=4)
    assert [item.embedding for item in vectors.data] == [[1.0, 0.0, 0.0, 0.0]] * 2
    assert provider.billed("text-embedding-3-small") == Usage(input=3)


@pytest.mark.parametrize("stream", [False, True])
def test_an_echoed_prompt_is_shown_and_not_generated(provider: FakeProvider, openai: OpenAI, stream: bool) -> None:
    keywords: Any = {"model": "davinci-002", "prompt": ["one two", "three"], "echo": True, "suffix": "the end"}
    answer: Any = openai.completions.create(**keywords, max_tokens=2, stream=stream)
    choices = [choice for chunk in answer for choice in chunk.choices] if stream else answer.choices
    texts = ["".join(choice.text for choice in choices if choice.index == index) for index in (0, 1)]
    assert texts == ["one twoa small", "threea small"]
    assert provider.billed() == Usage(input=5, output=4)


def test_zero_tokens_score_the_prompt(provider: FakeProvider, openai: OpenAI) -> None:
    answer = openai.completions.create(model="davinci-002", prompt="one two", echo=True, max_tokens=0, logprobs=1)
    assert answer.choices[0].text == "one two"
    assert provider.billed() == Usage(input=2)


def test_free_endpoints_bill_nothing(provider: FakeProvider, openai: OpenAI) -> None:
    assert "gpt-4o" in [model.id for model in openai.models.list()]
    assert openai.models.retrieve("mine").id == "mine"
    assert openai.responses.input_tokens.count(model="gpt-4o", input="Hi there").input_tokens == HI_TOKENS
    with pytest.raises(sdk.NotFoundError):
        openai.moderations.create(input="Hi")
    assert provider.bill == []
    assert len(provider.requests) == 4
    assert provider.posts == 2


def test_async(provider: FakeProvider) -> None:
    async def calls() -> None:
        async with AsyncOpenAI(base_url=provider.openai_url, api_key="fake", max_retries=0) as client:
            plain = await client.chat.completions.create(model="gpt-4o", messages=HI)
            assert plain.choices[0].message.content == TEN_WORDS
            async with client.chat.completions.stream(model="gpt-4o", messages=HI) as stream:
                assert (await stream.get_final_completion()).choices[0].message.content == TEN_WORDS
            async with client.responses.stream(model="gpt-4o", input="Hi there") as events:
                assert (await events.get_final_response()).output_text == TEN_WORDS

    asyncio.run(calls())
    assert provider.billed() == Usage(input=3 * HI_TOKENS, output=30)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("chat/completions", {"messages": HI, "max_tokens": 5, "max_completion_tokens": 5}, "same time"),
    ("chat/completions", {"messages": HI, "max_output_tokens": 5}, "max_output_tokens"),
    ("chat/completions", {"messages": HI, "max_tokens": 0}, "max_tokens"),
    ("chat/completions", {"messages": HI, "max_tokens": "9"}, "max_tokens"),
    ("chat/completions", {"messages": HI, "n": 129}, "'n'"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {}, "messages"),
    ("chat/completions", {"messages": HI, "stream_options": {"include_usage": True}}, "stream_options"),
    ("chat/completions", {"messages": HI, "model": "o3-mini", "max_tokens": 5}, "max_completion_tokens"),
    ("chat/completions", {"messages": HI, "model": None}, "model"),
    ("responses", {"input": "Hi", "max_completion_tokens": 50}, "max_output_tokens"),
    ("responses", {"input": "Hi", "max_tokens": 50}, "max_output_tokens"),
    ("responses", {"input": "Hi", "max_output_tokens": 15}, "max_output_tokens"),
    ("responses", {"input": "Hi", "messages": HI}, "messages"),
    ("responses", {}, "input"),
    ("embeddings", {"input": "Hi", "max_completion_tokens": 50}, "max_completion_tokens"),
    ("completions", {"prompt": "Hi", "max_completion_tokens": 50}, "max_completion_tokens"),
    ("completions", {"prompt": "Hi", "n": 3, "best_of": 2}, "best_of"),
]


@pytest.mark.parametrize(("path", "body", "named"), REFUSED)
def test_refuses_what_the_real_one_refuses(
    provider: FakeProvider, openai: OpenAI, path: str, body: dict[str, Any], named: str
) -> None:
    provider.script([Reply("not used up by a refusal")])
    with pytest.raises(sdk.BadRequestError, match=named) as refused:
        openai.post(f"/{path}", body={"model": "gpt-4o", **body}, cast_to=object)
    assert refused.value.type == "invalid_request_error"
    assert provider.bill == []
    answer = openai.chat.completions.create(model="gpt-4o", messages=HI)
    assert answer.choices[0].message.content == "not used up by a refusal"


def test_lenient_about_fields_if_told(openai: OpenAI) -> None:
    with FakeProvider(strict=False, count=lambda text, model: 1) as provider:
        client = openai.with_options(base_url=provider.openai_url)
        client.chat.completions.create(model="local", messages=HI, extra_body={"top_k": 5})
        assert provider.calls == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, sdk.AuthenticationError), (429, sdk.RateLimitError), (500, sdk.InternalServerError)],
)
def test_errors_have_the_providers_shape(
    provider: FakeProvider, openai: OpenAI, status: int, error: type[sdk.APIStatusError]
) -> None:
    provider.reply = Reply(status=status, headers={"Retry-After": "7"})
    for stream in (False, True):
        with pytest.raises(error) as failed:
            openai.chat.completions.create(model="gpt-4o", messages=HI, stream=stream)
        assert failed.value.type
        assert failed.value.response.headers["retry-after"] == "7"
    assert provider.bill == []


def test_the_sdks_own_retries_are_counted(provider: FakeProvider, openai: OpenAI) -> None:
    provider.script([Reply(status=500, headers={"retry-after-ms": "1"}), Reply("at last")])
    answer = openai.with_options(max_retries=2).chat.completions.create(model="gpt-4o", messages=HI)
    assert answer.choices[0].message.content == "at last"
    assert [request.attempt for request in provider.requests] == [1, 2]
    assert provider.calls == 1
