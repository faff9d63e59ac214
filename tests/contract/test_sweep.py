"""What time does to holds: deadlines, old suspects, calls in flight."""

from __future__ import annotations

import pytest

from farthing.errors import HoldConflict
from farthing.kernel.balances import ZERO, Balance
from farthing.kernel.ledger import Denied, Placed
from farthing.stores.contract import SUSPECT_AFTER_MS, SWEEP_BATCH, Store, SweepPolicy
from farthing.testing import FakeClock

from .calls import outcome, plan
from .conftest import Ask
from .test_endings import AT_HOLD, GONE, SETTLED, SUSPECT, balances
from .test_holds import put, total


@pytest.fixture
def expired(store: Store, ask: Ask, clock: FakeClock) -> str:
    put(store, ask, tokens=1_000, usd=1, concurrency=1)
    ask(store.place(plan(store, "call", deadline_ms=clock() + 1_000)))
    assert isinstance(ask(store.place(plan(store, "second"))), Denied)
    clock.advance(milliseconds=999)
    assert ask(store.sweep()) == ()
    clock.advance(milliseconds=1)
    return "call"


def test_past_its_deadline_a_hold_is_suspect_and_its_place_in_flight_released(
    store: Store, ask: Ask, expired: str
) -> None:
    (settled,) = ask(store.sweep())
    assert (settled.hold.state, settled.hold.id) == ("suspect", expired)
    assert settled.entry is not None
    assert (settled.entry.ending, settled.entry.suspect) == ("expired", True)
    assert balances(store, ask) == SUSPECT
    assert ask(store.entries()) == [settled.entry]
    assert ask(store.sweep()) == ()


def test_a_late_settle_releases_nothing_twice(store: Store, ask: Ask, expired: str) -> None:
    ask(store.sweep())
    assert isinstance(ask(store.place(plan(store, "second"))), Placed)
    ask(store.settle(expired, outcome()))
    assert balances(store, ask)["concurrency"] == Balance(0, 1)
    assert isinstance(ask(store.place(plan(store, "third"))), Denied)
    ask(store.void("second"))
    assert balances(store, ask) == SETTLED


@pytest.mark.parametrize(("policy", "after"), [("settle_at_hold", AT_HOLD), ("release", GONE), ("keep", SUSPECT)])
def test_an_old_suspect_is_resolved_as_the_policy_says(
    store: Store, ask: Ask, clock: FakeClock, expired: str, policy: str, after: dict[str, Balance]
) -> None:
    sweep = SweepPolicy(suspect_policy=policy)
    ask(store.sweep(sweep))
    clock.advance(milliseconds=SUSPECT_AFTER_MS - 1)
    assert ask(store.sweep(sweep)) == ()
    assert balances(store, ask) == SUSPECT
    clock.advance(milliseconds=1)
    assert len(ask(store.sweep(sweep))) == (0 if policy == "keep" else 1)
    assert balances(store, ask) == after
    ask(store.settle(expired, outcome()))
    assert balances(store, ask) == SETTLED
    with pytest.raises(HoldConflict):
        ask(store.settle(expired, outcome(output=21)))


def test_an_unknown_policy_is_an_error(store: Store, ask: Ask, expired: str) -> None:
    with pytest.raises(ValueError, match="suspect_policy"):
        ask(store.sweep(SweepPolicy(suspect_policy="forget")))


def test_a_pass_is_bounded_and_the_next_goes_on(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=10**6)
    for number in range(SWEEP_BATCH + 10):
        store.place(plan(store, f"call-{number}", deadline_ms=clock() + 1)).result()
    healthy = ask(store.place(plan(store, "healthy")))
    assert isinstance(healthy, Placed)
    clock.advance(seconds=1)
    assert len(ask(store.sweep())) == SWEEP_BATCH
    assert len(ask(store.sweep())) == 10
    assert ask(store.sweep()) == ()
    assert ask(store.holds("held")) == (healthy.hold,)
    assert total(store, ask) == Balance(0, 150, 150 * (SWEEP_BATCH + 10))


def test_a_settled_call_is_not_swept(store: Store, ask: Ask, expired: str) -> None:
    ask(store.settle(expired, outcome()))
    assert ask(store.sweep()) == ()
    assert balances(store, ask) == SETTLED


def test_a_hold_that_ends_in_the_same_breath_is_not_swept(store: Store, ask: Ask, expired: str) -> None:
    # Queued together, they may be one group of a store that works in groups.
    settling, sweeping = store.settle(expired, outcome()), store.sweep()
    ask(settling)
    assert ask(sweeping) == ()
    assert balances(store, ask) == SETTLED


def test_nothing_is_swept_where_nothing_is(store: Store, ask: Ask) -> None:
    assert ask(store.sweep()) == ()
    assert ask(store.balances(["never"])) == {"never": ZERO}
