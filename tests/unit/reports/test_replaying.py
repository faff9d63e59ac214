"""
Replay: a history made again under other budgets, by the ledger's own rules.

Sizes are chosen so that the answer can be counted by hand; one property says that a history replayed under the budgets
that it was made under is what it was.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import prices
from farthing.kernel.budget import Budget, make_budget
from farthing.kernel.hold import Outcome
from farthing.kernel.ledger import Placed
from farthing.kernel.plan import Ask, CallFacts, Formula, make_plan
from farthing.kernel.usage import Usage
from farthing.kernel.window import ms_from_datetime
from farthing.reports.past import Past, read_past
from farthing.reports.replaying import UNPRICED, Replayed, replay
from farthing.runtime.in_force import without_usd
from farthing.runtime.ledgers import Ledger
from farthing.runtime.settings import Settings
from farthing.stores.memory import MemoryStore
from farthing.testing import FakeClock

NOON = ms_from_datetime(datetime(2026, 11, 22, 12, tzinfo=UTC))
MINUTE = 60_000
IN, OUT = 2_500, 10_000
"""gpt-4o's published rates, in nano-dollars a token."""


def call(
    number: int,
    at_ms: int,
    *,
    took_ms: int = 1_000,
    want: int = 100,
    used: int = 50,
    model: str = "gpt-4o",
    priced: bool = True,
    **tags: str,
) -> Past:
    """One call with 10 tokens of input: it asks for up to 100 of output and uses 50."""
    usage = Usage(input=10, output=used)
    return Past(
        id=f"call-{number}",
        started_ms=NOON + at_ms,
        ended_ms=NOON + at_ms + took_ms,
        facts=CallFacts(
            model=model,
            provider="openai",
            tags=tuple(tags.items()),
            budgets=("then",),
            input_tokens=10,
            price=Formula(10 * IN, OUT) if priced else None,
        ),
        x_want=want,
        x_floor=1,
        usage=usage,
        cost_nano=10 * IN + used * OUT if priced else None,
        ending="ok",
    )


def again(calls: list[Past], *budgets: Any, tag_names: tuple[str, ...] = (), **given: Any) -> Replayed:
    made = [make_budget(f"b{number}", **terms) for number, terms in enumerate(budgets)]
    return replay(calls, made, settings=Settings(**given), prices=prices.default_book, tag_names=tag_names)


EVERY_MINUTE = [call(number, number * MINUTE) for number in range(20)]


def test_without_budgets_nothing_changes() -> None:
    found = again(EVERY_MINUTE)
    assert (found.whole.calls, found.whole.denied, found.whole.spent_nano) == (20, 0, found.whole.would_nano)
    assert (found.starts_ms, found.ends_ms) == (NOON, NOON + 19 * MINUTE + 1_000)


def test_a_limit_denies_what_does_not_fit() -> None:
    """Each call holds 110 tokens and settles to 60: 600 tokens are 9 calls, and then 60 are left for a hold of 110."""
    found = again(EVERY_MINUTE, {"tokens": 600})
    assert (found.whole.calls, found.whole.denied) == (20, 11)
    assert found.budgets["b0"].denied == 11
    assert found.budgets["b0"].first_ms == NOON + 9 * MINUTE
    assert found.whole.would_nano == 9 * (10 * IN + 50 * OUT)
    assert found.whole.spent_nano == 20 * (10 * IN + 50 * OUT)


def test_windows_are_those_of_the_history() -> None:
    hourly = [call(number, number * 20 * MINUTE) for number in range(12)]
    found = again(hourly, {"requests": 2, "per": "hour"})
    assert (found.whole.calls, found.whole.denied) == (12, 4)
    found = again(EVERY_MINUTE, {"requests": 1, "per": "rolling 5m"})
    assert found.whole.denied == 16


def test_calls_in_flight_at_once_are_in_each_others_way() -> None:
    together = [call(number, 0, took_ms=30_000) for number in range(5)]
    assert again(together, {"tokens": 300}).whole.denied == 3
    assert again(together, {"concurrency": 2}).whole.denied == 3
    one_by_one = [call(number, number * 30_000, took_ms=30_000) for number in range(5)]
    assert again(one_by_one, {"tokens": 350, "concurrency": 1}).whole.denied == 0, (
        "what ends at an instant is back by then"
    )


def test_each_value_has_its_account_and_tags_are_summed() -> None:
    calls = [call(number, number * MINUTE, user="alice" if number % 4 else "bob") for number in range(20)]
    found = again(calls, {"requests": 6, "each": ["user"]}, tag_names=("user", "model"))
    assert found.tags["user", "alice"].denied == 15 - 6
    assert found.tags["user", "bob"].denied == 0
    assert found.tags["model", "gpt-4o"].calls == 20
    found = again(calls, {"requests": 0, "scope": {"user": "bob"}}, tag_names=("user",))
    assert (found.tags["user", "bob"].denied, found.whole.denied, found.budgets["b0"].calls) == (5, 5, 5)


def test_a_downgrade_costs_what_the_cheaper_model_costs() -> None:
    terms = {"usd": 0.0036, "on_exceed": "downgrade", "downgrade": {"gpt-4o": "gpt-4o-mini"}}
    found = again(EVERY_MINUTE, terms)
    dear, cheap = 10 * IN + 50 * OUT, 10 * 150 + 50 * 600
    first = 5  # 0.0036 holds 1,025,000 and settles 525,000 nano-dollars each: 5 × 525,000 + 1,025,000 > 3,600,000
    assert (found.whole.denied, found.whole.downgraded) == (0, 15)
    assert found.whole.would_nano == first * dear + (20 - first) * cheap
    assert found.budgets["b0"].downgraded == 15


def test_a_clamp_cuts_answers_and_says_which_budget() -> None:
    found = again(EVERY_MINUTE[:3], {"tokens": 10_000}, {"tokens": 150, "on_exceed": "clamp"})
    # 150 − 10 = 140 of output fit, then 90 − 10 = 80, then 30 − 10 = 20 of the 50 that were used
    assert (found.whole.clamped, found.whole.denied) == (1, 0)
    assert (found.budgets["b0"].clamped, found.budgets["b1"].clamped) == (0, 1)
    assert found.whole.would_nano == found.whole.spent_nano - 30 * OUT


def test_one_that_waits_passes_when_something_comes_back_or_gives_up() -> None:
    together = [call(number, 0, took_ms=10_000) for number in range(4)]
    found = again(together, {"concurrency": 1, "on_exceed": "wait", "wait_seconds": 25})
    assert (found.whole.waited, found.whole.denied) == (2, 1), "at 10 s, at 20 s; the last one gives up at 25 s"
    refills = [call(number, 50_000 + number) for number in range(3)]
    found = again(refills, {"requests": 2, "per": "minute", "on_exceed": "wait", "wait_seconds": 30})
    assert (found.whole.waited, found.whole.denied) == (1, 0)


def test_warn_lets_pass_and_says_so() -> None:
    found = again(EVERY_MINUTE, {"requests": 5, "on_exceed": "warn"})
    assert (found.whole.denied, found.whole.warned, found.budgets["b0"].warned) == (0, 15, 15)


def test_raise_and_truncate_deny_too() -> None:
    assert again(EVERY_MINUTE, {"tokens": 100, "on_exceed": "raise"}).whole.denied == 18
    assert again(EVERY_MINUTE, {"tokens": 110, "on_exceed": "truncate"}).whole.denied == 19


def test_a_call_without_a_price_follows_the_policy() -> None:
    calls = [call(0, 0, priced=False, model="our-own")]
    assert again(calls, {"usd": 1}).budgets[UNPRICED].denied == 1
    assert again(calls, {"usd": 1}, unpriced="tokens_only").whole.denied == 0
    assert again(calls, {"tokens": 1000}).whole.denied == 0


# -- reading a history -----------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


def place(store: MemoryStore, number: int, *, want: int = 100, budgets: tuple[str, ...] = ("b",)) -> str:
    ask = Ask(f"call-{number}", CallFacts("gpt-4o", "openai", budgets=budgets, input_tokens=10), want, 1, 2**50)
    store.place(make_plan(ask, ())).result()
    return ask.id


def test_corrections_are_the_truth_of_a_call(clock: FakeClock) -> None:
    store = MemoryStore(clock=clock)
    lost, kept = place(store, 0), place(store, 1)
    store.suspect(lost, ending="timeout").result()
    store.suspect(kept, ending="timeout").result()
    clock.advance(seconds=5)
    usage = Usage(input=8, output=20)
    store.settle(lost, Outcome((28, 0, 1, 0), usage, 7)).result()
    first, second = read_past(store)
    assert (first.usage, first.cost_nano, first.x_want, first.ended_ms) == (usage, 7, 100, NOON)
    assert second.usage == Usage(input=10, output=100)


def test_where_nothing_was_held_what_was_used_stands_for_what_was_asked(clock: FakeClock) -> None:
    store = MemoryStore(clock=clock)
    plan = make_plan(Ask("call", CallFacts("gpt-4o", "openai", choices=2), 0, 0, 0), ())
    store.record(plan, Outcome(usage=Usage(input=5, output=31), cost_nano=9)).result()
    (found,) = read_past(store)
    assert (found.x_want, found.x_floor, found.facts.input_tokens, found.facts.price) == (16, 1, 5, Formula(9))
    assert again([found]).unheld == 1


def test_pages_and_bounds(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing.reports.past.PAGE", 3)
    store = MemoryStore(clock=clock)
    for number in range(10):
        store.settle(place(store, number), Outcome()).result()
        clock.advance(seconds=1)
    seen: list[int] = []
    assert [past.id for past in read_past(store, progress=seen.append)] == [f"call-{number}" for number in range(10)]
    assert seen == [3, 6, 9, 10]
    assert len(read_past(store, since_ms=NOON + 2_000, until_ms=NOON + 5_000)) == 3


TERMS = st.fixed_dictionaries(
    {
        "tokens": st.integers(100, 2_000),
        "per": st.sampled_from(["lifetime", "hour", "day Asia/Tokyo", "rolling 60s", "request"]),
        "each": st.sampled_from([[], ["user"]]),
        "on_exceed": st.sampled_from(["block", "clamp", "warn"]),
    }
)
STEPS = st.lists(
    st.tuples(
        *(st.integers(0, 90), st.integers(1, 200), st.integers(0, 200)),
        *(st.sampled_from("ab"), st.booleans(), st.booleans()),
    ),
    min_size=1,
    max_size=25,
)


def live(budgets: list[Budget], steps: list[Any]) -> tuple[MemoryStore, int, int]:
    """These calls as they come, on a ledger of their own; and how many of them were denied, and cut short."""
    clock = FakeClock(NOON)
    store = MemoryStore(clock=clock)
    for budget in budgets:
        store.put_budget(budget).result()
    ledger = Ledger(store)
    ledger.refresh(store.catalogue().result())
    in_flight: list[tuple[str, Outcome] | None] = []
    denied = cut = 0
    for number, (seconds, want, used, user, ends, ours) in enumerate(steps):
        clock.advance(seconds=seconds)
        if ends and in_flight:
            end = in_flight.pop()
            if end is not None:
                store.settle(*end).result()
            clock.advance(seconds=1)
        tags = {"user": user, "model": "m", "provider": "p"}
        facts = CallFacts("m", "p", tags=(("user", user),), budgets=("b",), input_tokens=10, ceiling_ours=ours)
        ask = Ask(f"call-{number}", facts, want, 16, 2**50)
        accounts = without_usd(ledger.accounts(budgets, tags, store.now()))
        placed = store.place(make_plan(ask, accounts, catalogue_version=ledger.catalogue.version)).result()
        if isinstance(placed, Placed):
            usage = Usage(input=10, output=min(used, placed.hold.x))
            in_flight.append((ask.id, Outcome((usage.total_tokens, 0, 1, 0), usage)))
            cut += placed.hold.x < min(used, want)
        else:
            in_flight.append(None)
            denied += 1
        clock.advance(milliseconds=1)
    clock.advance(seconds=1)
    for end in in_flight:
        if end is not None:
            store.settle(*end).result()
    return store, denied, cut


def again_from(store: MemoryStore, budgets: list[Budget]) -> tuple[int, int]:
    found = replay(read_past(store), budgets, settings=Settings(), prices=prices.default_book)
    return found.whole.denied, found.whole.clamped


@settings(max_examples=60, deadline=None)
@given(terms=st.lists(TERMS, min_size=1, max_size=3), steps=STEPS)
def test_under_its_own_budgets_a_history_is_what_it_was(terms: list[dict[str, Any]], steps: list[Any]) -> None:
    budgets = [make_budget(f"b{number}", **of, standing=True) for number, of in enumerate(terms)]
    store, _, _ = live(budgets, steps)
    assert again_from(store, budgets) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(terms=st.lists(TERMS, min_size=1, max_size=3), steps=STEPS)
def test_under_tighter_budgets_a_history_is_what_it_would_have_been(
    terms: list[dict[str, Any]], steps: list[Any]
) -> None:
    """Denied and cut short by them are the very calls that are when they come with these budgets in force."""
    wide, _, _ = live([make_budget("wide", tokens=10**9, standing=True)], steps)
    budgets = [make_budget(f"b{number}", **of, standing=True) for number, of in enumerate(terms)]
    _, denied, cut = live(budgets, steps)
    assert again_from(wide, budgets) == (denied, cut)
