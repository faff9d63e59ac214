"""
The provider's count of the input: what the real one would bill, and never more than farthing holds for it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import tokens
from farthing.testing.counting import default_count
from farthing.testing.desk import _ENDPOINTS
from farthing.wire.anthropic.messages import AnthropicMessages
from farthing.wire.facts import Dialect
from farthing.wire.openai.chat import OpenAIChat
from farthing.wire.openai.responses import OpenAIResponses

TEXT = "Count the farthings: {'a': [1, 2, 3]}, über 12.000 Münzen, 硬币 🪙"


def billed_input(path: str, body: dict[str, Any]) -> int:
    return _ENDPOINTS[path].input_tokens(body, default_count)


def bound(dialect: Dialect, body: dict[str, Any]) -> int:
    facts = dialect.read_request(json.dumps(body, ensure_ascii=False).encode())
    return tokens.bound(
        facts.text, model=facts.model, overhead_tokens=facts.overhead_tokens, images=facts.images, exact=True
    )


def test_a_plain_chat_is_billed_to_the_token() -> None:
    messages = [{"role": "system", "content": TEXT}, {"role": "user", "content": TEXT, "name": "alice"}]
    assert billed_input("/v1/chat/completions", {"model": "gpt-4o", "messages": messages}) == tokens.count(
        messages, "gpt-4o"
    )


def test_claude_is_billed_without_farthings_safety_factor() -> None:
    assert (
        default_count(TEXT, "claude-sonnet-5") == tokens.count(TEXT, "gpt-4o") < tokens.count(TEXT, "claude-sonnet-5")
    )


def test_a_users_own_counter_counts_here_too() -> None:
    tokens.register("my-model*", lambda text: 7)
    try:
        assert default_count("whatever this is, it counts seven " * 20, "my-model-1") == 7
    finally:
        tokens.unregister("my-model*")


SCHEMA = {"type": "object", "properties": {"stadt": {"type": "string", "description": TEXT}}}
BODIES: list[tuple[str, Dialect, dict[str, Any]]] = [
    (
        "/v1/chat/completions",
        OpenAIChat(),
        {
            "model": "gpt-4o",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": TEXT}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"stadt": "Köln"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": TEXT},
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
                },
            ],
            "tools": [{"type": "function", "function": {"name": "f", "description": TEXT, "parameters": SCHEMA}}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        },
    ),
    (
        "/v1/responses",
        OpenAIResponses(),
        {
            "model": "gpt-5",
            "instructions": TEXT,
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": TEXT}]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"stadt": "Köln"}'},
                {"type": "function_call_output", "call_id": "c1", "output": TEXT},
            ],
            "tools": [{"type": "function", "name": "f", "description": TEXT, "parameters": SCHEMA, "strict": True}],
            "text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}, "verbosity": "low"},
        },
    ),
    (
        "/v1/messages",
        AnthropicMessages(),
        {
            "model": "claude-sonnet-5",
            "max_tokens": 100,
            "system": [{"type": "text", "text": TEXT}],
            "messages": [
                {"role": "user", "content": TEXT},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"stadt": "Köln"}}],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": TEXT}]},
                    ],
                },
            ],
            "tools": [{"name": "f", "description": TEXT, "input_schema": SCHEMA}],
        },
    ),
]


@pytest.mark.parametrize(("path", "dialect", "body"), BODIES, ids=[path for path, _, _ in BODIES])
def test_no_more_is_billed_than_is_held(path: str, dialect: Dialect, body: dict[str, Any]) -> None:
    least = 2 * default_count(TEXT, body["model"])
    assert least < billed_input(path, body) <= bound(dialect, body)


@settings(max_examples=60)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=4))
def test_no_chat_is_billed_more_than_is_held(texts: list[str]) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text} for text in texts]}
    assert billed_input("/v1/chat/completions", body) <= bound(OpenAIChat(), body)
