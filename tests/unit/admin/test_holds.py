"""Holds that nobody knows the outcome of: seen after a sweep, ended by hand, corrected by a late truth."""

from __future__ import annotations

import pytest

from farthing.admin.holds import open_holds, resolve_holds
from farthing.errors import HoldConflict, HoldNotFound
from farthing.kernel.balances import change_of
from farthing.kernel.hold import Outcome
from farthing.kernel.plan import CallFacts, Formula, Plan, Posting
from farthing.kernel.usage import Usage
from farthing.stores.memory import MemoryStore
from farthing.testing import FakeClock

MINUTE = 60_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    """Two holds, ``a`` of 10 and ``b`` of 20 tokens, with a minute to live."""
    store = MemoryStore(clock=clock)
    for name, tokens in (("a", 10), ("b", 20)):
        facts = CallFacts("gpt-4o", input_tokens=tokens, price=Formula(tokens), budgets=("day",), tags=(("team", "x"),))
        posting = Posting("day", ("tokens",))
        store.place(Plan(name, facts, 0, 0, clock() + MINUTE, postings=(posting,))).result()
    return store


def test_in_flight_is_held_and_past_its_deadline_suspect(store: MemoryStore, clock: FakeClock) -> None:
    assert [(hold.id, hold.state, hold.tokens, hold.usd_nano) for hold in open_holds(store)] == [
        ("a", "held", 10, 10),
        ("b", "held", 20, 20),
    ]
    clock.advance(seconds=61)
    found = open_holds(store)
    assert [hold.state for hold in found] == ["suspect", "suspect"]
    assert found[0].age_ms == 61_000
    assert found[0].to_dict()["usd"] == "0.00000001"
    assert (found[0].budgets, found[0].tags) == (("day",), {"team": "x"})


def test_looking_resolves_nothing_however_old(store: MemoryStore, clock: FakeClock) -> None:
    clock.advance(days=30)
    assert [hold.state for hold in open_holds(store)] == ["suspect", "suspect"]
    clock.advance(days=30)
    assert [hold.state for hold in open_holds(store)] == ["suspect", "suspect"]
    assert store.balances(["day"]).result() == {"day": change_of("tokens", suspect=30)}


def test_settled_at_hold_or_released(store: MemoryStore, clock: FakeClock) -> None:
    clock.advance(seconds=61)
    open_holds(store)
    (settled,) = resolve_holds(store, ["a"], "settle_at_hold", note="by olga")
    (released,) = resolve_holds(store, ["b"], "release")
    assert (settled.tokens, released.tokens) == (10, 20)
    assert store.balances(["day"]).result() == {"day": change_of("tokens", settled=10)}
    assert store.entries().result()[-2].note == "by olga"
    assert open_holds(store) == []


def test_a_late_truth_still_corrects_it(store: MemoryStore, clock: FakeClock) -> None:
    clock.advance(seconds=61)
    open_holds(store)
    resolve_holds(store, ["a", "b"], "settle_at_hold")
    store.settle("a", Outcome((4, 0, 0, 0), Usage(input=4), 4)).result()
    assert store.balances(["day"]).result() == {"day": change_of("tokens", settled=24)}


def test_only_suspects_can_be_resolved(store: MemoryStore) -> None:
    with pytest.raises(HoldConflict, match="not suspect"):
        resolve_holds(store, ["a"], "release")
    with pytest.raises(HoldNotFound):
        resolve_holds(store, ["c"], "release")
    with pytest.raises(ValueError, match="policy"):
        resolve_holds(store, ["a"], "forget")
