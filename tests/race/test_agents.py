"""
Threads, tasks and processes of one crew: what is admitted is what fits, nobody falls below its reserve, nothing flows
uphill, and the sum of all allocations never changes.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farthing import hold
from farthing.agents import BudgetExceededError, BudgetManager
from farthing.errors import ConfigError
from farthing.runtime.default import runtime, use
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores.sqlite import SQLiteStore
from tests.contract.conftest import check_books

AGENTS = {"planner": (3, 2_000), "worker": (2, 3_000), "idler": (1, 5_000)}
"""By priority and tokens; each keeps a tenth."""
SIZE = 100
ALL = 10_000
LENDABLE = {"planner": 2_000 + 2_700 + 4_500, "worker": 3_000 + 4_500, "idler": 5_000}
"""What each could use if the others use nothing."""


@pytest.fixture(params=["memory", "sqlite"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BudgetManager]:
    ledger = None if request.param == "memory" else f"sqlite:///{tmp_path / 'ledger.db'}"
    mine = Runtime(Settings(ledger=ledger))
    before = use(mine)
    manager = BudgetManager(name=None if ledger is None else "crew", wait_seconds=120)
    for name, (priority, tokens) in AGENTS.items():
        manager.register_agent(name, priority, tokens)
    yield manager
    check_books(manager.crew.ledger.store)
    use(before)
    mine.close()


def in_threads(number: int, run: Callable[[int], None]) -> None:
    barrier = threading.Barrier(number)

    def start(index: int) -> None:
        barrier.wait()
        run(index)

    threads = [threading.Thread(target=start, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check(manager: BudgetManager) -> None:
    """I7, at this instant."""
    detail = manager.report(detail=True)
    assert sum(of["allocated"] for of in detail.values()) == ALL
    assert sum(of["lent"] for of in detail.values()) == sum(of["borrowed"] for of in detail.values())
    for name, of in detail.items():
        assert of["overrun"] == 0
        assert of["allocated"] == of["consumed"] + of["held"] + of["remaining"]
        # It may use its reserve itself: what it lent never came out of it.
        assert of["lent"] <= AGENTS[name][1] - of["reserve"]
    assert detail["planner"]["lent"] == 0, "nothing flows uphill"


def test_fifty_threads_take_all_that_there_is(manager: BudgetManager) -> None:
    admitted: list[str] = []

    def run(index: int) -> None:
        for _ in range(4):
            try:
                with manager.agent("planner"), hold(tokens=SIZE) as held:
                    held.settle(tokens=SIZE)
            except BudgetExceededError:
                return
            admitted.append("planner")

    in_threads(50, run)
    check(manager)
    assert len(admitted) == LENDABLE["planner"] // SIZE
    assert manager.report()["planner"]["consumed"] == LENDABLE["planner"]


def test_fifty_threads_of_three_agents(manager: BudgetManager) -> None:
    names = list(AGENTS)
    spent = dict.fromkeys(names, 0)
    lock = threading.Lock()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            check(manager)

    watcher = threading.Thread(target=watch)
    watcher.start()

    def run(index: int) -> None:
        chance = random.Random(index)
        for _ in range(12):
            name = chance.choice(names)
            asked = chance.randint(1, 400)
            used = chance.randint(0, asked)
            try:
                with manager.agent(name), hold(tokens=asked) as held:
                    held.settle(tokens=used)
            except BudgetExceededError:
                continue
            with lock:
                spent[name] += used

    try:
        in_threads(50, run)
    finally:
        stop.set()
        watcher.join()
    check(manager)
    assert {name: of["consumed"] for name, of in manager.report().items()} == spent


def test_fifty_tasks(manager: BudgetManager) -> None:
    async def once(index: int) -> bool:
        try:
            async with manager.agent("worker"), hold(tokens=SIZE) as held:
                await asyncio.sleep(0)
                held.settle(tokens=SIZE)
        except BudgetExceededError:
            return False
        return True

    async def run() -> int:
        return sum(await asyncio.gather(*(once(index) for index in range(100))))

    assert asyncio.run(run()) == LENDABLE["worker"] // SIZE
    check(manager)


def test_calls_of_unknown_size_wait_for_each_other(manager: BudgetManager) -> None:
    """Each says 1,500 at most and really 50: 40 of them fit, though far fewer fit at once."""
    calls: list[int] = []

    def work(prompt: str) -> None:
        calls.append(1)
        time.sleep(0.001)

    call = manager.govern("planner", usage_fn=lambda result: 50)(work)
    refused: list[BudgetExceededError] = []

    def run(index: int) -> None:
        try:
            call("hello")
        except BudgetExceededError as error:
            refused.append(error)

    in_threads(40, run)
    check(manager)
    assert refused == []
    assert (len(calls), manager.report()["planner"]["consumed"]) == (40, 2_000)
    assert not runtime().line.waiting


WORKER = """
import sys
from farthing import hold
from farthing.agents import BudgetManager, BudgetExceededError
manager = BudgetManager(sys.argv[1], "crew")
for name, terms in (("planner", (3, 2000)), ("worker", (2, 3000)), ("idler", (1, 5000))):
    manager.register_agent(name, *terms)
print("ready", flush=True)
sys.stdin.readline()
admitted = 0
for _ in range(int(sys.argv[2])):
    try:
        with manager.agent("planner"), hold(tokens=100) as held:
            held.settle(tokens=100)
        admitted += 1
    except BudgetExceededError:
        pass
print(admitted, flush=True)
"""
PROCESSES = 8


def test_terms_that_many_change_at_once(manager: BudgetManager) -> None:
    """Tokens are moved, given and taken while other terms change: no change undoes another, and none makes a token."""

    def run(index: int) -> None:
        for number in range(6):
            if index < 4:
                manager.ledger.adjust_allocation("idler", 1 if number % 3 else -1)
            elif index < 6:
                manager.update_agent("idler", min_reserve=100 + number, confidence_threshold=0.5)
            else:
                manager.reallocator.reallocate("worker", 7)

    moved_before = manager.report()["worker"]["allocated"]
    in_threads(8, run)
    report = manager.report()
    assert sum(of["allocated"] for of in report.values()) == ALL + 4 * (4 - 2)
    assert report["worker"]["allocated"] - moved_before == 2 * 6 * 7
    assert manager.contracts["idler"].min_reserve == 105


@pytest.mark.parametrize("way", ["delegate", "register"])
def test_a_name_that_many_delegate_at_once(manager: BudgetManager, way: str) -> None:
    """One of them does, and the parent is debited for one."""
    done: list[int] = []
    refused: list[BaseException] = []

    def run(index: int) -> None:
        name = f"sub-{index % 2}"
        try:
            if way == "delegate":
                manager.delegate("planner", name, max_tokens=900, expires="10m")
            else:
                manager.register_agent(name, 3, 900, parent="planner")
            done.append(index)
        except BaseException as error:  # noqa: BLE001 - what it is, is what is asserted below
            refused.append(error)

    in_threads(8, run)
    assert {type(error) for error in refused} <= {ConfigError}, refused
    assert len(done) == (2 if way == "delegate" else 8)
    report = manager.report(detail=True)
    planner = report["planner"]
    assert planner["lent"] == 2 * 900
    # What it lent may be borrowed in part: while another's debit for the same name stood, it was that much short.
    assert planner["remaining"] == 2_000 + planner["borrowed"] - 2 * 900
    assert sum(of["allocated"] for of in report.values()) == ALL
    for name in ("sub-0", "sub-1"):
        manager.close_agent(name)
    check(manager)


def test_eight_processes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    argv = [sys.executable, "-c", WORKER, url, "13"]
    processes = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        said = [process.communicate("\n", timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert sum(map(int, said)) == LENDABLE["planner"] // SIZE == 92
    store = SQLiteStore(tmp_path / "ledger.db")
    try:
        check_books(store)
        entries = store.entries().result()
        assert sum(entry.tokens("input") for entry in entries) == 9_200
        lent = [transfer for entry in entries for transfer in entry.transfers]
        assert sum(transfer.amount for transfer in lent) == 7_200
        assert all("planner was" in transfer.why for transfer in lent)
    finally:
        store.close()
