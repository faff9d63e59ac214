"""
Plans: what budgets become, and the one rule of admission, compared with trying every number of output tokens.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate
from math import ceil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farthing.kernel.balances import ZERO, Balance, Balances, change_of
from farthing.kernel.budget import MODES, Budget, make_budget, unit_of_work
from farthing.kernel.money import COUNTER_MAX
from farthing.kernel.plan import (
    LINES_MAX,
    ONE,
    Ask,
    CallFacts,
    Formula,
    Line,
    LineResult,
    Plan,
    Verdict,
    evaluate,
    make_plan,
    open_account,
)

NOW = 1_767_225_600_000 + 12_345  # 2026-01-01 00:00:12.345 UTC
BUDGET = make_budget("b", tokens=1)
FACTS = CallFacts(input_tokens=100, choices=2, price=Formula(10, 3, 7))
KEYS = ("k1", "k2", "k3")
NONE = Balance()
BALANCES = st.builds(Balances, *[st.integers(0, 9)] * 12)
FORMULAS = st.builds(Formula, st.integers(0, 40), st.integers(0, 6), st.integers(1, 7))


@st.composite
def lines(draw: st.DrawFn) -> Line:
    kind = draw(st.sampled_from(["fixed", "elastic", "elastic", "advisory", "spent_only"]))
    return Line(
        BUDGET,
        (),
        draw(st.sampled_from(["tokens", "usd"])),
        tuple(draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=3))),
        draw(st.integers(0, 60)),
        elastic=kind == "elastic",
        advisory=kind == "advisory",
        spent_only=kind == "spent_only",
        frozen=draw(st.integers(0, 9)) == 0,
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    want = draw(st.integers(0, 25))
    floor = draw(st.integers(0, want))
    most = draw(st.none() | st.integers(floor, want))
    facts = CallFacts(input_tokens=draw(st.integers(0, 40)), choices=draw(st.integers(0, 6)), price=draw(FORMULAS))
    return Plan("p", facts, want, floor, 0, tuple(draw(st.lists(lines(), max_size=5))), x_most=most)


def amount_of(plan: Plan, line: Line, x: int) -> int:
    if line.spent_only:
        return 1
    base, slope, den = (plan.facts.input_tokens, plan.facts.choices, 1) if line.unit == "tokens" else plan.facts.price
    return ceil(Fraction(base + slope * x, den))


def passes(plan: Plan, line: Line, x: int, balances: dict[str, Balances]) -> bool:
    """The definition: balances + ceil((base + slope·x) / den) ≤ ceiling, and frozen passes nothing."""
    seen = [balances[key].of(line.unit) for key in line.keys]
    used = sum(balance.settled + balance.suspect for balance in seen)
    if not line.spent_only:
        used += sum(balance.held for balance in seen)
    return not line.frozen and used + amount_of(plan, line, x) <= line.ceiling


@given(plans(), st.fixed_dictionaries(dict.fromkeys(KEYS, BALANCES)))
def test_evaluate_is_what_trying_every_x_finds(plan: Plan, balances: dict[str, Balances]) -> None:
    verdict = evaluate(plan, balances.__getitem__)

    # A line is asked at the least it would take; an elastic one may shrink to the floor.
    def asked_at(line: Line) -> int:
        return plan.x_floor if line.elastic else plan.x_want

    failing = [line for line in plan.lines if not passes(plan, line, asked_at(line), balances)]
    assert [result.line for result in verdict.failed] == [line for line in failing if not line.advisory]
    assert [result.line for result in verdict.advisory] == [line for line in failing if line.advisory]
    for result in (*verdict.failed, *verdict.advisory):
        assert result.balances == tuple(balances[key].of(result.line.unit) for key in result.line.keys)
        assert (
            result.needed
            == (1 if result.line.spent_only else result.formula.at(asked_at(result.line)))
            == amount_of(plan, result.line, asked_at(result.line))
        )
    if not verdict.failed:
        most = plan.x_want if plan.x_most is None else plan.x_most
        elastic = [line for line in plan.lines if line.elastic]
        fitting = [x for x in range(plan.x_floor, most + 1) if all(passes(plan, line, x, balances) for line in elastic)]
        assert verdict.x == max(fitting)


@given(FORMULAS, st.integers(0, 1000))
def test_a_formula_rounds_up_once(formula: Formula, x: int) -> None:
    assert formula.at(x) == ceil(Fraction(formula.base + formula.slope * x, formula.den))


def line(ceiling: int, **flags: bool) -> Line:
    return Line(BUDGET, (), "usd", ("k",), ceiling, **flags)


def verdict_of(formula: Formula, *of: Line, want: int = 10, floor: int = 1, balance: Balance = NONE) -> Verdict:
    row = change_of("usd", *balance)
    return evaluate(Plan("p", CallFacts(price=formula), want, floor, 0, of), lambda _: row)


def test_exactly_at_the_limit_is_allowed_and_one_more_is_not() -> None:
    assert not verdict_of(Formula(0, 1), line(10)).failed
    assert verdict_of(Formula(0, 1), line(9)).failed
    assert not verdict_of(Formula(0, 1), line(10), balance=Balance(), want=10).failed
    assert verdict_of(Formula(0, 1), line(10), balance=Balance(0, 1, 0), want=10).failed


@pytest.mark.parametrize("flags", [{}, {"elastic": True}, {"spent_only": True}])
def test_a_limit_of_zero_denies_everything_that_costs_something(flags: dict[str, bool]) -> None:
    assert verdict_of(ONE, line(0, **flags)).failed
    assert verdict_of(Formula(0, 1, 1000), line(0, **flags), floor=1).failed


def test_a_base_beyond_the_room_fails_although_the_line_may_shrink() -> None:
    verdict = verdict_of(Formula(11, 1), line(10, elastic=True), floor=0)
    assert [result.asked for result in verdict.failed] == [11]
    assert verdict_of(Formula(10, 1), line(10, elastic=True), floor=0) == Verdict(0, amounts=(0, 10, 1, 1))


def test_a_line_past_its_ceiling_already_says_so_and_never_grants_a_negative_x() -> None:
    over = verdict_of(Formula(0, 1), line(10, elastic=True), balance=Balance(15), floor=0)
    assert [result.balance for result in over.failed] == [Balance(15)]


def test_fractions_are_used_to_the_last_token() -> None:
    """7 nano-dollars buy 23 tokens at 3/10 each: 6.9 rounds up to 7; 24 would be 7.2, so 8."""
    assert verdict_of(Formula(0, 3, 10), line(7, elastic=True), want=100).x == 23


def test_shrinking_for_one_line_does_not_excuse_another() -> None:
    """Block 3,000 beside clamp 2,000, asked 4,000: denied, for the blocking budget does not bend."""
    block, clamp = line(3_000), line(2_000, elastic=True)
    assert [result.line for result in verdict_of(Formula(0, 1), block, clamp, want=4_000).failed] == [block]
    assert verdict_of(Formula(0, 1), block, clamp, want=3_000).x == 2_000


def test_spent_only_looks_at_what_is_spent_and_not_at_what_is_held() -> None:
    after = line(10, spent_only=True)
    assert not verdict_of(ONE, after, balance=Balance(settled=9, held=1_000)).failed
    assert verdict_of(ONE, after, balance=Balance(settled=10)).failed
    assert verdict_of(ONE, after, balance=Balance(settled=9, suspect=1)).failed


def test_advisory_lines_never_refuse_not_even_frozen() -> None:
    verdict = verdict_of(Formula(0, 1), line(0, advisory=True), line(99, advisory=True, frozen=True))
    assert verdict.x == 10
    assert len(verdict.advisory) == 2
    assert not verdict.failed


def test_no_lines_grant_what_was_asked() -> None:
    assert verdict_of(ONE, want=7) == Verdict(7, amounts=(7, 1, 1, 1))


def test_the_balance_of_a_result_is_the_sum_over_its_keys() -> None:
    assert LineResult(line(1), (Balance(1, 2, 3), Balance(10, 20, 30)), 0, ONE).balance == Balance(11, 22, 33)


# -- making plans ----------------------------------------------------------------------------------------------------


def plan_for(*budgets: Budget, facts: CallFacts = FACTS, frozen: bool = False) -> Plan:
    accounts = [open_account(budget, {"user": "u"}, NOW, frozen=frozen) for budget in budgets]
    return make_plan(Ask("id", facts, 500, 16, NOW + 60_000), accounts, catalogue_version=3)


def test_every_account_is_posted_in_every_unit_and_checked_in_those_it_limits() -> None:
    plan = plan_for(make_budget("b", usd=1))
    assert [posting.units for posting in plan.postings] == [None]
    assert [line.unit for line in plan.lines] == ["usd"]
    assert plan.facts.amounts(500) == (100 + 2 * 500, ceil(Fraction(10 + 3 * 500, 7)), 1, 1)
    assert plan.catalogue_version == 3


def test_a_budget_per_request_is_checked_and_leaves_nothing() -> None:
    plan = plan_for(make_budget("b", tokens=5, per="request"))
    assert plan.postings == ()
    assert [line.keys for line in plan.lines] == [()]
    failed = evaluate(plan, lambda _: ZERO).failed
    assert [(result.asked, result.balances) for result in failed] == [(1_100, ())]


def test_an_unknown_price_is_never_zero() -> None:
    """I9. A token budget needs no price; a money budget refuses to guess; nothing is posted in money."""
    unpriced = FACTS._replace(price=None)
    assert plan_for(BUDGET, facts=unpriced).facts.amounts(500) == (1_100, 0, 1, 1)
    with pytest.raises(ValueError, match="'usd-budget'"):
        plan_for(BUDGET, make_budget("usd-budget", usd=1), facts=unpriced)


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_what_each_mode_means_for_a_line(mode: str, ours: bool) -> None:
    budget = make_budget("b", tokens=5, on_exceed=mode, downgrade={"x": "y"} if mode == "downgrade" else None)
    (only,) = plan_for(budget, facts=FACTS._replace(ceiling_ours=ours)).lines
    assert only.advisory == (mode == "warn")
    assert only.spent_only == (mode == "raise")
    assert only.elastic == (mode in ("clamp", "break") or (ours and mode not in ("warn", "raise")))


def test_a_plan_is_good_until_its_earliest_window_ends() -> None:
    day, minute = make_budget("d", tokens=1, per="day"), make_budget("m", tokens=1, per="minute")
    assert plan_for(BUDGET).valid_until_ms is None
    assert plan_for(BUDGET, day).valid_until_ms == NOW - 12_345 + 86_400_000
    assert plan_for(minute, day).valid_until_ms == NOW - 12_345 + 60_000
    rolling = plan_for(make_budget("r", tokens=1, per="rolling 60s"))
    assert rolling.valid_until_ms == NOW - 2_345 + 5_000


def test_postings_say_until_when_they_are_kept() -> None:
    """As long again after their window as it was long: a clock that is put right leads back into it."""
    day, rolling = make_budget("d", tokens=1, per="day"), make_budget("r", tokens=1, per="rolling 60s")
    ends = {posting.ends_ms for posting in plan_for(day).postings}
    assert ends == {NOW - 12_345 + 2 * 86_400_000}
    bucket = NOW - 2_345
    first_counted, last_counted = bucket - 12 * 5_000, bucket + 13 * 5_000
    assert {posting.ends_ms for posting in plan_for(rolling).postings} == {2 * last_counted - first_counted}


def test_an_account_that_is_named_twice_is_held_on_once() -> None:
    """`with b: with b:` is one account. Held twice, two lines that each fit would together pass the ceiling."""
    budget = make_budget("b", tokens=1_100)
    once, twice = plan_for(budget), plan_for(budget, budget)
    assert twice.postings == once.postings


def test_more_lines_than_anyone_means_is_said() -> None:
    budgets = [unit_of_work(make_budget(tokens=1), unit_id=f"u{n}", label="x") for n in range(LINES_MAX + 1)]
    assert len(plan_for(*budgets[:-1]).lines) == LINES_MAX
    with pytest.raises(ValueError, match="513 budget lines"):
        plan_for(*budgets)


def test_frozen_accounts_make_frozen_lines() -> None:
    assert all(line.frozen for line in plan_for(BUDGET, frozen=True).lines)


def test_grants_raise_a_ceiling_to_what_a_counter_can_hold_at_most() -> None:
    account = open_account(make_budget("b", tokens=5, usd=1), {}, NOW)
    raised = account.raised((("tokens", 3), ("usd", 7), ("tokens", 1)), NOW + 5)
    assert (raised.ceiling("tokens"), raised.ceiling("usd"), raised.ceiling("requests")) == (9, 1_000_000_007, None)
    assert raised.valid_until_ms == NOW + 5
    assert account.raised((("tokens", COUNTER_MAX),), None).ceiling("tokens") == COUNTER_MAX


# -- rolling windows -------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["rolling 1s", "rolling 7s", "rolling 60s", "rolling 1000s"]),
    st.lists(st.tuples(st.integers(0, 1_000), st.integers(1, 30)), min_size=1, max_size=60),
)
@example("rolling 7s", [(0, 30)] + [(n, 1) for n in (83, 83, 84, 84, 83, 83, 84, 84, 83, 83, 83, 83, 84, 84)])
def test_no_span_of_a_rolling_window_ever_holds_more_than_the_limit(per: str, calls: list[tuple[int, int]]) -> None:
    """Random placements: (permille of the window that passes, tokens that are asked)."""
    budget = make_budget("b", tokens=60, per=per)
    length_ms, bucket_ms = budget.window.length_ms, budget.window.bucket_ms
    balances: dict[str, Balances] = {}
    placed: list[tuple[int, int]] = []
    instants = accumulate(wait * length_ms // 1_000 for wait, _ in calls)
    for now, (_, tokens) in zip(instants, calls, strict=True):
        account = open_account(budget, {}, NOW + now)
        plan = make_plan(Ask("id", CallFacts(input_tokens=tokens), 0, 0, 0), [account])
        verdict = evaluate(plan, lambda key: balances.get(key, ZERO))

        def within(span_ms: int, at: int = now) -> int:
            return sum(amount for then, amount in placed if at - span_ms < then <= at)

        if verdict.failed:
            assert within(length_ms + 2 * bucket_ms) + tokens > 60, "refused, although it fits by any reckoning"
        else:
            assert within(length_ms) + tokens <= 60, "some span of the window's length now holds too much"
            placed.append((now, tokens))
            (posting,) = plan.postings
            balances[posting.key] = balances.get(posting.key, ZERO).plus(change_of("tokens", tokens))
