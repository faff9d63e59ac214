"""
Goal: a meter sees the same facts however a stream is cut, relays exactly the provider's bytes, and strips exactly the
frame that only we had asked for; a stream that breaks off anywhere gives what it had delivered.
Method: the recorded streams, cut at random places and ended at every event.
"""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.usage import Usage
from farthing.wire.anthropic.messages import AnthropicMessages
from farthing.wire.facts import AnswerFacts, Dialect, StreamMeter
from farthing.wire.gemini.generate import GeminiGenerate
from farthing.wire.metering import MAX_UNREAD_BYTES
from farthing.wire.openai.chat import OpenAIChat
from farthing.wire.openai.completions import OpenAICompletions
from farthing.wire.openai.images import OpenAIImages
from farthing.wire.openai.responses import OpenAIResponses

from .recorded_bodies import (
    CHAT_STREAM,
    COMPLETIONS,
    GEMINI,
    GEMINI_ARRAY,
    GEMINI_SSE,
    IMAGES,
    MESSAGES,
    RESPONSES,
    body,
    recorded,
)

CHAT = OpenAIChat()
STREAMS: dict[str, tuple[Dialect, bytes]] = {
    "openai_chat_stream.sse": (CHAT, CHAT_STREAM),
    "openai_chat_stream_tools.sse": (CHAT, CHAT_STREAM),
    "openai_responses_stream.sse": (OpenAIResponses(), RESPONSES),
    "openai_responses_stream_incomplete.sse": (OpenAIResponses(), RESPONSES),
    "anthropic_stream.sse": (AnthropicMessages(), MESSAGES),
    "anthropic_stream_error.sse": (AnthropicMessages(), MESSAGES),
    "openai_completions_stream.sse": (OpenAICompletions(), COMPLETIONS),
    "openai_images_stream.sse": (OpenAIImages(), IMAGES),
    "gemini_stream.sse": (GeminiGenerate(), GEMINI),
    "gemini_stream_array.json": (GeminiGenerate(), GEMINI),
    "gemini_stream_length.sse": (GeminiGenerate(), GEMINI),
    "gemini_stream_blocked.sse": (GeminiGenerate(), GEMINI),
}
STRIPPED = {"openai_chat_stream.sse", "openai_completions_stream.sse"}


def meter_for(name: str, *, strip: bool = False) -> StreamMeter:
    dialect, request = STREAMS[name]
    path = GEMINI_ARRAY if name.endswith(".json") else GEMINI_SSE
    return dialect.meter(dialect.read_request(request, path), strip_usage=strip)


def drain(meter: StreamMeter, pieces: list[bytes]) -> bytes:
    return b"".join([*(meter.feed(piece) for piece in pieces), meter.finish()])


def chat_meter(*, strip: bool = False, **fields: object) -> StreamMeter:
    request = CHAT.read_request(body(**{**json.loads(CHAT_STREAM), **fields}))
    return CHAT.meter(request, strip_usage=strip)


def chunk(
    delta: dict[str, object] | None = None, *, finish: str | None = None, index: int = 0, **more: object
) -> bytes:
    choices = [{"index": index, "delta": delta or {}, "finish_reason": finish}]
    value = {"id": "c", "model": "gpt-4o", "choices": choices, **more}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def last_frame_with(stream: bytes, mark: bytes) -> int:
    """Where the last event with *mark* in it begins."""
    return stream.rindex(b"\n\n", 0, stream.rindex(mark)) + 2


# --- any split ---------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(STREAMS)),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 10_000), max_size=40),
    st.booleans(),
    st.booleans(),
)
def test_any_split_gives_the_same(name: str, end: bytes, places: list[int], strip: bool, blank_at_end: bool) -> None:
    stream = recorded(name).replace(b"\n", end)
    if not blank_at_end:
        stream = stream.rstrip(b"\r\n")
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    whole, cut = meter_for(name, strip=strip), meter_for(name, strip=strip)
    relayed = drain(whole, [stream])
    assert drain(cut, pieces) == relayed
    assert cut.facts() == whole.facts() == cut.facts()
    assert cut.complete == whole.complete
    if not strip or name not in STRIPPED:
        assert relayed == stream


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_a_meter_that_strips_nothing_hands_back_the_same_object(name: str) -> None:
    meter = meter_for(name)
    for frame in recorded(name).split(b"\n\n"):
        piece = frame + b"\n\n"
        assert meter.feed(piece) is piece


# --- whole streams -----------------------------------------------------------------------------------------------


def test_chat() -> None:
    meter = meter_for("openai_chat_stream.sse")
    drain(meter, [recorded("openai_chat_stream.sse")])
    assert meter.complete
    assert meter.facts() == AnswerFacts(
        usage=Usage(input=19, output=17),
        model="gpt-4o-2024-08-06",
        response_id="chatcmpl-CkB7",
        finish="stop",
        complete=True,
        service_tier="default",
    )


def test_chat_without_usage_gives_the_tool_calls_text() -> None:
    meter = meter_for("openai_chat_stream_tools.sse")
    drain(meter, [recorded("openai_chat_stream_tools.sse")])
    facts = meter.facts()
    assert facts.usage is None
    assert facts.complete
    assert facts.finish == "tool_calls"
    assert facts.text == ("locate", '{"landmark":"tower"}', "weather", "{}")


def test_responses() -> None:
    meter = meter_for("openai_responses_stream.sse")
    drain(meter, [recorded("openai_responses_stream.sse")])
    facts = meter.facts()
    assert facts.usage == Usage(input=76, cached=1024, cache_write=200, output=210, reasoning=192)
    assert (facts.complete, facts.finish, facts.service_tier) == (True, "completed", "default")


def test_responses_ended_at_the_ceiling() -> None:
    meter = meter_for("openai_responses_stream_incomplete.sse")
    drain(meter, [recorded("openai_responses_stream_incomplete.sse")])
    facts = meter.facts()
    assert (facts.usage, facts.complete, facts.finish) == (Usage(input=11, output=16), True, "length")


def test_anthropic() -> None:
    meter = meter_for("anthropic_stream.sse")
    drain(meter, [recorded("anthropic_stream.sse")])
    facts = meter.facts()
    assert facts.usage == Usage(input=23, cached=1000, cache_write=100, cache_write_1h=200, output=89, reasoning=40)
    assert facts.partial_input == Usage(input=23, cached=1000, cache_write=100, cache_write_1h=200)
    assert (facts.complete, facts.finish, facts.model) == (True, "tool_use", "claude-sonnet-4-5-20250929")


def test_completions() -> None:
    meter = meter_for("openai_completions_stream.sse")
    drain(meter, [recorded("openai_completions_stream.sse")])
    facts = meter.facts()
    assert (facts.usage, facts.complete, facts.finish) == (Usage(input=5, output=14), True, "stop")
    assert (facts.model, facts.response_id) == ("gpt-3.5-turbo-instruct", "cmpl-9aC")


def test_images() -> None:
    meter = meter_for("openai_images_stream.sse")
    drain(meter, [recorded("openai_images_stream.sse")])
    assert meter.facts() == AnswerFacts(usage=Usage(input=18, output_image=372), complete=True)


@pytest.mark.parametrize("name", ["gemini_stream.sse", "gemini_stream_array.json"])
def test_gemini(name: str) -> None:
    meter = meter_for(name)
    relayed = meter.feed(recorded(name))
    # The last chunk looks like every other one: it was the last only once the body has ended.
    assert not meter.complete
    assert relayed + meter.finish() == recorded(name)
    assert meter.complete
    facts = meter.facts()
    assert facts == AnswerFacts(
        usage=Usage(input=11, output=85, reasoning=60),
        partial_input=Usage(input=11),
        model="gemini-2.5-flash",
        response_id="Yx0aac",
        finish="STOP",
        complete=True,
    )


def test_gemini_ended_at_the_ceiling() -> None:
    meter = meter_for("gemini_stream_length.sse")
    drain(meter, [recorded("gemini_stream_length.sse")])
    facts = meter.facts()
    assert (facts.usage, facts.complete, facts.finish) == (Usage(input=11, output=2), True, "length")


def test_a_blocked_prompt_was_read_and_is_billed() -> None:
    meter = meter_for("gemini_stream_blocked.sse")
    drain(meter, [recorded("gemini_stream_blocked.sse")])
    facts = meter.facts()
    assert (facts.usage, facts.complete, facts.error) == (Usage(input=8), True, False)
    assert facts.finish == "PROHIBITED_CONTENT"


# --- cut streams -------------------------------------------------------------------------------------------------


def cut_before(name: str, mark: bytes) -> AnswerFacts:
    stream = recorded(name)
    meter = meter_for(name)
    drain(meter, [stream[: last_frame_with(stream, mark)]])
    assert not meter.complete
    return meter.facts()


def test_a_cut_chat_gives_what_was_delivered() -> None:
    facts = cut_before("openai_chat_stream.sse", b'"finish_reason":"stop"')

    assert (facts.usage, facts.complete) == (None, False)
    assert facts.text == ('He said "usage": { and [DONE] — 東京.',)


def test_a_cut_responses_stream_gives_what_was_delivered() -> None:
    facts = cut_before("openai_responses_stream.sse", b"event: response.completed")
    assert (facts.usage, facts.complete, facts.error) == (None, False, False)
    assert facts.text == ("Find the city.", "get_weather", '{"city":"Oslo"}', "Looking it up.")


def test_cut_completions_give_what_was_delivered() -> None:
    facts = cut_before("openai_completions_stream.sse", b'"finish_reason":"stop"')
    assert (facts.usage, facts.complete) == (None, False)
    assert facts.text == (' He said "usage": { and [DONE] — 東京.',)


def test_cut_images_give_nothing_that_could_be_counted() -> None:
    facts = cut_before("openai_images_stream.sse", b"event: image_generation.completed")
    assert facts == AnswerFacts()


@pytest.mark.parametrize("name", ["gemini_stream.sse", "gemini_stream_array.json"])
def test_a_cut_gemini_stream_gives_its_input_and_what_was_delivered(name: str) -> None:
    stream = recorded(name)
    meter = meter_for(name)
    # Cut within the chunk that has the finish reason.
    drain(meter, [stream[: stream.rindex(b'"STOP"')]])
    facts = meter.facts()
    assert not meter.complete
    assert (facts.usage, facts.complete, facts.partial_input) == (None, False, Usage(input=11))
    assert facts.text == (
        "Weighing the coin.",
        'He said "usageMetadata": { and } \\" — 東京.',
        "price_of",
        '{"coin":"farthing","finishReason":"none"}',
    )


def test_a_gemini_reason_that_more_text_follows_was_none() -> None:
    """Older models gave a finish reason with every chunk."""
    first, second = recorded("gemini_stream_length.sse").split(b"\n\n")[:2]
    meter = meter_for("gemini_stream_length.sse")
    meter.feed(second + b"\n\n")
    assert meter.facts().usage is not None
    meter.feed(first + b"\n\n")
    assert (meter.facts().usage, meter.complete) == (None, False)


def test_fewer_candidates_than_were_asked_for_end_with_the_body() -> None:
    dialect = GeminiGenerate()
    request = body(**json.loads(GEMINI), generationConfig={"candidateCount": 3})
    meter = dialect.meter(dialect.read_request(request, GEMINI_SSE), strip_usage=False)
    meter.feed(recorded("gemini_stream_length.sse"))
    assert meter.facts().usage is None
    meter.finish()
    assert (meter.facts().usage, meter.complete) == (Usage(input=11, output=2), True)


def test_a_cut_anthropic_stream_gives_its_input_and_what_was_delivered() -> None:
    facts = cut_before("anthropic_stream.sse", b"event: message_delta")
    assert (facts.usage, facts.complete) == (None, False)
    assert facts.partial_input == Usage(input=23, cached=1000, cache_write=100, cache_write_1h=200)
    assert facts.text == ("Let me think.", "I will look — 見.", "get_weather", '{"city": "Oslo"}')


def test_a_cut_anthropic_stream_may_have_told_sums_that_are_not_final() -> None:
    sums = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"input_tokens": 30, "output_tokens": 5}}
    stream = recorded("anthropic_stream.sse")
    start = stream[: stream.index(b"event: content_block_stop")]
    meter = meter_for("anthropic_stream.sse")
    drain(meter, [start, b"event: message_delta\ndata: " + json.dumps(sums).encode() + b"\n\n"])
    facts = meter.facts()
    assert (facts.usage, facts.complete, facts.text) == (None, False, ("Let me think.",))
    assert facts.partial_input == Usage(input=30, cached=1000, cache_write=100, cache_write_1h=200)


def test_a_figure_that_was_asked_for_and_did_not_come_is_no_end() -> None:
    ended = chunk({"content": "Hi"}) + chunk(finish="stop")
    asked, not_asked = chat_meter(strip=True), chat_meter()
    drain(asked, [ended])
    drain(not_asked, [ended])
    assert not asked.facts().complete
    assert not_asked.facts().complete


def test_a_running_figure_is_not_the_final_one() -> None:
    running = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    meter = chat_meter()
    meter.feed(chunk({"content": "Hello"}, usage=running))
    assert meter.facts().usage is None
    assert meter.facts().text == ("Hello",)
    meter.feed(chunk(finish="stop", usage={**running, "completion_tokens": 3, "total_tokens": 8}))
    assert meter.facts().usage == Usage(input=5, output=3)
    assert meter.complete


def test_groqs_figure_stands_in_a_place_of_its_own() -> None:
    """The last chunk of every stream of it, asked or not (API reference of Groq, 2026-11)."""
    meter = chat_meter()
    usage = {"queue_time": 0.1, "prompt_tokens": 8, "prompt_time": 0.2, "completion_tokens": 50, "total_tokens": 58}
    first = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}], "x_groq": {"id": "req_1"}}
    last = {
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "x_groq": {"id": "req_1", "usage": usage},
    }
    said = b"".join(b"data: %b\n\n" % json.dumps(of).encode() for of in (first, last)) + b"data: [DONE]\n\n"
    assert meter.feed(said) == said
    assert meter.facts().usage == Usage(input=8, output=50)


def test_with_several_choices_the_answer_ends_with_the_last() -> None:
    meter = chat_meter(n=2)
    meter.feed(
        chunk({"content": "A"}) + chunk({"content": "B"}, index=1) + chunk({"content": "a"}) + chunk(finish="stop")
    )
    assert not meter.facts().complete
    assert meter.facts().text == ("Aa", "B")
    meter.feed(chunk(finish="length", index=1))
    assert meter.facts().complete
    assert meter.facts().finish == "length"


# --- stripping ---------------------------------------------------------------------------------------------------


def test_exactly_our_own_frame_is_stripped() -> None:
    stream = recorded("openai_chat_stream.sse")
    meter = meter_for("openai_chat_stream.sse", strip=True)
    start = last_frame_with(stream, b'"choices":[]')
    end = stream.index(b"data: [DONE]")
    assert drain(meter, [stream]) == stream[:start] + stream[end:]
    assert meter.facts().usage == Usage(input=19, output=17)


def test_our_own_frame_is_stripped_at_the_very_end() -> None:
    stream = recorded("openai_chat_stream.sse")
    start = last_frame_with(stream, b'"choices":[]')
    end = stream.index(b"\n\ndata: [DONE]")
    meter = meter_for("openai_chat_stream.sse", strip=True)
    assert drain(meter, [stream[: end - 5], stream[end - 5 : end]]) == stream[:start]
    assert meter.complete


def test_other_frames_without_choices_stay() -> None:
    filtered = b'data: {"id":"","model":"","choices":[],"prompt_filter_results":[{"prompt_index":0}],"usage":null}\n\n'
    with_answer = chunk(finish="stop", usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2})
    stream = filtered + chunk({"content": "Hi"}) + with_answer + b": comment\n\ndata: [DONE]\n\n"
    meter = chat_meter(strip=True)
    assert drain(meter, [stream]) == stream
    assert meter.facts().usage == Usage(input=1, output=1)


def test_a_stripping_meter_holds_back_at_most_one_event() -> None:
    meter = chat_meter(strip=True)
    first, second = chunk({"content": "A"}), chunk({"content": "B"})
    assert meter.feed(first + second[:10]) == first
    assert meter.feed(second[10:]) == second


# --- errors ------------------------------------------------------------------------------------------------------


def test_an_error_in_place_of_an_answer() -> None:
    meter = meter_for("anthropic_stream_error.sse")
    drain(meter, [recorded("anthropic_stream_error.sse")])
    assert meter.facts() == AnswerFacts(complete=True, error=True)
    meter = chat_meter()
    drain(meter, [b': hello\n\ndata: {"error": {"message": "overloaded", "type": "server_error"}}\n\n'])
    assert meter.facts().error
    for name, mark in (("gemini_stream.sse", b"data: %b\n\n"), ("gemini_stream_array.json", b"[%b]")):
        meter = meter_for(name)
        drain(meter, [mark % recorded("gemini_error.json").replace(b"\n", b"")])
        assert (meter.facts().error, meter.complete) == (True, True)
    meter = meter_for("openai_images_stream.sse")
    drain(meter, [b'event: error\ndata: {"type":"error","error":{"message":"refused"}}\n\n'])
    assert meter.facts().error
    meter = meter_for("openai_responses_stream.sse")
    drain(meter, [b'event: error\ndata: {"type":"error","code":"server_error","message":"x","sequence_number":0}\n\n'])
    assert meter.facts().error


def test_an_error_after_output_is_a_cut() -> None:
    meter = chat_meter()
    drain(meter, [chunk({"content": "Hi"}), b'data: {"error": {"message": "gone"}}\n\n'])
    assert (meter.facts().error, meter.facts().complete, meter.facts().text) == (False, False, ("Hi",))
    stream = recorded("anthropic_stream.sse")
    start = stream[: stream.index(b"event: content_block_stop")]
    meter = meter_for("anthropic_stream.sse")
    drain(meter, [start, recorded("anthropic_stream_error.sse")])
    facts = meter.facts()
    assert (facts.error, facts.complete, facts.text) == (False, False, ("Let me think.",))
    assert facts.partial_input is not None


def test_a_response_that_fails_before_its_first_item_is_an_error() -> None:
    created = recorded("openai_responses_stream.sse").split(b"\n\n")[0] + b"\n\n"
    failed = {"id": "resp_1", "status": "failed", "usage": None}
    end = (
        b"event: response.failed\ndata: "
        + json.dumps({"type": "response.failed", "response": failed}).encode()
        + b"\n\n"
    )
    meter = meter_for("openai_responses_stream.sse")
    drain(meter, [created, end])
    assert (meter.facts().error, meter.facts().complete) == (True, True)
    meter = meter_for("openai_responses_stream.sse")
    delta = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n'
    drain(meter, [created, delta, end])
    assert (meter.facts().error, meter.facts().complete, meter.facts().text) == (False, True, ("Hi",))


# --- size --------------------------------------------------------------------------------------------------------


def test_a_long_stream_is_kept_as_its_text_alone() -> None:
    meter = chat_meter()
    padding = "p" * 1000
    for _ in range(2_000):
        meter.feed(chunk({"content": "word "}, system_fingerprint=padding))
    assert len(meter._unread) <= MAX_UNREAD_BYTES  # type: ignore[attr-defined]
    assert meter.facts().text == ("word " * 2_000,)


@pytest.mark.parametrize("together", range(1, 9))
@pytest.mark.parametrize("torn", [0, 3])
def test_however_much_comes_at_once_all_of_it_is_read(together: int, torn: int) -> None:
    words = [f"{number} ".ljust(2_000, ".") for number in range(12)]
    stream = [chunk({"content": word}, finish="length" if word is words[6] else None) for word in words]
    meter, whole = chat_meter(), b"".join(stream)
    places = [sum(map(len, stream[:end])) - torn for end in range(together, len(stream), together)]
    for start, end in pairwise([0, *places, len(whole)]):
        assert meter.feed(whole[start:end]) == whole[start:end]
    assert (meter.facts().text, meter.facts().finish) == (("".join(words),), "length")


@pytest.mark.parametrize("strip", [False, True])
def test_an_answer_that_comes_at_once_behind_a_comment_is_read_from_its_first_chunk(strip: bool) -> None:
    """The first of its last frames was taken for the first: one with an error in it, for an error in its place."""
    failed = b'data: {"id": "z", "model": "other", "choices": [], "error": {"code": 502}}\n\n'
    words = [chunk({"content": f"{number} ".ljust(500, ".")}) for number in range(12)]
    stream = b"".join([b": waiting\n\n", *words, failed, b": waiting\n\n" * 2, b"data: [DONE]\n\n"])
    meter = chat_meter(strip=strip)
    assert meter.feed(stream) == stream
    facts = meter.facts()
    assert (facts.error, facts.model, facts.response_id, len(*facts.text)) == (False, "gpt-4o", "c", 12 * 500)


def test_facts_may_be_asked_at_any_time() -> None:
    meter = chat_meter()
    seen = []
    for word in ("one ", "two ", "three"):
        meter.feed(chunk({"content": word}))
        seen.append(meter.facts().text)
    assert seen == [("one ",), ("one two ",), ("one two three",)]


def test_every_fact_is_covered() -> None:
    """A new fact must be thought of by every meter; this list says which are."""
    assert set(AnswerFacts._fields) == {
        "usage", "usage_note", "partial_input", "text", "model", "response_id", "finish", "complete", "error",
        "service_tier", "kept_as", "beside",
    }  # fmt: skip
