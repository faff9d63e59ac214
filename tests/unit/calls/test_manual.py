"""Holds and records by hand: what they cost, and whose they are."""

from __future__ import annotations

from decimal import Decimal

import pytest

import farthing
from tests.doors.clients import entries

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def test_an_amount_that_was_held_is_not_free_because_no_price_is_known() -> None:
    """I9: an unknown price is never zero."""
    with farthing.budget(usd=10) as budget:
        with farthing.hold(usd=2) as held:
            held.settle(tokens=500)
        assert (budget.spent.usd, budget.spent.tokens) == (Decimal(2), 500)
    assert "price was not known" in str(entries()[-1].note)


def test_a_known_cost_or_price_goes_before_what_was_held() -> None:
    with farthing.budget(usd=10) as budget:
        with farthing.hold(usd=2) as held:
            held.settle(tokens=500, usd=Decimal("0.5"))
        with farthing.hold(usd=2, model="gpt-4o") as held:
            held.settle({"input_tokens": 1_000_000})
        assert budget.spent.usd == Decimal("3.0")
    assert entries()[-1].note is None


def test_the_provider_says_whose_price_and_whose_scope() -> None:
    with farthing.budget("azures", usd=10, scope={"provider": "azure"}) as azures:
        for provider in ("azure", None):
            with farthing.hold(tokens=100, model="gpt-4o", provider=provider) as held:
                held.settle({"input_tokens": 100})
            farthing.record({"input_tokens": 100}, model="gpt-4o", provider=provider)
        assert azures.spent.tokens == 200
    assert [row.facts.provider for row in entries()] == ["azure", "azure", "openai", "openai"]
    assert {row["tags"]["provider"]: row["calls"] for row in farthing.report(group_by=["provider"])} == {
        "azure": 2,
        "openai": 2,
    }


def test_a_provider_without_a_known_price_is_kept_all_the_same() -> None:
    with pytest.warns(farthing.UnpricedModelWarning):
        farthing.record({"input_tokens": 5}, model="my-model", provider="my-cloud")
    assert entries()[-1].facts.provider == "my-cloud"
    with pytest.raises(ValueError, match="provider"):
        farthing.record({"input_tokens": 5}, provider="")


def test_what_a_program_registers_outlives_a_reset() -> None:
    farthing.prices.register("house-model", input=1, output=2)
    farthing.tokens.register("house-model", len)
    try:
        farthing.reset()
        assert farthing.estimate("house-model", "four") == Decimal(4) / 1_000_000
    finally:
        farthing.prices.unregister("house-model")
        farthing.tokens.unregister("house-model")
