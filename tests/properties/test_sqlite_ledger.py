"""
I1 to I6, I8 and I9 of the design, on the SQLite ledger: the same machine and model as for the memory ledger.

Method: one file in a fresh directory per example, on this machine's memory where it has one, since every command
waits for its commit.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from farthing.stores.contract import Clock
from farthing.stores.sqlite import SQLiteStore

from .ledger_machine import ledger_machine

IN_MEMORY = Path("/dev/shm")


def fresh(clock: Clock) -> SQLiteStore:
    directory = tempfile.mkdtemp(prefix="farthing-tests-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
    store = SQLiteStore(Path(directory, "ledger.db"), clock=clock, durability="normal")
    weakref.finalize(store, shutil.rmtree, directory, ignore_errors=True)
    return store


TestSQLiteLedger = ledger_machine(fresh).TestCase
TestSQLiteLedger.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class TakingTurns:
    """Two stores on one file, as two processes would be: every second command goes to the other."""

    def __init__(self, clock: Clock) -> None:
        self._first = fresh(clock)
        self._second = SQLiteStore(self._first.name, clock=clock, durability="normal")
        self._turn = 0

    def now(self) -> int:
        return max(self._first.now(), self._second.now())

    def close(self) -> None:
        self._second.close()
        self._first.close()

    def __getattr__(self, verb: str) -> Any:
        self._turn += 1
        return getattr((self._first, self._second)[self._turn % 2], verb)


TestTwoStoresOnOneFile = ledger_machine(TakingTurns).TestCase
TestTwoStoresOnOneFile.settings = TestSQLiteLedger.settings


@pytest.fixture(autouse=True)
def _seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # The second store may know a change of the budgets half a second late, of a time that no clock of ours moves.
    monkeypatch.setattr("farthing.stores.sqlite.store.CATALOGUE_SECONDS", -1)
