"""
Goal: nothing that a caller or a provider can send crashes the wire: a request is read or refused with a ValueError,
an answer or a stream is read, whatever its bytes.
Method: bodies made of the dialects' own field names with values of any kind, and mutated recordings.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.wire.facts import AnswerFacts, Dialect, RequestFacts
from farthing.wire.json import decode
from farthing.wire.recognise import DIALECTS

from .recorded_bodies import (
    CHAT_STREAM,
    COHERE,
    COMPLETIONS,
    EMBEDDINGS,
    GEMINI,
    GEMINI_ARRAY,
    GEMINI_EMBEDDINGS,
    GEMINI_EMBEDDINGS_PATH,
    GEMINI_SSE,
    IMAGES,
    MESSAGES,
    RESPONSES,
    recorded,
)

REQUESTS = {
    "openai.chat": CHAT_STREAM,
    "openai.responses": RESPONSES,
    "openai.completions": COMPLETIONS,
    "openai.embeddings": EMBEDDINGS,
    "openai.images": IMAGES,
    "anthropic.messages": MESSAGES,
    "gemini.generate": GEMINI,
    "gemini.embeddings": GEMINI_EMBEDDINGS,
    "cohere.chat": COHERE,
}
PATHS = {"gemini.generate": GEMINI_SSE, "gemini.embeddings": GEMINI_EMBEDDINGS_PATH}
NO_CEILING = {"openai.embeddings", "openai.images", "gemini.embeddings"}
"""Nothing on the wire limits their output."""
WORDS = st.sampled_from(
    """model messages role content type text input name arguments tool_calls function function_call tools parameters
    response_format json_schema image_url url detail image_file file audio system tool_use tool_result thinking
    document source data base64 citations enabled cache_control ttl 1h ephemeral max_tokens max_completion_tokens
    max_output_tokens n best_of stream stream_options include_usage usage prompt_tokens completion_tokens total_tokens
    prompt_tokens_details cached_tokens input_tokens output_tokens choices delta message finish_reason index error
    response status output summary encrypted_content message_start message_delta message_stop content_block
    content_block_delta content_block_start stop_reason response.completed response.output_text.delta id user
    assistant reasoning item_reference function_call_output input_image input_text budget_tokens iterations
    prompt_cache_options prompt_cache_breakpoint mode explicit tool_choice modalities instructions item
    incomplete_details reason max_output_tokens prompt suffix echo best_of dimensions
    image_generation.completed image_generation.partial_image partial_images size quality images
    contents parts systemInstruction generationConfig generation_config maxOutputTokens candidateCount thinkingConfig
    thinkingBudget inlineData mimeType fileData functionCall functionResponse functionDeclarations args executableCode
    responseSchema responseModalities cachedContent candidates usageMetadata promptTokenCount candidatesTokenCount
    thoughtsTokenCount cachedContentTokenCount totalTokenCount promptTokensDetails modality AUDIO tokenCount
    finishReason promptFeedback blockReason requests content title taskType embeddings image/png
    billed_units tokens message-end message-start content-delta tool_plan documents""".split()
)
SCALARS = (
    WORDS | st.none() | st.booleans() | st.integers(-10, 10_000) | st.floats(allow_nan=False) | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=25
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=8)
NAMES = st.sampled_from(sorted(DIALECTS))


def request_of(name: str) -> tuple[Dialect, RequestFacts]:
    dialect = DIALECTS[name]
    return dialect, dialect.read_request(REQUESTS[name], PATHS.get(name, ""))


@settings(max_examples=300)
@given(NAMES, OBJECTS)
def test_a_request_is_read_or_refused(name: str, fields: dict[str, Any]) -> None:
    dialect, path = DIALECTS[name], PATHS.get(name, "")
    raw = json.dumps({**json.loads(REQUESTS[name]), **fields}).encode()
    try:
        facts = dialect.read_request(raw, path)
    except ValueError:
        return
    assert facts.body_bytes == len(raw)
    assert facts.choices >= 1
    assert all(isinstance(piece, str) and piece for piece in facts.text)
    other = "gpt-image-1" if name == "openai.images" else "other"
    again = dialect.rewrite(facts, model=other, output_ceiling=max(1, facts.min_output_tokens), ask_usage=facts.stream)
    reread = dialect.read_request(again, dialect.rewrite_path(facts, model=other) or path)
    assert reread.model == other
    if name in NO_CEILING:
        assert reread.output_ceiling == facts.output_ceiling
        assert dialect.rewrite(facts, output_ceiling=1) == dialect.rewrite(facts)
    else:
        assert reread.output_ceiling == max(1, facts.min_output_tokens)
    assert reread.text == facts.text


@given(NAMES, st.binary(max_size=60))
def test_any_bytes_are_a_value_error_or_a_request(name: str, raw: bytes) -> None:
    try:
        DIALECTS[name].read_request(raw, PATHS.get(name, ""))
    except ValueError:
        pass  # refused, as it may be; any other exception fails the test


@settings(max_examples=300)
@given(NAMES, st.integers(100, 600), OBJECTS | st.binary(max_size=60) | VALUES)
def test_any_answer_is_read(name: str, status: int, value: Any) -> None:
    dialect, facts = request_of(name)
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    answer = dialect.read_answer(facts, status, raw)
    assert isinstance(answer, AnswerFacts)
    assert answer.error or 200 <= status < 300
    assert all(isinstance(piece, str) for piece in answer.text)


@settings(max_examples=300)
@given(NAMES, st.lists(OBJECTS | st.binary(max_size=40), max_size=8), st.booleans())
def test_any_stream_is_metered(name: str, parts: list[Any], strip: bool) -> None:
    dialect, facts = request_of(name)
    meter = dialect.meter(facts, strip_usage=strip)
    frames = [part if isinstance(part, bytes) else b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts]
    relayed = b"".join([*(meter.feed(frame) for frame in frames), meter.finish()])
    answer = meter.facts()
    assert isinstance(answer, AnswerFacts)
    assert all(isinstance(piece, str) for piece in answer.text)
    assert isinstance(meter.complete, bool)
    if not strip or name not in ("openai.chat", "openai.completions"):
        assert relayed == b"".join(frames)


STREAMS = {
    "openai_chat_stream.sse": "openai.chat",
    "openai_responses_stream.sse": "openai.responses",
    "anthropic_stream.sse": "anthropic.messages",
    "openai_completions_stream.sse": "openai.completions",
    "openai_images_stream.sse": "openai.images",
    "gemini_stream.sse": "gemini.generate",
    "gemini_stream_array.json": "gemini.generate",
}


@settings(max_examples=150)
@given(st.sampled_from(sorted(STREAMS)), st.lists(st.tuples(st.integers(0, 6000), st.binary(max_size=4)), max_size=6))
def test_a_damaged_recording_is_metered(name: str, damages: list[tuple[int, bytes]]) -> None:
    stream = recorded(name)
    for place, junk in damages:
        at = place % len(stream)
        stream = stream[:at] + junk + stream[at + len(junk) :]
    dialect, facts = request_of(STREAMS[name])
    if name.endswith(".json"):
        facts = dialect.read_request(GEMINI, GEMINI_ARRAY)
    meter = dialect.meter(facts, strip_usage=False)
    assert meter.feed(stream) + meter.finish() == stream
    assert isinstance(meter.facts(), AnswerFacts)


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_deep_nesting_is_refused(name: str) -> None:
    deep = b'{"model":"m","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    with pytest.raises(ValueError, match="deep"):
        DIALECTS[name].read_request(deep, PATHS.get(name, ""))


@pytest.mark.parametrize("depth", [10, 300, 450])
def test_nesting_that_json_allows_does_not_overflow_the_readers(depth: int) -> None:
    """The decoder may be able to go deeper than our own calls: what is nested beyond reason counts as its JSON text."""
    block: dict[str, Any] = {"type": "text", "text": "deepest"}
    for _ in range(depth):
        block = {"type": "tool_result", "content": [block]}
    raw = json.dumps({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}).encode()
    assert decode(raw)
    facts = DIALECTS["anthropic.messages"].read_request(raw)
    assert "deepest" in "".join(facts.text)
    assert tuple(facts.open_reasons) == ("unknown nesting",)
