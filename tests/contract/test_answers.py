"""Answers that a provider keeps: whose call each was, and calls whose cost nobody knows yet."""

from __future__ import annotations

from farthing.kernel.balances import Balance
from farthing.kernel.hold import SETTLED, SUSPECT
from farthing.stores.contract import Store

from .calls import outcome, plan
from .conftest import Ask
from .test_holds import put, total


def test_an_answer_leads_to_its_call(store: Store, ask: Ask) -> None:
    assert ask(store.answered("resp_1")) is None
    ask(store.place(plan(store, "call")))
    ask(store.name_answer("resp_1", "call"))
    ask(store.name_answer("resp_1", "call"))
    held = ask(store.answered("resp_1"))
    assert held == ask(store.find("call"))
    ask(store.settle("call", outcome()))
    ended = ask(store.answered("resp_1"))
    assert ended is not None
    assert (ended.state, ended.outcome) == (SETTLED, outcome())
    assert ask(store.answered("resp_2")) is None


def test_an_answer_of_a_call_that_nobody_knows(store: Store, ask: Ask) -> None:
    ask(store.name_answer("resp_1", "gone"))
    assert ask(store.answered("resp_1")) is None


def test_a_call_that_was_not_held_may_be_recorded_as_suspect(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    recorded = ask(store.record(plan(store, "call", want=50, budgets=[]), outcome(), lost=True))
    assert recorded.hold.state == SUSPECT
    assert recorded.entry is not None
    assert recorded.entry.suspect
    assert dict(recorded.entry.usage) == {"input": 100, "output": 50}
    settled = ask(store.settle("call", outcome()))
    assert settled.entry is not None
    assert (settled.entry.kind, settled.entry.resolves_suspect) == ("correction", True)
    # Said again, it is the same row.
    assert ask(store.settle("call", outcome())).entry == settled.entry
    assert total(store, ask) == Balance()
