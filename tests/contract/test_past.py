"""Sums, alerts, and putting the past away: rows become daily sums, old accounts go, and the books still add up."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from farthing.errors import HoldNotFound
from farthing.kernel.budget import make_budget
from farthing.kernel.hold import Entry, Outcome
from farthing.kernel.ledger import Denied, Placed
from farthing.kernel.plan import Plan
from farthing.kernel.sums import DAY_MS, HOUR_MS, KEYS, Figures, SumKey, Sums, sum_entries
from farthing.stores.contract import ACCOUNT_GRACE_MS, DenialKey, Store
from farthing.testing import FakeClock

from .calls import outcome, plan
from .conftest import Ask, let_pass
from .test_holds import put

EVERY = ("day", *KEYS)


def write(store: Store, ask: Ask, clock: FakeClock, calls: int, *, seed: int = 1) -> None:
    """Calls over ten days, of several models and endings; some lost and corrected later, some without a price."""
    rng = random.Random(seed)
    put(store, ask, tokens=10**9, per="day", each=["user"])
    lost: list[str] = []
    for number in range(calls):
        clock.advance(minutes=rng.randrange(1, 2 * 10 * 24 * 60 // calls))
        call = plan(store, f"call-{number}", tags={"user": rng.choice("abc"), "feature": rng.choice("xy")})
        facts = call.facts._replace(
            model=rng.choice(["gpt-4o", "claude"]), price=None if rng.random() < 0.2 else call.facts.price
        )
        call = call._replace(facts=facts)
        fate = rng.random()
        if fate < 0.2:
            assert isinstance(ask(store.place(call)), Placed)
            ask(store.suspect(call.id, ending="timeout"))
            lost.append(call.id)
        elif lost and fate < 0.3:
            ask(store.settle(lost.pop(0), outcome(output=rng.randrange(30))))
        else:
            ask(store.record(call, said(call, rng)))


def said(call: Plan, rng: random.Random) -> Outcome:
    told = outcome(output=rng.randrange(50), usd=rng.randrange(1_000))
    return told if call.facts.price is not None else told._replace(cost_nano=None, amounts=(told.amounts[0], 0, 0, 0))


def expected(entries: Any, by: tuple[str, ...]) -> Sums:
    return sum_entries(list[Entry](entries), by)


@pytest.mark.parametrize("by", [(), ("tags",), ("day",), ("hour", "model"), EVERY, ("provider", "budgets")])
def test_sums_are_those_of_the_rows(store: Store, ask: Ask, clock: FakeClock, by: tuple[str, ...]) -> None:
    write(store, ask, clock, 60)
    entries = ask(store.entries())
    assert any(entry.kind == "correction" for entry in entries)
    assert ask(store.sums(by)) == expected(entries, by)


def test_sums_of_no_row_are_none(store: Store, ask: Ask) -> None:
    assert ask(store.sums()) == {}
    with pytest.raises(ValueError, match="not colour"):
        store.sums(["colour"]).result()


def test_a_row_counts_where_its_call_was_placed(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=1_000)
    placed_ms = clock()
    ask(store.place(plan(store, "late")))
    clock.advance(days=1)
    ask(store.settle("late", outcome()))
    (key,) = ask(store.sums(["day"]))
    assert key == SumKey(placed_ms - placed_ms % DAY_MS)
    assert ask(store.sums(until_ms=clock() - HOUR_MS))[SumKey()].calls == 1
    assert ask(store.sums(since_ms=placed_ms + 1)) == {}


def test_a_late_price_makes_a_call_priced(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    call = plan(store, "call")
    call = call._replace(facts=call.facts._replace(price=None))
    ask(store.place(call))
    ask(store.suspect("call", ending="timeout"))
    assert ask(store.sums())[SumKey()].unpriced_calls == 1
    ask(store.void("call", Outcome((0, 0, 1, 0), cost_nano=0, ending="http_500")))
    assert ask(store.sums())[SumKey()] == Figures(calls=1)


def test_entries_come_in_pages(store: Store, ask: Ask, clock: FakeClock) -> None:
    write(store, ask, clock, 25)
    whole = list(ask(store.entries()))
    pages, after = [], 0
    while page := ask(store.entries(after_seq=after, limit=10)):
        assert len(page) <= 10
        pages += page
        after = page[-1].seq
    assert pages == whole
    middle_ms = whole[12].at_ms
    assert list(ask(store.entries(since_ms=middle_ms, limit=5))) == [e for e in whole if e.at_ms >= middle_ms][:5]


def test_accounts_that_no_window_looks_at_any_more_need_not_be_read(store: Store, ask: Ask, clock: FakeClock) -> None:
    for per in ("rolling 60s", "minute", "lifetime"):
        ask(store.put_budget(make_budget(per, tokens=10_000, per=per)))
    for number in range(60):
        ask(store.record(plan(store, f"call-{number}"), outcome()))
        clock.advance(seconds=10)
    now_ms, every = store.now(), ask(store.balances())
    some = ask(store.balances(at_ms=now_ms))
    assert some.items() <= every.items()
    assert len(every) == 60 + 10 + 1
    assert len(some) < 25
    catalogue = ask(store.catalogue())
    for budget in catalogue.budgets.values():
        account = catalogue.account(budget, {}, now_ms)
        assert {key: every[key] for key in account.keys if key in every}.items() <= some.items()


def test_an_alert_is_said_once(store: Store, ask: Ask, clock: FakeClock) -> None:
    assert ask(store.alert_once("a"))
    assert not ask(store.alert_once("a"))
    assert ask(store.alert_once("b", ends_ms=clock() + 1_000))
    clock.advance(seconds=2)
    let_pass(store, ask, clock)
    ask(store.roll_up())
    assert not ask(store.alert_once("b")), "a call of its window may end late, in another process too"
    clock.advance(seconds=ACCOUNT_GRACE_MS / 1000)
    let_pass(store, ask, clock)
    ask(store.roll_up())
    assert ask(store.alert_once("b"))
    assert not ask(store.alert_once("a"))


def test_rolled_up_rows_are_in_the_sums_and_in_the_balances(store: Store, ask: Ask, clock: FakeClock) -> None:
    write(store, ask, clock, 80)
    before, balances = ask(store.sums(EVERY)), ask(store.balances())
    rows = len(ask(store.entries()))
    let_pass(store, ask, clock)
    while ask(store.roll_up(keep_ms=4 * DAY_MS)):
        pass
    entries = ask(store.entries())
    suspects = {hold.id for hold in ask(store.holds("suspect"))}
    assert 0 < len(entries) < rows
    assert all(entry.at_ms >= clock() - 4 * DAY_MS or entry.hold_id in suspects for entry in entries)
    assert ask(store.sums(EVERY)) == before
    kept = ask(store.balances())
    assert kept == {key: balance for key, balance in balances.items() if key in kept}
    assert len(kept) < len(balances)
    # The journal is replayed by the fixture.


def test_a_rolled_up_day_counts_as_a_whole(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=10_000)
    clock.advance(hours=6)
    for number in range(3):
        ask(store.record(plan(store, f"call-{number}"), outcome()))
        clock.advance(hours=1)
    noon_ms = clock()
    clock.advance(days=3)
    let_pass(store, ask, clock)
    while ask(store.roll_up(keep_ms=DAY_MS)):
        pass
    assert ask(store.entries()) == []
    assert ask(store.sums(since_ms=noon_ms))[SumKey()].calls == 3
    (key,) = ask(store.sums(["hour"]))
    assert key == SumKey(noon_ms - noon_ms % DAY_MS)


def test_a_late_word_after_the_roll_up_finds_no_hold(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=1_000)
    ask(store.place(plan(store, "old")))
    ask(store.settle("old", outcome()))
    clock.advance(days=2)
    let_pass(store, ask, clock)
    ask(store.settle("old", outcome()))  # a repetition is answered as long as rows are kept
    while ask(store.roll_up(keep_ms=DAY_MS)):
        pass
    with pytest.raises(HoldNotFound):
        ask(store.settle("old", outcome()))


def test_what_an_automatic_end_may_still_correct_is_kept(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=1_000, per="day")
    ask(store.place(plan(store, "lost")))
    ask(store.suspect("lost", ending="timeout"))
    ask(store.resolve("lost", "settle_at_hold"))
    clock.advance(days=3)
    let_pass(store, ask, clock)
    while ask(store.roll_up()):
        pass
    ask(store.settle("lost", outcome(output=1)))
    assert [row.settled_tokens for row in ask(store.balances()).values()] == [101]
    while ask(store.roll_up()):
        pass
    assert ask(store.balances()) == {}


def test_a_hold_in_flight_keeps_its_window(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=1_000, per="minute")
    ask(store.place(plan(store, "slow")))
    clock.advance(days=1)
    let_pass(store, ask, clock)
    while ask(store.roll_up(keep_ms=HOUR_MS)):
        pass
    ask(store.settle("slow", outcome()))
    assert [row.settled for row in ask(store.balances()).values()] == [(120, 400, 1, 0)]


def test_counts_of_denials_become_daily(store: Store, ask: Ask, clock: FakeClock) -> None:
    start_ms = clock() - clock() % DAY_MS
    keys = [
        DenialKey(start_ms + hour * HOUR_MS, budget, "tokens", "gpt-4o", "openai", (("user", "a"),), False)
        for hour in (0, 3, 9)
        for budget in ("b", "c")
    ]
    ask(store.add_denials(dict.fromkeys(keys, 2)))
    clock.advance(days=5)
    let_pass(store, ask, clock)
    while ask(store.roll_up(keep_ms=DAY_MS)):
        pass
    counts = ask(store.denials())
    assert sum(counts.values()) == 12
    assert {(key.budget, count) for key, count in counts.items()} == {("b", 6), ("c", 6)}
    assert {key.hour_ms for key in counts} == {start_ms}


# -- a clock that leaps ----------------------------------------------------------------------------------------------


def spent(store: Store, ask: Ask) -> int:
    """What is left of the account of this instant is what a ledger admits."""
    account = ask(store.catalogue()).account(ask(store.catalogue()).budgets["b"], {}, store.now())
    return sum(row.settled_tokens for row in ask(store.balances(account.keys)).values())


@pytest.mark.parametrize("per", ["day", "month", "rolling 7d"])
@pytest.mark.parametrize("minutes", [1, 29])
def test_a_clock_that_is_wrong_for_a_while_gives_no_second_budget(
    store: Store, ask: Ask, clock: FakeClock, per: str, minutes: int
) -> None:
    """The window that it leaves behind is not over."""
    put(store, ask, tokens=1_000, per=per)
    while ask(store.roll_up()):
        pass
    ask(store.record(plan(store, "call"), outcome()))
    assert ask(store.alert_once("said", ends_ms=clock() + DAY_MS))
    assert spent(store, ask) == 120
    clock.advance(days=40)
    for _ in range(3):
        ask(store.sweep())
        assert not ask(store.roll_up(keep_ms=DAY_MS))
        clock.advance(minutes=minutes / 3)
    assert spent(store, ask) == 0
    clock.jump_back(days=40)
    ask(store.sweep())
    while ask(store.roll_up(keep_ms=DAY_MS)):
        pass
    assert spent(store, ask) == 120
    assert len(ask(store.entries())) == 1
    assert not ask(store.alert_once("said"))


@pytest.mark.parametrize(("per", "hours"), [("month", 5), ("day", 5), ("rolling 1d", 28)])
def test_nor_does_one_that_ran_hours_ahead_for_long(
    store: Store, ask: Ask, clock: FakeClock, per: str, hours: int
) -> None:
    """It was set to local time as if that were UTC, say, and is put right: back into a window that it had left."""

    def pass_time(hours: int) -> None:
        for _ in range(2 * hours):
            clock.advance(minutes=30)
            ask(store.sweep())
            while ask(store.roll_up()):
                pass

    clock.set(datetime(2026, 2, 28, tzinfo=UTC))
    put(store, ask, tokens=150, per=per)
    pass_time(22)
    assert isinstance(ask(store.place(plan(store, "first"))), Placed)
    ask(store.settle("first", outcome(output=50)))
    pass_time(hours)
    clock.jump_back(hours=5, minutes=30)
    assert isinstance(ask(store.place(plan(store, "second"))), Denied)


def test_a_clock_that_was_right_after_all_is_believed(store: Store, ask: Ask, clock: FakeClock) -> None:
    """A machine that slept: time has passed, and it goes on."""
    put(store, ask, tokens=1_000, per="day")
    ask(store.record(plan(store, "call"), outcome()))
    clock.advance(days=40)
    for _ in range(2):
        assert not ask(store.roll_up(keep_ms=DAY_MS))
        clock.advance(minutes=15)
    while ask(store.roll_up(keep_ms=DAY_MS)):
        pass
    assert (ask(store.balances()), ask(store.entries())) == ({}, [])
