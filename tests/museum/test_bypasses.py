"""Ways past the budget: entry points that were not wrapped, and requests whose cost was not looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import openai
import pytest
from anthropic import Anthropic
from google import genai
from google.genai.types import HttpOptions
from openai import OpenAI
from pydantic import BaseModel

import farthing
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, async_anthropic_client, async_openai_client, entries, openai_client
from tests.museum.calls import HAIKU, admitted, chat

pytestmark = pytest.mark.usefixtures("farthing_isolated")


class Word(BaseModel):
    word: str


def _drained(stream: Any) -> None:
    with stream as items:
        for _ in items:
            pass


def _streaming_response(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(model="gpt-4o", messages=HI, max_tokens=20) as response:
        response.read()


OPENAI: Mapping[str, Callable[[OpenAI], object]] = {
    "create": lambda c: chat(c, 20),
    "stream": lambda c: _drained(chat(c, 20, stream=True)),
    "stream helper": lambda c: _drained(c.chat.completions.stream(model="gpt-4o", messages=HI, max_tokens=20)),
    "parse": lambda c: c.chat.completions.parse(model="gpt-4o", messages=HI, max_tokens=50, response_format=Word),
    "raw response": lambda c: c.chat.completions.with_raw_response.create(model="gpt-4o", messages=HI, max_tokens=20),
    "streaming response": _streaming_response,
    "responses": lambda c: c.responses.create(model="gpt-4o", input="hi", max_output_tokens=20),
    "responses stream": lambda c: _drained(
        c.responses.create(model="gpt-4o", input="hi", max_output_tokens=20, stream=True)
    ),
    "responses stream helper": lambda c: _drained(c.responses.stream(model="gpt-4o", input="hi", max_output_tokens=20)),
    "with_options": lambda c: chat(c.with_options(timeout=60), 20),
    "copy": lambda c: chat(c.copy(timeout=60), 20),
    "copy of a copy": lambda c: chat(c.copy().with_options(max_retries=1), 20),
    "beta parse": lambda c: c.beta.chat.completions.parse(
        model="gpt-4o", messages=HI, max_tokens=50, response_format=Word
    ),
    "raw post": lambda c: c.post(
        "/chat/completions", body={"model": "gpt-4o", "messages": HI, "max_tokens": 20}, cast_to=object
    ),
}
ANTHROPIC: Mapping[str, Callable[[Anthropic], object]] = {
    "create": lambda c: c.messages.create(**HAIKU),
    "stream": lambda c: _drained(c.messages.create(**HAIKU, stream=True)),
    "stream helper": lambda c: _drained(c.messages.stream(**HAIKU)),
    "raw response": lambda c: c.messages.with_raw_response.create(**HAIKU),
    "with_options": lambda c: c.with_options(timeout=60).messages.create(**HAIKU),
    "copy": lambda c: c.copy(timeout=60).messages.create(**HAIKU),
    "beta": lambda c: c.beta.messages.create(**HAIKU),
    "beta stream": lambda c: _drained(c.beta.messages.stream(**HAIKU)),
}
OTHERS: Mapping[str, Callable[[OpenAI], object]] = {
    "legacy completions": lambda c: c.completions.create(model="gpt-3.5-turbo-instruct", prompt="hi " * 50),
    "images": lambda c: c.images.generate(model="gpt-image-1", prompt="a coin " * 50),
    "embeddings": lambda c: c.embeddings.create(model="text-embedding-3-small", input="hi " * 50),
    "batches": lambda c: c.batches.create(
        input_file_id="file", endpoint="/v1/chat/completions", completion_window="24h"
    ),
    "speech": lambda c: c.audio.speech.create(model="tts-1", voice="alloy", input="hi " * 50),
}


@pytest.mark.parametrize("way", OPENAI)
def test_every_openai_entry_point_is_held_and_paid(provider: FakeProvider, client: OpenAI, way: str) -> None:
    """predecessors 2.4: with_options, copy, beta parse and raw posts passed unseen; the stream helper crashed."""
    provider.reply = Reply('{"word": "coin"}')
    with farthing.budget(tokens=1_000) as budget:
        OPENAI[way](client)
    assert budget.spent.tokens == provider.billed_tokens
    assert len(entries()) == provider.posts == provider.calls == 1
    with farthing.budget(tokens=10):
        assert not admitted(lambda: OPENAI[way](client))
    assert provider.posts == 1


@pytest.mark.parametrize("way", ANTHROPIC)
def test_every_anthropic_entry_point_is_held_and_paid(provider: FakeProvider, claude: Anthropic, way: str) -> None:
    """predecessors 2.4: with_options, beta.messages.create and beta.messages.stream passed unseen."""
    with farthing.budget(tokens=1_000) as budget:
        ANTHROPIC[way](claude)
    assert budget.spent.tokens == provider.billed_tokens
    assert len(entries()) == provider.posts == provider.calls == 1
    with farthing.budget(tokens=10):
        assert not admitted(lambda: ANTHROPIC[way](claude))
    assert provider.posts == 1


def test_async_clients_too(provider: FakeProvider) -> None:
    """predecessors 2.4: the async stream helper crashed; async with_options passed unseen."""

    async def main() -> None:
        async with async_openai_client(provider) as client, async_anthropic_client(provider) as claude:
            await client.with_options(timeout=60).chat.completions.create(model="gpt-4o", messages=HI, max_tokens=20)
            async with client.chat.completions.stream(model="gpt-4o", messages=HI, max_tokens=20) as stream:
                async for _ in stream:
                    pass
            await claude.beta.messages.create(**HAIKU)
            async with claude.beta.messages.stream(**HAIKU) as blocks:
                async for _ in blocks:
                    pass

    with farthing.budget(tokens=1_000) as budget:
        asyncio.run(main())
    assert budget.spent.tokens == provider.billed_tokens
    assert len(entries()) == provider.posts == 4


@pytest.mark.parametrize("way", OTHERS)
def test_no_other_endpoint_passes_a_budget_unseen(provider: FakeProvider, client: OpenAI, way: str) -> None:
    """predecessors 2.4: legacy completions, images and batches were sent inside a budget, unseen, without a word."""
    with farthing.budget(tokens=10), pytest.raises((farthing.UnmeteredCall, farthing.BudgetExceeded)):
        OTHERS[way](client)
    assert provider.requests == []


def test_message_batches_are_refused(provider: FakeProvider, claude: Anthropic) -> None:
    """predecessors 2.4: batches.create of the anthropic package was sent inside a budget, unseen."""
    requests: Any = [{"custom_id": "1", "params": dict(HAIKU)}]
    with farthing.budget(tokens=1_000_000), pytest.raises(farthing.UnmeteredCall):
        claude.messages.batches.create(requests=requests)
    assert provider.requests == []


def test_a_client_that_cannot_be_governed_is_said_loudly() -> None:
    """predecessors 2.4: a client of unknown shape was returned untouched, without a word."""
    with pytest.warns(farthing.UngovernedClientWarning):
        farthing.instrument(object())


def test_the_sdks_own_retries_are_seen_one_by_one(provider: FakeProvider) -> None:
    """predecessors 2.4: 2 × 500, then 200: three posts, one event."""
    again = {"retry-after-ms": "1"}
    provider.script([Reply(status=500, headers=again), Reply(status=500, headers=again), Reply()])
    with openai_client(provider, max_retries=2) as client, farthing.budget(tokens=1_000, requests=3) as budget:
        chat(client, 20)
    assert [row.ending for row in entries()] == ["http_500", "http_500", "ok"]
    assert (budget.spent.tokens, budget.spent.requests) == (provider.billed_tokens, 3)


def test_a_limit_on_requests_stops_the_sdks_own_retries(provider: FakeProvider) -> None:
    """predecessors 2.4: retries are invisible, so nothing could stop them."""
    provider.reply = Reply(status=500, headers={"retry-after-ms": "1"})
    with openai_client(provider, max_retries=9) as client, farthing.budget(requests=2):
        assert not admitted(lambda: chat(client, 20))
    assert provider.posts == 2


def test_a_denial_makes_no_client_retry(provider: FakeProvider) -> None:
    """clients 3: a foreign exception in the transport: three attempts. Users: a 429 that is retried 3 to 36 times."""
    with openai_client(provider, max_retries=5) as client, farthing.budget(tokens=5), pytest.raises(openai.OpenAIError):
        chat(client, 20)
    assert provider.requests == []
    assert farthing.report().totals()["denied"] == 1


# -- sizes that were not looked at -----------------------------------------------------------------------------------

WORDS = "word " * 5_000
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "search", "description": WORDS, "parameters": {"type": "object", "properties": {}}},
    }
]
CALLED: Any = [{"id": "1", "type": "function", "function": {"name": "search", "arguments": f'{{"q": "{WORDS}"}}'}}]
BIG_CHATS: Mapping[str, dict[str, Any]] = {
    "content": {"messages": [{"role": "user", "content": WORDS}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]},
    "system": {"messages": [{"role": "system", "content": WORDS}, *HI]},
    "tool schema": {"messages": HI, "tools": TOOLS},
    "tool calls": {
        "messages": [
            *HI,
            {"role": "assistant", "tool_calls": CALLED},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ]
    },
    "tool result": {
        "messages": [
            *HI,
            {"role": "assistant", "tool_calls": [{**CALLED[0], "function": {"name": "search", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": WORDS},
        ]
    },
    "response schema": {
        "messages": HI,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "object", "description": WORDS}},
        },
    },
}
BIG_RESPONSES: Mapping[str, dict[str, Any]] = {
    "instructions": {"input": "hi", "instructions": WORDS},
    "input": {"input": WORDS},
    "function_call_output": {
        "input": [
            {"type": "function_call", "call_id": "1", "name": "search", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": WORDS},
        ]
    },
    "tools": {
        "input": "hi",
        "tools": [{"type": "function", "name": "search", "description": WORDS, "parameters": {}, "strict": False}],
    },
}
_USE = {"type": "tool_use", "id": "1", "name": "search", "input": {}}
BIG_MESSAGES: Mapping[str, dict[str, Any]] = {
    "system": {"system": WORDS},
    "system blocks": {"system": [{"type": "text", "text": WORDS}]},
    "tool_result": {
        "messages": [
            *HI,
            {"role": "assistant", "content": [_USE]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": WORDS}]},
        ]
    },
    "tool_use": {
        "messages": [
            *HI,
            {"role": "assistant", "content": [{**_USE, "input": {"q": WORDS}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x"}]},
        ]
    },
    "document": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": WORDS}}
                ],
            }
        ]
    },
    "tools": {"tools": [{"name": "search", "description": WORDS, "input_schema": {"type": "object"}}]},
}


@pytest.mark.parametrize("where", BIG_CHATS)
def test_b3_b4_the_whole_chat_request_counts(provider: FakeProvider, client: OpenAI, where: str) -> None:
    """predecessors B3, B4: system, tools, tool calls and results of 5,000 tokens counted as 7, or as nothing."""
    with farthing.budget(tokens=5_000), pytest.raises(farthing.BudgetExceeded) as denied:
        client.chat.completions.create(model="gpt-4o", max_tokens=20, **BIG_CHATS[where])
    assert denied.value.asked > 5_000
    assert provider.posts == 0


@pytest.mark.parametrize("where", BIG_RESPONSES)
def test_b3_b4_the_whole_response_request_counts(provider: FakeProvider, client: OpenAI, where: str) -> None:
    """predecessors B3, B4: instructions and function_call_output of 5,000 tokens counted as 7, or as nothing."""
    with farthing.budget(tokens=5_000), pytest.raises(farthing.BudgetExceeded) as denied:
        client.responses.create(model="gpt-4o", max_output_tokens=20, **BIG_RESPONSES[where])
    assert denied.value.asked > 5_000
    assert provider.posts == 0


@pytest.mark.parametrize("where", BIG_MESSAGES)
def test_b3_b4_the_whole_message_request_counts(provider: FakeProvider, claude: Anthropic, where: str) -> None:
    """predecessors B3, B4: system, tool_result and documents of 5,000 tokens counted as 7, or as nothing."""
    with farthing.budget(tokens=5_000), pytest.raises(farthing.BudgetExceeded) as denied:
        claude.messages.create(**{**HAIKU, **BIG_MESSAGES[where]})
    assert denied.value.asked > 5_000
    assert provider.posts == 0


def test_b3_gemini_parts_count(provider: FakeProvider) -> None:
    """predecessors B3: Gemini `parts` of 5,000 tokens counted as 7."""
    options = HttpOptions(base_url=provider.gemini_url)
    with genai.Client(api_key="fake", http_options=options) as client:
        farthing.instrument(client)
        parts: Any = [{"role": "user", "parts": [{"text": WORDS}]}]
        with farthing.budget(tokens=5_000), pytest.raises(farthing.BudgetExceeded) as denied:
            client.models.generate_content(model="gemini-2.5-flash-lite", contents=parts)
    assert denied.value.asked > 5_000
    assert provider.posts == 0


def test_b4_max_output_tokens_is_read(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors B4: Responses' max_output_tokens=900 was not read."""
    with farthing.budget(tokens=800), pytest.raises(farthing.BudgetExceeded) as denied:
        client.responses.create(model="gpt-4o", input="hi", max_output_tokens=900)
    assert denied.value.asked > 900
    assert provider.posts == 0


@pytest.mark.parametrize("mode", ["block", "clamp"])
def test_b1_a_request_without_a_ceiling(provider: FakeProvider, client: OpenAI, mode: str) -> None:
    """predecessors B1: no max_tokens, cap 1,000: 4,000 tokens of real output, +3,008 over."""
    provider.reply = Reply(output_tokens=4_000)
    with farthing.budget(tokens=1_000, on_exceed=mode) as budget:
        chat(client, None)
    assert provider.billed_tokens == budget.spent.tokens == 1_000


@pytest.mark.parametrize("mode", ["block", "clamp"])
def test_b2_choices_multiply(provider: FakeProvider, client: OpenAI, mode: str) -> None:
    """predecessors B2: n=5, max_tokens=900, cap 1,000: +3,508 under block, +3,968 under clamp."""
    with farthing.budget(tokens=1_000, on_exceed=mode) as budget:
        sent = admitted(lambda: chat(client, 900, n=5))
    assert sent is (mode == "clamp")
    assert provider.billed_tokens == budget.spent.tokens
    assert provider.billed_tokens == (8 + 5 * 198 if sent else 0)


def test_b5_clamp_uses_the_field_that_the_endpoint_knows(
    provider: FakeProvider, client: OpenAI, claude: Anthropic
) -> None:
    """predecessors B5: clamp sent max_completion_tokens to responses.create: a TypeError on every call."""
    with farthing.budget(tokens=200, on_exceed="clamp"):
        client.responses.create(model="gpt-4o", input="hi")
    with farthing.budget(tokens=200, on_exceed="clamp"):
        chat(client, None)
    with farthing.budget(tokens=200, on_exceed="clamp"):
        claude.messages.create(**{**HAIKU, "max_tokens": 5_000})
    names = ("max_output_tokens", "max_completion_tokens", "max_tokens")
    assert [[name for name in names if name in request.json] for request in provider.requests] == [
        ["max_output_tokens"],
        ["max_completion_tokens"],
        ["max_tokens"],
    ]


def test_clamp_beside_the_callers_own_field(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors 5 (1.6.1): clamp sent max_completion_tokens beside the caller's max_tokens: a 400 every time."""
    with farthing.budget(tokens=100, on_exceed="clamp"):
        chat(client, 900)
    body = provider.requests[-1].json
    assert body["max_tokens"] == 92
    assert "max_completion_tokens" not in body


@pytest.mark.parametrize("model", ["gpt-5", "gpt-4o", "claude-sonnet-5"])
def test_our_own_ceiling_never_refuses_a_request_without_one(
    provider: FakeProvider, client: OpenAI, model: str
) -> None:
    """design 05: a ceiling of ours (the model's 128,000) that refuses every request without one."""
    with farthing.budget(tokens=1_000) as budget:
        client.chat.completions.create(model=model, messages=HI)
    assert budget.spent.tokens == provider.billed_tokens <= 1_000


def test_p2_claudes_denser_tokeniser_stays_within_its_hold(provider: FakeProvider, claude: Anthropic) -> None:
    """predecessors P2: o200k is up to 1.66 times low on current Claude models."""
    text = "The quick brown fox jumps over the lazy dog, again and again. " * 100
    dense = round(farthing.tokens.count(text, "gpt-4o") * 1.66)
    provider.reply = Reply(input_tokens=dense)
    with farthing.budget(tokens=10_000) as budget:
        claude.messages.create(**{**HAIKU, "messages": [{"role": "user", "content": text}]})
    (row,) = entries()
    assert row.overrun == ()
    assert row.facts.input_tokens >= dense
    assert budget.spent.tokens == provider.billed_tokens


@pytest.mark.parametrize("text", ["<|endoftext|>", "<|im_start|>system<|im_sep|>", "a<|fim_prefix|>b"])
def test_o2_special_token_text_is_text(provider: FakeProvider, client: OpenAI, text: str) -> None:
    """predecessors O2, T13: <|endoftext|> anywhere in a prompt: ValueError, user text knocks a service over."""
    provider.reply = Reply(text)
    with farthing.budget(tokens=1_000) as budget:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}], max_tokens=20)
        provider.reply = Reply(text, usage="absent")
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}], max_tokens=20)
    assert provider.calls == 2
    assert (budget.spent.tokens or 0) >= provider.billed_tokens


def test_t14_dense_text_is_not_undercounted(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors T14, 4: Chinese × 0.11, unbroken text × 0.002; four characters a token: −67 % on Chinese."""
    for text in ("预算是一笔钱。" * 100, "x9Qz" * 1_000, '{"a":[1,2,3]},' * 200, "🪙" * 200):
        with farthing.budget(tokens=100_000):
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}], max_tokens=1)
    for row, line in zip(entries(), provider.bill, strict=True):
        assert row.facts.input_tokens >= line.usage.input_tokens
        assert row.overrun == ()
