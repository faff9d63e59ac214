"""
Goal: a stream that is cut is, to its client, a stream that ended at its output ceiling; where it is cut does not depend
on how its bytes came; nothing of what is relayed is changed.
Method: recorded streams and streams of every endpoint of the fake provider (texts, tools, thoughts, several choices),
cut at every event and at any split of the bytes; read by the SDKs' own models and by the dialect's own meter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import anthropic.types as claude
import pytest
from google.genai import types as gemini
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import chat, responses
from pydantic import TypeAdapter

from farthing.kernel.usage import Usage
from farthing.testing.endpoint import Rendering
from farthing.testing.generation import generate
from farthing.testing.rendering.anthropic import AnthropicMessages as FakeMessages
from farthing.testing.rendering.cohere import CohereChat as FakeCohere
from farthing.testing.rendering.openai_chat import OpenAIChat as FakeChat
from farthing.testing.rendering.openai_responses import OpenAIResponses as FakeResponses
from farthing.testing.reply import Reply, ToolCall
from farthing.wire.anthropic.messages import AnthropicMessages
from farthing.wire.cohere.chat import CohereChat
from farthing.wire.cut import CutStream
from farthing.wire.facts import Dialect, RequestFacts
from farthing.wire.gemini.generate import GeminiGenerate
from farthing.wire.metering import EventMeter
from farthing.wire.openai.chat import OpenAIChat
from farthing.wire.openai.completions import OpenAICompletions
from farthing.wire.openai.responses import OpenAIResponses

from .recorded_bodies import (
    CHAT_STREAM,
    COHERE,
    COMPLETIONS,
    GEMINI,
    GEMINI_ARRAY,
    GEMINI_SSE,
    MESSAGES,
    RESPONSES,
    body,
    recorded,
)

TOLD = Usage(input=30, cached=20, output=70)
"""What is told at the end of a stream that is cut before it has told anything of its input."""


class Case(NamedTuple):
    dialect: Dialect
    request: RequestFacts
    stream: bytes
    model: Any
    """What the SDK reads an event as; None where it has no strict model of its own."""

    @property
    def array(self) -> bool:
        return self.request.stream_type != "text/event-stream"

    def meter(self, *, strip: bool = False) -> EventMeter:
        made = self.dialect.meter(self.request, strip_usage=strip)
        assert isinstance(made, EventMeter)
        return made

    def cut(self, most: int, *, strip: bool = False) -> CutStream:
        closer = self.dialect.closer(self.request)
        assert closer is not None
        return CutStream(self.meter(strip=strip), closer, most_tokens=most, count=len, array=self.array)


def _case(dialect: Dialect, request: bytes, stream: bytes, model: Any, path: str = "") -> Case:
    return Case(dialect, dialect.read_request(request, path), stream, model)


REPLY = Reply(
    text="Two halfpennies make one penny: “½ + ½”, 見.",
    tool_calls=[ToolCall("look_up", {"coin": "farthing", "year": 1860}), ToolCall("sum", {"of": [1, 2, 3]})],
    reasoning_tokens=4,
)


def _rendered(endpoint: Any, request: dict[str, Any], reply: Reply = REPLY) -> bytes:
    shown = request.get("n", 1)
    made = generate(
        reply, model="m", input_tokens=50, ceiling=10_000, count=lambda text, _: max(1, len(text) // 3), choices=shown
    )
    mark = Rendering("id1", "m", 1_780_000_000)
    return b"".join(frame.data for frame in endpoint.stream(made, mark, request))


def _chat(**fields: Any) -> bytes:
    return body(**{**json.loads(CHAT_STREAM), **fields})


ASK = {"stream_options": {"include_usage": True}}
TWO: dict[str, Any] = {"n": 2, **ASK}
THINK: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
CHUNK: Any = TypeAdapter(chat.ChatCompletionChunk)
EVENT: Any = TypeAdapter(responses.ResponseStreamEvent)
BLOCK: Any = TypeAdapter(claude.RawMessageStreamEvent)
PIECE: Any = TypeAdapter(gemini.GenerateContentResponse)
CASES = {
    "chat": _case(OpenAIChat(), CHAT_STREAM, recorded("openai_chat_stream.sse"), CHUNK),
    "chat tools": _case(OpenAIChat(), _chat(**ASK), _rendered(FakeChat(), ASK), CHUNK),
    "chat twice": _case(OpenAIChat(), _chat(**TWO), _rendered(FakeChat(), TWO), CHUNK),
    "mistral": _case(OpenAIChat("mistral", tells_usage=True), CHAT_STREAM, _rendered(FakeChat(), {}), CHUNK),
    "completions": _case(OpenAICompletions(), COMPLETIONS, recorded("openai_completions_stream.sse"), None),
    "responses": _case(OpenAIResponses(), RESPONSES, recorded("openai_responses_stream.sse"), EVENT),
    "responses tools": _case(OpenAIResponses(), RESPONSES, _rendered(FakeResponses(), {}), EVENT),
    "messages": _case(AnthropicMessages(), MESSAGES, recorded("anthropic_stream.sse"), BLOCK),
    "messages tools": _case(AnthropicMessages(), MESSAGES, _rendered(FakeMessages(), THINK), BLOCK),
    "cohere": _case(CohereChat(), COHERE, _rendered(FakeCohere(), {}), None),
    "gemini": _case(GeminiGenerate(), GEMINI, recorded("gemini_stream.sse"), PIECE, GEMINI_SSE),
    "gemini array": _case(GeminiGenerate(), GEMINI, recorded("gemini_stream_array.json"), PIECE, GEMINI_ARRAY),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def told(case: Case, got: bytes) -> Usage:
    """What is told at the end: the input as the provider told it, if it did, and some output."""
    meter = case.meter()
    meter.feed(got)
    known = meter.facts().partial_input
    return TOLD if known is None else known + Usage(output=70)


def relayed(case: Case, most: int, pieces: list[bytes] | None = None, *, strip: bool = False) -> tuple[bytes, bool]:
    """What the client of a stream with this limit gets, and whether it was cut."""
    cut = case.cut(most, strip=strip)
    out = []
    for piece in pieces or [case.stream]:
        out.append(cut.feed(piece))
        if cut.reached:
            return b"".join([*out, cut.closing(told(case, b"".join(out)))]), True
    return b"".join([*out, cut.finish()]), False


def limits(case: Case) -> Iterator[int]:
    """Every limit at which the stream is cut somewhere else, up to one that it never reaches."""
    meter = case.meter()
    most = 0
    for start in range(0, len(case.stream), 16):
        meter.feed(case.stream[start : start + 16])
        delivered = sum(map(len, meter.facts().text))
        if delivered > most:
            yield delivered
            most = delivered
    yield 10**6


def events(case: Case, stream: bytes) -> list[dict[str, Any]]:
    if case.array:
        return list(json.loads(stream))
    lines = [line[6:] for line in stream.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


@each_case
def test_a_cut_stream_reads_as_one_that_ended_at_its_ceiling(case: Case) -> None:
    cuts = 0
    for most in limits(case):
        got, was_cut = relayed(case, most)
        assert was_cut or got == case.stream
        if not was_cut:
            continue
        cuts += 1
        meter = case.meter()
        meter.feed(got)
        meter.finish()
        facts = meter.facts()
        assert (facts.complete, facts.error, facts.finish) == (True, False, "length")
        if case.request.wants_usage:
            assert facts.usage is not None
            ours = told(case, got)
            assert (facts.usage.input_tokens, facts.usage.output_tokens) == (ours.input_tokens, 70)
            assert facts.usage_note is None
        if case.model is not None:
            for event in events(case, got):
                if event.get("type") != "ping":
                    case.model.validate_python(event)
    assert cuts > 1


@each_case
def test_what_is_relayed_is_the_providers_own_up_to_the_event_that_reaches_the_limit(case: Case) -> None:
    for most in limits(case):
        cut = case.cut(most)
        got = cut.feed(case.stream)
        assert case.stream.startswith(got)
        if not cut.reached:
            continue
        whole, before = case.meter(), case.meter()
        whole.feed(got)
        before.feed(got[: got.rstrip().rfind(b"}", 0, len(got.rstrip()) - 1)])
        assert sum(map(len, whole.facts().text)) >= most > sum(map(len, before.facts().text))


@each_case
@settings(max_examples=40)
@given(data=st.data())
def test_any_split_of_the_bytes_is_cut_at_the_same_event(case: Case, data: st.DataObject) -> None:
    most = data.draw(st.integers(1, 400))
    places = sorted(data.draw(st.lists(st.integers(0, len(case.stream)), max_size=12)))
    bounds = [0, *places, len(case.stream)]
    pieces = [case.stream[start:end] for start, end in pairwise(bounds)]
    assert relayed(case, most, pieces) == relayed(case, most)


@pytest.mark.parametrize("case", [CASES["chat"], CASES["completions"]], ids=["chat", "completions"])
def test_a_figure_that_only_we_asked_for_is_stripped_and_not_told(case: Case) -> None:
    for most in limits(case):
        got, _ = relayed(case, most, strip=True)
        assert all("usage" not in event or event["usage"] is None for event in events(case, got))


@each_case
@pytest.mark.parametrize("place", ["[]", '{"a":1}', "null"])
def test_events_that_say_nowhere_where_they_belong_are_relayed_and_cut(case: Case, place: str) -> None:
    odd = re.sub(rb'("(?:\w*index|item_id)": ?)(?:\d+|"[^"]*")', rb"\1" + place.encode(), case.stream)
    for most in (1, 20, 10**6):
        got, reached = relayed(case._replace(stream=odd), most)
        assert reached or got == odd
        assert case.meter().feed(got) == got


def test_what_comes_behind_the_cut_is_metered_for_its_figure() -> None:
    case = CASES["chat tools"]
    cut = case.cut(5)
    cut.feed(case.stream)
    assert cut.reached
    usage = cut.facts().usage
    assert usage is not None
    assert usage.input_tokens == 50


def test_a_response_that_is_cut_has_all_that_was_delivered() -> None:
    case = CASES["responses tools"]
    for most in list(limits(case))[:-1]:
        got, was_cut = relayed(case, most)
        assert was_cut
        seen = events(case, got)
        deltas = "".join(event["delta"] for event in seen if event["type"].endswith(".delta"))
        last = seen[-1]["response"]
        texts = [
            part.get("text", "")
            for item in last["output"]
            for part in (item.get("content") or [{"text": item.get("arguments", "")}])
        ]
        assert "".join(texts) == deltas
        opened = [event["output_index"] for event in seen if event["type"] == "response.output_item.added"]
        closed = [event["output_index"] for event in seen if event["type"] == "response.output_item.done"]
        assert opened == closed
        assert [event["sequence_number"] for event in seen] == list(range(len(seen)))


def test_blocks_of_a_message_are_closed_once_each() -> None:
    case = CASES["messages tools"]
    for most in list(limits(case))[:-1]:
        got, _ = relayed(case, most)
        seen = events(case, got)
        opened = [event["index"] for event in seen if event["type"] == "content_block_start"]
        closed = [event["index"] for event in seen if event["type"] == "content_block_stop"]
        assert opened == closed
        assert [event["type"] for event in seen[-2:]] == ["message_delta", "message_stop"]


def test_cohere_ends_what_it_began() -> None:
    case = CASES["cohere"]
    for most in list(limits(case))[:-1]:
        got, _ = relayed(case, most)
        kinds = [event["type"] for event in events(case, got)]
        for what in ("content", "tool-call"):
            assert kinds.count(f"{what}-start") == kinds.count(f"{what}-end")
        assert kinds[-1] == "message-end"


def test_an_object_that_is_no_array_is_never_cut() -> None:
    """Gemini answers some requests for a stream with one object: nothing can follow it."""
    case = CASES["gemini array"]
    alone = json.dumps(json.loads(case.stream)[0]).encode()
    cut = case.cut(1)
    assert cut.feed(alone) + cut.finish() == alone
    assert not cut.reached


def test_deltas_are_counted_anew_as_a_whole_before_the_cut() -> None:
    """Pieces come to more tokens than the text they make."""
    case = CASES["chat"]
    closer = case.dialect.closer(case.request)
    assert closer is not None
    whole = case.meter()
    whole.feed(case.stream)
    cut = CutStream(case.meter(), closer, most_tokens=2, count=lambda text: 1)
    assert cut.feed(case.stream) == case.stream
    assert not cut.reached


def test_every_dialect_whose_streams_have_text_is_here() -> None:
    assert {case.request.dialect for case in CASES.values()} == {
        "openai.chat", "openai.completions", "openai.responses", "anthropic.messages", "cohere.chat", "gemini.generate",
    }  # fmt: skip
