"""Hold + settle on one ledger, three accounts in tokens and USD: in memory, and on SQLite with full durability."""

from __future__ import annotations

import statistics
import time

from farthing.kernel.budget import make_budget
from farthing.kernel.hold import Outcome
from farthing.kernel.ledger import Placed
from farthing.kernel.plan import Ask, CallFacts, Formula, make_plan
from farthing.kernel.usage import Usage
from farthing.runtime.ledgers import Ledger
from farthing.stores.memory import MemoryStore

from .bars import Figure
from .stores import sqlite_hold_settle

OUTCOME = Outcome((320, 5_000_000, 1, 0), Usage(input=200, output=120), 5_000_000)
FACTS = CallFacts("gpt-4o", "openai", "openai.chat", (), ("a", "b", "c"), 200, 1, Formula(5_000_000, 10_000))


def measure(*, quick: bool) -> list[Figure]:
    """Microseconds of processor time a call."""
    rounds, calls = (5, 1_000) if quick else (9, 4_000)
    memory = [(_memory(calls), _reference(calls)) for _ in range(rounds)]
    sqlite = [(sqlite_hold_settle(calls, 64)["cpu_us_per_call"], _reference(calls)) for _ in range(3 if quick else 5)]
    return [
        Figure("hold + settle, memory, 3 accounts", _median(memory, 0), "µs", 40, _beside(memory)),
        Figure("hold + settle, SQLite, durable, 64 at once", _median(sqlite, 0), "µs CPU", 80, _beside(sqlite)),
    ]


def _memory(calls: int) -> float:
    store = MemoryStore()
    ledger = Ledger(store)
    ledger.refresh(store.catalogue().result())
    budgets = [make_budget(name, usd=1_000_000, tokens=10**12) for name in ("a", "b", "c")]
    started = time.process_time()
    for number in range(calls):
        now_ms = store.now()
        ask = Ask(f"call-{number}", FACTS, 500, 16, now_ms + 600_000)
        plan = make_plan(ask, ledger.accounts(budgets, {}, now_ms))
        if not isinstance(store.place(plan).result(), Placed):
            raise AssertionError("the bench's budget is large enough for every call")
        store.settle(ask.id, OUTCOME).result()
    return (time.process_time() - started) / calls * 1e6


def _reference(calls: int) -> float:
    """A loop of plain Python of about the same kind of work, to tell the host's mood: 100 dict and tuple operations."""
    counters = {f"key-{index}": (0, 0, 0) for index in range(20)}
    keys = list(counters)
    started = time.process_time()
    for _ in range(calls // 10):
        for _ in range(5):
            for key in keys:
                settled, held, suspect = counters[key]
                counters[key] = (settled + 1, held, suspect)
    return (time.process_time() - started) / (calls // 10) * 1e6


def _median(pairs: list[tuple[float, float]], place: int) -> float:
    return statistics.median(pair[place] for pair in pairs)


def _beside(pairs: list[tuple[float, float]]) -> str:
    ratio = statistics.median(value / reference for value, reference in pairs)
    return f"{ratio:.1f} × 100 dict updates ({_median(pairs, 1):.0f} µs)"
