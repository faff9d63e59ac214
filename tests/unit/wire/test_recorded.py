"""
Goal: the recorded bodies are what the providers send, not what we would like them to send.
Method: the official SDKs' own models read them, strictly; their unions reject a body of the wrong shape.
"""

from __future__ import annotations

import json

import anthropic.types as claude
import openai.types as openai
import pytest
from google.genai import types as gemini
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
        ("openai_completions_answer.json", openai.Completion),
        ("openai_embeddings_answer.json", openai.CreateEmbeddingResponse),
        ("openai_images_answer.json", openai.ImagesResponse),
        ("gemini_answer.json", gemini.GenerateContentResponse),
        ("gemini_stream_array.json", list[gemini.GenerateContentResponse]),
        ("gemini_embeddings_answer.json", gemini.EmbedContentResponse),
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
        ("openai_completions_stream.sse", openai.Completion),
        ("openai_images_stream.sse", openai.ImageGenStreamEvent),
        ("gemini_stream.sse", gemini.GenerateContentResponse),
        ("gemini_stream_length.sse", gemini.GenerateContentResponse),
        ("gemini_stream_blocked.sse", gemini.GenerateContentResponse),
    ],
)
def test_streams_are_what_the_sdk_reads(name: str, model: type) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(model)
    if model is openai.Completion:
        # The SDK types no chunk in the middle of a stream; its docs' streams have null there.
        told = [data.replace(b'"finish_reason":null', b'"finish_reason":"stop"') for data in events(name)]
    else:
        told = events(name)
    read = [adapter.validate_json(data) for data in told if data != b"[DONE]" and b'"ping"' not in data]
    assert read


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("openai_chat_request.json", chat.completion_create_params.CompletionCreateParamsNonStreaming),
        ("openai_responses_request.json", responses.response_create_params.ResponseCreateParamsStreaming),
        ("anthropic_request.json", claude.message_create_params.MessageCreateParamsStreaming),
        ("openai_completions_request.json", openai.completion_create_params.CompletionCreateParamsNonStreaming),
        ("openai_embeddings_request.json", openai.embedding_create_params.EmbeddingCreateParams),
        ("openai_images_request.json", openai.image_generate_params.ImageGenerateParamsNonStreaming),
    ],
)
def test_requests_are_what_the_sdk_sends(name: str, params: type) -> None:
    known = params.__required_keys__ | params.__optional_keys__  # type: ignore[attr-defined]
    assert set(json.loads(recorded(name))) <= known


def test_the_gemini_request_is_what_the_sdk_sends() -> None:
    """Its models forbid fields that they do not know."""
    request = json.loads(recorded("gemini_request.json"))
    gemini.Content.model_validate(request.pop("systemInstruction"))
    for content in request.pop("contents"):
        gemini.Content.model_validate(content)
    for tool in request.pop("tools"):
        gemini.Tool.model_validate(tool)
    gemini.ToolConfig.model_validate(request.pop("toolConfig"))
    gemini.GenerationConfig.model_validate(request.pop("generationConfig"))
    for setting in request.pop("safetySettings"):
        gemini.SafetySetting.model_validate(setting)
    assert request == {}
