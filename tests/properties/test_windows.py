"""
Windows under calls in flight, on every store: nothing passes a limit in any window, and a rollover loses nothing.

Method: random calls at random instants, in zones whose clocks change, at month ends and on leap days; they are settled,
voided or left open at random later instants. The oracle is the list of calls itself: what was admitted when, and what
it came to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.kernel.budget import Budget, make_budget
from farthing.kernel.hold import Outcome
from farthing.kernel.ledger import Denied, Placed
from farthing.kernel.plan import Ask, CallFacts, make_plan
from farthing.kernel.scope import read_account_key
from farthing.kernel.usage import Usage
from farthing.kernel.window import Window, parse_window
from farthing.stores.contract import Clock, Store
from farthing.stores.memory import MemoryStore
from farthing.stores.sqlite import SQLiteStore
from farthing.testing import FakeClock

LIMIT = 100
DAY_MS = 86_400_000
STARTS = st.sampled_from(
    [
        "2026-03-29T00:30",  # clocks go forward in Berlin within the hour
        "2026-10-24T23:30",  # and back
        "2028-02-28T22:00",  # a leap day comes
        "2026-12-31T14:45",  # the year ends in Auckland within minutes
        "2026-04-04T13:00",  # Lord Howe's clocks go back by half an hour
        "2026-11-22T11:58",
    ]
)
CALENDAR = st.builds(
    lambda kind, zone: kind if zone == "UTC" else f"{kind} {zone}",
    st.sampled_from(["minute", "hour", "day", "week", "month"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Auckland", "Australia/Lord_Howe", "America/St_Johns"]),
)
ROLLING = st.sampled_from(["rolling 1s", "rolling 7s", "rolling 60s", "rolling 90m", "rolling 24h", "rolling 31d"])
STEPS = st.lists(
    st.tuples(
        st.integers(0, 1_500),  # how far the clock moves, in thousandths of the window
        st.integers(0, 70),  # what the call asks
        st.integers(0, 100),  # what it comes to, in hundredths of that
        st.integers(0, 4),  # which of the open calls ends here, if there is one
        st.sampled_from(["settle", "void", "leave"]),
    ),
    min_size=1,
    max_size=30,
)
LENGTH_MS = {"minute": 60_000, "hour": 3_600_000, "day": DAY_MS, "week": 7 * DAY_MS, "month": 30 * DAY_MS}


@dataclass
class Call:
    """One admitted call: when it was held, and what it counts for now."""

    at_ms: int
    counts: int
    settled: bool = False


def play(store: Store, clock: FakeClock, per: str, steps: list[tuple[int, int, int, int, str]]) -> list[Call]:
    """Make the calls; after each, no window holds more than the limit."""
    budget = make_budget("b", tokens=LIMIT, per=per)
    store.put_budget(budget).result()
    catalogue = store.catalogue().result()
    window = parse_window(per)
    length_ms = window.length_ms or LENGTH_MS[window.kind]
    calls: list[Call] = []
    open_calls: list[tuple[str, Call]] = []
    for number, (moved, asked, share, which, how) in enumerate(steps):
        clock.advance(milliseconds=moved * length_ms // 1_000)
        account = catalogue.account(budget, {}, store.now())
        ask = Ask(f"call-{number}", CallFacts(input_tokens=asked), 0, 0, 2**50)
        placed = store.place(make_plan(ask, [account], catalogue_version=catalogue.version)).result()
        if isinstance(placed, Placed):
            call = Call(store.now(), asked)
            calls.append(call)
            open_calls.append((ask.id, call))
        else:
            assert isinstance(placed, Denied)
            assert not fits(calls, window, store.now(), asked), "refused although it would have fitted"
        check(calls, window)
        if which < len(open_calls) and how != "leave":
            call_id, call = open_calls.pop(which)
            clock.advance(milliseconds=moved * length_ms // 5_000)
            call.counts = call.counts * share // 100 if how == "settle" else 0
            call.settled = how == "settle"
            usage = Usage(input=call.counts)
            if how == "settle":
                store.settle(call_id, Outcome((call.counts, 0, 1, 0), usage)).result()
            else:
                store.void(call_id).result()
            check(calls, window)
    for call_id, call in open_calls:
        clock.advance(milliseconds=length_ms // 3)
        store.settle(call_id, Outcome((call.counts, 0, 1, 0), Usage(input=call.counts))).result()
        call.settled = True
    return calls


def fits(calls: list[Call], window: Window, now_ms: int, asked: int) -> bool:
    """Whether a call would fit, by what every window may count at most: a rolling one up to one bucket too much."""
    if window.kind == "rolling":
        since_ms = now_ms - now_ms % window.bucket_ms - 12 * window.bucket_ms
        return asked + sum(call.counts for call in calls if call.at_ms >= since_ms) <= LIMIT
    start_ms = window.span(now_ms)[0]
    return asked + sum(call.counts for call in calls if window.span(call.at_ms)[0] == start_ms) <= LIMIT


def check(calls: list[Call], window: Window) -> None:
    for last in calls:
        if window.kind == "rolling":
            within = [call for call in calls if last.at_ms - window.length_ms < call.at_ms <= last.at_ms]
        else:
            within = [call for call in calls if window.span(call.at_ms) == window.span(last.at_ms)]
        assert sum(call.counts for call in within) <= LIMIT


def nothing_is_lost(store: Store, budget: Budget, calls: list[Call]) -> None:
    """Each call's amount stands in the window that it was held in, and nowhere else."""
    expected: dict[int | None, int] = {}
    for call in calls:
        start_ms = budget.window.span(call.at_ms)[0]
        expected[start_ms] = expected.get(start_ms, 0) + call.counts
    found: dict[int | None, int] = {}
    for key, row in store.balances().result().items():
        balance = row.of("tokens")
        assert (balance.held, balance.suspect) == (0, 0)
        start_ms = read_account_key(key)[2]
        found[start_ms] = found.get(start_ms, 0) + balance.settled
    assert {start: amount for start, amount in found.items() if amount} == {
        start: amount for start, amount in expected.items() if amount
    }


def run(make: Callable[[Clock], Store], start: str, per: str, steps: list[tuple[int, int, int, int, str]]) -> None:
    clock = FakeClock(datetime.fromisoformat(start).replace(tzinfo=UTC))
    store = make(clock)
    try:
        nothing_is_lost(store, make_budget("b", tokens=LIMIT, per=per), play(store, clock, per, steps))
    finally:
        store.close()


@settings(max_examples=150)
@given(STARTS, st.one_of(CALENDAR, ROLLING), STEPS)
def test_in_memory(start: str, per: str, steps: list[tuple[int, int, int, int, str]]) -> None:
    run(lambda clock: MemoryStore(clock=clock), start, per, steps)


@settings(max_examples=15)
@given(STARTS, st.one_of(CALENDAR, ROLLING), STEPS)
def test_in_a_file(start: str, per: str, steps: list[tuple[int, int, int, int, str]]) -> None:
    with TemporaryDirectory() as folder:
        run(lambda clock: SQLiteStore(Path(folder, "l.db"), clock=clock, durability="normal"), start, per, steps)


@pytest.mark.parametrize("per", ["day Europe/Berlin", "rolling 60s"])
def test_the_oracle_can_fail(per: str) -> None:
    """A call too many in one window is seen."""
    with pytest.raises(AssertionError):
        check([Call(0, LIMIT), Call(1, 1)], parse_window(per))
