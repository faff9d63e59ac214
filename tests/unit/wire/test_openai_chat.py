"""Goal: everything OpenAI tokenises is seen, ceilings land in the caller's own field, and answers are read whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farthing.kernel.usage import Usage
from farthing.wire.facts import Image
from farthing.wire.openai.chat import OpenAIChat
from farthing.wire.reading import OTHER_MODELS

from .recorded_bodies import CHAT, body, recorded, recorded_object

DIALECT = OpenAIChat()
USER = [{"role": "user", "content": "hi"}]


def read(**fields: Any):  # type: ignore[no-untyped-def]
    return DIALECT.read_request(body(**{"model": "gpt-4o", "messages": USER, **fields}))


def rewritten(raw: bytes, **changes: Any) -> dict[str, Any]:
    value = json.loads(DIALECT.rewrite(DIALECT.read_request(raw), **changes))
    assert isinstance(value, dict)
    return value


def test_a_plain_chat_is_bounded_exactly() -> None:
    """OpenAI bills 8 tokens for this: 3 a message, 1 for the role, 1 for the content, 3 for the reply."""
    facts = DIALECT.read_request(CHAT)
    assert facts.text == ["hi"]
    assert facts.overhead_tokens == 7
    assert facts.open_reasons == ()
    named = read(messages=[{"role": "user", "content": "hi", "name": "al"}])
    assert (named.text, named.overhead_tokens) == (["al", "hi"], 8)


def test_the_recorded_request() -> None:
    raw = recorded("openai_chat_request.json")
    facts = DIALECT.read_request(raw)
    text = "\n".join(facts.text)
    for piece in (
        "You are a terse travel agent.", "alice", "Where is this?", "locate", '{"landmark":"tower"}', "Paris, France",
        "Find a landmark.", '"required":["city"]',
    ):  # fmt: skip
        assert piece in text
    assert "iVBOR" not in text
    assert facts.images == [Image(1024, 768, "high"), Image(None, None, "auto")]
    assert (facts.model, facts.choices, facts.output_ceiling, facts.stream) == ("gpt-4o", 2, 300, False)
    assert facts.body_bytes == len(raw)
    assert facts.open_reasons == ()


@pytest.mark.parametrize(
    ("fields", "needle"),
    [
        ({"functions": [{"name": "old_style", "parameters": {}}]}, "old_style"),
        ({"tools": [{"type": "custom", "custom": {"name": "sql", "format": {"type": "grammar"}}}]}, "grammar"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": '{"a":1}'}}]}, '{"a":1}'),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"custom": {"name": "sql", "input": "SELECT"}}]}]},
            "SELECT",
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}]}, "No."),
        ({"messages": [{"role": "assistant", "content": "", "reasoning_content": "thinking"}]}, "thinking"),
        ({"messages": [{"role": "user", "content": {"odd": "shape"}}]}, "shape"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "go"}}, "tools": [{"function": {"name": "x"}}]},
            "go",
        ),
        ({"documents": [{"text": "retrieved"}]}, "retrieved"),
    ],
)
def test_nothing_is_left_out(fields: dict[str, Any], needle: str) -> None:
    assert needle in "\n".join(read(**fields).text)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"web_search_options": {"search_context_size": "low"}}, "hosted tool web_search"),
        ({"prediction": {"type": "content", "content": "abc"}}, "predicted output"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "audio input"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file input"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "unknown content part 'hologram'"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "audio by id"),
        ({"modalities": ["text", "audio"]}, "audio output"),
        ({"tools": [{"type": "web_search"}]}, "hosted tool web_search"),
        ({"data_sources": [{"type": "azure_search"}]}, "hosted tool data_sources"),
        ({"models": ["openai/o1-pro"]}, OTHER_MODELS),
        ({"extra_body": {"google": {"cached_content": "cachedContents/a"}}}, "cachedContent"),
    ],
)
def test_what_has_no_bound_is_open(fields: dict[str, Any], reason: str) -> None:
    assert tuple(read(**fields).open_reasons) == (reason,)


@pytest.mark.parametrize(
    ("fields", "ceiling"),
    [
        ({}, None),
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 60}, 60),
        ({"max_tokens": 50, "max_completion_tokens": 60}, 60),
        ({"max_tokens": 60, "max_completion_tokens": 50}, 60),
        ({"max_tokens": None, "max_completion_tokens": 60.0}, 60),
    ],
)
def test_the_callers_ceiling(fields: dict[str, Any], ceiling: int | None) -> None:
    assert read(**fields).output_ceiling == ceiling


@pytest.mark.parametrize(
    ("fields", "after"),
    [
        ({"max_tokens": 50}, {"max_tokens": 7}),
        ({"max_completion_tokens": 60}, {"max_completion_tokens": 7}),
        ({"max_tokens": 50, "max_completion_tokens": 60}, {"max_tokens": 7, "max_completion_tokens": 7}),
        ({"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 7}),
        ({}, {"max_completion_tokens": 7}),
    ],
)
def test_our_ceiling_lands_in_the_callers_field(fields: dict[str, Any], after: dict[str, Any]) -> None:
    changed = rewritten(body(model="m", messages=USER, **fields), output_ceiling=7)
    assert {key: changed[key] for key in changed if key.startswith("max")} == after


def test_another_server_may_name_the_ceiling_otherwise() -> None:
    dialect = OpenAIChat("mistral", ceiling_field="max_tokens")
    facts = dialect.read_request(CHAT)
    assert facts.provider == "mistral"
    assert json.loads(dialect.rewrite(facts, output_ceiling=5))["max_tokens"] == 5


def test_a_rewrite_changes_only_what_it_must() -> None:
    before = recorded_object("openai_chat_request.json")
    raw = recorded("openai_chat_request.json")
    after = rewritten(raw, model="gpt-4o-mini", output_ceiling=20)
    assert after == {**before, "model": "gpt-4o-mini", "max_tokens": 20}
    assert list(after) == list(before)
    facts = DIALECT.read_request(raw)
    DIALECT.rewrite(facts, model="other", output_ceiling=1, ask_usage=True)
    assert facts.body == before


def test_usage_is_asked_for_beside_the_callers_own_options() -> None:
    raw = body(model="m", messages=USER, stream=True, stream_options={"include_obfuscation": False})
    assert rewritten(raw, ask_usage=True)["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert not DIALECT.read_request(raw).wants_usage
    assert read(stream=True, stream_options={"include_usage": True}).wants_usage


def test_cache_writes_are_possible_unless_ruled_out() -> None:
    assert read().writes_cache
    assert not read(prompt_cache_options={"mode": "explicit"}).writes_cache
    marked = [{"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}]
    facts = read(prompt_cache_options={"mode": "explicit"}, messages=[{"role": "user", "content": marked}])
    assert (facts.writes_cache, facts.cache_1h) == (True, True)


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"", "truncated|Expecting"),
        (b"[]", "JSON object"),
        (body(messages=USER), "model"),
        (body(model="", messages=USER), "model"),
        (body(model="m"), "messages"),
        (body(model="m", messages="hi"), "messages"),
        (body(model="m", messages=["hi"]), "messages"),
        (body(model="m", messages=USER, max_tokens="100"), "max_tokens"),
        (body(model="m", messages=USER, max_tokens=-1), "max_tokens"),
        (body(model="m", messages=USER, max_completion_tokens=1.5), "max_completion_tokens"),
        (body(model="m", messages=USER, n=0), "n must"),
        (body(model="m", messages=USER, n=True), "n must"),
        (body(model="m", messages=USER, stream="yes"), "stream"),
        (body(model="m", messages=USER, stream_options=[]), "stream_options"),
        (body(model="m", messages=USER, tools={}), "tools"),
        (body(model="m", messages=USER, service_tier=1), "service_tier"),
    ],
)
def test_a_body_of_another_kind_is_refused_by_name(raw: bytes, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        DIALECT.read_request(raw)


def test_the_recorded_answer() -> None:
    answer = DIALECT.read_answer(DIALECT.read_request(CHAT), 200, recorded("openai_chat_answer.json"))
    assert answer.usage == Usage(input=86, cached=1920, output=300, reasoning=256)
    assert answer.usage.total_tokens == 2306
    assert (answer.usage_note, answer.complete, answer.error, answer.finish) == (None, True, False, "stop")
    assert (answer.model, answer.response_id, answer.service_tier) == ("gpt-5-2025-08-07", "chatcmpl-CkA81", "default")


def test_an_answer_without_usage_gives_its_text() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    message = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm", "tool_calls": [call]}
    choices = [{"index": 0, "message": message, "finish_reason": "length"}, {"index": 1, "message": {"content": "B"}}]
    answer = DIALECT.read_answer(DIALECT.read_request(CHAT), 200, body(choices=choices, usage=None))
    assert answer.usage is None
    assert answer.text == ("Hello", "Hm", "f", '{"a":1}', "B")
    assert answer.finish == "length"


@pytest.mark.parametrize(
    ("status", "raw", "error", "complete"),
    [
        (429, body(error={"message": "slow down"}), True, True),
        (500, b"<html>", True, False),
        (302, b"", True, False),
        (200, body(error={"message": "upstream failed", "code": 502}), True, True),
        (200, b"<html>", False, False),
        (200, b"", False, False),
    ],
)
def test_what_is_not_an_answer(status: int, raw: bytes, error: bool, complete: bool) -> None:
    answer = DIALECT.read_answer(DIALECT.read_request(CHAT), status, raw)
    assert (answer.error, answer.complete, answer.usage) == (error, complete, None)
