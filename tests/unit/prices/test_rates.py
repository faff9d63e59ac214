"""The arithmetic of rates: exact, rounded once, and never above its own bound."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.usage import KINDS, Usage
from farthing.prices.rates import Rates, Tier, exact_decimal, make_rates

TOKENS = st.integers(0, 3_000_000)
# Rates that are not whole nano-dollars are the ones that could go wrong: thirds, sevenths, 1/8192 …
RATES = st.builds(Fraction, st.integers(0, 2_000_000), st.sampled_from([1, 3, 7, 1000, 8192]))


def plain(**kinds: int | Fraction) -> dict[str, Fraction]:
    """All kinds at 1,000 nano-dollars a token, but for those named."""
    return {kind: Fraction(kinds.get(kind, 1000)) for kind in KINDS}


def rates_of(*tiers: Tier, fee: Fraction = Fraction(0), marked: bool = False, **variants: list[Tier]) -> Rates:
    return make_rates(
        provider="p", model="m", version="v", standard=tiers, variants=variants, fee=fee, marked_writes=marked
    )


@st.composite
def any_rates(draw: st.DrawFn) -> Rates:
    kinds = st.fixed_dictionaries(dict.fromkeys(KINDS, RATES))
    starts = sorted(draw(st.sets(st.integers(0, 2_000_000), max_size=3)))
    tiers = [Tier(above, draw(kinds)) for above in (-1, *starts)]
    variants = {name: [Tier(-1, draw(kinds))] for name in draw(st.sets(st.sampled_from(["priority", "flex"])))}
    return rates_of(*tiers, fee=draw(RATES), marked=draw(st.booleans()), **variants)


@st.composite
def any_usage(draw: st.DrawFn) -> Usage:
    output = draw(TOKENS)
    counts = {kind: draw(TOKENS) for kind in KINDS if kind not in {"output", "reasoning"}}
    return Usage(output=output, reasoning=draw(st.integers(0, output)), **counts)


@given(any_rates(), any_usage())
def test_a_cost_is_the_exact_sum_rounded_half_up_once(rates: Rates, usage: Usage) -> None:
    step = [step for step in rates.standard if usage.input_tokens > step.above][-1]
    rate = {kind: Fraction(num, rates.den) for kind, num in zip(KINDS, step.nums, strict=True)}
    rate["reasoning"] += rate["output"]
    spoken = usage.output - usage.reasoning
    exact = Fraction(rates.fee, rates.den) + spoken * rate["output"] + usage.reasoning * rate["reasoning"]
    for kind in KINDS:
        if kind not in {"output", "reasoning"}:
            exact += getattr(usage, kind) * rate[kind]
    assert rates.cost_nano(usage) == int(exact + Fraction(1, 2))


@given(any_rates(), any_usage(), st.sampled_from([None, "auto", "default", "priority", "flex"]), st.integers(0, 10_000))
def test_no_split_of_the_usage_costs_more_than_the_bound(
    rates: Rates, usage: Usage, tier: str | None, slack: int
) -> None:
    bound = rates.bound(
        input_tokens=usage.input_tokens + slack, writes_cache=True, cache_1h=True, service_tier=tier
    ).at(usage.output_tokens)
    billed_as = {"auto": [None, "priority"], "priority": [None, "priority"], "flex": [None, "flex"]}.get(
        str(tier), [None]
    )
    for served in billed_as:
        assert rates.cost_nano(usage, service_tier=served) <= bound


@given(any_rates(), any_usage(), st.sampled_from([None, "priority", "flex"]), st.booleans(), st.booleans())
def test_what_no_provider_told_costs_no_less_than_any_split_of_it_and_no_more_than_the_bound(
    rates: Rates, usage: Usage, tier: str | None, untold_input: bool, untold_output: bool
) -> None:
    plain = Usage(input=usage.input_tokens, output=usage.output_tokens)
    told_input = usage._replace(output=0, reasoning=0, output_audio=0, output_image=0)
    told_output = usage._replace(**dict.fromkeys(KINDS[: KINDS.index("output")], 0))
    given_usage = Usage(output=plain.output) if untold_output else told_output
    given_usage += Usage(input=plain.input) if untold_input else told_input
    dear = rates.as_dear_as(
        given_usage,
        untold_input=untold_input,
        untold_output=untold_output,
        writes_cache=True,
        cache_1h=True,
        service_tier=tier,
        audio=True,
        image=True,
    )
    bound = rates.bound(input_tokens=usage.input_tokens, writes_cache=True, cache_1h=True, service_tier=tier)
    cost = rates.cost_nano(dear, service_tier=tier)
    assert rates.cost_nano(usage, service_tier=tier) <= cost <= bound.at(usage.output_tokens)
    assert dear.total_tokens == usage.total_tokens
    if not (untold_input or untold_output):
        assert dear == usage


@given(any_rates(), TOKENS, TOKENS, TOKENS)
def test_without_markers_the_bound_holds_for_what_can_then_happen(
    rates: Rates, fresh: int, cached: int, output: int
) -> None:
    bound = rates.bound(input_tokens=fresh + cached, audio=False, image=False)
    assert rates.cost_nano(Usage(input=fresh, cached=cached, output=output)) <= bound.at(output)
    if not rates.marked_writes:  # the provider may write its cache unasked
        assert rates.cost_nano(Usage(cache_write=fresh, cached=cached, output=output)) <= bound.at(output)


@given(any_rates(), TOKENS, TOKENS)
def test_a_bound_is_made_of_integers_only(rates: Rates, tokens: int, output: int) -> None:
    bound = rates.bound(input_tokens=tokens)
    assert all(type(part) is int for part in (*bound, bound.at(output)))
    assert type(rates.cost_nano(Usage(input=tokens, output=output))) is int


def test_a_tie_rounds_up_and_a_hold_rounds_up_always() -> None:
    rates = rates_of(Tier(-1, plain(input=Fraction(1, 2), output=Fraction(1, 3))))
    assert rates.cost_nano(Usage(input=1)) == 1
    assert rates.cost_nano(Usage(output=1)) == 0
    assert rates.bound(input_tokens=0, audio=False, image=False).slope == 1000 * rates.den  # image output counts always
    assert rates_of(Tier(-1, dict.fromkeys(KINDS, Fraction(1, 3)))).bound(input_tokens=0).at(1) == 1


def test_a_tier_begins_above_its_threshold_and_takes_the_whole_call() -> None:
    rates = rates_of(Tier(-1, plain()), Tier(200_000, plain(input=2000, cached=300, output=5000)))
    assert rates.cost_nano(Usage(input=200_000, output=1)) == 200_000_000 + 1000
    assert rates.cost_nano(Usage(input=200_001, output=1)) == 400_002_000 + 5000
    # Cached tokens count towards the size that picks the tier.
    assert rates.cost_nano(Usage(input=1, cached=200_000)) == 2000 + 60_000_000
    assert rates.bound(input_tokens=200_000).slope == 1000
    assert rates.bound(input_tokens=200_001).slope == 5000


def test_cache_marks_raise_the_bound_only_where_they_decide() -> None:
    dear = plain(cache_write=1250, cache_write_1h=2000)
    marked, unasked = rates_of(Tier(-1, dear), marked=True), rates_of(Tier(-1, dear))
    assert marked.bound(input_tokens=10).base == 10_000
    assert marked.bound(input_tokens=10, writes_cache=True).base == 12_500
    assert marked.bound(input_tokens=10, writes_cache=True, cache_1h=True).base == 20_000
    assert unasked.bound(input_tokens=10).base == 12_500


def test_audio_and_images_count_unless_they_are_ruled_out() -> None:
    rates = rates_of(Tier(-1, plain(input_audio=9000, output_audio=8000, input_image=3000)))
    assert rates.bound(input_tokens=1)[:2] == (9000, 8000)
    assert rates.bound(input_tokens=1, audio=False)[:2] == (3000, 1000)
    assert rates.bound(input_tokens=1, audio=False, image=False)[:2] == (1000, 1000)


def test_a_fee_is_paid_once_a_request() -> None:
    rates = rates_of(Tier(-1, plain()), fee=Fraction(12_000_000))
    assert rates.cost_nano(Usage()) == 12_000_000
    assert rates.bound(input_tokens=0).at(0) == 12_000_000
    assert rates.usd_per_request() == Decimal("0.012")


def test_reasoning_may_have_its_own_rate() -> None:
    rates = rates_of(Tier(-1, plain(output=8000, reasoning=3000)))
    assert rates.cost_nano(Usage(output=10, reasoning=4)) == 6 * 8000 + 4 * 3000
    assert rates.usd_per_million("reasoning") == 3
    dearer = rates_of(Tier(-1, plain(output=3000, reasoning=8000)))
    assert dearer.bound(input_tokens=0).slope == 8000


def test_an_unknown_service_tier_costs_list_price() -> None:
    rates = rates_of(Tier(-1, plain()), priority=[Tier(-1, plain(input=1700))])
    assert rates.cost_nano(Usage(input=1), service_tier="priority") == 1700
    assert rates.cost_nano(Usage(input=1), service_tier="scale") == 1000
    assert rates.cost_nano(Usage(input=1), service_tier="default") == 1000
    assert rates.bound(input_tokens=1, service_tier="scale").base == 1000
    assert rates.bound(input_tokens=1, service_tier="auto").base == 1700


@pytest.mark.parametrize("broken", [{"input": Fraction(1)}, {**plain(), "cached": Fraction(-1)}])
def test_a_schedule_with_a_missing_or_negative_rate_is_refused(broken: dict[str, Fraction]) -> None:
    with pytest.raises(ValueError, match="rate of"):
        rates_of(Tier(-1, broken))


def test_a_schedule_must_begin_at_zero() -> None:
    with pytest.raises(ValueError, match="zero"):
        rates_of(Tier(100, plain()))


@pytest.mark.parametrize(("value", "text"), [("1/8", "0.125"), ("10", "10"), ("1/1000000", "0.000001"), ("0", "0")])
def test_rates_read_as_people_write_them(value: str, text: str) -> None:
    assert f"{exact_decimal(Fraction(value))}".replace("1E-6", "0.000001") == text
