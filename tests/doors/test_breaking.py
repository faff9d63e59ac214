"""
Goal: under ``on_exceed="break"`` and ``uncapped="watch"`` a stream ends, in good order for its SDK, when its hold is
used up; what was delivered is kept; neither the ledger nor the provider's own bill passes the limit.
Method: real SDKs on a provider that keeps to no ceiling, stopped where our cut is due, so that every figure is exact.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from typing import Any

import httpx2
import openai
import pytest
from anthropic import Anthropic
from google.genai import Client, types
from openai import OpenAI

import farthing
from farthing.testing import FakeProvider, Reply, ToolCall
from tests.doors.clients import (
    HI,
    HI_TOKENS,
    async_anthropic_client,
    async_openai_client,
    entries,
    holds,
    openai_client,
)

pytestmark = pytest.mark.usefixtures("farthing_isolated")
MARGIN = 64
ENDLESS = Reply(output_tokens=1_000_000, keeps_ceiling=False)


def stopping(after: int, **fields: Any) -> Reply:
    """One that sends so many chunks of a token each, whatever it was told, and then only goes on if nobody leaves."""
    return Reply(output_tokens=100_000, keeps_ceiling=False, pause_after_chunks=after, **fields)


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(ENDLESS, max_output_tokens=1_000_000) as running:
        yield running


def settled_as_cut(limit: int) -> None:
    """The only entry is that of a cut call, at exactly the limit; nothing is held any more."""
    (entry,) = entries()
    assert (entry.ending, entry.usage_source, entry.tokens("input", "output")) == ("cut", "counted", limit)
    assert entry.overrun == ()
    assert not entry.suspect
    assert holds() == []


@pytest.mark.parametrize("limit", [108, 1_008])
@pytest.mark.parametrize("asked", [None, 100_000])
def test_a_chat_stream_ends_when_its_hold_is_used_up(
    provider: FakeProvider, client: OpenAI, limit: int, asked: int | None
) -> None:
    """The ceiling on the wire is what fits, as with clamp; this provider does not care, and is cut."""
    due = limit - HI_TOKENS - MARGIN
    provider.script([stopping(due)])
    ceiling: Any = {} if asked is None else {"max_tokens": asked}
    with farthing.budget(tokens=limit, on_exceed="break") as purse:
        stream = client.chat.completions.create(
            model="gpt-4o", messages=HI, stream=True, stream_options={"include_usage": True}, **ceiling
        )
        chunks = list(stream)
    body = provider.requests[-1].json
    assert body["max_completion_tokens" if asked is None else "max_tokens"] == limit - HI_TOKENS
    text = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert len([piece for piece in text if piece]) == due
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == limit
    assert purse.spent.tokens == limit
    assert purse.remaining.tokens == 0
    provider.wait_idle()
    assert provider.billed_tokens == limit
    settled_as_cut(limit)


def test_an_async_chat_stream(provider: FakeProvider) -> None:
    provider.script([stopping(936)])

    async def main() -> list[Any]:
        async with async_openai_client(provider) as client, farthing.budget(tokens=1_008, on_exceed="break"):
            stream = await client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
            return [chunk async for chunk in stream]

    chunks = asyncio.run(main())
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)
    provider.wait_idle()
    assert provider.billed_tokens == 1_008
    settled_as_cut(1_008)


def test_the_sdks_own_helpers_see_a_whole_stream(provider: FakeProvider, client: OpenAI, claude: Anthropic) -> None:
    provider.script([stopping(136)] * 3)
    purse = farthing.budget(tokens=208, on_exceed="break")
    # What this helper does with every answer that ended at its ceiling.
    with (
        pytest.raises(openai.LengthFinishReasonError) as cut,
        purse,
        client.chat.completions.stream(model="gpt-4o", messages=HI) as stream,
    ):
        stream.get_final_completion()
    completion = cut.value.completion
    assert completion.choices[0].finish_reason == "length"
    with purse, client.responses.stream(model="gpt-4o", input="hi") as events:
        seen = list(events)
    assert seen[-1].type == "response.incomplete"
    response = seen[-1].response
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == completion.choices[0].message.content
    assert response.usage is not None
    assert response.usage.total_tokens == 208
    with purse, claude.messages.stream(model="claude-haiku-4-5", max_tokens=5_000, messages=HI) as blocks:
        message = blocks.get_final_message()
    assert message.stop_reason == "max_tokens"
    assert message.usage.input_tokens + message.usage.output_tokens == purse.spent.tokens
    assert purse.spent.tokens is not None
    assert purse.spent.tokens <= 208


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_message_with_a_tool_call_that_is_cut(provider: FakeProvider, claude: Anthropic, asynchronous: bool) -> None:
    """The text block is closed already, the tool's input is open: what was delivered of it is kept."""
    long = ToolCall("note", {"text": "a coin and another coin " * 200})
    provider.script([Reply("Let me note it.", tool_calls=[long], keeps_ceiling=False)])
    ask: Any = {"model": "claude-haiku-4-5", "max_tokens": 5_000, "messages": HI}

    async def main() -> Any:
        async with async_anthropic_client(provider) as client, client.messages.stream(**ask) as stream:
            return await stream.get_final_message()

    with farthing.budget(tokens=308, on_exceed="break") as purse:
        if asynchronous:
            message = asyncio.run(main())
        else:
            with claude.messages.stream(**ask) as stream:
                message = stream.get_final_message()
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert message.stop_reason == "max_tokens"
    assert purse.spent.tokens is not None
    assert 200 < purse.spent.tokens <= 308


def test_tool_arguments_count(provider: FakeProvider, client: OpenAI) -> None:
    """The predecessor counted 8 of 5,000 (its S5)."""
    tool = ToolCall("note", {"text": "a coin and another coin " * 1_000})
    provider.script([Reply(tool_calls=[tool], keeps_ceiling=False)])
    with farthing.budget(tokens=208, on_exceed="break") as purse:
        stream = client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
        calls = [delta for chunk in stream for delta in chunk.choices[0].delta.tool_calls or ()]
    arguments = "".join(call.function.arguments or "" for call in calls if call.function)
    delivered = farthing.tokens.count(arguments, "gpt-4o") + farthing.tokens.count("note", "gpt-4o")
    assert 136 <= delivered < 150
    assert purse.spent.tokens == 208


@contextmanager
def gemini(provider: FakeProvider) -> Iterator[Client]:
    with Client(api_key="fake", http_options=types.HttpOptions(base_url=provider.gemini_url)) as made:
        yield farthing.instrument(made)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_gemini_stream(provider: FakeProvider, asynchronous: bool) -> None:
    quiet = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(thinking_budget=0))
    ask: Any = {"model": "gemini-2.5-flash", "contents": "hi", "config": quiet}

    async def main() -> list[Any]:
        with gemini(provider) as client:
            return [chunk async for chunk in await client.aio.models.generate_content_stream(**ask)]

    with farthing.budget(tokens=400, on_exceed="break") as purse:
        if asynchronous:
            chunks = asyncio.run(main())
        else:
            with gemini(provider) as client:
                chunks = list(client.models.generate_content_stream(**ask))
    last = chunks[-1]
    assert last.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    assert last.usage_metadata.total_token_count == purse.spent.tokens
    assert purse.spent.tokens is not None
    assert 380 < purse.spent.tokens <= 400
    (entry,) = entries()
    assert entry.ending == "cut"


def test_a_gemini_stream_as_an_array(provider: FakeProvider) -> None:
    """How it streams without alt=sse; the client of this test is a plain one, governed by install()."""
    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    config = {"thinkingConfig": {"thinkingBudget": 0}}
    ask = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": config}
    host = provider.url.removeprefix("http://")
    farthing.install(hosts={host: "google"})
    try:
        with httpx2.Client(timeout=60) as http, farthing.budget(tokens=400, on_exceed="break") as purse:
            answer = http.post(provider.url + path, json=ask, headers={"x-goog-api-key": "fake"})
    finally:
        farthing.uninstall()
    objects = json.loads(answer.content)
    assert objects[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert objects[-1]["usageMetadata"]["totalTokenCount"] == purse.spent.tokens


def test_legacy_completions(provider: FakeProvider, client: OpenAI) -> None:
    provider.script([stopping(136)])
    with farthing.budget(tokens=201, on_exceed="break") as purse:
        stream = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="hi", max_tokens=5_000, stream=True)
        chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert purse.spent.tokens is not None
    assert purse.spent.tokens <= 201


def test_several_choices_are_all_finished(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=308, on_exceed="break") as purse:
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HI, n=3, stream=True))
    finishes = {chunk.choices[0].index: chunk.choices[0].finish_reason for chunk in chunks}
    assert finishes == {0: "length", 1: "length", 2: "length"}
    assert purse.spent.tokens == 308


def test_by_money(provider: FakeProvider, client: OpenAI) -> None:
    """8 × $2.50/M in and 200 × $10/M out."""
    with farthing.budget(usd=Decimal("0.00202"), on_exceed="break") as purse:
        text = [
            chunk.choices[0].delta.content
            for chunk in client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
        ]
    assert len([piece for piece in text if piece]) == 136
    assert str(purse.spent.usd) == "0.00202"


def test_a_plain_call_is_clamped(provider: FakeProvider, client: OpenAI) -> None:
    provider.script([Reply(output_tokens=1_000_000)])
    with farthing.budget(tokens=108, on_exceed="break") as purse:
        answer = client.chat.completions.create(model="gpt-4o", messages=HI)
    assert answer.choices[0].finish_reason == "length"
    assert provider.requests[-1].json["max_completion_tokens"] == 100
    assert purse.spent.tokens == 108


def test_what_fits_is_left_alone(provider: FakeProvider, client: OpenAI) -> None:
    """The caller's own ceiling, granted whole: nothing is exceeded, and the provider ends the answer itself."""
    provider.script([Reply(output_tokens=1_000_000)])
    with farthing.budget(tokens=58, on_exceed="break") as purse:
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=50, stream=True))
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) == 50
    assert "max_completion_tokens" not in provider.requests[-1].json
    (entry,) = entries()
    assert (entry.ending, entry.usage_source) == ("ok", "provider")
    assert purse.spent.tokens == 58


def test_a_provider_that_passes_the_callers_own_ceiling_is_cut(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=58, on_exceed="break") as purse:
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=50, stream=True))
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) == 51
    assert chunks[-1].choices[0].finish_reason == "length"
    assert purse.spent.tokens == 58


def test_a_stream_that_could_deliver_next_to_nothing_is_denied(provider: FakeProvider, client: OpenAI) -> None:
    """A cut comes a margin before the end of the hold: with less than 16 tokens before it, it is not worth it."""
    with farthing.budget(tokens=HI_TOKENS + MARGIN + 15, on_exceed="break"), pytest.raises(farthing.BudgetExceeded):
        client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
    assert provider.posts == 0
    with farthing.budget(tokens=HI_TOKENS + MARGIN + 16, on_exceed="break"):
        text = [
            chunk.choices[0].delta.content
            for chunk in client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
        ]
    assert len([piece for piece in text if piece]) == 16


def test_a_cut_says_so_loudly(provider: FakeProvider, client: OpenAI, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "farthing"), farthing.budget("night", tokens=208, on_exceed="break"):
        list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
    (said,) = [record.getMessage() for record in caplog.records if "was cut" in record.getMessage()]
    assert "136 output tokens" in said
    assert "'night'" in said


def test_the_next_call_is_denied(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=208, on_exceed="break") as purse:
        list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
        with pytest.raises(farthing.BudgetExceeded):
            client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
    assert purse.spent.tokens == 208
    assert provider.posts == 1


def test_an_outer_raise_is_told_at_the_end_of_a_cut_stream(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget("outer", tokens=100, on_exceed="raise"), farthing.budget(tokens=208, on_exceed="break"):
        stream = client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
        seen: list[Any] = []
        with pytest.raises(farthing.BudgetExceeded) as crossed:
            seen.extend(chunk for chunk in stream)
    assert crossed.value.budget == "outer"
    assert seen[-1].choices[0].finish_reason == "length"


def test_twenty_streams_at_once_share_one_break_budget(provider: FakeProvider) -> None:
    """The predecessor's streams each had an allowance of their own (its S2): here each has its hold."""

    @asynccontextmanager
    async def opened(client: Any) -> AsyncIterator[Any]:
        yield await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=200, stream=True)

    async def one(client: Any) -> int:
        try:
            async with opened(client) as stream:
                return len([chunk async for chunk in stream if chunk.choices[0].delta.content])
        except farthing.BudgetExceeded:
            return 0

    async def main() -> list[int]:
        async with async_openai_client(provider) as client:
            with farthing.budget(tokens=1_000, on_exceed="break") as purse:
                delivered = await asyncio.gather(*(one(client) for _ in range(20)))
            assert purse.spent.tokens is not None
            assert purse.spent.tokens <= 1_000
            return delivered

    delivered = asyncio.run(main())
    assert sum(1 for number in delivered if number) == 5
    assert holds() == []


def test_what_runs_in_the_background_is_not_cut(provider: FakeProvider, client: OpenAI) -> None:
    """It goes on whoever hangs up: its ceiling on the wire is what holds."""
    provider.script([Reply(output_tokens=1_000_000)])
    with farthing.budget(tokens=308, on_exceed="break", open_bound="overrun") as purse:
        events = list(client.responses.create(model="gpt-4o", input="hi", background=True, stream=True))
    assert events[-1].type == "response.incomplete"
    assert len([event for event in events if event.type == "response.output_text.delta"]) == 300
    assert purse.spent.tokens == 308


# -- uncapped="watch" ------------------------------------------------------------------------------------------------


def test_watch_sends_the_request_as_it_is_and_cuts(provider: FakeProvider, client: OpenAI) -> None:
    with (
        openai_client(provider, governed=False) as untouched,
        untouched.chat.completions.create(
            model="gpt-4o", messages=HI, stream=True, stream_options={"include_usage": True}
        ),
    ):
        pass
    provider.script([stopping(136)])
    with farthing.budget(tokens=10_000, uncapped="watch", default_output_tokens=200) as purse:
        stream = client.chat.completions.create(
            model="gpt-4o", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    assert provider.requests[1].body == provider.requests[0].body
    assert chunks[-2].choices[0].finish_reason == "length"
    assert purse.spent.tokens == 208
    (entry,) = entries()
    assert (entry.ending, entry.facts.bound) == ("cut", "open")


def test_watch_is_shrunk_to_what_fits(provider: FakeProvider, client: OpenAI) -> None:
    provider.script([stopping(236)])
    with farthing.budget(tokens=308, uncapped="watch") as purse:
        list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
    assert "max_completion_tokens" not in provider.requests[-1].json
    assert purse.spent.tokens == 308


def test_watch_counts_what_came_beyond_its_hold(provider: FakeProvider, client: OpenAI) -> None:
    """The provider was told no ceiling: all that it sent before we left is billed, however much came at once."""
    provider.script([stopping(1, tokens_per_chunk=500)])
    with farthing.budget(tokens=10_000, uncapped="watch", default_output_tokens=100) as purse:
        list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
    provider.wait_idle()
    assert HI_TOKENS + 100 < provider.billed_tokens <= purse.spent.tokens
    (entry,) = entries()
    assert entry.ending == "cut"
    assert dict(entry.overrun)["tokens"] == purse.spent.tokens - HI_TOKENS - 100


def test_watch_leaves_an_answer_that_ends_in_time(provider: FakeProvider, client: OpenAI) -> None:
    provider.script([Reply("a farthing")])
    with farthing.budget(tokens=10_000, uncapped="watch") as purse:
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    (entry,) = entries()
    assert (entry.ending, entry.usage_source) == ("ok", "provider")
    assert purse.held.tokens == 0


@pytest.mark.parametrize(("model", "stream"), [("gpt-4o", False), ("gpt-5", True)])
def test_what_cannot_be_watched_is_given_a_ceiling(
    provider: FakeProvider, client: OpenAI, model: str, stream: bool
) -> None:
    """A plain answer cannot be cut, and of hidden reasoning nothing is seen."""
    provider.script([Reply(output_tokens=1_000_000)])
    with farthing.budget(tokens=1_008, uncapped="watch"):
        made = client.chat.completions.create(model=model, messages=HI, stream=stream)
        if stream:
            list(made)
    assert provider.requests[-1].json["max_completion_tokens"] == 1_000


def test_watch_beside_the_callers_own_ceiling_is_nothing(provider: FakeProvider, client: OpenAI) -> None:
    provider.script([Reply(output_tokens=1_000_000)])
    with farthing.budget(tokens=1_000, uncapped="watch"):
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=30, stream=True))
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) == 30
    (entry,) = entries()
    assert entry.facts.bound == "proven"


def test_the_strictest_of_several_budgets_decides(provider: FakeProvider, client: OpenAI) -> None:
    provider.script([Reply(output_tokens=1_000_000)])
    with farthing.budget(tokens=1_000, uncapped="watch"), farthing.budget(tokens=2_000):
        list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
    assert provider.requests[-1].json["max_completion_tokens"] == 992
