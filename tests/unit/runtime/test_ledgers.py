"""What is known of a ledger's budgets and kept: an account is used for as long as it is the one of this instant."""

from __future__ import annotations

import pytest

import farthing
from farthing.kernel.catalogue import Grant
from farthing.runtime.default import runtime
from farthing.testing import FakeClock

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def test_a_clock_that_is_set_back_leads_to_the_rolling_window_of_then() -> None:
    """The buckets that a clock ahead of time had summed leave out what was spent before."""
    with FakeClock() as clock, farthing.budget("rolling", tokens=1_000, per="rolling 30d") as budget:
        with farthing.hold(tokens=1_000):
            pass
        clock.advance(days=25)
        assert budget.remaining.tokens == 0
        clock.advance(days=15)
        assert budget.remaining.tokens == 1_000
        clock.jump_back(days=15)
        assert budget.remaining.tokens == 0
        with pytest.raises(farthing.BudgetExceeded), farthing.hold(tokens=1):
            pass


def test_a_clock_that_is_set_back_brings_a_grant_back() -> None:
    with FakeClock() as clock, farthing.budget("granted", tokens=1_000) as budget:
        ledger = runtime().main
        grant = Grant("granted", "tokens", 500, clock(), until_ms=clock() + 3_600_000)
        ledger.refresh(ledger.store.grant(grant).result())
        assert budget.remaining.tokens == 1_500
        clock.advance(days=1)
        assert budget.remaining.tokens == 1_000
        clock.jump_back(days=1)
        assert budget.remaining.tokens == 1_500
