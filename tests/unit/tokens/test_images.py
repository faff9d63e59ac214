"""Image formulas, on the examples of the providers' pages and on publicly measured bills; never below either."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.tokens.images import OPEN_PATCHES, image_tokens

SIDE = st.integers(1, 12_000)
MODELS = [
    "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "o1", "o3", "o4-mini", "gpt-5", "gpt-5-mini",
    "gpt-5-nano", "gpt-5.1", "gpt-5.2", "gpt-5.4", "gpt-5.4-mini", "gpt-5.5", "claude-3-haiku-20240307",
    "claude-sonnet-4-5", "claude-opus-5-5", "gemini-2.5-flash", "gemini-3.8-flash",
]  # fmt: skip


def tokens(model: str, width: int | None, height: int | None, detail: str = "high") -> int:
    return image_tokens(model, width=width, height=height, detail=detail)


@pytest.mark.parametrize(
    ("model", "width", "height", "detail", "expected"),
    [
        # The examples of OpenAI's guide.
        ("gpt-4o", 1024, 1024, "high", 765),
        ("gpt-4o", 2048, 4096, "high", 1105),
        ("gpt-4o", 4096, 8192, "low", 85),
        ("gpt-4o-mini", 128, 64, "low", 2833),
        ("gpt-4o-mini", 128, 64, "high", 8500),
        ("o1", 128, 64, "high", 225),
        ("gpt-4.1-mini", 1024, 1024, "high", 1659),
        ("o4-mini", 1024, 1024, "high", 1762),
        # Measured in 2025: 2049 x 513 was billed as eight tiles; a long strip as the whole budget.
        ("gpt-4.1", 2049, 513, "high", 85 + 8 * 170),
        ("gpt-4.1-mini", 4000, 1474, "high", 2489),
        # Measured in 2026 (public table of image token costs), without the text beside the image.
        ("gpt-6-astra", 256, 256, "auto", 77),
        ("gpt-6-astra", 1920, 1080, "auto", 2448),
        ("gpt-6-astra", 4032, 3024, "auto", 14_364),
        ("gpt-5.5", 3840, 2160, "auto", 9792),
    ],
)
def test_documented_and_measured_figures(model: str, width: int, height: int, detail: str, expected: int) -> None:
    assert tokens(model, width, height, detail) == expected


@pytest.mark.parametrize(
    ("width", "height", "claude_5", "claude_4", "gpt_6_high", "gpt_55"),
    [
        # Measured in 2026, less the 77 and 65 tokens of text that came with each Claude request.
        (256, 256, 100, 100, 77, 77),
        (512, 512, 361, 361, 308, 308),
        (1024, 1024, 1369, 1369, 1229, 1229),
        (1280, 720, 1196, 1196, 1104, 1104),
        (1920, 1080, 2691, 1560, 2448, 2448),
        (3840, 2160, 2992, 1592, 2931, 9792),
        (4032, 3024, 3928, 1596, 2942, 11_868),
    ],
)
def test_measured_bills_are_bounded(
    width: int, height: int, claude_5: int, claude_4: int, gpt_6_high: int, gpt_55: int
) -> None:
    assert tokens("claude-opus-5-5", width, height) >= claude_5
    assert tokens("claude-haiku-4-5-20251001", width, height) >= claude_4
    assert tokens("gpt-6-astra", width, height, "high") >= gpt_6_high
    assert tokens("gpt-5.5", width, height, "auto") >= gpt_55
    assert tokens("gemini-3.8-flash", width, height, "auto") >= 1065


@given(st.sampled_from(MODELS), SIDE, SIDE, st.sampled_from(["low", "high", "auto", "original"]))
def test_an_image_of_unknown_size_costs_as_much_as_any(model: str, width: int, height: int, detail: str) -> None:
    assert 0 < tokens(model, width, height, detail) <= tokens(model, None, None, detail)


@given(st.sampled_from([*MODELS, "gpt-6-sol", "some-open-model"]), SIDE, SIDE)
def test_turning_an_image_changes_nothing_and_detail_is_ordered(model: str, width: int, height: int) -> None:
    assert tokens(model, width, height) == tokens(model, height, width)
    assert tokens(model, width, height, "original") >= tokens(model, width, height, "high")


def test_only_models_without_a_budget_grow_with_the_image() -> None:
    assert tokens("gpt-6.1-sol", 9000, 6000, "auto") == 63_620
    assert tokens("gpt-6.1-sol", 9000, 6000, "high") == 3000
    assert tokens("gpt-6.1-sol", 9000, 6000, "low") == 308
    assert tokens("gpt-6.1-sol", None, None, "auto") == -(-OPEN_PATCHES * 120 // 100)
    assert tokens("gpt-5.5", 9000, 6000, "auto") == 12_000
    assert tokens("gpt-5.4", 9000, 6000, "auto") == 3000


def test_an_unknown_openai_model_is_taken_as_the_newest_and_an_unknown_model_as_the_dearest() -> None:
    assert tokens("gpt-7", 4032, 3024, "auto") == tokens("gpt-6-astra", 4032, 3024, "auto")
    assert tokens("mystery", 100, 100) >= 4784
    assert tokens("mystery", None, None) == 16_384


@pytest.mark.parametrize("zero", [(0, 10), (None, 10), (10, None)])
def test_half_a_size_is_no_size(zero: tuple[int | None, int | None]) -> None:
    assert tokens("gpt-4o", *zero) == tokens("gpt-4o", None, None)
