"""
A month of history, replayed under other budgets. Beside it: the same calls held and settled on nothing but memory.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from farthing import prices
from farthing.kernel.budget import make_budget
from farthing.reports.past import read_past
from farthing.reports.replaying import replay
from farthing.runtime.settings import Settings
from farthing.stores.memory import MemoryStore
from farthing.stores.sqlite import SQLiteStore

from .bars import Figure
from .history import Clock, write

CALLS = 200_000
BUDGETS = (
    make_budget("company", usd=25, per="day"),
    make_budget(
        "each-team",
        usd=4,
        per="day",
        each=["team"],
        on_exceed="downgrade",
        downgrade={"gpt-4o": "gpt-4o-mini", "claude-sonnet-4-5": "claude-haiku-4-5"},
    ),
    make_budget("each-user", tokens=100_000, per="rolling 1h", each=["user"], on_exceed="clamp"),
)


def measure(*, quick: bool = False) -> list[Figure]:
    calls = CALLS // 10 if quick else CALLS
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        clock = Clock()
        # Writing the month is not what is measured.
        store = SQLiteStore(Path(folder, "ledger.db"), clock=clock, durability="normal", patience_seconds=120)
        write(store, clock, calls)
        began, began_cpu = time.perf_counter(), time.process_time()
        past = read_past(store)
        read = time.perf_counter()
        found = replay(
            past, BUDGETS, settings=Settings(), prices=prices.default_book, tag_names=("team", "user", "feature")
        )
        done, cpu = time.perf_counter(), time.process_time() - began_cpu
        store.close()
    memory, clock = MemoryStore(clock=Clock(), entries_max=1_000), Clock()
    start = time.perf_counter()
    write(memory, clock, calls)
    beside = time.perf_counter() - start
    whole = found.whole
    said = f"{whole.denied:,} denied, {whole.downgraded:,} downgraded, {whole.clamped:,} clamped"
    return [
        Figure(
            f"replay of {calls:,} calls under 3 budgets, from SQLite",
            done - began,
            "s",
            60.0 * calls / CALLS,
            f"CPU {cpu:.1f} s; reading them: {read - began:.1f} s; writing them to memory: {beside:.1f} s; {said}",
        )
    ]
