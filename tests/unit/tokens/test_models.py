"""The table of model facts: complete rows, cautious defaults, and the names by which models are called."""

from __future__ import annotations

import tomllib
from datetime import date
from importlib.resources import files

import pytest
from genai_prices.data_snapshot import get_snapshot

from farthing.tokens import facts_of
from farthing.tokens.names import plain_name, undated

ROWS = tomllib.loads(files("farthing.tokens").joinpath("model_facts.toml").read_text("utf-8"))["row"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["models"][0])
def test_every_row_says_where_its_figures_are_from(row: dict[str, object]) -> None:
    required = {"models", "provider", "context", "max_output", "hidden_reasoning", "source", "date"}
    assert required <= set(row) <= required | {"default_output"}
    assert row["provider"] in {"openai", "anthropic", "google"}
    assert isinstance(row["hidden_reasoning"], bool)
    assert len(str(row["source"])) > 20
    assert date.fromisoformat(str(row["date"])) >= date(2026, 11, 1)
    assert 0 <= int(str(row["max_output"])) <= int(str(row["context"]))


@pytest.mark.parametrize(
    ("model", "context", "most", "hidden", "default"),
    [
        ("gpt-4o", 128_000, 16_384, False, 4096),
        ("gpt-4o-2024-05-13", 128_000, 4096, False, 4096),
        ("gpt-4o-2024-11-20", 128_000, 16_384, False, 4096),
        ("openai/gpt-4o-mini", 128_000, 16_384, False, 4096),
        ("ft:gpt-4o-mini-2024-07-18:org::id", 128_000, 16_384, False, 4096),
        ("gpt-4.1-nano-2025-04-14", 1_047_576, 32_768, False, 4096),
        ("gpt-35-turbo", 16_385, 4096, False, 4096),
        ("o3", 200_000, 100_000, True, 100_000),
        ("gpt-5-mini-2025-08-07", 400_000, 128_000, True, 128_000),
        ("gpt-5.4-mini", 400_000, 128_000, True, 128_000),
        ("gpt-6.1-sol", 1_050_000, 128_000, True, 128_000),
        ("claude-3-haiku-20240307", 200_000, 4096, False, 4096),
        ("claude-3-5-sonnet-latest", 200_000, 8192, False, 4096),
        ("claude-sonnet-4-20250514", 1_000_000, 64_000, True, 64_000),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", 200_000, 64_000, True, 64_000),
        ("anthropic/claude-opus-4.6", 1_000_000, 128_000, True, 128_000),
        ("claude-opus-4-1@20250805", 200_000, 32_000, True, 32_000),
        ("claude-opus-5-5", 1_000_000, 128_000, True, 128_000),
        ("models/gemini-2.5-pro", 1_048_576, 65_536, True, 65_536),
        ("gemini-2.0-flash-001", 1_048_576, 8192, False, 4096),
        ("gemini-4-argon", 1_048_576, 1_048_576, True, 65_536),
        ("text-embedding-3-small", 8192, 0, False, 0),
    ],
)
def test_facts_of_known_models(model: str, context: int, most: int, hidden: bool, default: int) -> None:
    facts = facts_of(model)
    assert facts.known
    assert (facts.context, facts.max_output, facts.hidden_reasoning, facts.default_output) == (
        context,
        most,
        hidden,
        default,
    )


@pytest.mark.parametrize("model", ["mystery-1", "gpt-7", "", "gpt-4o-but-not-really"])
def test_an_unknown_model_gets_cautious_defaults(model: str) -> None:
    facts = facts_of(model, "openai")
    assert not facts.known
    assert facts.hidden_reasoning
    assert (facts.context, facts.max_output, facts.default_output, facts.date) == (None, 4096, 4096, None)
    assert facts.provider == "openai"


def test_no_context_is_below_the_one_that_the_price_table_states() -> None:
    for provider in get_snapshot().providers:
        if provider.id not in {"openai", "anthropic", "google"}:
            continue
        for info in provider.models:
            facts = facts_of(info.id)
            if facts.known and info.context_window and not info.id.startswith("gpt-4o-mini-realtime"):
                assert facts.context is not None
                assert facts.context >= info.context_window, info.id


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        ("GPT-4o", "gpt-4o"),
        ("openrouter/openai/gpt-4o", "gpt-4o"),
        ("ft:gpt-4.1-2025-04-14:org:name:id", "gpt-4.1-2025-04-14"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929"),
        ("anthropic.claude-opus-5-5", "claude-opus-5-5"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gpt-35-turbo-16k", "gpt-3.5-turbo-16k"),
    ],
)
def test_plain_names(model: str, plain: str) -> None:
    assert plain_name(model) == plain


def test_only_a_date_at_the_end_is_taken_off() -> None:
    assert undated("gpt-4o-2024-11-20") == "gpt-4o"
    assert undated("claude-opus-4-5-20251101") == "claude-opus-4-5"
    assert undated("gpt-4-0613") == "gpt-4-0613"
