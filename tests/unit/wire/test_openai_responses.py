"""Goal: everything the Responses API tokenises is seen, what it looks up by itself is open, answers are read whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farthing.kernel.usage import Usage
from farthing.wire.facts import Image
from farthing.wire.openai.responses import OpenAIResponses

from .recorded_bodies import RESPONSES, body, recorded, recorded_object

DIALECT = OpenAIResponses()


def read(**fields: Any):  # type: ignore[no-untyped-def]
    return DIALECT.read_request(body(**{"model": "gpt-5", "input": "hi", **fields}))


def test_a_plain_string_is_one_user_message() -> None:
    facts = read()
    assert (facts.text, facts.overhead_tokens, facts.open_reasons) == (["user", "hi"], 6, ())
    assert facts.min_output_tokens == 16
    assert read(input=[{"role": "user", "content": "hi"}]).text == ["user", "hi"]


def test_the_recorded_request() -> None:
    facts = DIALECT.read_request(recorded("openai_responses_request.json"))
    text = "\n".join(facts.text)
    for piece in (
        "Answer in one line.", "What is the weather in Paris?", "Need the tool.", "gAAAAABo1x", "get_weather",
        '{"city":"Paris"}', "18 degrees", "And here?", "Weather of a city.", '"celsius"',
    ):  # fmt: skip
        assert piece in text
    assert facts.images == [Image(640, 360, "low")]
    assert facts.output_ceiling == 2000
    assert tuple(facts.open_reasons) == ("hosted tool web_search",)
    assert (facts.stream, facts.wants_usage, facts.service_tier) == (True, True, "auto")


@pytest.mark.parametrize(
    ("item", "needle"),
    [
        ({"type": "custom_tool_call", "name": "sql", "input": "SELECT 1"}, "SELECT 1"),
        ({"type": "custom_tool_call_output", "output": [{"type": "input_text", "text": "one row"}]}, "one row"),
        ({"type": "apply_patch_call", "operation": {"type": "create_file", "diff": "+x"}}, "+x"),
        ({"type": "mcp_call", "name": "ask", "arguments": "{}", "output": "forty-two"}, "forty-two"),
        ({"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, "No."),
        ({"type": "additional_tools", "tools": [{"type": "function", "name": "late"}]}, "late"),
        ({"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "gAAA"}, "gAAA"),
    ],
)
def test_items_bring_their_text(item: dict[str, Any], needle: str) -> None:
    facts = read(input=[item])
    assert needle in "\n".join(facts.text)
    assert facts.open_reasons == ()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
        ({"input": [{"id": "msg_1"}]}, "item_reference"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "reasoning by id"),
        ({"input": [{"type": "telepathy"}]}, "unknown input item 'telepathy'"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "file input"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "audio input"),
        *(
            ({"tools": [{"type": kind}]}, f"hosted tool {kind}")
            for kind in (
                "web_search",
                "file_search",
                "code_interpreter",
                "computer_use_preview",
                "image_generation",
                "mcp",
            )
        ),
        ({"tools": [{"type": "of next year"}]}, "hosted tool of next year"),
    ],
)
def test_what_has_no_bound_is_open(fields: dict[str, Any], reason: str) -> None:
    assert tuple(read(**fields).open_reasons) == (reason,)


def test_own_tools_are_not_hosted() -> None:
    tools = [
        {"type": "function", "name": "f", "parameters": {}},
        {"type": "custom", "name": "c"},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "inner"}]},
    ]
    facts = read(tools=tools)
    assert facts.open_reasons == ()
    assert "inner" in "\n".join(facts.text)


def test_the_previous_response_is_named() -> None:
    assert read(previous_response_id="resp_1").previous_response_id == "resp_1"


def test_a_rewrite_uses_the_endpoints_own_field() -> None:
    before = recorded_object("openai_responses_request.json")
    facts = DIALECT.read_request(recorded("openai_responses_request.json"))
    after = json.loads(DIALECT.rewrite(facts, model="gpt-5-mini", output_ceiling=20, ask_usage=True))
    assert after == {**before, "model": "gpt-5-mini", "max_output_tokens": 20}
    assert json.loads(DIALECT.rewrite(read(), output_ceiling=20))["max_output_tokens"] == 20


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"model": None}, "model"),
        ({"input": 5}, "input"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"tools": [1]}, "tools"),
        ({"text": {"format": []}}, "format"),
        ({"previous_response_id": 5}, "previous_response_id"),
    ],
)
def test_a_body_of_another_kind_is_refused_by_name(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        read(**fields)


def test_the_recorded_answer() -> None:
    answer = DIALECT.read_answer(read(), 200, recorded("openai_responses_answer.json"))
    assert answer.usage == Usage(input=76, cached=1024, cache_write=200, output=210, reasoning=192)
    assert answer.usage.total_tokens == 1510
    assert (answer.complete, answer.error, answer.finish) == (True, False, "completed")
    assert (answer.model, answer.response_id, answer.service_tier) == ("gpt-5-2025-08-07", "resp_68a1", "default")


def test_an_answer_without_usage_gives_its_text() -> None:
    raw = {**recorded_object("openai_responses_answer.json"), "usage": None}
    answer = DIALECT.read_answer(read(), 200, json.dumps(raw).encode())
    assert answer.usage is None
    assert answer.text == ("get_weather", '{"city":"Oslo"}', "Looking it up.")


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_background_answer_is_not_complete(status: str) -> None:
    answer = DIALECT.read_answer(read(), 200, body(id="resp_1", status=status, output=[], usage=None, error=None))
    assert (answer.complete, answer.error, answer.usage) == (False, False, None)


def test_a_failed_response_is_an_error() -> None:
    raw = body(id="resp_1", status="failed", output=[], usage=None, error={"code": "server_error", "message": "x"})
    assert DIALECT.read_answer(read(), 200, raw).error


def test_the_request_of_the_meter_tests_reads() -> None:
    assert DIALECT.read_request(RESPONSES).wants_usage
