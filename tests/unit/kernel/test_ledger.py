"""The rules of the ledger, one by one, on books that are three dicts. Sequences of them: tests/properties."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from farthing.errors import HoldConflict, HoldNotFound, InvariantError
from farthing.kernel import ledger
from farthing.kernel.balances import UNITS, ZERO, Balance, Balances
from farthing.kernel.budget import make_budget
from farthing.kernel.hold import Entry, Hold, Outcome
from farthing.kernel.ledger import NOTHING, Change, Denied, Placed, Settled, Stale
from farthing.kernel.money import COUNTER_MAX
from farthing.kernel.plan import Ask, CallFacts, Formula, Plan, Posting, make_plan, open_account
from farthing.kernel.usage import Usage

NONE = Balance()
BUDGET = make_budget("b", tokens=1_000, usd=1, concurrency=5)
ACCOUNT = open_account(BUDGET, {}, 0)
FACTS = CallFacts(input_tokens=100, choices=1, price=Formula(50, 1, 2))


@dataclass
class Books:
    """The least that can be books."""

    balances: dict[str, Balances] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    @property
    def seq(self) -> int:
        return len(self.entries)

    def balance(self, key: str) -> Balances:
        return self.balances.get(key, ZERO)

    def hold(self, hold_id: str) -> Hold | None:
        return self.holds.get(hold_id)

    def entry(self, hold_id: str) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.hold_id == hold_id), None)

    def take(self, answered: tuple[Any, Change]) -> Any:
        """Apply, check that replaying says the same, and answer."""
        answer, change = answered
        self.balances.update(change.balances)
        self.holds.update(change.holds)
        self.entries += change.entries.values()
        nonzero = {key: balance for key, balance in self.balances.items() if balance != ZERO}
        assert ledger.replay({}, self.entries, self.holds.values()) == nonzero
        return answer

    def by_unit(self, unit: str) -> Balance:
        return self.balance(ACCOUNT.key).of(unit)


def plan(call_id: str = "h", *, want: int = 100, floor: int = 1, facts: CallFacts = FACTS, **of: Any) -> Plan:
    return make_plan(Ask(call_id, facts, want, floor, 60_000), [ACCOUNT])._replace(**of)


def place(books: Books, of: Plan, **more: Any) -> Any:
    given = {"owner": "me", "now_ms": 0, "catalogue_version": 0, **more}
    return books.take(ledger.place(books, of, **given))


def said(tokens: int, usd: int = 0) -> Outcome:
    return Outcome((tokens, usd, 1, 0), Usage(input=tokens), usd)


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def held(books: Books) -> Books:
    place(books, plan())
    return books


def settle(books: Books, outcome: Outcome, now_ms: int = 1) -> Any:
    return books.take(ledger.settle(books, "h", outcome, now_ms=now_ms))


def void(books: Books, outcome: Outcome | None = None) -> Any:
    return books.take(ledger.void(books, "h", outcome, now_ms=1))


def suspect(books: Books) -> Any:
    return books.take(ledger.suspect(books, "h", ending="timeout", note=None, now_ms=1))


def resolve(books: Books, policy: str) -> Any:
    return books.take(ledger.resolve(books, "h", policy, now_ms=2, note=None))


# -- place -----------------------------------------------------------------------------------------------------------


def test_a_hold_is_counted_in_every_unit_and_given_back_whole(held: Books) -> None:
    assert [held.by_unit(unit).held for unit in ("tokens", "usd", "requests", "concurrency")] == [200, 75, 1, 1]
    void(held)
    assert {held.by_unit(unit) for unit in ("tokens", "usd", "requests", "concurrency")} == {NONE}
    assert held.entries == [], "it was never tried"


def test_a_refusal_changes_nothing_and_is_not_remembered(books: Books) -> None:
    answer, change = ledger.place(books, plan(want=901), owner="me", now_ms=0, catalogue_version=0)
    assert isinstance(answer, Denied)
    assert change is NOTHING
    assert isinstance(place(books, plan(want=900)), Placed)


def test_a_stale_plan_is_made_again(books: Books) -> None:
    assert place(books, plan(), catalogue_version=1) == Stale(1)
    assert place(books, plan(valid_until_ms=5), now_ms=5) == Stale(0)
    assert isinstance(place(books, plan(valid_until_ms=5), now_ms=4), Placed)
    assert isinstance(place(books, plan(valid_until_ms=5), now_ms=9, catalogue_version=7), Placed), (
        "a repetition is not"
    )


def test_no_account_passes_what_stores_can_hold_exactly(books: Books) -> None:
    huge = Plan("h", CallFacts(input_tokens=COUNTER_MAX), 0, 0, 9, postings=(Posting("k", ("tokens",)),))
    place(books, huge)
    with pytest.raises(InvariantError, match="account k"):
        place(books, huge._replace(id="h2", facts=CallFacts(input_tokens=1)))
    assert books.balance("k").of("tokens").total == COUNTER_MAX


def test_replacing_gives_back_the_old_hold_in_the_same_step_or_not_at_all(held: Books) -> None:
    assert isinstance(place(held, plan("more", want=900)), Denied)
    assert isinstance(place(held, plan("more", want=901), replaces="h"), Denied)
    assert held.holds["h"].state == "held"
    placed = place(held, plan("more", want=900), replaces="h")
    assert isinstance(placed, Placed)
    assert (held.holds["h"].state, held.by_unit("tokens").held, held.entries) == ("voided", 1_000, [])
    assert place(held, plan("more", want=900), replaces="h") == placed, "repeating it finds the new hold"
    with pytest.raises(HoldConflict):
        place(held, plan("third"), replaces="h")


# -- endings ---------------------------------------------------------------------------------------------------------


def test_settling_replaces_the_hold_by_the_cost(held: Books) -> None:
    answer = settle(held, said(150, 60))
    assert isinstance(answer, Settled)
    assert answer.entry is not None
    assert (held.by_unit("tokens"), held.by_unit("usd")) == (Balance(150), Balance(60))
    assert (held.by_unit("requests"), held.by_unit("concurrency")) == (Balance(1), NONE)
    assert (answer.entry.kind, answer.entry.overrun, answer.entry.cost_nano) == ("call", (), 60)


def test_what_exceeds_the_hold_is_counted_and_itemised(held: Books) -> None:
    answer = settle(held, said(1_500, 80))
    assert held.by_unit("tokens") == Balance(1_500)
    assert answer.entry.overrun == (("tokens", 1_300), ("usd", 5))
    assert isinstance(place(held, plan("next", want=0)), Denied)


def test_a_unit_that_is_not_said_settles_to_zero(held: Books) -> None:
    settle(held, Outcome((0, 0, 1, 0)))
    assert (held.by_unit("tokens"), held.by_unit("requests")) == (NONE, Balance(1))


@pytest.mark.parametrize("unit", ["tokens", "usd", "requests"])
@pytest.mark.parametrize("wrong", [-1, 1.0, True, "1", None, float("nan")])
@pytest.mark.parametrize("verb", ["settle", "void", "record"])
@pytest.mark.parametrize("state", ["held", "suspect"])
def test_an_amount_that_would_shrink_or_blur_what_is_settled_is_refused(
    held: Books, verb: str, state: str, unit: str, wrong: Any
) -> None:
    settle_first = place(held, plan("other"))
    held.take(ledger.settle(held, settle_first.hold.id, said(200, 75), now_ms=1))
    if state == "suspect":
        suspect(held)
    before = dict(held.balances)
    tokens, usd, requests, _ = [wrong if of == unit else 0 for of in UNITS]
    outcome = Outcome((tokens, usd, requests, 0))
    verbs = {
        "settle": lambda: ledger.settle(held, "h", outcome, now_ms=1),
        "void": lambda: ledger.void(held, "h", outcome, now_ms=1),
        "record": lambda: ledger.record(held, plan("paid"), outcome, owner="me", now_ms=1),
    }
    with pytest.raises(ValueError, match=unit):
        verbs[verb]()
    assert held.balances == before


@pytest.mark.parametrize("wrong", [-1, 1.0, True])
def test_a_cost_is_a_whole_amount_or_unknown(held: Books, wrong: Any) -> None:
    with pytest.raises(ValueError, match="cost_nano"):
        ledger.settle(held, "h", said(1)._replace(cost_nano=wrong), now_ms=1)


def test_repeating_is_answered_and_contradicting_is_refused(held: Books) -> None:
    first = settle(held, said(150))
    assert settle(held, said(150), now_ms=99) == first
    for contradiction in (lambda: settle(held, said(151)), lambda: void(held, said(150)), lambda: void(held)):
        with pytest.raises(HoldConflict, match="'h' is settled"):
            contradiction()
    assert len(held.entries) == 1


def test_voiding_twice_is_voiding_once_and_settling_after_it_is_refused(held: Books) -> None:
    assert void(held) == void(held)
    with pytest.raises(HoldConflict):
        settle(held, said(1))


@pytest.mark.parametrize("verb", ["settle", "void", "suspect", "resolve", "resize", "extend"])
def test_what_was_never_placed_is_not_found(books: Books, verb: str) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "settle": {"outcome": said(1)},
        "void": {"outcome": None},
        "suspect": {"ending": "x", "note": None},
        "resolve": {"policy": "release", "note": None},
        "resize": {"x": 0},
        "extend": {"deadline_ms": 1},
    }
    with pytest.raises(HoldNotFound, match="'nobody'") as caught:
        getattr(ledger, verb)(books, "nobody", now_ms=0, **arguments[verb])
    assert caught.value.hold_id == "nobody"


@pytest.mark.parametrize("verb", ["settle", "void", "suspect", "resize"])
def test_books_that_do_not_add_up_are_not_made_worse(held: Books, verb: str) -> None:
    """An account below what is held on it: someone else wrote here. Nothing is written, and it is said which."""
    held.balances[ACCOUNT.key] = held.balances[ACCOUNT.key]._replace(held_tokens=99)
    verbs = {
        "settle": lambda: ledger.settle(held, "h", said(1), now_ms=1),
        "void": lambda: ledger.void(held, "h", None, now_ms=1),
        "suspect": lambda: ledger.suspect(held, "h", ending="x", note=None, now_ms=1),
        "resize": lambda: ledger.resize(held, "h", x=0, now_ms=1),
    }
    with pytest.raises(InvariantError, match=r"would become negative \(held_tokens -"):
        verbs[verb]()


# -- suspicion, and late truth ---------------------------------------------------------------------------------------


def test_suspect_stays_counted_but_frees_its_place_among_the_calls_in_flight(held: Books) -> None:
    answer = suspect(held)
    assert (held.by_unit("tokens"), held.by_unit("usd")) == (Balance(0, 0, 200), Balance(0, 0, 75))
    assert held.by_unit("concurrency") == NONE
    assert answer.entry.suspect
    assert (answer.entry.cost_nano, [*answer.entry.changes()]) == (75, [(ACCOUNT.key, ZERO)])
    assert suspect(held).hold == answer.hold, "a second suspicion adds nothing"
    assert len(held.entries) == 1


def late_sums(books: Books) -> tuple[int, int]:
    """Tokens and cost over all rows: the truth of the moment."""
    return sum(entry.tokens("input", "output") for entry in books.entries), sum(e.cost_nano or 0 for e in books.entries)


@pytest.mark.parametrize("policy", [None, "settle_at_hold", "release"])
@pytest.mark.parametrize(("tokens", "usd"), [(0, 0), (150, 60), (200, 75), (300, 90)])
def test_one_late_truth_is_accepted_and_only_one(held: Books, policy: str | None, tokens: int, usd: int) -> None:
    suspect(held)
    assert late_sums(held) == (200, 75)
    if policy is not None:
        assert resolve(held, policy).hold.automatic
        assert late_sums(held) == ((200, 75) if policy == "settle_at_hold" else (0, 0))
    answer = settle(held, said(tokens, usd), now_ms=3)
    assert answer.entry.kind == "correction"
    assert not answer.entry.suspect
    assert late_sums(held) == (tokens, usd)
    assert (held.by_unit("tokens"), held.by_unit("usd")) == (Balance(tokens), Balance(usd))
    assert settle(held, said(tokens, usd), now_ms=4) == answer
    with pytest.raises(HoldConflict):
        settle(held, said(tokens + 1, usd))
    assert [entry.kind for entry in held.entries[1:]] == ["correction"] * (1 if policy is None else 2)


@pytest.mark.parametrize("policy", [None, "settle_at_hold", "release"])
def test_that_it_was_never_tried_is_a_late_truth_too(held: Books, policy: str | None) -> None:
    """It expired while it waited for its turn. The row that counts it is corrected, for a row is never removed."""
    suspect(held)
    if policy is not None:
        resolve(held, policy)
    answer = void(held)
    assert answer.hold.state == "voided"
    assert answer.entry.kind == "correction"
    assert late_sums(held) == (0, 0)
    assert {*held.balances.values()} == {ZERO}
    assert void(held) == answer
    with pytest.raises(HoldConflict):
        settle(held, said(1))


def test_a_late_truth_about_an_unpriced_call_has_no_cost_and_not_zero(books: Books) -> None:
    """I9."""
    account = open_account(make_budget("b", tokens=1_000), {}, 0)
    unpriced = make_plan(Ask("h", FACTS._replace(price=None), 100, 1, 60_000), [account])
    place(books, unpriced)
    suspect(books)
    resolve(books, "settle_at_hold")
    void(books)
    assert [entry.cost_nano for entry in books.entries] == [None, None, None]


def test_only_a_suspect_hold_is_resolved_and_only_by_a_known_policy(held: Books) -> None:
    with pytest.raises(HoldConflict, match="not suspect"):
        resolve(held, "release")
    suspect(held)
    with pytest.raises(ValueError, match="relase"):
        resolve(held, "relase")
    resolve(held, "release")
    with pytest.raises(HoldConflict):
        resolve(held, "settle_at_hold")


# -- while it is open ------------------------------------------------------------------------------------------------


def test_a_hold_can_shrink_and_not_grow(held: Books) -> None:
    books = held
    smaller = books.take(ledger.resize(books, "h", x=10, now_ms=1))
    assert (smaller.x, books.by_unit("tokens").held, books.by_unit("usd").held) == (10, 110, 30)
    for wrong in (11, -1, 5.0, True, None):
        with pytest.raises(ValueError, match="shrink"):
            ledger.resize(books, "h", x=wrong, now_ms=1)  # type: ignore[arg-type]
    suspect(books)
    assert books.by_unit("tokens") == Balance(0, 0, 110), "suspect at what it was shrunk to"
    with pytest.raises(HoldConflict):
        ledger.resize(books, "h", x=1, now_ms=1)


def test_a_deadline_only_moves_out_and_only_while_the_hold_is_open(held: Books) -> None:
    assert held.take(ledger.extend(held, "h", deadline_ms=70_000, now_ms=1)).deadline_ms == 70_000
    assert ledger.extend(held, "h", deadline_ms=60_000, now_ms=1)[1] is NOTHING
    suspect(held)
    assert ledger.extend(held, "h", deadline_ms=90_000, now_ms=1)[1] is NOTHING


# -- sweep -----------------------------------------------------------------------------------------------------------


def sweep(
    books: Books, now_ms: int, *, dead: tuple[str, ...] = (), after_ms: int = 10, policy: str = "keep"
) -> list[str]:
    results = ledger.sweep(
        books,
        list(books.holds.values()),
        now_ms=now_ms,
        dead_owners=frozenset(dead),
        suspect_after_ms=after_ms,
        suspect_policy=policy,
    )
    for result in results:
        books.take(result)
    return [f"{settled.hold.id} {settled.hold.state}" for settled, _ in results]


def test_the_dead_and_the_expired_become_suspect_and_say_why(books: Books) -> None:
    place(books, plan("mine"), owner="me")
    place(books, plan("theirs"), owner="them")
    assert sweep(books, 59_999) == []
    assert sweep(books, 59_999, dead=("them",)) == ["theirs suspect"]
    assert sweep(books, 60_000) == ["mine suspect"]
    assert [(entry.hold_id, entry.ending) for entry in books.entries] == [("theirs", "owner_died"), ("mine", "expired")]
    assert books.by_unit("concurrency") == NONE
    assert books.by_unit("tokens") == Balance(0, 0, 400)


def test_old_suspects_end_as_the_policy_says(books: Books) -> None:
    for policy, state, left in (("settle_at_hold", "settled", Balance(200)), ("release", "voided", Balance(200))):
        place(books, plan(policy))
        books.take(ledger.suspect(books, policy, ending="x", note=None, now_ms=1_000))
        assert sweep(books, 1_009, policy=policy) == []
        assert sweep(books, 1_010) == [], "kept"
        assert sweep(books, 1_010, policy=policy) == [f"{policy} {state}"]
        assert books.by_unit("tokens") == left


def test_several_holds_of_one_account_in_one_batch_all_count(books: Books) -> None:
    for n in range(3):
        place(books, plan(f"h{n}"))
    assert len(sweep(books, 60_000)) == 3
    assert books.by_unit("tokens") == Balance(0, 0, 600)


def test_an_unknown_policy_is_refused_before_anything_is_due(books: Books) -> None:
    with pytest.raises(ValueError, match="relase"):
        sweep(books, 0, policy="relase")


# -- record ----------------------------------------------------------------------------------------------------------


def test_what_was_paid_is_recorded_whatever_the_ceilings_say(books: Books) -> None:
    answered = ledger.record(books, plan("paid", want=5_000), said(6_000, 7), owner="me", now_ms=1)
    answer = books.take(answered)
    assert (books.by_unit("tokens"), books.by_unit("usd")) == (Balance(6_000), Balance(7))
    assert (answer.hold.state, answer.entry.kind) == ("settled", "call")
    again = ledger.record(books, plan("paid", want=5_000), said(6_000, 7), owner="me", now_ms=2)
    assert books.take(again) == answer
    assert len(books.entries) == 1
    with pytest.raises(HoldConflict):
        ledger.record(books, plan("paid", want=5_000), said(6_001, 7), owner="me", now_ms=2)


def test_a_call_that_no_budget_matched_leaves_its_row_all_the_same(books: Books) -> None:
    bare = Plan("free", FACTS, 0, 0, 0)
    answer = books.take(ledger.record(books, bare, said(10, 2), owner="me", now_ms=1))
    assert (answer.entry.cost_nano, [*answer.entry.changes()], books.balances) == (2, [], {})


# -- replay ----------------------------------------------------------------------------------------------------------


def test_replay_starts_from_the_snapshot_and_leaves_out_what_is_zero() -> None:
    assert ledger.replay({"k": (5, 0, 0, 0), "gone": (0, 0, 0, 0)}, [], []) == {"k": Balances(5)}
