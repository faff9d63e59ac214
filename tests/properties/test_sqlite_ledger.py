"""
The same state machine as for the memory ledger, on SQLite: any sequence of commands, clock jumps and changes of budgets
gives the answers and the balances of an independent model, and replaying the file's journal gives the balances again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings

from farthing.stores.contract import Clock, Store
from farthing.stores.sqlite import SQLiteStore

from .ledger_machine import ledger_machine


class TemporaryLedger(SQLiteStore):
    """A ledger in a directory of its own, which goes when it is closed."""

    def __init__(self, clock: Clock) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="farthing-ledger-")
        super().__init__(Path(self._directory.name, "ledger.db"), clock=clock)

    def close(self) -> None:
        super().close()
        self._directory.cleanup()


def make_store(clock: Clock) -> Store:
    return TemporaryLedger(clock)


TestSQLiteLedger = ledger_machine(make_store).TestCase
TestSQLiteLedger.settings = settings(max_examples=30, stateful_step_count=30)
