"""Holds and entries: the figures that they carry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.balances import NONE
from farthing.kernel.hold import HELD, Entry, Hold, Outcome, correction
from farthing.kernel.plan import CallFacts, Formula, Posting
from farthing.kernel.usage import KINDS, Usage

FACTS = CallFacts(input_tokens=100, choices=3, price=Formula(10, 7, 4))
POSTINGS = (Posting("a"),)
HOLD = Hold("h", "o", FACTS, POSTINGS, (), 9, 1, 0, 5, FACTS.amounts(5), 60_000, 0, HELD)


def test_a_hold_amounts_to_what_its_x_costs() -> None:
    assert HOLD.amounts == (115, 12, 1, 1)  # 45/4 nano-dollars round up
    assert HOLD.shrunk(0).amounts == (100, 3, 1, 1)


def test_the_estimate_is_all_that_was_held() -> None:
    estimate = HOLD.estimate()
    assert estimate.amounts == (115, 12, 1, 0)
    assert estimate.usage == Usage(input=100, output=15)
    assert (estimate.cost_nano, estimate.usage_source) == (12, "estimate")
    assert HOLD.estimate(0).usage == Usage(input=100)


def test_the_estimate_of_an_unknown_price_is_unknown_and_not_zero() -> None:
    estimate = HOLD._replace(facts=FACTS._replace(price=None)).estimate()
    assert estimate.cost_nano is None
    assert estimate.amounts == (115, 0, 1, 0)


@given(*[st.lists(st.integers(0, 9), min_size=8, max_size=8).map(lambda counts: Usage(*counts))] * 2)
def test_before_and_the_difference_are_now(before: Usage, now: Usage) -> None:
    difference = correction(Outcome(usage=now), Outcome(usage=before), NONE).usage
    for kind in KINDS:
        assert getattr(before, kind) + getattr(difference, kind) == getattr(now, kind)


def test_an_entry_sums_the_kinds_it_is_asked_for() -> None:
    said = correction(Outcome(usage=Usage(input=5, cached=3)), Outcome(usage=Usage(output=2)), NONE)
    entry = Entry(1, "h", "h", "call", 0, 0, FACTS, POSTINGS, said)
    assert (entry.tokens("input", "cached"), entry.tokens("output"), entry.tokens("reasoning"), entry.tokens()) == (
        8,
        -2,
        0,
        0,
    )


def test_ending_a_hold_by_its_own_word_keeps_all_but_its_state() -> None:
    ended = HOLD._replace(automatic=True).ended("settled", None, 7, 3)
    assert ended == HOLD._replace(state="settled", changed_ms=7, entry=3)
