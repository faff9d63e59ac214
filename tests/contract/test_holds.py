"""Placing holds: admission, evidence, atomicity, staleness."""

from __future__ import annotations

from decimal import Decimal

import pytest

from farthing.errors import HoldConflict, HoldNotFound
from farthing.kernel.balances import ZERO, Balance, change
from farthing.kernel.budget import make_budget
from farthing.kernel.ledger import Denied, Placed, Stale
from farthing.stores.contract import Store
from farthing.testing import FakeClock

from .calls import outcome, plan
from .conftest import Ask


def put(store: Store, ask: Ask, name: str = "b", **terms: object) -> None:
    ask(store.put_budget(make_budget(name, **terms)))  # type: ignore[arg-type]


def total(store: Store, ask: Ask) -> Balance:
    """The sum over the accounts in tokens."""
    found = [row.of("tokens") for row in ask(store.balances()).values()]
    return Balance(*(sum(column) for column in zip(*found, strict=True))) if found else Balance()


def test_exactly_at_the_limit_is_admitted_and_one_more_is_not(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=300)
    assert isinstance(ask(store.place(plan(store, "one"))), Placed)
    assert isinstance(ask(store.place(plan(store, "two"))), Placed)
    denied = ask(store.place(plan(store, "three", want=1, floor=1, input_tokens=0)))
    assert isinstance(denied, Denied)
    (failed,) = denied.failed
    assert (failed.asked, failed.balance) == (1, Balance(0, 300, 0))
    assert total(store, ask) == Balance(0, 300, 0)


def test_a_hold_keeps_what_it_was_placed_with(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=1_000, usd=Decimal("0.001"), per="day", each=["user"], concurrency=None)
    planned = plan(store, "call", tags={"user": 'zoë \N{FACE WITH TEARS OF JOY} "quoted"', "run": "7"})
    placed = ask(store.place(planned))
    assert isinstance(placed, Placed)
    hold = placed.hold
    assert (hold.id, hold.state, hold.facts, hold.postings) == ("call", "held", planned.facts, planned.postings)
    assert (hold.x, hold.x_want, hold.x_floor, hold.deadline_ms) == (50, 50, 16, planned.deadline_ms)
    assert hold.placed_ms == hold.changed_ms == clock()
    assert ask(store.holds()) == (hold,)
    assert ask(store.holds("suspect")) == ()
    assert hold.amounts == (150, 450, 1, 1)
    assert ask(store.balances([planned.postings[0].key, "never"])) == {
        planned.postings[0].key: change(held=(150, 450, 1, 1)),
        "never": ZERO,
    }


def test_every_failing_line_is_named_and_nothing_is_changed(store: Store, ask: Ask) -> None:
    put(store, ask, "tight", tokens=10)
    put(store, ask, "roomy", tokens=10_000)
    put(store, ask, "poor", usd=Decimal("0.0000001"))
    put(store, ask, "none", requests=0)
    denied = ask(store.place(plan(store, "call")))
    assert isinstance(denied, Denied)
    assert {(result.line.budget.name, result.line.unit) for result in denied.failed} == {
        ("tight", "tokens"),
        ("poor", "usd"),
        ("none", "requests"),
    }
    assert ask(store.holds()) == ()
    assert all(balance == ZERO for balance in ask(store.balances()).values())


def test_a_denial_is_not_remembered(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=150)
    ask(store.place(plan(store, "first")))
    assert isinstance(ask(store.place(plan(store, "second"))), Denied)
    ask(store.void("first"))
    assert isinstance(ask(store.place(plan(store, "second"))), Placed)


def test_repeating_a_place_gives_the_first_answer_and_holds_once(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    planned = plan(store, "call")
    first = ask(store.place(planned))
    assert ask(store.place(planned)) == first
    assert total(store, ask) == Balance(0, 150, 0)


def test_the_same_id_with_another_body_is_a_conflict(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    ask(store.place(plan(store, "call")))
    with pytest.raises(HoldConflict) as caught:
        ask(store.place(plan(store, "call", want=51)))
    assert caught.value.hold_id == "call"
    assert total(store, ask) == Balance(0, 150, 0)


def test_a_clamp_shrinks_to_what_fits_and_the_tightest_budget_decides(store: Store, ask: Ask) -> None:
    put(store, ask, "wide", tokens=140, on_exceed="clamp")
    put(store, ask, "narrow", tokens=130, on_exceed="clamp")
    placed = ask(store.place(plan(store, "call")))
    assert isinstance(placed, Placed)
    assert placed.hold.x == 30
    assert {key: row.held_tokens for key, row in ask(store.balances()).items()} == {
        posting.key: 130 for posting in placed.hold.postings
    }


def test_a_clamp_below_the_floor_is_denied(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=115, on_exceed="clamp")
    denied = ask(store.place(plan(store, "call")))
    assert isinstance(denied, Denied)
    assert denied.failed[0].asked == 116
    assert isinstance(ask(store.place(plan(store, "smaller", floor=15))), Placed)


def test_a_rigid_line_is_checked_at_what_was_asked_whatever_a_clamp_grants(store: Store, ask: Ask) -> None:
    put(store, ask, "block", tokens=140)
    put(store, ask, "clamp", tokens=120, on_exceed="clamp")
    denied = ask(store.place(plan(store, "call")))
    assert isinstance(denied, Denied)
    assert [(result.line.budget.name, result.asked) for result in denied.failed] == [("block", 150)]


def test_money_with_fractions_is_rounded_up_once_a_posting(store: Store, ask: Ask) -> None:
    put(store, ask, usd=Decimal("0.000001"), on_exceed="clamp")
    placed = ask(store.place(plan(store, "call", want=10_000)))
    assert isinstance(placed, Placed)
    # ceil((1000 + 7x) / 3) <= 1000 nano-dollars: x = 285 costs 998 and a third, 286 would cost more than 1000.
    assert placed.hold.x == 285
    (posting,) = placed.hold.postings
    assert ask(store.balances([posting.key]))[posting.key].of("usd") == Balance(0, 999, 0)


def test_warn_posts_without_a_check_and_says_what_it_would_have_done(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=100, on_exceed="warn")
    placed = ask(store.place(plan(store, "call")))
    assert isinstance(placed, Placed)
    assert [(result.line.budget.name, result.asked) for result in placed.advisory] == [("b", 150)]
    assert total(store, ask) == Balance(0, 150, 0)


def test_raise_admits_while_less_than_the_limit_is_spent(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=100, on_exceed="raise")
    assert isinstance(ask(store.place(plan(store, "a"))), Placed)
    assert isinstance(ask(store.place(plan(store, "b"))), Placed)
    ask(store.settle("a", outcome()))
    assert isinstance(ask(store.place(plan(store, "c"))), Denied)


def test_a_plan_from_an_older_catalogue_is_stale(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    old = plan(store, "call")
    put(store, ask, "b2", tokens=1)
    assert ask(store.place(old)) == Stale(2)
    assert total(store, ask) == Balance()
    assert isinstance(ask(store.place(plan(store, "call"))), Denied)


def test_a_plan_is_stale_when_its_window_is_over_and_a_new_window_is_a_new_account(
    store: Store, ask: Ask, clock: FakeClock
) -> None:
    put(store, ask, tokens=150, per="day")
    first, late = plan(store, "first"), plan(store, "late")
    ask(store.place(first))
    clock.advance(hours=24)
    assert ask(store.place(late)) == Stale(1)
    assert isinstance(ask(store.place(plan(store, "late"))), Placed)
    # The first settles into the window it was placed in.
    ask(store.settle("first", outcome()))
    (posting,) = first.postings
    assert ask(store.balances([posting.key]))[posting.key].of("tokens") == Balance(120, 0, 0)


def test_a_clock_that_jumps_back_opens_no_window_twice(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=150, per="minute")
    clock.advance(seconds=30)
    ask(store.place(plan(store, "first")))
    now_ms = store.now()
    clock.jump_back(seconds=45)
    assert store.now() == now_ms
    assert isinstance(ask(store.place(plan(store, "second"))), Denied)


def test_a_rolling_window_lets_in_again_what_has_left_it(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=150, per="rolling 60s")
    ask(store.place(plan(store, "first")))
    ask(store.settle("first", outcome(input=100, output=50)))
    clock.advance(seconds=59)
    assert isinstance(ask(store.place(plan(store, "second"))), Denied)
    clock.advance(seconds=6)
    assert isinstance(ask(store.place(plan(store, "second"))), Placed)


def test_a_replaced_hold_gives_its_room_back_in_the_same_step(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=200)
    ask(store.place(plan(store, "estimate")))
    placed = ask(store.place(plan(store, "exact", want=100), replaces="estimate"))
    assert isinstance(placed, Placed)
    assert total(store, ask) == Balance(0, 200, 0)
    assert [hold.id for hold in ask(store.holds())] == ["exact"]
    assert ask(store.entries()) == []


def test_a_denied_replacement_leaves_the_old_hold(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=200)
    ask(store.place(plan(store, "estimate")))
    assert isinstance(ask(store.place(plan(store, "exact", want=101), replaces="estimate")), Denied)
    assert [hold.id for hold in ask(store.holds())] == ["estimate"]
    assert total(store, ask) == Balance(0, 150, 0)


def test_only_an_open_hold_can_be_replaced(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    with pytest.raises(HoldNotFound):
        ask(store.place(plan(store, "new"), replaces="nobody"))
    ask(store.place(plan(store, "old")))
    ask(store.settle("old", outcome()))
    with pytest.raises(HoldConflict):
        ask(store.place(plan(store, "new"), replaces="old"))
    assert ask(store.holds()) == ()


def test_resize_shrinks_only(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000, usd=1)
    ask(store.place(plan(store, "call")))
    assert ask(store.resize("call", x=20)).x == 20
    assert total(store, ask) == Balance(0, 120, 0)
    assert ask(store.holds())[0].amounts == (120, 380, 1, 1)
    for wrong in (21, -1):
        with pytest.raises(ValueError, match="x="):
            ask(store.resize("call", x=wrong))
    ask(store.settle("call", outcome()))
    with pytest.raises(HoldConflict):
        ask(store.resize("call", x=1))
    with pytest.raises(HoldNotFound):
        ask(store.resize("nobody", x=1))


def test_extend_moves_a_deadline_out_and_never_back(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=1_000)
    ask(store.place(plan(store, "call", deadline_ms=clock() + 1_000)))
    assert ask(store.extend("call", deadline_ms=clock() + 5_000)).deadline_ms == clock() + 5_000
    assert ask(store.extend("call", deadline_ms=clock() + 2_000)).deadline_ms == clock() + 5_000
    clock.advance(seconds=2)
    assert ask(store.sweep()) == ()
    ask(store.settle("call", outcome()))
    assert ask(store.extend("call", deadline_ms=clock() + 9_000)).state == "settled"
