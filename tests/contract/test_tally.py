"""Sums for metrics, and one call by its id: the same figures as the rows themselves have."""

from __future__ import annotations

from farthing.kernel.tallies import Tally, TallyKey
from farthing.kernel.usage import KINDS
from farthing.stores.contract import Store, Tallies
from farthing.testing import FakeClock

from .calls import outcome, plan
from .conftest import Ask, let_pass
from .test_holds import put


def summed(store: Store, ask: Ask, after_seq: int = 0) -> dict[TallyKey, Tally]:
    """The same sums, the slow way."""
    sums: dict[TallyKey, Tally] = {}
    for entry in ask(store.entries()):
        if entry.seq <= after_seq:
            continue
        facts = entry.facts
        key = TallyKey(entry.kind, facts.provider or "", facts.model or "", entry.ending, entry.usage_source)
        before = sums.get(key, Tally())
        sums[key] = Tally(
            before.calls + 1,
            before.priced + (entry.cost_nano is not None),
            before.cost_nano + (entry.cost_nano or 0),
            before.overrun + (1 if entry.overrun else 0),
            before.milliseconds + entry.at_ms - entry.started_ms,
            tuple(number + entry.tokens(kind) for kind, number in zip(KINDS, before.usage, strict=True)),
        )
    return sums


def test_an_empty_ledger_has_no_sums(store: Store, ask: Ask) -> None:
    assert ask(store.tally()) == Tallies(0, {}, True)
    assert ask(store.tally(after_seq=7)) == Tallies(7, {}, False)


def test_sums_are_those_of_the_rows_a_scrape_at_a_time(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=1_000_000)
    for number in range(7):
        ask(store.place(plan(store, f"call {number}")))
        clock.advance(seconds=number)
    ask(store.settle("call 0", outcome()))
    ask(store.settle("call 1", outcome(output=9_000, usd=9_000)))  # beyond its hold
    ask(store.settle("call 2", outcome(ending="cut")))
    ask(store.settle("call 3", outcome()._replace(cost_nano=None)))
    first = ask(store.tally())
    assert (first.seq, first.sums, first.whole) == (4, summed(store, ask), True)
    assert sum(tally.overrun for tally in first.sums.values()) == 1
    ask(store.void("call 4", outcome(input=0, output=0, usd=0, ending="http_500")))
    ask(store.suspect("call 5", ending="timeout"))
    ask(store.settle("call 5", outcome()))  # a correction: its figures are differences
    ask(store.void("call 6"))  # leaves no row
    second = ask(store.tally(after_seq=first.seq))
    assert (second.seq, second.sums, second.whole) == (7, summed(store, ask, first.seq), False)
    assert {key.kind for key in second.sums} == {"call", "correction"}
    assert ask(store.tally()).sums == summed(store, ask)


def test_what_was_rolled_up_is_still_counted(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=1_000_000)
    ask(store.place(plan(store, "suspect")))
    ask(store.suspect("suspect", ending="timeout"))  # stays: nobody knows what it cost
    for number in range(5):
        ask(store.place(plan(store, f"old {number}")))
        ask(store.settle(f"old {number}", outcome(ending="ok" if number % 2 else "cut")))
    before = ask(store.tally())
    clock.advance(days=3)
    ask(store.place(plan(store, "new")))
    ask(store.settle("new", outcome()))
    everything = summed(store, ask)
    let_pass(store, ask, clock)
    while ask(store.roll_up(keep_ms=86_400_000)):
        pass
    assert [entry.id for entry in ask(store.entries())] == ["suspect", "new"]
    # Who begins now counts the same as who has counted all along, and as who comes too late to go on.
    assert ask(store.tally()) == Tallies(7, everything, True)
    assert ask(store.tally(after_seq=2)) == Tallies(7, everything, True)
    later = ask(store.tally(after_seq=before.seq))
    assert (later.seq, later.whole, [tally.calls for tally in later.sums.values()]) == (7, False, [1])


def test_a_call_is_found_by_its_id(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    assert ask(store.find("call")) is None
    ask(store.place(plan(store, "call", tags={"user": "alice"})))
    held = ask(store.find("call"))
    assert held is not None
    assert (held.state, held.facts.tags) == ("held", (("user", "alice"),))
    ask(store.settle("call", outcome()))
    settled = ask(store.find("call"))
    assert settled is not None
    assert (settled.state, settled.outcome) == ("settled", outcome())


def test_a_call_that_nothing_was_held_for_is_found_too(store: Store, ask: Ask) -> None:
    ask(store.record(plan(store, "call"), outcome()))
    found = ask(store.find("call"))
    assert found is not None
    assert (found.state, found.outcome) == ("settled", outcome())
