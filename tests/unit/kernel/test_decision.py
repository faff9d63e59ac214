"""A denial says who, in which unit, the figures of that instant, when it resets and what to do."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.balances import ZERO, Balance, change_of
from farthing.kernel.budget import Budget, make_budget, unit_of_work
from farthing.kernel.decision import ALLOWED, Decision, denial, refusal
from farthing.kernel.money import COUNTER_MAX
from farthing.kernel.plan import (
    Ask,
    CallFacts,
    Formula,
    Line,
    LineResult,
    evaluate,
    make_plan,
    open_account,
)

NONE = Balance()
NOW = 1_767_225_612_345  # 2026-01-01 00:00:12.345 UTC
MIDNIGHT = NOW - 12_345 + 86_400_000


def failing(budget: Budget, unit: str, balance: Balance = NONE, asked: int = 1, **of: Any) -> LineResult:
    limit = budget.limit(unit)
    assert limit is not None
    given_ = {"scope": (), "keys": ("k",), "ceiling": limit, **of}
    return LineResult(Line(budget, unit=unit, **given_), (balance,), asked, Formula(asked))


def one(budget: Budget, unit: str, balance: Balance = NONE, asked: int = 1, **of: Any) -> Decision:
    return denial((failing(budget, unit, balance, asked, **of),), now_ms=NOW)


def test_the_message_in_dollars() -> None:
    budget = make_budget("search", usd=5, per="day")
    decision = one(
        budget,
        "usd",
        Balance(4_000_000_000, 900_000_000, 50_000_000),
        100_000_000,
        scope=(("team", "a"), ("user", None)),
        ends_ms=MIDNIGHT,
    )
    assert decision.message() == (
        "budget 'search' for team=a: limit $5.00, spent $4.00, held $0.90, suspect $0.05, asked $0.10; $0.05 remain. "
        "Resets at 2026-01-02 00:00:00 UTC. It would fit once calls in flight have settled: try again then, or raise "
        "the limit."
    )


def test_the_message_in_tokens() -> None:
    decision = one(make_budget("run", tokens=10_000), "tokens", Balance(9_500), 1_200)
    assert decision.message() == (
        "budget 'run': limit 10,000 tokens, spent 9,500 tokens, held 0 tokens, asked 1,200 tokens; 500 tokens remain. "
        "Grant more, or raise the limit of budget 'run'."
    )


@pytest.mark.parametrize(
    ("unit", "shown"), [("tokens", "7 tokens"), ("requests", "7 requests"), ("concurrency", "7 calls at once")]
)
def test_every_figure_has_its_unit(unit: str, shown: str) -> None:
    decision = one(make_budget("b", **{unit: 7}), unit, Balance(7))
    assert f"limit {shown}" in decision.message()
    assert decision.unit == unit


def test_an_anonymous_budget_goes_by_its_label() -> None:
    unit = unit_of_work(make_budget(tokens=5), unit_id="0f3c", label="answer()")
    decision = one(unit, "tokens", Balance(5))
    assert decision.budget == "answer()"
    assert "0f3c" not in decision.message()


def test_what_is_beyond_the_limit_is_overrun_and_remaining_is_floored_at_zero() -> None:
    decision = one(make_budget("b", usd=1), "usd", Balance(1_500_000_000))
    assert (decision.remaining, decision.overrun) == (Decimal(0), Decimal("0.5"))
    assert (decision.limit, decision.spent) == (Decimal(1), Decimal("1.5"))


def test_figures_in_dollars_do_not_depend_on_the_programs_decimal_context() -> None:
    budget = make_budget("b", usd=Decimal("1.234567891"))
    with localcontext() as context:
        context.prec = 2
        decision = one(budget, "usd", Balance(1_234_567_890), 2)
        message = decision.message()
    assert decision.spent == Decimal("1.23456789")
    assert "limit $1.234567891, spent $1.23456789" in message


def test_the_tightest_line_comes_first_and_all_are_there() -> None:
    facts = CallFacts(input_tokens=100, choices=1, price=Formula(0, 1))
    budgets = [
        make_budget("loose", tokens=300),
        make_budget("tight", tokens=150),
        make_budget("tighter", usd=Decimal("0.00000004")),
        make_budget("fits", tokens=1_000),
    ]
    plan = make_plan(Ask("id", facts, 500, 1, 0), [open_account(budget, {}, NOW) for budget in budgets])
    decision = denial(evaluate(plan, lambda _: ZERO).failed, now_ms=NOW)
    assert [line.budget for line in decision.failed] == ["tighter", "tight", "loose"]
    assert decision.message().endswith("Also past its limit: 'tight' (tokens), 'loose' (tokens).")
    first = decision.failed[0]
    for name in ("budget", "scope", "unit", "limit", "spent", "held", "suspect", "asked", "remaining", "overrun"):
        assert getattr(decision, name) == getattr(first, name)
    assert (decision.resets_at, decision.retry_after_seconds, decision.remedy) == (None, None, first.remedy)


def test_a_frozen_budget_speaks_first_and_says_how_to_thaw_it() -> None:
    frozen = failing(make_budget("ice", tokens=1_000, per="day"), "tokens", frozen=True, ends_ms=MIDNIGHT)
    full = failing(make_budget("full", tokens=0), "tokens")
    decision = denial((full, frozen), now_ms=NOW)
    assert decision.budget == "ice"
    assert "unfreeze budget 'ice'" in decision.remedy
    assert decision.retry_after_seconds is None


# -- when it will pass -----------------------------------------------------------------------------------------------


def test_a_calendar_window_resets_at_its_end() -> None:
    decision = one(make_budget("b", tokens=10, per="day"), "tokens", Balance(10), ends_ms=MIDNIGHT)
    assert decision.resets_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert decision.retry_after_seconds == (MIDNIGHT - NOW) / 1000
    assert decision.remedy == "Wait for the window to reset, or grant more for now."


def test_no_retry_is_promised_to_a_call_that_will_not_fit_then_either() -> None:
    decision = one(make_budget("b", tokens=10, per="day"), "tokens", asked=11, ends_ms=MIDNIGHT)
    assert decision.resets_at is not None
    assert decision.retry_after_seconds is None
    assert "more than the whole limit" in decision.remedy


def test_no_retry_is_promised_on_the_strength_of_a_grant_that_ends_with_the_window() -> None:
    decision = one(make_budget("b", tokens=10, per="day"), "tokens", Balance(5), asked=15, ceiling=15, ends_ms=MIDNIGHT)
    assert decision.retry_after_seconds is None


@pytest.mark.parametrize("unit", ["tokens", "usd", "requests", "concurrency"])
def test_a_limit_of_zero_does_not_tell_anyone_to_wait(unit: str) -> None:
    per = None if unit == "concurrency" else "day"
    decision = one(make_budget("b", per=per, **{unit: 0}), unit, ends_ms=None if per is None else MIDNIGHT)
    assert decision.retry_after_seconds is None
    assert "Wait" not in decision.remedy


@given(
    st.lists(st.integers(0, 10), min_size=13, max_size=13),
    st.integers(0, 4_999),
    st.integers(1, 100),
    st.integers(1, 100),
)
def test_a_rolling_window_says_the_first_instant_at_which_the_call_will_fit(
    used: list[int], into_bucket: int, asked: int, limit: int
) -> None:
    """Evaluated again at that instant it passes, and a millisecond before it does not."""
    budget = make_budget("r", tokens=limit, per="rolling 60s")
    now = NOW - NOW % 5_000 + into_bucket
    account = open_account(budget, {}, now)
    balances = {key: change_of("tokens", amount) for key, amount in zip(account.keys, used, strict=True)}

    def failed_at(at_ms: int) -> tuple[LineResult, ...]:
        facts = CallFacts(input_tokens=asked)
        plan = make_plan(Ask("id", facts, 0, 0, 0), [open_account(budget, {}, at_ms)])
        return evaluate(plan, lambda key: balances.get(key, ZERO)).failed

    failed = failed_at(now)
    if not failed:
        return
    decision = denial(failed, now_ms=now)
    if asked > limit:
        assert decision.retry_after_seconds is None
    else:
        assert decision.retry_after_seconds is not None
        then = now + round(decision.retry_after_seconds * 1000)
        assert not failed_at(then)
        assert failed_at(then - 1)
        assert decision.resets_at is not None
        assert decision.resets_at.timestamp() * 1000 == then


# -- remedies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "remedy"),
    [
        (one(make_budget("b", concurrency=2), "concurrency", Balance(held=2)), "Wait until a call in flight ends"),
        (one(make_budget("b", tokens=10), "tokens", Balance(2, 7, 0), 5), "once calls in flight have settled"),
        (one(make_budget("b", tokens=10), "tokens", Balance(2, 0, 7), 5), "farthing holds list"),
        (one(unit_of_work(make_budget(tokens=10), unit_id="u", label="f"), "tokens", Balance(2, 0, 7), 5), "may have"),
        (one(make_budget("b", tokens=10), "tokens", Balance(9, 0, 0), 5), "raise the limit of budget 'b'"),
        (one(unit_of_work(make_budget(tokens=10), unit_id="u", label="f"), "tokens", Balance(9), 5), "unit of work"),
        (one(make_budget("b", tokens=10), "tokens", asked=11), "shorten the prompt"),
    ],
)
def test_one_thing_to_do_about_it(decision: Decision, remedy: str) -> None:
    assert remedy in decision.remedy
    assert decision.message().endswith(decision.remedy)


def test_raise_is_not_told_to_wait_for_holds_that_it_ignores() -> None:
    budget = make_budget("b", tokens=10, on_exceed="raise")
    decision = one(budget, "tokens", Balance(10, 5), spent_only=True)
    assert "in flight" not in decision.remedy


# -- as data ---------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["tokens", "usd", "requests"]),
    st.builds(Balance, *[st.integers(0, COUNTER_MAX)] * 3),
    st.integers(0, COUNTER_MAX),
)
def test_a_decision_survives_json_and_pickle(unit: str, balance: Balance, asked: int) -> None:
    budget = make_budget("bü", tokens=COUNTER_MAX, usd=9_000_000, requests=5, per="day")
    decision = one(budget, unit, balance, asked, scope=(("user", "ü"),), ends_ms=MIDNIGHT)
    plain = json.loads(json.dumps(decision.to_dict()))
    assert plain["allowed"] is False
    assert plain["scope"] == {"user": "ü"}
    assert datetime.fromisoformat(plain["resets_at"]) == decision.resets_at
    assert plain["failed"][0]["budget"] == "bü"
    for name in ("limit", "spent", "held", "suspect", "asked", "remaining", "overrun"):
        assert type(plain[name]) is (str if unit == "usd" else int)
        assert Decimal(plain[name]) == getattr(decision, name)
        assert "E" not in str(plain[name])
    assert pickle.loads(pickle.dumps(decision)) == decision


def test_allowed_and_refused_without_figures() -> None:
    assert ALLOWED.allowed
    assert ALLOWED.message() == "allowed"
    assert json.dumps(ALLOWED.to_dict())
    decision = refusal(budget="b", remedy="Make a budget of its own in the child process.")
    assert not decision.allowed
    assert decision.message() == "Make a budget of its own in the child process."
    assert decision.to_dict()["failed"] == []


def test_a_call_passes_when_its_last_line_does() -> None:
    """The figures are those of the tightest line; the time to try again is that of the latest."""
    day = failing(make_budget("day", tokens=100, per="day"), "tokens", Balance(100), ends_ms=MIDNIGHT)
    minute = failing(make_budget("minute", tokens=100, per="minute"), "tokens", Balance(150), ends_ms=NOW + 47_655)
    for lines in ((day, minute), (minute, day)):
        decision = denial(lines, now_ms=NOW)
        assert decision.budget == "minute"
        assert decision.retry_after_seconds == (MIDNIGHT - NOW) / 1000
        assert [line.retry_after_seconds for line in decision.failed] == [47.655, (MIDNIGHT - NOW) / 1000]


def test_a_call_that_one_line_never_lets_pass_has_no_time_to_try_again() -> None:
    day = failing(make_budget("day", tokens=100, per="day"), "tokens", Balance(200), ends_ms=MIDNIGHT)
    life = failing(make_budget("life", tokens=100), "tokens", Balance(100))
    decision = denial((day, life), now_ms=NOW)
    assert decision.budget == "day"
    assert decision.resets_at is not None
    assert decision.retry_after_seconds is None


def test_a_limit_on_calls_at_once_reads_like_one() -> None:
    budget = make_budget("workers", concurrency=2)
    assert one(budget, "concurrency", Balance(0, 2)).message() == (
        "budget 'workers': limit 2 calls at once, 2 in flight. Wait until a call in flight ends, or raise the limit."
    )


def test_a_guard_against_runaways_says_what_the_call_asks() -> None:
    """Its line only asks whether anything is left; its evidence has what the call would have used."""
    budget = make_budget("loop", tokens=100, on_exceed="raise")
    ask = Ask("c", CallFacts(input_tokens=8), 500, 16, 0)
    plan = make_plan(ask, [open_account(budget, {}, NOW)])
    failed = evaluate(plan, lambda key: change_of("tokens", 116)).failed
    decision = denial(failed, now_ms=NOW)
    assert (decision.asked, decision.spent, decision.remaining) == (508, 116, 0)
    assert evaluate(plan, lambda key: change_of("tokens", 99)).failed == ()
