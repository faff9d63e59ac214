"""
The door table, third part: requests whose figures are not obvious. Choices, hidden reasoning, thinking, tools, images,
cache writes: what was held covers what was billed, whether the answer says so or is cut.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from decimal import Decimal
from typing import Any

import pytest

import farthing
from farthing.testing import FakeProvider, Reply, ToolCall
from tests.doors.clients import HI, anthropic_client, entries, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": f"tool_{number}",
            "description": "Looks up one fact of many kinds in a large table of facts. " * 5,
            "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Its name."}}},
        },
    }
    for number in range(20)
]


def _png(width: int, height: int) -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * (width * 3 + 1) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    ).decode()


def _settles_to_the_bill(provider: FakeProvider, held: int) -> None:
    (row,) = entries()
    (line,) = provider.bill
    assert dict(row.usage) == line.usage.to_dict()
    assert row.overrun == ()
    assert line.usage.total_tokens <= held


@pytest.mark.parametrize("stream", [False, True])
def test_five_choices_are_held_and_paid_five_times(fake_provider: FakeProvider, stream: bool) -> None:
    fake_provider.reply = Reply(output_tokens=10_000)
    with openai_client(fake_provider) as client:
        keywords: Any = {"model": "gpt-4o", "messages": HI, "n": 5, "max_tokens": 20, "stream": stream}
        with farthing.budget(tokens=8 + 5 * 20 - 1), pytest.raises(farthing.BudgetExceeded) as denied:
            client.chat.completions.create(**keywords)
        assert denied.value.asked == 108
        with farthing.budget(tokens=8 + 5 * 20) as budget:
            answer = client.chat.completions.create(**keywords)
            if stream:
                list(answer)
        assert budget.spent.tokens == fake_provider.billed_tokens == 108
    _settles_to_the_bill(fake_provider, 108)


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_is_part_of_the_output(fake_provider: FakeProvider, endpoint: str, stream: bool) -> None:
    fake_provider.reply = Reply(output_tokens=90, reasoning_tokens=70)
    with openai_client(fake_provider) as client, farthing.budget(tokens=1_000):
        made: Any
        if endpoint == "chat":
            made = client.chat.completions.create(model="gpt-5", messages=HI, max_completion_tokens=100, stream=stream)
        else:
            made = client.responses.create(model="gpt-5", input="hi", max_output_tokens=100, stream=stream)
        if stream:
            list(made)
    _settles_to_the_bill(fake_provider, 1_000)
    (row,) = entries()
    assert (row.tokens("output"), row.tokens("reasoning")) == (90, 70)
    assert farthing.report().totals()["reasoning_tokens"] == 70


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_a_cut_stream_of_a_model_that_reasons_is_counted_at_its_hold(
    fake_provider: FakeProvider, endpoint: str
) -> None:
    fake_provider.reply = Reply(output_tokens=900, reasoning_tokens=700, cut_after_chunks=3)
    with openai_client(fake_provider) as client, farthing.budget(tokens=2_000) as budget:
        made: Any
        if endpoint == "chat":
            made = client.chat.completions.create(model="gpt-5", messages=HI, max_completion_tokens=1_000, stream=True)
        else:
            made = client.responses.create(model="gpt-5", input="hi", max_output_tokens=1_000, stream=True)
        with pytest.raises(Exception, match=r"(?i)connection|peer"):
            list(made)
    (row,) = entries()
    assert (row.usage_source, row.tokens("output")) == ("estimate", 1_000)
    assert fake_provider.billed_tokens <= (budget.spent.tokens or 0)
    assert fake_provider.billed().output == 700 + 3 + 64


def test_thinking_is_held_and_paid(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(output_tokens=1_500, reasoning_tokens=1_200)
    thinking: Any = {"type": "enabled", "budget_tokens": 1_024}
    with anthropic_client(fake_provider) as client, farthing.budget(tokens=3_000) as budget:
        answer = client.messages.create(model="claude-haiku-4-5", max_tokens=2_000, messages=HI, thinking=thinking)
        assert [block.type for block in answer.content] == ["thinking", "text"]
    assert budget.spent.tokens == fake_provider.billed_tokens
    _settles_to_the_bill(fake_provider, 3_000)


def test_the_ceiling_never_falls_under_a_thinking_budget(fake_provider: FakeProvider) -> None:
    """Anthropic refuses max_tokens at or below budget_tokens: a clamp must stay above it, or deny."""
    thinking: Any = {"type": "enabled", "budget_tokens": 1_024}
    with anthropic_client(fake_provider) as client:
        keywords: Any = {"model": "claude-haiku-4-5", "max_tokens": 4_000, "messages": HI, "thinking": thinking}
        with farthing.budget(tokens=1_000, on_exceed="clamp"), pytest.raises(farthing.BudgetExceeded):
            client.messages.create(**keywords)
        assert fake_provider.posts == 0
        with farthing.budget(tokens=2_000, on_exceed="clamp") as budget:
            client.messages.create(**keywords)
        assert 1_024 < fake_provider.requests[0].json["max_tokens"] < 2_000
        assert budget.spent.tokens == fake_provider.billed_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_tool_schemas_and_tool_calls_are_counted(fake_provider: FakeProvider, stream: bool) -> None:
    fake_provider.reply = Reply(tool_calls=[ToolCall("tool_1", {"city": "x" * 400})])
    with openai_client(fake_provider) as client:
        with farthing.budget(tokens=1_000), pytest.raises(farthing.BudgetExceeded) as denied:
            client.chat.completions.create(model="gpt-4o", messages=HI, tools=TOOLS, max_tokens=10)
        assert denied.value.asked > 1_000
        with farthing.budget(tokens=10_000) as budget:
            made: Any = client.chat.completions.create(
                model="gpt-4o", messages=HI, tools=TOOLS, max_tokens=300, stream=stream
            )
            if stream:
                list(made)
        assert budget.spent.tokens == fake_provider.billed_tokens
    (row,) = entries()
    assert row.facts.input_tokens >= fake_provider.billed().input_tokens
    _settles_to_the_bill(fake_provider, 10_000)


def test_a_cut_stream_of_tool_arguments_is_counted(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(tool_calls=[ToolCall("tool_1", {"city": "word " * 400})], cut_after_chunks=100)
    with openai_client(fake_provider) as client, farthing.budget(tokens=10_000) as budget:
        made = client.chat.completions.create(
            model="gpt-4o", messages=HI, tools=TOOLS[:1], max_tokens=2_000, stream=True
        )
        with pytest.raises(Exception, match=r"(?i)connection|peer"):
            list(made)
    (row,) = entries()
    assert fake_provider.billed().output > 64
    assert row.tokens("output") >= fake_provider.billed().output
    assert (budget.spent.tokens or 0) >= fake_provider.billed_tokens


def test_images_are_held_by_the_providers_formula(fake_provider: FakeProvider) -> None:
    url = f"data:image/png;base64,{_png(1024, 1024)}"
    content: Any = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": url, "detail": "high"}}]
    messages: Any = [{"role": "user", "content": content}]
    with openai_client(fake_provider) as client:
        with farthing.budget(tokens=700), pytest.raises(farthing.BudgetExceeded):
            client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=10)
        with farthing.budget(tokens=1_000):
            client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=10)
    _settles_to_the_bill(fake_provider, 1_000)


def test_cache_writes_are_held_and_priced_at_their_own_rate(fake_provider: FakeProvider) -> None:
    text = "A long preamble that is worth caching. " * 50
    system: Any = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
    written = Reply(input_tokens=500, cache_write_tokens=450)
    read = Reply(input_tokens=500, cached_tokens=450)
    fake_provider.script([written, read])
    with anthropic_client(fake_provider) as client, farthing.budget(usd=1) as budget:
        for _ in range(2):
            client.messages.create(model="claude-haiku-4-5", max_tokens=20, messages=HI, system=system)
    first, second = entries()
    assert first.cost_nano == 50 * 1_000 + 450 * 1_250 + 10 * 5_000
    assert second.cost_nano == 50 * 1_000 + 450 * 100 + 10 * 5_000
    assert (first.overrun, second.overrun) == ((), ())
    assert budget.spent.tokens == fake_provider.billed_tokens


@pytest.mark.parametrize("told", ["us", "global", "not_available"])
@pytest.mark.parametrize("stream", [False, True])
def test_inference_in_one_region_is_held_and_priced_a_tenth_dearer(
    fake_provider: FakeProvider, stream: bool, told: str
) -> None:
    """Anthropic's ``inference_geo``: held as the request says, settled as the answer says."""
    usage = {"input_tokens": 1_000, "output_tokens": 100, "service_tier": "standard", "inference_geo": told}
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "claude-opus-4-8"}
    if stream:
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**message, "usage": {**usage, "output_tokens": 1}}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 100}},
            {"type": "message_stop"},
        ]
        fake_provider.reply = Reply(
            body="".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        )
    else:
        fake_provider.reply = Reply(body={**message, "stop_reason": "end_turn", "usage": usage})
    with anthropic_client(fake_provider) as client, farthing.budget(usd=1):
        asked: Any = {"model": "claude-opus-4-8", "max_tokens": 100, "messages": HI, "extra_body": {}}
        asked["extra_body"]["inference_geo"] = "us"
        made: Any = client.messages.create(**asked, stream=stream)
        if stream:
            list(made)
    (row,) = entries()
    listed = 1_000 * 5_000 + 100 * 25_000
    assert row.cost_nano == (listed * 11 // 10 if told == "us" else listed)


def test_what_a_priority_call_costs_that_was_left_before_its_provider_said_a_word(fake_provider: FakeProvider) -> None:
    """No chunk had told the tier it was served in: it is the one that was asked for, not the list price's."""
    fake_provider.reply = Reply(output_tokens=50, pause_after_chunks=0)
    for tier in ("default", "priority"):
        with openai_client(fake_provider) as client, farthing.budget(usd=1):
            made: Any = client.chat.completions.create(
                model="gpt-4o", messages=HI, max_tokens=100, stream=True, service_tier=tier
            )
            made.close()
        fake_provider.resume()
    plain, priority = entries()
    assert plain.usage == priority.usage
    assert (plain.cost_nano or 0) * 17 == (priority.cost_nano or 0) * 10


def test_the_input_of_a_cut_stream_may_have_been_written_to_the_cache(fake_provider: FakeProvider) -> None:
    """Models since GPT-5.6 write it unasked, above the price of input: it was held at that, and costs that."""
    fake_provider.reply = Reply(output_tokens=10, input_tokens=4_008, cache_write_tokens=4_000, cut_after_chunks=3)
    messages: Any = [{"role": "user", "content": "word " * 4_000}]
    with openai_client(fake_provider) as client, farthing.budget(usd=1) as budget:
        made = client.chat.completions.create(model="gpt-5.6", messages=messages, max_completion_tokens=16, stream=True)
        with pytest.raises(Exception, match=r"(?i)connection|peer"):
            list(made)
    (row,), (line,) = entries(), fake_provider.bill
    billed = 8 * 4_000 + line.usage.cache_write * 5_000 + line.usage.output_tokens * 20_000
    assert row.cost_nano == 4_008 * 5_000 + 16 * 20_000
    assert (row.cost_nano or 0) + 64 * 20_000 >= billed, "but for what a provider bills after a cut"
    assert budget.spent.usd == Decimal(row.cost_nano or 0) / 10**9


def test_a_cut_stream_of_sound_is_counted_at_its_hold(fake_provider: FakeProvider) -> None:
    """The words of it are not what is billed: sound has more tokens, and dearer ones."""
    fake_provider.reply = Reply(output_tokens=900, cut_after_chunks=3)
    sound: Any = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    with openai_client(fake_provider) as client, farthing.budget(usd=10, open_bound="overrun"):
        made: Any = client.chat.completions.create(
            model="gpt-audio", messages=HI, max_completion_tokens=1_000, stream=True, **sound
        )
        with pytest.raises(Exception, match=r"(?i)connection|peer"):
            list(made)
    (row,) = entries()
    assert (row.usage_source, row.tokens("output")) == ("estimate", 1_000)
    assert row.cost_nano == row.tokens("input") * 32_000 + 1_000 * 64_000


def test_sound_is_not_watched_by_its_words(fake_provider: FakeProvider) -> None:
    """`uncapped="watch"` counts what passes; of sound it could not, so a ceiling goes on the wire."""
    sound: Any = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    watching: Any = {"open_bound": "overrun", "uncapped": "watch", "on_exceed": "break"}
    with openai_client(fake_provider) as client, farthing.budget(tokens=10_000, **watching):
        list(client.chat.completions.create(model="gpt-audio", messages=HI, stream=True, **sound))
    assert fake_provider.requests[0].json["max_completion_tokens"] > 0


@pytest.mark.parametrize("body", ["", {"choices": [{"message": {"content": "some words"}}]}])
def test_what_a_priority_call_costs_whose_answer_tells_neither_tier_nor_usage(
    fake_provider: FakeProvider, body: Any
) -> None:
    fake_provider.reply = Reply(body=body)
    for tier in ("default", "priority"):
        with openai_client(fake_provider) as client, farthing.budget(usd=1):
            try:
                client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100, service_tier=tier)
            except ValueError:
                pass  # what the SDK makes of it is its own affair
    plain, priority = entries()
    assert (plain.cost_nano or 0) * 17 == (priority.cost_nano or 0) * 10


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("named", "image"), [("gpt-image-1-mini", 8_000), (None, 40_000)])
def test_images_of_a_hosted_tool_are_counted_at_their_own_models_price(
    fake_provider: FakeProvider, stream: bool, named: str | None, image: int
) -> None:
    """OpenAI tells them beside the usage of the model that asked for them: they were in no report, and on no budget."""
    made_images = {
        "input_tokens": 50,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 50},
        "output_tokens": 4_160,
        "total_tokens": 4_210,
    }
    response: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5-mini",
        "status": "completed",
        "output": [],
        "tools": [{"type": "image_generation", **({"model": named} if named else {})}],
        "usage": {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110},
        "tool_usage": {"image_gen": made_images, "web_search": {"num_requests": 0}},
    }
    event = json.dumps({"type": "response.completed", "response": response, "sequence_number": 0})
    fake_provider.reply = Reply(body=f"event: response.completed\ndata: {event}\n\n" if stream else response)
    tools: Any = [{"type": "image_generation", **({"model": named} if named else {})}]
    with openai_client(fake_provider) as client, farthing.budget(usd=1, open_bound="overrun") as budget:
        made: Any = client.responses.create(
            model="gpt-5-mini", input="hi", max_output_tokens=100, tools=tools, stream=stream
        )
        if stream:
            list(made)
    (row,) = entries()
    text = {8_000: 2_000, 40_000: 5_000}[image]
    assert row.cost_nano == (100 * 250 + 10 * 2_000) + (50 * text + 4_160 * image)
    assert (row.tokens("output_image"), budget.spent.tokens) == (4_160, 110 + 4_210)


STREAMS_THAT_ARE_NONE = (
    "<html>Bad gateway</html>",
    "",
    ": a comment\n\n",
    "data: nonsense\n\ndata: [DONE]\n\n",
    'data: {"choices": [{"delta": 5}]}\n\n',
    b"\xff\xfe\xfd" * 10,
)
ANSWERS_THAT_ARE_NONE = (
    "<html>Bad gateway</html>",
    "",
    "null",
    "[]",
    '"x"',
    "{}",
    '{"choices": 5, "usage": null}',
    "[" * 9_999,
)


@pytest.mark.parametrize(
    ("stream", "body"),
    [*((True, body) for body in STREAMS_THAT_ARE_NONE), *((False, body) for body in ANSWERS_THAT_ARE_NONE)],
)
def test_an_answer_in_which_nothing_can_be_read_is_counted_at_its_hold(
    fake_provider: FakeProvider, stream: bool, body: str | bytes
) -> None:
    """A 200 in no known language: billed for all we know."""
    fake_provider.reply = Reply(body=body, output_tokens=150)
    with openai_client(fake_provider) as client, farthing.budget(tokens=10_000) as budget:
        try:
            made: Any = client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=200, stream=stream)
            if stream:
                list(made)
        except (ValueError, RecursionError):
            pass  # what the SDK makes of it is its own affair
    (row,) = entries()
    assert (row.ending, row.usage_source) == ("unreadable", "estimate")
    assert (budget.held.tokens, budget.spent.tokens) == (0, 208)
    assert (budget.spent.tokens or 0) >= fake_provider.billed_tokens == 158


REPORTS_THAT_ARE_NONE: Any = (
    {"prompt_tokens": -5, "completion_tokens": 3, "total_tokens": -2},
    {"prompt_tokens": "10", "completion_tokens": 3},
    {"prompt_tokens": 1.5, "completion_tokens": 3},
    {"prompt_tokens": True, "completion_tokens": 3},
    {"prompt_tokens": 10**30, "completion_tokens": 3},
    {"prompt_tokens": 8},
    {},
    [],
    "many",
)


@pytest.mark.parametrize("tier", ["flex", "batch"])
def test_a_cheaper_tier_than_its_provider_tells_is_nobodys_discount(fake_provider: FakeProvider, tier: str) -> None:
    """A server that knows no tiers bills its list price, whatever a caller writes there."""
    fake_provider.reply = Reply(
        body={
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-5",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
            "usage": {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12},
        }
    )
    with openai_client(fake_provider) as client, farthing.budget(usd=1):
        for asked in ("default", tier):
            client.chat.completions.create(
                model="gpt-5", messages=HI, max_completion_tokens=9, extra_body={"service_tier": asked}
            )
    listed, cheaper = entries()
    assert listed.cost_nano == cheaper.cost_nano == 8 * 1_250 + 4 * 10_000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", REPORTS_THAT_ARE_NONE, ids=str)
def test_a_usage_figure_that_is_none_is_as_if_absent(fake_provider: FakeProvider, usage: Any, stream: bool) -> None:
    """The answer reaches its caller, its text is counted, and no counter is ever negative, a fraction or absurd."""
    common = {"id": "x", "created": 1, "model": "gpt-4o"}
    if stream:
        choice = {"index": 0, "delta": {"content": "two words"}, "finish_reason": "stop"}
        chunk = {**common, "object": "chat.completion.chunk", "choices": [choice]}
        events = [json.dumps(chunk), json.dumps({**chunk, "choices": [], "usage": usage}), "[DONE]"]
        fake_provider.reply = Reply(body="".join(f"data: {event}\n\n" for event in events))
    else:
        message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "two words"}}
        fake_provider.reply = Reply(body={**common, "object": "chat.completion", "choices": [message], "usage": usage})
    with openai_client(fake_provider) as client, farthing.budget(tokens=10_000) as budget:
        made: Any = client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=200, stream=stream)
        if stream:
            list(made)
    (row,) = entries()
    assert (row.usage_source, dict(row.usage)) == ("counted", {"input": 8, "output": 2})
    assert (budget.held.tokens, budget.spent.tokens) == (0, 10)
