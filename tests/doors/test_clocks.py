"""A machine whose clock is wrong, and is put right while its ledger is in use."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from openai import OpenAI

import farthing
from farthing.kernel.hold import HELD
from farthing.runtime.default import runtime
from farthing.testing import FakeClock
from tests.doors.clients import chat

AHEAD = timedelta(minutes=30)


def test_a_hold_outlives_its_call_on_a_ledger_that_was_written_ahead_of_the_clock(
    tmp_path: Path, client: OpenAI
) -> None:
    """
    A ledger goes by the last time that it has seen. By that every hold of a program that was started after its
    machine's clock had been put right was past its deadline at once: suspect, and its place in flight free.
    """
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    right = FakeClock()
    with FakeClock(right.now + AHEAD):
        farthing.configure(ledger=ledger)
        farthing.record({"input_tokens": 1}, model="gpt-4o")
    with FakeClock(right.now):
        farthing.configure(ledger=ledger)
        with farthing.budget("one at a time", concurrency=1):
            stream = chat(client, stream=True)
            runtime().housekeeper.tick(sweep=True)
            store = runtime().main.store
            assert store.now() == (right.now + AHEAD).timestamp() * 1_000
            assert [hold.state for hold in store.holds().result()] == [HELD]
            with pytest.raises(farthing.BudgetExceeded):
                chat(client)
            list(stream)
            assert [entry.ending for entry in store.entries().result()] == ["ok", "ok"]
