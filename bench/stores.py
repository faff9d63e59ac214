"""
What one call costs on the SQLite store: hold + settle, three accounts in tokens and USD, full durability.

Processor time of the whole process (callers and writer), for the host's disk is not what is measured.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from farthing.kernel.budget import make_budget
from farthing.kernel.hold import Outcome
from farthing.kernel.ledger import Placed
from farthing.kernel.plan import Account, Ask, CallFacts, Formula, Plan, make_plan
from farthing.kernel.usage import Usage
from farthing.stores.sqlite import SQLiteStore

BUDGETS = 3
DEADLINE_MS = 2_000_000_000_000
OUTCOME = Outcome((320, 102_000, 1, 0), Usage(input=200, output=120), 102_000)
"""What 200 and 120 tokens cost at the price of :func:`_plan`: less than was held."""


def sqlite_hold_settle(calls: int, concurrency: int, *, tasks: bool = True) -> dict[str, Any]:
    """
    Place and settle *calls* holds by this many tasks (or threads) at a time.

    Returns ``cpu_us_per_call``, ``wall_us_per_call``, and ``plan_us_per_call``, the part of the processor time that
    goes into making the plans alone (in a loop of its own).
    """
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as directory:
        store = SQLiteStore(Path(directory, "ledger.db"))
        try:
            accounts = _accounts(store)
            planned = time.process_time()
            for number in range(calls):
                _plan(f"plan-{number}", accounts, store)
            planned = time.process_time() - planned
            _run(store, accounts, calls // 10, concurrency, tasks=tasks, prefix="warm")
            cpu, wall = time.process_time(), time.perf_counter()
            _run(store, accounts, calls, concurrency, tasks=tasks, prefix="call")
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        finally:
            store.close()
    return {
        "calls": calls,
        "concurrency": concurrency,
        "by": "tasks" if tasks else "threads",
        "cpu_us_per_call": cpu / calls * 1e6,
        "wall_us_per_call": wall / calls * 1e6,
        "plan_us_per_call": planned / calls * 1e6,
    }


def _accounts(store: SQLiteStore) -> list[Account]:
    for number in range(BUDGETS):
        budget = make_budget(f"budget-{number}", tokens=10**12, usd=1_000_000, each=["user"], scope={"team": "search"})
        store.put_budget(budget).result()
    catalogue = store.catalogue().result()
    tags = {"team": "search", "user": "alice", "feature": "bench"}
    return [catalogue.account(budget, tags, store.now()) for budget in catalogue.budgets.values()]


def _plan(plan_id: str, accounts: list[Account], store: SQLiteStore) -> Plan:
    facts = CallFacts(
        model="gpt-4o-mini",
        provider="openai",
        dialect="openai.chat",
        tags=(("team", "search"), ("user", "alice"), ("feature", "bench")),
        budgets=tuple(account.budget.title for account in accounts),
        input_tokens=200,
        price=Formula(200 * 150, 600),
        price_version="bench",
    )
    ask = Ask(plan_id, facts, 256, 16, deadline_ms=DEADLINE_MS)
    return make_plan(ask, accounts, catalogue_version=BUDGETS)


def _run(
    store: SQLiteStore, accounts: list[Account], calls: int, concurrency: int, *, tasks: bool, prefix: str
) -> None:
    shares = [range(start, calls, concurrency) for start in range(concurrency)]

    def work(share: range) -> None:
        for number in share:
            plan = _plan(f"{prefix}-{number}", accounts, store)
            placed = store.place(plan).result()
            assert isinstance(placed, Placed)
            store.settle(plan.id, OUTCOME).result()

    async def work_in_loop(share: range) -> None:
        for number in share:
            plan = _plan(f"{prefix}-{number}", accounts, store)
            placed = await store.place(plan)
            assert isinstance(placed, Placed)
            await store.settle(plan.id, OUTCOME)

    async def all_tasks() -> None:
        await asyncio.gather(*(work_in_loop(share) for share in shares))

    if tasks:
        asyncio.run(all_tasks())
        return
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    for by_tasks in (True, False):
        print(sqlite_hold_settle(20_000, 64, tasks=by_tasks))
