"""The table of model facts: complete rows, cautious defaults, and the names by which models are called."""

from __future__ import annotations

import tomllib
from datetime import date
from importlib.resources import files

import pytest
from genai_prices.data_snapshot import get_snapshot

from farthing import prices
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


# -- nothing in current use is missing, or it is named here ------------------------------------------------------------

NO_FACTS = {
    "sold by the minute, the character or the picture, or over their own connection: no call is metered": """
        chatgpt-image-latest gpt-4o-mini-realtime-preview gpt-4o-mini-transcribe gpt-4o-mini-tts
        gpt-4o-realtime-preview gpt-4o-transcribe gpt-live-1 gpt-live-transcribe gpt-realtime gpt-realtime-2
        gpt-realtime-mini gpt-realtime-translate gpt-realtime-whisper gpt-transcribe moderation tts-1 tts-1-hd whisper-1
        gemini-3.1-flash-live-preview gemini-3.8-live gemini-live-2.5-flash
    """,
    "metered, and bounded by the endpoint's own formula (openai.images)": """
        gpt-image-1 gpt-image-1-mini gpt-image-1.5 gpt-image-2 gpt-image-2.5-flare gpt-image-2.5-sunburst
    """,
    "text beside pictures or speech: no reviewed source states their limits, so cautious defaults hold": """
        gpt-5-image gpt-5-image-mini gpt-5.4-image-2
        gemini-2.5-flash-image gemini-2.5-flash-lite-preview-tts gemini-2.5-flash-tts gemini-2.5-pro-tts
        gemini-3-pro-image-preview gemini-3.1-flash-image-preview gemini-3.1-flash-lite-image
        gemini-3.1-flash-tts-preview gemini-3.8-flash-lite-tts gemini-3.8-flash-tts gemini-nano-banana-2.1
        gemini-omni-1.1-flash gemini-omni-flash-preview gemini-robotics-er-2-preview
        gemini-robotics-er-2-streaming-preview
    """,
    "by invitation, or an alias that moves: no source states their limits": """
        computer-use gpt-5-search-api gpt-5.5-cyber gpt-5.6-cyber gpt-6-cyber gpt-6-rosalind gpt-chat-latest
        gpt-rosalind-discovery gpt-rosalind-research codex-mini gpt-4o:extended gpt-4o-mini-2024-07-18.ft-
    """,
    "open weights: whoever serves them sets the limits": """
        gemma-2-27b-it gemma-3 gemma-3n gemma-4-26b-a4b-it gemma-4-26b-a4b-it-maas gemma-4-31b-it
    """,
    "retired": """
        ada babbage curie davinci gpt-3.5-0301 text-davinci-002 text-davinci-003 claude-v1 gemini-1.0-pro-vision-001
        gemini-2.5-flash-preview gemini-flash-1.5 gemini-flash-1.5-8b gemini-pro gemini-pro-1.5
    """,
}
"""Models that the price table lists for the three vendors and the table of facts does not, each with the reason."""

NO_PRICE = {"gpt-6.2-sol": "younger than genai-prices 0.2.3: prices.register names it, else it is refused in USD"}
"""Models with facts and without a price."""


def test_every_listed_model_has_facts_or_is_named() -> None:
    named = {model for models in NO_FACTS.values() for model in models.split()}
    listed = {
        (info.id, provider.id)
        for provider in get_snapshot().providers
        if provider.id in {"openai", "anthropic", "google"}
        for info in provider.models
    }
    assert {model for model, provider in listed if not facts_of(model, provider).known} == named


def test_every_model_with_facts_has_a_price_or_is_named() -> None:
    """By its name alone, too: holds by hand and estimates know no more."""
    for row in ROWS:
        for model in row["models"]:
            if set(model) & set("*?["):
                continue
            for provider in (row["provider"], None):
                unpriced = prices.explain(model, provider).how == "unpriced"
                assert unpriced == (model in NO_PRICE), (model, provider)
