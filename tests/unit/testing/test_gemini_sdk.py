"""
The real ``google-genai`` package reads every answer into its own typed objects: plain, streamed, async, counts,
embeddings, errors; and the array that streams come as without ``alt=sse`` is JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from google.genai import Client, errors, types

from farthing.kernel.usage import Usage
from farthing.testing import FakeProvider, Reply, ToolCall
from tests.unit.testing.words import TEN_WORDS

MODEL = "gemini-2.5-flash"
HI_TOKENS = 3
"""Two for the content, one for its text."""


@pytest.fixture
def gemini(provider: FakeProvider) -> Iterator[Client]:
    with Client(api_key="fake", http_options=types.HttpOptions(base_url=provider.gemini_url)) as client:
        yield client


def config(**fields: Any) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(**fields)


def test_content(provider: FakeProvider, gemini: Client) -> None:
    provider.reply = Reply(input_tokens=100, cached_tokens=50, reasoning_tokens=6)
    answer = gemini.models.generate_content(model=MODEL, contents="hi", config=config(max_output_tokens=9))
    assert answer.text == "a small coin"
    assert (answer.candidates or [])[0].finish_reason is types.FinishReason.MAX_TOKENS
    assert (answer.model_version, answer.response_id) == (MODEL, "gemini-fake00000001")
    usage = answer.usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (100, 50)
    assert (usage.candidates_token_count, usage.thoughts_token_count, usage.total_token_count) == (3, 6, 109)
    assert provider.billed() == Usage(input=50, cached=50, output=9, reasoning=6)


def test_several_candidates_a_system_instruction_and_tools(provider: FakeProvider, gemini: Client) -> None:
    declared = types.Tool(function_declarations=[types.FunctionDeclaration(name="weather", description="of a city")])
    provider.reply = Reply("Let me see.", tool_calls=[ToolCall("weather", {"city": "Berlin"})])
    answer = gemini.models.generate_content(
        model=MODEL,
        contents="hi",
        config=config(candidate_count=2, system_instruction="Be brief.", tools=[declared]),
    )
    assert len(answer.candidates or []) == 2
    (call,) = answer.function_calls or []
    assert (call.name, call.args) == ("weather", {"city": "Berlin"})
    assert provider.billed().output == 2 * (3 + 1 + 1)
    assert provider.billed().input > HI_TOKENS + 2 + 2


def test_a_stream_has_running_figures(provider: FakeProvider, gemini: Client) -> None:
    provider.reply = Reply(reasoning_tokens=6)
    thinking = types.ThinkingConfig(include_thoughts=True)
    chunks = list(
        gemini.models.generate_content_stream(model=MODEL, contents="hi", config=config(thinking_config=thinking))
    )
    first = (chunks[0].candidates or [])[0].content
    assert first is not None
    assert (first.parts or [])[0].thought
    assert "".join(chunk.text or "" for chunk in chunks) == TEN_WORDS
    counts = [chunk.usage_metadata.candidates_token_count for chunk in chunks if chunk.usage_metadata]
    assert counts == [None, *range(1, 11), 10]
    reasons = [(chunk.candidates or [])[0].finish_reason for chunk in chunks]
    assert reasons == [None] * 11 + [types.FinishReason.STOP]
    assert provider.billed() == Usage(input=HI_TOKENS, output=16, reasoning=6)


def test_a_streamed_call_comes_whole(provider: FakeProvider, gemini: Client) -> None:
    provider.reply = Reply(tool_calls=[ToolCall("weather", {"city": "Berlin", "unit": "celsius"})])
    calls = [
        call
        for chunk in gemini.models.generate_content_stream(model=MODEL, contents="hi")
        for call in chunk.function_calls or []
    ]
    assert [(call.name, call.args) for call in calls] == [("weather", {"city": "Berlin", "unit": "celsius"})]


def test_async(provider: FakeProvider) -> None:
    async def main() -> tuple[str | None, list[str | None]]:
        # Where aiohttp is installed the package sends by it, unless it is given a client.
        async with httpx2.AsyncClient(timeout=60) as http:
            options = types.HttpOptions(base_url=provider.gemini_url, httpx_async_client=http)
            client = Client(api_key="fake", http_options=options).aio
            plain = await client.models.generate_content(model=MODEL, contents="hi")
            stream = await client.models.generate_content_stream(model=MODEL, contents="hi")
            return plain.text, [chunk.text async for chunk in stream]

    plain, streamed = asyncio.run(main())
    assert plain == TEN_WORDS
    assert "".join(text or "" for text in streamed) == TEN_WORDS
    assert provider.calls == 2


def test_counting_and_lists_are_free(provider: FakeProvider, gemini: Client) -> None:
    assert gemini.models.count_tokens(model=MODEL, contents="hi").total_tokens == HI_TOKENS
    assert [model.name for model in gemini.models.list()] == [f"models/{MODEL}"]
    assert gemini.models.get(model=MODEL).name == f"models/{MODEL}"
    assert provider.bill == []


@pytest.mark.parametrize("contents", ["hi", ["hi", "hi there"]])
def test_embeddings(provider: FakeProvider, gemini: Client, contents: Any) -> None:
    answer = gemini.models.embed_content(
        model="gemini-embedding-001", contents=contents, config=types.EmbedContentConfig(output_dimensionality=3)
    )
    vectors = [embedding.values for embedding in answer.embeddings or []]
    assert vectors == [[1.0, 0.0, 0.0]] * (1 if isinstance(contents, str) else 2)
    usage = provider.billed()
    assert (usage.output_tokens, usage.input_tokens) == (0, 1 if isinstance(contents, str) else 3)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.prompt_token_count == usage.input_tokens


def test_one_input_alone(provider: FakeProvider) -> None:
    url = f"{provider.gemini_url}/v1beta/models/gemini-embedding-001:embedContent"
    answer = httpx2.post(url, json={"content": {"parts": [{"text": "hi"}]}, "outputDimensionality": 2}, timeout=60)
    assert answer.json()["embedding"] == {"values": [1.0, 0.0]}
    assert provider.billed() == Usage(input=1)


@pytest.mark.parametrize(
    ("status", "word"), [(400, "INVALID_ARGUMENT"), (429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE")]
)
def test_errors_have_geminis_shape(provider: FakeProvider, gemini: Client, status: int, word: str) -> None:
    provider.reply = Reply(status=status)
    with pytest.raises(errors.APIError) as caught:
        gemini.models.generate_content(model=MODEL, contents="hi")
    assert (caught.value.code, caught.value.status) == (status, word)
    assert provider.bill == []


def test_an_error_in_the_middle_of_a_stream(provider: FakeProvider, gemini: Client) -> None:
    provider.reply = Reply(fault="error_mid_stream", cut_after_chunks=3)
    with pytest.raises(errors.APIError):
        list(gemini.models.generate_content_stream(model=MODEL, contents="hi"))
    assert provider.billed().output >= 3


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": [{"parts": []}], "max_tokens": 5}, "max_tokens"),
        ({"contents": [{"parts": []}], "stream": True}, "stream"),
        ({"contents": [{"parts": []}], "generationConfig": {"maxOutputTokens": 0}}, "maxOutputTokens"),
        ({"contents": [{"parts": []}], "generationConfig": {"candidateCount": 9}}, "candidate_count"),
    ],
)
def test_what_gemini_refuses(provider: FakeProvider, body: dict[str, Any], word: str) -> None:
    answer = httpx2.post(f"{provider.gemini_url}/v1beta/models/{MODEL}:generateContent", json=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert word in answer.json()["error"]["message"]


def test_without_alt_sse_a_stream_is_one_array(provider: FakeProvider) -> None:
    url = f"{provider.gemini_url}/v1beta/models/{MODEL}:streamGenerateContent"
    answer = httpx2.post(url, json={"contents": [{"parts": [{"text": "hi"}]}]}, timeout=60)
    assert answer.headers["content-type"] == "application/json"
    chunks = json.loads(answer.content)
    assert len(chunks) == 11
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert provider.billed() == Usage(input=HI_TOKENS, output=10)


def test_vertex_paths_and_what_is_not_there(provider: FakeProvider) -> None:
    place = "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro"
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    assert httpx2.post(f"{provider.gemini_url}{place}:generateContent", json=body, timeout=60).status_code == 200
    assert [line.model for line in provider.bill] == ["gemini-2.5-pro"]
    missing = httpx2.post(f"{provider.gemini_url}/v1beta/models/{MODEL}:somethingNew", json=body, timeout=60)
    assert (missing.status_code, missing.json()["error"]["status"]) == (404, "NOT_FOUND")
