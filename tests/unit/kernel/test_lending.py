"""Lending: the policy, and what loans do to accounts at each thing that may become of their hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel import ledger
from farthing.kernel.balances import Balance
from farthing.kernel.budget import Budget, make_budget
from farthing.kernel.hold import SETTLED, SUSPECT, VOIDED, Outcome
from farthing.kernel.ledger import Placed, Stale
from farthing.kernel.lending import Donor, Lending, Loan, borrowed_key, downhill, lent_key
from farthing.kernel.plan import Ask, CallFacts, Formula, Plan, make_plan, open_account
from farthing.kernel.usage import Usage

from .test_ledger import Books

# -- the policy --------------------------------------------------------------------------------------------------------

donors = st.lists(
    st.builds(Donor, name=st.uuids().map(str), priority=st.integers(1, 4), spare=st.integers(-50, 100)), max_size=12
)


@given(priority=st.integers(1, 4), shortfall=st.integers(-5, 500), donors=donors)
def test_the_policy(priority: int, shortfall: int, donors: list[Donor]) -> None:
    shares = downhill(priority, shortfall, donors)
    willing = [donor for donor in donors if donor.priority <= priority and donor.spare > 0]
    if shortfall <= 0 or sum(donor.spare for donor in willing) < shortfall:
        assert shares == [], "nothing is short, or nobody can cover it: then nothing moves"
        return
    assert sum(amount for _, amount in shares) == shortfall, "what is short, and no more"
    assert all(0 < amount <= donor.spare and donor.priority <= priority for donor, amount in shares)
    expected = sorted(willing, key=lambda donor: (donor.priority, -donor.spare))
    assert [donor for donor, _ in shares] == expected[: len(shares)]
    assert all(amount == donor.spare for donor, amount in shares[:-1]), "each gives all it can before the next does"


def test_ties_go_by_registration() -> None:
    assert downhill(1, 1, [Donor("first", 1, 5), Donor("second", 1, 5)]) == [(Donor("first", 1, 5), 1)]


def test_terms_are_kept_and_ended() -> None:
    terms = Lending("crew", "critic", 2, 10, 5, 850_000, "planner", 1_000)
    assert Lending.from_dict(terms.to_dict()) == terms
    budget = replace(make_budget("b", tokens=5), lending=terms)
    assert Budget.from_dict(budget.to_dict()) == budget
    account = open_account(budget, {}, 999)
    assert (account.frozen, account.valid_until_ms) == (False, 1_000)
    assert open_account(budget, {}, 1_000).frozen, "its time is over"
    assert open_account(replace(budget, lending=Lending("crew", "critic", closed=True)), {}, 0).frozen
    assert (terms.reserve("tokens"), terms.reserve("usd"), terms.rank) == (10, 5, 2)
    assert not terms.lends(1_000), "what a delegated agent leaves is its parent's"
    left = replace(terms, parent=None, closed=True)
    assert (left.lends(1_000), left.reserve("tokens"), left.rank) == (True, 0, 0), "what nobody owns goes first"


# -- the accounts ------------------------------------------------------------------------------------------------------

NEEDY = open_account(make_budget("needy", tokens=100), {}, 0)
RICH = {name: open_account(make_budget(name, tokens=100), {}, 0) for name in ("d1", "d2")}
FACTS = CallFacts(input_tokens=100, choices=1)


def loan(donor: str, above: int, amount: int, most: int = 90) -> Loan:
    return Loan("tokens", NEEDY.key, RICH[donor].key, above, amount, most, "short")


LOANS = (loan("d1", 100, 40), loan("d2", 140, 20))


def plan(hold_id: str = "h", *, x: int = 60, loans: tuple[Loan, ...] = LOANS, facts: CallFacts = FACTS) -> Plan:
    made = make_plan(Ask(hold_id, facts._replace(ceiling_ours=True), x, 0, 60_000), [NEEDY])
    lent = sum(of.amount for of in loans)
    lines = tuple(replace(line, ceiling=line.ceiling + lent) for line in made.lines)
    return made._replace(lines=lines, loans=loans)


def place(books: Books, of: Plan, **more: Any) -> Any:
    return books.take(ledger.place(books, of, owner="me", now_ms=0, catalogue_version=0, **more))


def said(tokens: int) -> Outcome:
    return Outcome((tokens, 0, 1, 0), Usage(input=tokens), None)


def settle(books: Books, tokens: int, hold_id: str = "h") -> Any:
    return books.take(ledger.settle(books, hold_id, said(tokens), now_ms=1))


def by_name(books: Books, what: str) -> Mapping[str, Balance]:
    """By agent: *what* is a unit of its account, or of what it has lent (``tokens.lent``) or borrowed."""
    unit, _, of = what.partition(".")
    row_key = {"": str, "lent": lent_key, "borrowed": borrowed_key}[of]
    found = {name: books.balance(row_key(account.key)).of(unit) for name, account in {"needy": NEEDY, **RICH}.items()}
    return {name: balance for name, balance in found.items() if balance != Balance()}


@pytest.fixture
def held() -> Books:
    books = Books()
    assert isinstance(place(books, plan()), Placed)
    return books


def test_what_is_borrowed_is_held_on_the_donors(held: Books) -> None:
    assert by_name(held, "tokens") == {"needy": Balance(0, 100), "d1": Balance(0, 40), "d2": Balance(0, 20)}
    assert by_name(held, "tokens.lent") == {"d1": Balance(0, 40), "d2": Balance(0, 20)}
    assert by_name(held, "tokens.borrowed") == {"needy": Balance(0, 60)}


def test_a_hold_that_has_to_be_smaller_is_planned_again() -> None:
    """Somebody used 20 of what the taker had: a smaller hold would borrow less, and take the 20 from it once more."""
    books = Books()
    assert isinstance(place(books, plan("other", x=0, loans=(), facts=CallFacts(input_tokens=20))), Placed)
    assert isinstance(place(books, plan()._replace(x_most=60)), Stale)
    assert by_name(books, "tokens") == {"needy": Balance(0, 20)}


@pytest.mark.parametrize(
    ("cost", "own", "first", "second"),
    [(0, 0, 0, 0), (99, 99, 0, 0), (100, 100, 0, 0), (101, 100, 1, 0), (150, 100, 40, 10), (160, 100, 40, 20)],
)
def test_what_is_not_used_goes_back_last_borrowed_first(
    held: Books, cost: int, own: int, first: int, second: int
) -> None:
    entry = settle(held, cost).entry
    spent = {"needy": Balance(own), "d1": Balance(first), "d2": Balance(second)}
    assert by_name(held, "tokens") == {name: balance for name, balance in spent.items() if balance != Balance()}
    lent = [(transfer.donor, transfer.amount, transfer.why) for transfer in entry.transfers]
    assert lent == [(RICH[name].key, amount, "short") for name, amount in (("d1", first), ("d2", second)) if amount]
    assert entry.tokens("input") == cost, "the call's own figure is whole"


def test_what_exceeds_the_hold_is_its_takers_overrun(held: Books) -> None:
    entry = settle(held, 200).entry
    assert entry.overrun == (("tokens", 40),)
    assert by_name(held, "tokens") == {"needy": Balance(140), "d1": Balance(40), "d2": Balance(20)}


def test_a_smaller_grant_borrows_less(held: Books) -> None:
    books = Books()
    place(books, plan()._replace(x_most=45))
    assert by_name(books, "tokens") == {"needy": Balance(0, 100), "d1": Balance(0, 40), "d2": Balance(0, 5)}
    held.take(ledger.resize(held, "h", x=20, now_ms=1))
    assert by_name(held, "tokens") == {"needy": Balance(0, 100), "d1": Balance(0, 20)}
    assert settle(held, 200).entry.transfers[0].amount == 20, "it holds no more than that"


def test_a_donor_that_has_less_by_now_is_looked_at_again() -> None:
    books = Books()
    place(books, make_plan(Ask("own", FACTS._replace(input_tokens=51), 0, 0, 60_000), [RICH["d1"]]))
    assert place(books, plan()) == Stale(0), "40 and 51 are more than it lends: 90"
    assert set(books.holds) == {"own"}
    assert isinstance(place(books, plan(loans=(loan("d1", 100, 39), loan("d2", 139, 21)))), Placed)


def test_a_lost_call_keeps_what_it_borrowed_until_the_truth_is_known(held: Books) -> None:
    held.take(ledger.suspect(held, "h", ending="timeout", note=None, now_ms=1))
    assert by_name(held, "tokens") == {"needy": Balance(0, 0, 100), "d1": Balance(0, 0, 40), "d2": Balance(0, 0, 20)}
    settle(held, 110)
    assert by_name(held, "tokens") == {"needy": Balance(100), "d1": Balance(10)}


@pytest.mark.parametrize("policy", ["settle_at_hold", "release"])
@pytest.mark.parametrize("truth", [0, 50, 110, 160, 300])
def test_a_late_truth_corrects_the_loans_too(held: Books, policy: str, truth: int) -> None:
    held.take(ledger.suspect(held, "h", ending="timeout", note=None, now_ms=1))
    held.take(ledger.resolve(held, "h", policy, now_ms=2, note=None))
    assumed = {"needy": Balance(100), "d1": Balance(40), "d2": Balance(20)}
    assert by_name(held, "tokens") == (assumed if policy == "settle_at_hold" else {})
    settle(held, truth)
    first, second = min(40, max(0, truth - 100)), min(20, max(0, truth - 140))
    spent = {"needy": Balance(truth - first - second), "d1": Balance(first), "d2": Balance(second)}
    assert by_name(held, "tokens") == {name: balance for name, balance in spent.items() if balance != Balance()}


def test_replacing_a_hold_gives_its_loans_back_in_the_same_step(held: Books) -> None:
    placed = place(held, plan("inner"), replaces="h")
    assert isinstance(placed, Placed)
    assert held.holds["h"].state == VOIDED
    assert by_name(held, "tokens.borrowed") == {"needy": Balance(0, 60)}
    settle(held, 160, "inner")
    assert held.holds["inner"].state == SETTLED


def test_voiding_gives_all_of_it_back(held: Books) -> None:
    held.take(ledger.void(held, "h", None, now_ms=1))
    assert (by_name(held, "tokens"), by_name(held, "tokens.lent"), held.entries) == ({}, {}, [])


def test_money_is_lent_in_its_own_amounts() -> None:
    books = Books()
    needy = open_account(make_budget("needy", usd=1), {}, 0)
    facts = CallFacts(input_tokens=1, price=Formula(1_000_000_000, 1, 3), ceiling_ours=True)
    made = make_plan(Ask("h", facts, 5, 0, 60_000), [needy])
    own = 300_000_000
    short = facts.price.at(5) - own if facts.price else 0
    lent = Loan("usd", needy.key, RICH["d1"].key, own, short, 10**9, "short")
    place(books, made._replace(loans=(lent,)))
    assert books.balance(needy.key).of("usd") == Balance(0, own)
    assert books.balance(lent_key(RICH["d1"].key)).of("usd") == Balance(0, short)


@pytest.mark.parametrize("reverse", [False, True])
def test_who_borrows_in_one_unit_lends_in_another(reverse: bool) -> None:
    """An account has one row for all units: what a loan takes off it in one is not for another loan to trip over."""
    books = Books()
    middle = open_account(make_budget("middle", tokens=1_000, usd=1), {}, 0)
    facts = CallFacts(input_tokens=100, price=Formula(2_000_000_000))
    made = make_plan(Ask("h", facts, 0, 0, 60_000), [NEEDY, middle])
    in_tokens = Loan("tokens", NEEDY.key, middle.key, 60, 40, 1_000, "short")
    in_usd = Loan("usd", middle.key, RICH["d1"].key, 10**9, 10**9, 2 * 10**9, "short")
    loans = (in_tokens, in_usd) if reverse else (in_usd, in_tokens)
    place(books, made._replace(lines=(), loans=loans))
    outcome = Outcome((100, 2_000_000_000, 1, 0), Usage(input=100), 2_000_000_000)
    books.take(ledger.settle(books, "h", outcome, now_ms=1))
    assert books.balance(middle.key).of("usd") == Balance(10**9)
    assert books.balance(middle.key).of("tokens") == Balance(140)


# -- delegation --------------------------------------------------------------------------------------------------------


def test_a_delegation_outlives_its_owner_and_its_deadline() -> None:
    books = Books()
    place(books, plan("whole", loans=(), facts=FACTS._replace(dialect="delegation"), x=0))
    place(books, plan("call", loans=(), facts=FACTS._replace(input_tokens=0), x=0))
    swept = ledger.sweep(
        books,
        list(books.holds.values()),
        now_ms=10**9,
        dead_owners=frozenset({"me"}),
        suspect_after_ms=0,
        suspect_policy="keep",
    )
    assert [(settled.hold.id, settled.hold.state) for settled, _ in swept] == [("call", SUSPECT)]
