"""How holds end: settle, void, suspect, resolve, the late truth, and what the entries say of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from farthing.errors import HoldConflict, HoldNotFound
from farthing.kernel.balances import UNITS, ZERO, Balance, change
from farthing.kernel.ledger import Denied, Placed, Settled
from farthing.stores.contract import Store, Ticket
from farthing.testing import FakeClock

from .calls import outcome, plan
from .conftest import Ask
from .test_holds import put, total

End = Callable[[Store, str], Ticket[Settled]]


@pytest.fixture
def held(store: Store, ask: Ask) -> str:
    """A hold of 150 tokens and 450 nano-dollars on a budget of 1,000 tokens, one dollar and two calls at once."""
    put(store, ask, tokens=1_000, usd=1, concurrency=2)
    ask(store.place(plan(store, "call")))
    return "call"


def balances(store: Store, ask: Ask) -> dict[str, Balance]:
    """By unit, of the only account; zeros where there is none any more."""
    rows = [*ask(store.balances()).values()] or [ZERO]
    return {unit: row.of(unit) for row in rows for unit in UNITS}


NONE = Balance()
HELD = {"tokens": Balance(0, 150), "usd": Balance(0, 450), "requests": Balance(0, 1), "concurrency": Balance(0, 1)}
SETTLED = {"tokens": Balance(120), "usd": Balance(400), "requests": Balance(1), "concurrency": NONE}
SUSPECT = {
    "tokens": Balance(0, 0, 150),
    "usd": Balance(0, 0, 450),
    "requests": Balance(0, 0, 1),
    "concurrency": Balance(),
}
AT_HOLD = {"tokens": Balance(150), "usd": Balance(450), "requests": Balance(1), "concurrency": NONE}
GONE = dict.fromkeys(HELD, NONE)


def test_settle_replaces_the_hold_by_the_real_cost(store: Store, ask: Ask, held: str, clock: FakeClock) -> None:
    assert balances(store, ask) == HELD
    placed_ms = clock()
    clock.advance(seconds=3)
    settled = ask(store.settle(held, outcome(note="a \N{SNOWMAN}")))
    assert balances(store, ask) == SETTLED
    entry = settled.entry
    assert entry is not None
    assert (entry.seq, entry.id, entry.hold_id, entry.kind) == (1, "call", "call", "call")
    assert (entry.at_ms, entry.started_ms) == (clock(), placed_ms)
    assert entry.usage == (("input", 100), ("output", 20), ("reasoning", 10))
    assert (entry.cost_nano, entry.ending, entry.usage_source, entry.suspect) == (400, "ok", "provider", False)
    assert (entry.model, entry.note, entry.facts) == ("gpt-4o-2024-11-20", "a \N{SNOWMAN}", settled.hold.facts)
    assert [made for _, made in entry.changes()] == [change(settled=(120, 400, 1, 0))]
    assert entry.overrun == ()
    assert ask(store.entries()) == [entry]
    assert ask(store.holds()) == ()
    assert ask(store.holds("settled")) == (settled.hold,)


def test_what_exceeds_the_hold_is_an_itemised_overrun_and_blocks_further_holds(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=160, usd=1)
    ask(store.place(plan(store, "call")))
    settled = ask(store.settle("call", outcome(input=100, output=70, usd=500)))
    assert settled.entry is not None
    assert settled.entry.overrun == (("tokens", 20), ("usd", 50))
    assert total(store, ask) == Balance(170)
    assert isinstance(ask(store.place(plan(store, "next", want=1, floor=1, input_tokens=0))), Denied)


def test_an_unknown_price_settles_to_no_cost_which_is_not_zero(store: Store, ask: Ask, held: str) -> None:
    settled = ask(store.settle(held, outcome()._replace(cost_nano=None)))
    assert settled.entry is not None
    assert settled.entry.cost_nano is None
    assert ask(store.entries())[0].cost_nano is None


@pytest.mark.parametrize(
    ("end", "again"),
    [
        (lambda store, hold: store.settle(hold, outcome()), lambda store, hold: store.settle(hold, outcome())),
        (lambda store, hold: store.void(hold), lambda store, hold: store.void(hold)),
        (
            lambda store, hold: store.void(hold, outcome(ending="refused")),
            lambda store, hold: store.void(hold, outcome(ending="refused")),
        ),
        (
            lambda store, hold: store.suspect(hold, ending="timeout"),
            lambda store, hold: store.suspect(hold, ending="timeout"),
        ),
    ],
    ids=["settle", "void", "void with an outcome", "suspect"],
)
def test_repeating_an_end_gives_the_first_answer(store: Store, ask: Ask, held: str, end: End, again: End) -> None:
    first = ask(end(store, held))
    after = balances(store, ask), ask(store.entries())
    assert ask(again(store, held)) == first
    assert (balances(store, ask), ask(store.entries())) == after


@pytest.mark.parametrize(
    "other",
    [
        lambda store, hold: store.settle(hold, outcome(output=21)),
        lambda store, hold: store.settle(hold, outcome(note="other")),
        lambda store, hold: store.void(hold),
        lambda store, hold: store.void(hold, outcome()),
    ],
)
def test_another_end_after_a_settle_is_a_conflict(store: Store, ask: Ask, held: str, other: End) -> None:
    ask(store.settle(held, outcome()))
    with pytest.raises(HoldConflict):
        ask(other(store, held))
    assert balances(store, ask) == SETTLED
    assert len(ask(store.entries())) == 1


def test_a_voided_hold_leaves_no_entry_and_takes_no_settle(store: Store, ask: Ask, held: str) -> None:
    assert ask(store.void(held)).entry is None
    assert balances(store, ask) == GONE
    assert ask(store.entries()) == []
    with pytest.raises(HoldConflict):
        ask(store.settle(held, outcome()))


def test_a_void_with_an_outcome_leaves_an_entry_and_counts_what_it_says(store: Store, ask: Ask, held: str) -> None:
    said = outcome(input=0, output=0, usd=0, ending="refused")
    settled = ask(store.void(held, said))
    assert settled.hold.state == "voided"
    assert settled.entry is not None
    assert (settled.entry.ending, settled.entry.usage, settled.entry.cost_nano) == ("refused", (), 0)
    assert balances(store, ask) == {**GONE, "requests": Balance(1)}


def test_suspect_stays_counted_but_calls_in_flight_are_released(store: Store, ask: Ask, held: str) -> None:
    settled = ask(store.suspect(held, ending="timeout", note="after 60 s"))
    assert balances(store, ask) == SUSPECT
    assert settled.entry is not None
    assert (settled.entry.suspect, settled.entry.ending, settled.entry.note) == (True, "timeout", "after 60 s")
    assert settled.entry.usage == (("input", 100), ("output", 50))
    assert (settled.entry.cost_nano, settled.entry.usage_source) == (450, "estimate")
    assert [made for _, made in settled.entry.changes()] == [ZERO]
    assert ask(store.holds("suspect")) == (settled.hold,)


def test_suspect_money_is_spoken_for(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=150)
    ask(store.place(plan(store, "call")))
    ask(store.suspect("call", ending="timeout"))
    denied = ask(store.place(plan(store, "next")))
    assert isinstance(denied, Denied)
    assert denied.failed[0].balance == Balance(0, 0, 150)


def test_a_suspect_takes_one_late_truth(store: Store, ask: Ask, held: str) -> None:
    ask(store.suspect(held, ending="timeout"))
    late = ask(store.settle(held, outcome()))
    assert balances(store, ask) == SETTLED
    assert late.entry is not None
    assert (late.entry.kind, late.entry.seq) == ("correction", 2)
    assert late.entry.usage == (("output", -30), ("reasoning", 10))
    assert late.entry.cost_nano == -50
    assert late.entry.resolves_suspect
    assert ask(store.settle(held, outcome())) == late
    with pytest.raises(HoldConflict):
        ask(store.settle(held, outcome(output=21)))
    assert balances(store, ask) == SETTLED
    rows = ask(store.entries())
    assert [row.seq for row in rows] == [1, 2]
    assert sum(row.cost_nano or 0 for row in rows) == 400
    assert sum(row.tokens("input", "output") for row in rows) == 120


@pytest.mark.parametrize(
    ("policy", "state", "after"),
    [("settle_at_hold", "settled", AT_HOLD), ("release", "voided", GONE)],
)
def test_a_resolved_suspect_takes_one_late_truth(
    store: Store, ask: Ask, held: str, policy: str, state: str, after: dict[str, Balance]
) -> None:
    ask(store.suspect(held, ending="timeout"))
    resolved = ask(store.resolve(held, policy, note="by hand"))
    assert (resolved.hold.state, resolved.hold.automatic) == (state, True)
    assert resolved.entry is not None
    assert (resolved.entry.ending, resolved.entry.note) == (policy, "by hand")
    assert balances(store, ask) == after
    late = ask(store.settle(held, outcome()))
    assert balances(store, ask) == SETTLED
    assert (late.hold.state, late.hold.automatic) == ("settled", False)
    with pytest.raises(HoldConflict):
        ask(store.settle(held, outcome(output=1)))
    with pytest.raises(HoldConflict):
        ask(store.resolve(held, policy))
    rows = ask(store.entries())
    assert sum(row.cost_nano or 0 for row in rows) == 400
    assert sum(row.tokens("input", "output") for row in rows) == 120


def test_only_a_suspect_is_resolved(store: Store, ask: Ask, held: str) -> None:
    with pytest.raises(HoldConflict):
        ask(store.resolve(held, "release"))
    ask(store.suspect(held, ending="timeout"))
    with pytest.raises(ValueError, match="forget"):
        ask(store.resolve(held, "forget"))
    assert balances(store, ask) == SUSPECT


def test_a_late_void_gives_a_suspect_back(store: Store, ask: Ask, held: str) -> None:
    ask(store.suspect(held, ending="connection_lost"))
    settled = ask(store.void(held))
    assert settled.hold.state == "voided"
    assert balances(store, ask) == GONE
    rows = ask(store.entries())
    assert sum(row.cost_nano or 0 for row in rows) == 0
    assert sum(row.tokens("input", "output") for row in rows) == 0


def test_a_settled_hold_is_not_made_suspect(store: Store, ask: Ask, held: str) -> None:
    first = ask(store.settle(held, outcome()))
    assert ask(store.suspect(held, ending="timeout")) == first
    assert balances(store, ask) == SETTLED


@pytest.mark.parametrize(
    "end",
    [
        lambda store, hold: store.settle(hold, outcome()),
        lambda store, hold: store.void(hold),
        lambda store, hold: store.suspect(hold, ending="timeout"),
        lambda store, hold: store.resolve(hold, "release"),
    ],
)
def test_an_unknown_hold_is_not_found(store: Store, ask: Ask, end: End) -> None:
    with pytest.raises(HoldNotFound) as caught:
        ask(end(store, "nobody"))
    assert caught.value.hold_id == "nobody"


def test_a_wrong_outcome_is_refused_and_the_hold_stays(store: Store, ask: Ask, held: str) -> None:
    for wrong in (outcome()._replace(amounts=(-1, 0, 1, 0)), outcome()._replace(cost_nano=-1)):
        with pytest.raises(ValueError, match="outcome"):
            ask(store.settle(held, wrong))
    assert balances(store, ask) == HELD
    ask(store.settle(held, outcome()))


def test_a_recorded_call_settles_in_one_step_whatever_the_ceilings_say(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=10)
    planned = plan(store, "paid")
    settled = ask(store.record(planned, outcome()))
    assert settled.hold.state == "settled"
    assert total(store, ask) == Balance(120)
    assert ask(store.record(planned, outcome())) == settled
    with pytest.raises(HoldConflict):
        ask(store.record(planned, outcome(output=21)))
    assert ask(store.entries()) == [settled.entry]


def test_a_recorded_call_needs_no_budget(store: Store, ask: Ask) -> None:
    settled = ask(store.record(plan(store, "free", budgets=[]), outcome()))
    assert settled.entry is not None
    assert ([*settled.entry.changes()], settled.entry.cost_nano) == ([], 400)
    assert ask(store.entries()) == [settled.entry]


def test_entries_are_found_by_time(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=10_000)
    times = []
    for number in range(4):
        times.append(clock())
        ask(store.record(plan(store, f"call-{number}"), outcome()))
        clock.advance(seconds=10)
    ids = [f"call-{number}" for number in range(4)]

    def found(since_ms: int | None, until_ms: int | None) -> list[str]:
        return [entry.id for entry in ask(store.entries(since_ms=since_ms, until_ms=until_ms))]

    assert found(None, None) == ids
    assert found(times[1], None) == ids[1:]
    assert found(None, times[2]) == ids[:2]
    assert found(times[1], times[3]) == ids[1:3]
    assert [entry.seq for entry in ask(store.entries())] == [1, 2, 3, 4]


def test_every_kind_of_usage_is_kept(store: Store, ask: Ask) -> None:
    from farthing.kernel.usage import KINDS, Usage

    usage = Usage(**{kind: 100 + at for at, kind in enumerate(KINDS) if kind != "reasoning"}, reasoning=50)
    settled = ask(store.record(plan(store, "call", budgets=[]), outcome()._replace(usage=usage)))
    assert settled.entry is not None
    assert settled.entry.usage == tuple((kind, getattr(usage, kind)) for kind in KINDS)
    assert ask(store.entries()) == [settled.entry]
    assert ask(store.holds("settled"))[0].outcome == settled.hold.outcome


def test_a_place_of_an_ended_id_says_what_became_of_it(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    planned = plan(store, "call")
    ask(store.place(planned))
    ask(store.settle("call", outcome()))
    again = ask(store.place(planned))
    assert isinstance(again, Placed)
    assert again.hold.state == "settled"
    assert total(store, ask) == Balance(120)
