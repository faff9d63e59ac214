"""Borrowing before a call, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farthing.calls import lending
from farthing.kernel.budget import make_budget
from farthing.kernel.ledger import Denied, Stale
from farthing.kernel.lending import Lending
from farthing.kernel.plan import Ask, CallFacts, make_plan
from farthing.runtime.ledgers import Ledger
from farthing.stores.memory import MemoryStore
from farthing.testing import FakeClock


def register(ledger: Ledger, name: str) -> None:
    budget = replace(make_budget(name, tokens=100), lending=Lending("crew", name))
    ledger.refresh(ledger.store.put_budget(budget).result())


def test_an_agent_that_is_registered_while_balances_are_read_is_planned_with() -> None:
    """Another thread's: the balances that were read know nothing of the newcomer."""
    ledger = Ledger(MemoryStore(clock=FakeClock()))
    for name in ("needy", "rich"):
        register(ledger, name)
    catalogue = ledger.catalogue
    account = catalogue.account(catalogue.budgets["needy"], {}, 0)
    ask = Ask("call", CallFacts(input_tokens=150), 0, 0, 60_000)
    placing = lending.place(ledger, make_plan(ask, [account], catalogue_version=catalogue.version), None)
    denied = next(placing).result()
    assert isinstance(denied, Denied)
    balances = placing.send(denied).result()
    register(ledger, "newcomer")
    with pytest.raises(StopIteration) as stop:
        placing.send(balances)
    assert stop.value.value == Stale(ledger.catalogue.version), "not a plan of agents that are not all"
