"""Goal: everything Claude tokenises is seen, cache marks and thinking budgets included, and answers are read whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farthing.kernel.usage import Usage
from farthing.wire.anthropic.messages import TOOL_USE_PROMPT, AnthropicMessages
from farthing.wire.facts import Image
from farthing.wire.reading import OTHER_MODELS

from .recorded_bodies import MESSAGES, body, recorded, recorded_object

DIALECT = AnthropicMessages()
TEXT = {"type": "text", "text": "found"}
USER = [{"role": "user", "content": "hi"}]


def read(**fields: Any):  # type: ignore[no-untyped-def]
    return DIALECT.read_request(body(**{"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": USER, **fields}))


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def test_the_recorded_request() -> None:
    facts = DIALECT.read_request(recorded("anthropic_request.json"))
    text = "\n".join(facts.text)
    for piece in (
        "You are a clerk.", "Weather in Paris?", "Use the tool.", "EqQBCgIY", "get_weather", '{"city":"Paris"}',
        "18 degrees", "Notes", "Bring a coat.", "And tomorrow?", "Weather of a city.", '"required":["city"]',
    ):  # fmt: skip
        assert piece in text
    assert "cache_control" not in text
    assert facts.images == [Image(10, 20, "auto")]
    assert facts.open_reasons == ()
    assert (facts.output_ceiling, facts.min_output_tokens) == (4096, 2049)
    assert (facts.writes_cache, facts.cache_1h) == (True, True)
    assert facts.overhead_tokens > TOOL_USE_PROMPT


def test_a_plain_request() -> None:
    facts = read()
    assert facts.text == ["hi"]
    assert 8 <= facts.overhead_tokens + 1 <= 20
    assert (facts.writes_cache, facts.min_output_tokens, facts.wants_usage) == (False, 1, False)
    assert DIALECT.read_request(MESSAGES).wants_usage


@pytest.mark.parametrize(
    ("fields", "needle"),
    [
        ({"system": "plain system"}, "plain system"),
        (user({"type": "tool_result", "tool_use_id": "t", "content": "as text"}), "as text"),
        (user({"type": "tool_result", "content": [{"type": "text", "text": "nested"}]}), "nested"),
        (user({"type": "search_result", "title": "T", "source": "s", "content": [TEXT]}), "found"),
        (user({"type": "redacted_thinking", "data": "Eqq"}), "Eqq"),
        (user({"type": "document", "source": {"type": "content", "content": [TEXT]}}), "found"),
        (user({"type": "web_search_tool_result", "content": [{"title": "page"}]}), "page"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"title": "Shape"}}}}, "Shape"),
        ({"messages": [{"role": "system", "content": "midway"}]}, "midway"),
    ],
)  # fmt: skip
def test_nothing_is_left_out(fields: dict[str, Any], needle: str) -> None:
    facts = read(**fields)
    assert needle in "\n".join(facts.text)
    assert facts.open_reasons == ()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (user({"type": "document", "source": {"type": "base64", "data": "JVBE"}}), "document base64"),
        (user({"type": "document", "source": {"type": "url", "url": "https://x"}}), "document url"),
        (user({"type": "document", "source": {"type": "file", "file_id": "f"}}), "document file"),
        (user({"type": "container_upload", "file_id": "f"}), "file by id"),
        (user({"type": "smell"}), "unknown content block 'smell'"),
        ({"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, "hosted tool mcp_servers"),
        ({"container": "c_1"}, "container"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management"),
        ({"context_management": {"edits": [], "remember": {}}}, "context_management"),
        ({"fallbacks": "default"}, "fallbacks"),
        ({"models": ["a", "b"]}, OTHER_MODELS),
        *(
            ({"tools": [{"type": kind, "name": "t"}]}, f"hosted tool {kind}")
            for kind in ("web_search_20260318", "code_execution_20260521", "computer_20251124", "advisor_20260301")
        ),
    ],
)
def test_what_has_no_bound_is_open(fields: dict[str, Any], reason: str) -> None:
    assert tuple(read(**fields).open_reasons) == (reason,)


def test_other_models_that_may_answer() -> None:
    """Where the one asked for declines; or as its advisor. Each is billed at its own price."""
    facts = read(fallbacks=[{"model": "claude-opus-5-5", "max_tokens": 3}, {"model": "b"}], max_tokens=5)
    assert tuple(facts.open_reasons) == ("fallbacks", OTHER_MODELS)
    lowered = json.loads(DIALECT.rewrite(facts, output_ceiling=2))
    assert lowered["fallbacks"] == [{"model": "claude-opus-5-5", "max_tokens": 2}, {"model": "b"}]
    assert json.loads(DIALECT.rewrite(facts, output_ceiling=4))["fallbacks"] == facts.body["fallbacks"]
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5-5"}
    assert tuple(read(tools=[advisor]).open_reasons) == ("hosted tool advisor_20260301", OTHER_MODELS)
    with pytest.raises(ValueError, match="fallbacks"):
        read(fallbacks=[{"model": "claude-opus-5-5", "max_tokens": 6}], max_tokens=5)


def test_edits_that_only_clear_the_context_leave_its_bound() -> None:
    """Claude Code sends the first with every request."""
    edits = [{"type": "clear_thinking_20251015", "keep": "all"}, {"type": "clear_tool_uses_20250919"}]
    cleared, plain = read(context_management={"edits": edits}), read()
    assert cleared.open_reasons == ()
    assert (cleared.text, cleared.overhead_tokens) == (plain.text, plain.overhead_tokens)


def test_citations_are_open() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "a"}
    assert tuple(read(**user({"type": "document", "source": source, "citations": {"enabled": True}})).open_reasons) == (
        "citations",
    )


def test_documented_client_tools_have_a_bound() -> None:
    facts = read(tools=[{"type": "bash_20250124", "name": "bash"}])
    assert facts.open_reasons == ()
    assert facts.overhead_tokens >= TOOL_USE_PROMPT + 245


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": {"type": "ephemeral"}},
        {"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        {"tools": [{"name": "t", "input_schema": {}, "cache_control": {"type": "ephemeral"}}]},
        user({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}),
        user(
            {"type": "tool_result", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}
        ),
    ],
)
def test_cache_marks_are_found_wherever_they_stand(fields: dict[str, Any]) -> None:
    facts = read(**fields)
    assert (facts.writes_cache, facts.cache_1h) == (True, False)
    hour = json.loads(json.dumps(fields).replace('"ephemeral"}', '"ephemeral", "ttl": "1h"}'))
    assert read(**hour).cache_1h


def test_zero_max_tokens_fills_the_cache() -> None:
    facts = read(max_tokens=0)
    assert (facts.output_ceiling, facts.min_output_tokens) == (0, 0)


def test_fast_mode_is_a_tier() -> None:
    assert read(speed="fast").service_tier == "fast"
    assert read(service_tier="auto").service_tier == "auto"


@pytest.mark.parametrize("geo", ["us", "eu", 5, ["us"]])
def test_inference_in_one_region_is_a_tier(geo: Any) -> None:
    assert read(inference_geo=geo).service_tier == "regional"
    assert read(inference_geo=geo, speed="fast").service_tier == "fast regional"


@pytest.mark.parametrize("geo", [None, "global"])
def test_inference_anywhere_is_none(geo: str | None) -> None:
    assert read(inference_geo=geo).service_tier is None
    assert read(inference_geo=geo, service_tier="auto").service_tier == "auto"


def test_a_rewrite_changes_only_what_it_must() -> None:
    before = recorded_object("anthropic_request.json")
    facts = DIALECT.read_request(recorded("anthropic_request.json"))
    after = json.loads(DIALECT.rewrite(facts, model="claude-haiku-4-5", output_ceiling=3000, ask_usage=True))
    assert after == {**before, "model": "claude-haiku-4-5", "max_tokens": 3000}
    assert list(after) == list(before)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"max_tokens": "64"}, "max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": "many"}}, "budget_tokens"),
        ({"thinking": "on"}, "thinking"),
        ({"tools": "all"}, "tools"),
    ],
)
def test_a_body_of_another_kind_is_refused_by_name(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        read(**fields)


def test_the_recorded_answer() -> None:
    answer = DIALECT.read_answer(read(), 200, recorded("anthropic_answer.json"))
    assert answer.usage == Usage(input=50, cached=100_000, cache_write=356, cache_write_1h=100, output=503)
    assert (answer.complete, answer.error, answer.finish) == (True, False, "length")
    assert (answer.model, answer.service_tier) == ("claude-sonnet-4-5-20250929", "standard")


def test_an_answer_without_usage_gives_its_text() -> None:
    raw = {**recorded_object("anthropic_answer.json"), "usage": None}
    answer = DIALECT.read_answer(read(), 200, json.dumps(raw).encode())
    assert answer.text == ("It is 18 degrees.", "get_weather", '{"city":"Oslo"}')


@pytest.mark.parametrize("status", [400, 429, 500, 529])
def test_errors(status: int) -> None:
    raw = body(type="error", error={"type": "overloaded_error", "message": "Overloaded"})
    assert DIALECT.read_answer(read(), status, raw).error
    assert DIALECT.read_answer(read(), status, b"").error
