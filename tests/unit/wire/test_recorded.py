"""
Goal: the recorded bodies are what the providers send, not what we would like them to send.
Method: the official SDKs' own models read them, strictly; their unions reject a body of the wrong shape.
"""

from __future__ import annotations

import json

import anthropic.types as claude
import pytest
from openai.types import chat, responses
from pydantic import TypeAdapter

from .recorded_bodies import recorded


def events(name: str) -> list[bytes]:
    blocks = recorded(name).split(b"\n\n")
    return [line[6:] for block in blocks for line in block.split(b"\n") if line.startswith(b"data: ")]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai_chat_answer.json", chat.ChatCompletion),
        ("openai_responses_answer.json", responses.Response),
        ("anthropic_answer.json", claude.Message),
    ],
)
def test_plain_answers_are_what_the_sdk_reads(name: str, model: type) -> None:
    TypeAdapter(model).validate_json(recorded(name), strict=False)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai_chat_stream.sse", chat.ChatCompletionChunk),
        ("openai_chat_stream_tools.sse", chat.ChatCompletionChunk),
        ("openai_responses_stream.sse", responses.ResponseStreamEvent),
        ("openai_responses_stream_incomplete.sse", responses.ResponseStreamEvent),
        ("anthropic_stream.sse", claude.RawMessageStreamEvent),
    ],
)
def test_streams_are_what_the_sdk_reads(name: str, model: type) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(model)
    read = [adapter.validate_json(data) for data in events(name) if data != b"[DONE]" and b'"ping"' not in data]
    assert len(read) >= 4


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("openai_chat_request.json", chat.completion_create_params.CompletionCreateParamsNonStreaming),
        ("openai_responses_request.json", responses.response_create_params.ResponseCreateParamsStreaming),
        ("anthropic_request.json", claude.message_create_params.MessageCreateParamsStreaming),
    ],
)
def test_requests_are_what_the_sdk_sends(name: str, params: type) -> None:
    known = params.__required_keys__ | params.__optional_keys__  # type: ignore[attr-defined]
    assert set(json.loads(recorded(name))) <= known
