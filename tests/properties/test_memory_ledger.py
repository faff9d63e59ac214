"""
I1 to I6, I8 and I9 of the design, on the memory ledger: any sequence of commands, clock jumps and changes of budgets
gives the answers and the balances of an independent model, and replaying the journal gives the balances again.
"""

from __future__ import annotations

from hypothesis import settings

from farthing.stores.memory import MemoryStore

from .ledger_machine import ledger_machine

TestMemoryLedger = ledger_machine(lambda clock: MemoryStore(clock=clock, entries_max=None)).TestCase
TestMemoryLedger.settings = settings(max_examples=150, stateful_step_count=40)

# Older rows fold into the snapshot, so nearly every step crosses that line.
TestMemoryLedgerOfTwoRows = ledger_machine(
    lambda clock: MemoryStore(clock=clock, entries_max=2), keeps_every_entry=False
).TestCase
TestMemoryLedgerOfTwoRows.settings = settings(max_examples=60, stateful_step_count=40)
