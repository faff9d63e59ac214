"""
Goal: every provider's usage becomes disjoint kinds whose sum is the provider's own total; absent is not zero; figures
that contradict each other never crash and never lose a token.
"""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Usage as ClaudeUsage
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CompletionUsage
from openai.types.responses import ResponseUsage

from farthing.kernel.usage import Usage
from farthing.wire.reported import reported, usage_from

from .recorded_bodies import recorded_object

CASES: list[tuple[str, dict[str, Any], Usage]] = [
    (
        "openai chat: cached and audio inside of the prompt, reasoning and audio inside of the completion",
        {
            "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10, "cache_write_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 8},
        },
        Usage(input=25, cached=60, cache_write=5, input_audio=10, output=42, reasoning=20, output_audio=8),
    ),
    (
        "deepseek",
        {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "prompt_cache_hit_tokens": 8},
        Usage(input=2, cached=8, output=4),
    ),
    (
        "embeddings: no completion",
        {"prompt_tokens": 7, "total_tokens": 7},
        Usage(input=7),
    ),
    (
        "openai responses",
        {
            "input_tokens": 1300, "output_tokens": 210, "total_tokens": 1510,
            "input_tokens_details": {
                "cached_tokens": 1024, "cache_write_tokens": 200,
                "cache_write_tokens_details": {"ttl_12h_tokens": 150, "ttl_30m_tokens": 50},
            },
            "output_tokens_details": {"reasoning_tokens": 192},
        },
        Usage(input=76, cached=1024, cache_write=50, cache_write_1h=150, output=210, reasoning=192),
    ),
    (
        "openai images",
        {
            "input_tokens": 50, "output_tokens": 4000, "total_tokens": 4050,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens_details": {"text_tokens": 0, "image_tokens": 4000},
        },
        Usage(input=10, input_image=40, output=0, output_image=4000),
    ),
    (
        "anthropic: the cache stands beside the input",
        {
            "input_tokens": 50, "output_tokens": 9, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            "server_tool_use": {"web_search_requests": 3},
        },
        Usage(input=50, cached=1000, cache_write=10, cache_write_1h=20, output=9),
    ),
    (
        "anthropic without the breakdown",
        {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": None, "cache_creation_input_tokens": 30},
        Usage(input=5, cache_write=30, output=1),
    ),
    (
        "anthropic: a compaction is not in the sums",
        {
            "input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
            "iterations": [
                {"type": "message", "input_tokens": 5, "output_tokens": 1},
                {"type": "compaction", "input_tokens": 70, "output_tokens": 20, "cache_read_input_tokens": 3,
                 "cache_creation_input_tokens": 0},
            ],
        },
        Usage(input=75, cached=3, output=21),
    ),
    (
        "gemini",
        {"promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 6, "cachedContentTokenCount": 7,
         "toolUsePromptTokenCount": 2, "totalTokenCount": 22},
        Usage(input=5, cached=7, output=10, reasoning=6),
    ),
    (
        "bedrock converse",
        {"inputTokens": 3, "outputTokens": 4, "totalTokens": 15, "cacheReadInputTokens": 5, "cacheWriteInputTokens": 3},
        Usage(input=3, cached=5, cache_write=3, output=4),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("mapping", "usage"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_shapes(mapping: dict[str, Any], usage: Usage) -> None:
    assert reported(mapping)[0] == usage
    assert usage_from(mapping) == usage
    assert usage_from({"id": "an answer", "usage": mapping}) == usage


def test_sdk_objects() -> None:
    chat = recorded_object("openai_chat_answer.json")["usage"]
    answer = recorded_object("openai_responses_answer.json")["usage"]
    message = recorded_object("anthropic_answer.json")["usage"]
    assert usage_from(CompletionUsage.model_validate(chat)) == Usage(input=86, cached=1920, output=300, reasoning=256)
    assert usage_from(ResponseUsage.model_validate(answer)) == Usage(
        input=76, cached=1024, cache_write=200, output=210, reasoning=192
    )
    assert usage_from(ClaudeUsage.model_validate(message)) == Usage(
        input=50, cached=100_000, cache_write=356, cache_write_1h=100, output=503
    )


@pytest.mark.parametrize(
    "value",
    [None, {}, [], "12", {"prompt_tokens": None, "completion_tokens": None}, {"prompt_tokens": 5}, {"input_tokens": 5},
     {"unheard_of": 3}, {"prompt_tokens": "5", "completion_tokens": 1}, {"prompt_tokens": -5, "completion_tokens": 1}],
)  # fmt: skip
def test_absent_is_not_zero(value: object) -> None:
    assert reported(value)[0] is None


def test_zero_is_zero() -> None:
    assert reported({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}) == (Usage(), None)


def test_reasoning_outside_of_the_output_is_added() -> None:
    usage, note = reported(
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 115,
            "completion_tokens_details": {"reasoning_tokens": 100},
        }
    )
    assert usage == Usage(input=10, output=105, reasoning=100)
    assert note is not None
    assert "100 reasoning tokens" in note


def test_a_surplus_counts_as_output() -> None:
    usage, note = reported({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22})
    assert usage == Usage(input=10, output=12)
    assert note is not None
    assert "7 more" in note


def test_contradictions_are_clamped_and_noted() -> None:
    usage, note = reported(
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 99},
        }
    )
    assert usage == Usage(cached=10, output=5)
    assert note is not None
    assert "99 cached" in note


def test_of_several_names_for_one_figure_the_details_count() -> None:
    told = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 3}
    assert usage_from({**told, "prompt_cache_hit_tokens": 2}).cached == 3
    assert usage_from({**told, "prompt_tokens_details": {"cached_tokens": 4}}).cached == 4
    assert usage_from({"prompt_tokens_details": {"cached_tokens": 0}, **told}).cached == 0
    assert usage_from({**told, "prompt_tokens_details": {"cached_tokens": None}}).cached == 3
    assert reported({**told, "prompt_tokens_details": {"cached_tokens": -4}}) == (
        Usage(input=7, cached=3, output=5),
        "prompt_tokens_details.cached_tokens must be a whole number of at least 0, not -4",
    )


def test_a_stream_keeps_the_hour_of_a_growing_sum() -> None:
    usage = usage_from(
        {
            "input_tokens": 1,
            "output_tokens": 1,
            "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 30},
        }
    )
    assert usage == Usage(input=1, cache_write_1h=50, output=1)


NUMBERS = st.none() | st.integers(-5, 3000) | st.sampled_from([1.0, 2.5, "7", True, [], {}, 2**60])
FIELDS = st.sampled_from(sorted({key for case in CASES for key in case[1]} | {"reasoning_tokens", "cached_tokens"}))
DETAILS = st.sampled_from(
    ["cached_tokens", "audio_tokens", "image_tokens", "cache_write_tokens", "reasoning_tokens", "thinking_tokens",
     "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"]
)  # fmt: skip


@given(st.dictionaries(FIELDS, NUMBERS | st.dictionaries(DETAILS, NUMBERS)))
def test_anything_is_read_without_a_crash(mapping: dict[str, Any]) -> None:
    usage, note = reported(mapping)
    told = mapping.get("total_tokens")
    if usage is not None and type(told) is int and told >= 0 and "prompt_tokens" in mapping:
        assert usage.total_tokens >= told or note is not None


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 6000), st.integers(0, 6000), st.integers(0, 20_000))
def test_no_token_is_lost(prompt: int, completion: int, cached: int, reasoning: int, total: int) -> None:
    usage, _ = reported(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    assert usage is not None
    assert usage.input_tokens == prompt
    assert usage.total_tokens == max(total, prompt + completion)


def test_our_own_shapes() -> None:
    ours = {"input_tokens": 100, "output_tokens": 20, "cached_tokens": 30, "cache_write_tokens": 10}
    assert usage_from(ours) == Usage(input=60, cached=30, cache_write=10, output=20)
    assert usage_from({"output_tokens": 5}) == Usage(output=5)
    assert usage_from({"input": 3, "cached": 4}) == Usage(input=3, cached=4)
    assert usage_from(Usage(input=1)) == Usage(input=1)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ({"input_tokens": 5, "cached_tokens": 9}, "cached_tokens"),
        ({"output_tokens": 5, "reasoning_tokens": 9}, "reasoning_tokens"),
        ({"input_tokens": -5}, "input_tokens"),
        ({"prompt_tokens": 1.5, "completion_tokens": 1}, "prompt_tokens"),
        ({"input_tokens": True}, "input_tokens"),
        ({}, "no token counts"),
        ({"words": 3}, "words"),
        ("12", "SDK's usage object"),
        (None, "SDK's usage object"),
    ],
)
def test_a_person_is_told_what_is_wrong(source: object, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        usage_from(source)
