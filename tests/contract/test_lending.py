"""Loans on every store: held on the lenders, given back, kept as rows; and terms that change together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farthing.kernel.balances import ZERO, Balance
from farthing.kernel.budget import make_budget
from farthing.kernel.ledger import Placed, Stale
from farthing.kernel.lending import Lending, Loan
from farthing.kernel.plan import Plan
from farthing.stores.contract import Store

from .calls import outcome, plan
from .conftest import Ask


def account(store: Store, name: str) -> str:
    catalogue = store.catalogue().result()
    return catalogue.account(catalogue.budgets[name], {}, store.now()).key


def borrowing(store: Store, call: str = "call") -> Plan:
    """A call of 150 tokens on "needy" (100), 50 of which "rich" lends; it may come to 90 there by lending."""
    loan = Loan("tokens", account(store, "needy"), account(store, "rich"), 100, 50, 90, "needy was 50 tokens short")
    made = plan(store, call, budgets=["needy"])
    lines = tuple(replace(line, ceiling=line.ceiling + 50) for line in made.lines)
    return made._replace(lines=lines, loans=(loan,))


@pytest.fixture
def crew(store: Store) -> Store:
    for name in ("needy", "rich"):
        lending = Lending("crew", name, 1, 10)
        store.put_budget(replace(make_budget(name, tokens=100), lending=lending)).result()
    return store


def tokens(store: Store) -> dict[str, Balance]:
    found = store.balances().result()
    return {name: found.get(account(store, name), ZERO).of("tokens") for name in ("needy", "rich")}


def test_a_loan_is_held_used_and_given_back(crew: Store, ask: Ask) -> None:
    placed = ask(crew.place(borrowing(crew)))
    assert isinstance(placed, Placed)
    (hold,) = ask(crew.holds())
    assert hold == placed.hold, "its loans are read as they were written"
    assert tokens(crew) == {"needy": Balance(0, 100), "rich": Balance(0, 50)}
    settled = ask(crew.settle("call", outcome(input=100, output=20)))
    assert tokens(crew) == {"needy": Balance(100), "rich": Balance(20)}
    (entry,) = ask(crew.entries())
    assert entry == settled.entry
    assert [(transfer.amount, transfer.why) for transfer in entry.transfers] == [(20, "needy was 50 tokens short")]


def test_a_lender_with_less_is_looked_at_again(crew: Store, ask: Ask) -> None:
    ask(crew.place(plan(crew, "own", budgets=["rich"], want=0, floor=0, input_tokens=41)))
    assert isinstance(ask(crew.place(borrowing(crew))), Stale)
    assert tokens(crew) == {"needy": Balance(), "rich": Balance(0, 41)}
    ask(crew.void("own"))
    assert isinstance(ask(crew.place(borrowing(crew))), Placed)


def test_a_lost_call_keeps_its_loan_and_a_late_truth_corrects_it(crew: Store, ask: Ask) -> None:
    ask(crew.place(borrowing(crew)))
    ask(crew.suspect("call", ending="timeout"))
    assert tokens(crew) == {"needy": Balance(0, 0, 100), "rich": Balance(0, 0, 50)}
    ask(crew.resolve("call", "settle_at_hold"))
    assert tokens(crew) == {"needy": Balance(100), "rich": Balance(50)}
    ask(crew.settle("call", outcome(input=100, output=5)))
    assert tokens(crew) == {"needy": Balance(100), "rich": Balance(5)}
    assert sum(transfer.amount for entry in ask(crew.entries()) for transfer in entry.transfers) == 5


def test_terms_change_together_or_not_at_all(crew: Store, ask: Ask) -> None:
    before = ask(crew.catalogue())
    changed = [replace(before.budgets["needy"], tokens=130), replace(before.budgets["rich"], tokens=70)]
    after = ask(crew.put_budgets(changed, catalogue_version=before.version))
    assert [after.budgets[name].tokens for name in ("needy", "rich")] == [130, 70]
    again = ask(crew.put_budgets([replace(changed[0], tokens=1)], catalogue_version=before.version))
    assert again.budgets == after.budgets, "somebody was faster"
