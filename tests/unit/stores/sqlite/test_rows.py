"""What is read is what was written."""

from __future__ import annotations

from pathlib import Path

from farthing.kernel.hold import Outcome
from farthing.kernel.ledger import Placed
from farthing.stores.sqlite import SQLiteStore
from tests.contract.calls import outcome, plan

from .conftest import stuck


def test_rows_of_one_group_with_and_without_what_is_mostly_empty(store: SQLiteStore, path: Path) -> None:
    plain = outcome()._replace(model=None)
    said: list[Outcome | None] = [
        None,
        plain,
        plain._replace(note=""),
        plain._replace(note="why"),
        outcome(),
        outcome(output=500)._replace(model=None),
    ]
    planned = [plan(store, f"call-{number}") for number in range(len(said))]
    # Every other one was not downgraded.
    planned[::2] = [call._replace(facts=call.facts._replace(asked_model=None)) for call in planned[::2]]
    with stuck(store):
        placing = [store.place(call) for call in planned]
        ending = [store.settle(call.id, how) for call, how in zip(planned, said, strict=True) if how is not None]
    placed = [ticket.result() for ticket in placing]
    ended = [ticket.result() for ticket in ending]
    assert isinstance(placed[0], Placed)
    other = SQLiteStore(path)
    try:
        assert other.holds().result() == (placed[0].hold,)
        assert [other.find(settled.hold.id).result() for settled in ended] == [settled.hold for settled in ended]
        assert other.entries().result() == [settled.entry for settled in ended]
        assert [entry.overrun != () for entry in other.entries().result()] == [False] * 4 + [True]
    finally:
        other.close()
