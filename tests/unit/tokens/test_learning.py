"""What a settled call teaches, and what becomes of the factor then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing import tokens
from farthing.kernel.ratios import Ratio
from farthing.tokens import Family, Weight, family_of, learned, ratio_of
from farthing.tokens.learning import ENOUGH_CALLS

CLAUDE = family_of("claude-sonnet-5")
GEMINI = family_of("gemini-3-flash")
WEIGHTS = st.builds(Weight, st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 10**5))
FAMILIES = st.sampled_from([CLAUDE, GEMINI, family_of("some-model")])


def factor(family: Family) -> float:
    return family.num / family.den


def test_only_guessed_factors_learn() -> None:
    assert CLAUDE.guessed
    assert GEMINI.guessed
    assert not family_of("gpt-4o").guessed
    tokens.register("my-model", len)
    try:
        assert not family_of("my-model").guessed
    finally:
        tokens.unregister("my-model")


@pytest.mark.parametrize("calls", [1, ENOUGH_CALLS - 1, ENOUGH_CALLS, 10 * ENOUGH_CALLS])
def test_a_ratio_above_the_start_is_the_factor_at_once(calls: int) -> None:
    assert factor(learned(CLAUDE, Ratio(2_100, calls))) == 2.1


def test_it_comes_down_only_after_many_calls_and_keeps_a_margin() -> None:
    assert factor(learned(CLAUDE, Ratio(1_200, ENOUGH_CALLS - 1))) == 1.7
    assert factor(learned(CLAUDE, Ratio(1_200, ENOUGH_CALLS))) == 1.5
    assert factor(learned(CLAUDE, Ratio(1_600, ENOUGH_CALLS))) == 1.7
    assert factor(learned(CLAUDE, Ratio(300, ENOUGH_CALLS))) == 1.0


@given(FAMILIES, st.integers(0, 10_000), st.integers(0, 5_000), st.integers(0, 1_000))
def test_a_factor_is_never_below_the_largest_ratio(family: Family, milli: int, calls: int, extra: int) -> None:
    now = learned(family, Ratio(milli, calls, extra))
    assert now.num * 1000 >= milli * now.den
    assert now.extra == extra


@given(FAMILIES, WEIGHTS, st.integers(1, 10**7))
def test_what_was_too_little_once_is_enough_the_next_time(family: Family, weight: Weight, billed: int) -> None:
    shown = ratio_of(weight, family, billed=billed)
    if weight.bound(family) < billed:
        assert shown is not None
        assert weight.bound(learned(family, shown)) >= billed
    elif shown is not None:
        assert shown.extra == 0
        assert shown.milli * weight.counted >= 1000 * (billed - weight.beside - family.extra)


def test_short_texts_and_those_with_much_beside_teach_nothing() -> None:
    assert ratio_of(Weight(255, 0), CLAUDE, billed=400) is None
    assert ratio_of(Weight(2_000, 300), CLAUDE, billed=3_000) is None
    assert ratio_of(Weight(2_000, 600), GEMINI, billed=3_000) is None
    assert ratio_of(Weight(2_000, 30), CLAUDE, billed=2_600) == Ratio(1_300, 1)


def test_more_than_any_vocabulary_makes_of_a_text_was_not_the_text() -> None:
    """One answer of a server that brings in documents of its own must not multiply every hold that follows."""
    shown = ratio_of(Weight(1_000, 10), CLAUDE, billed=100_000)
    assert shown == Ratio(0, 0, 100_000 - 1_710)
    after = learned(CLAUDE, shown)
    assert Weight(1_000, 10).bound(after) == 100_000
    assert Weight(10_000, 10).bound(after) == 17_010 + 98_290


def test_what_a_provider_adds_to_a_short_request_is_not_taken_for_dense_text() -> None:
    shown = ratio_of(Weight(2, 6), CLAUDE, billed=900)
    assert shown == Ratio(0, 0, 900 - 10)
    after = learned(CLAUDE, shown)
    assert Weight(2, 6).bound(after) == 900
    assert Weight(10_000, 6).bound(after) == 17_000 + 6 + 890
    # Seen again, with less missing, it stays; with more, it grows by what is missing still.
    assert ratio_of(Weight(2, 6), after, billed=900) is None
    assert ratio_of(Weight(2, 6), after, billed=910) == Ratio(0, 0, 900)
