"""
N threads, tasks and processes on one account: what is admitted is exactly what fits, and nothing else.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farthing.kernel.balances import Balance
from farthing.kernel.budget import make_budget
from farthing.kernel.ledger import Denied, Placed
from farthing.stores.contract import Store
from farthing.stores.memory import MemoryStore
from farthing.stores.sqlite import SQLiteStore
from tests.contract.calls import outcome, plan
from tests.contract.conftest import check_books
from tests.contract.test_holds import total

SIZE = 150
PROCESSES = 4


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "ledger.db")
    yield store
    check_books(store)
    store.close()


def tokens(store: Store) -> Balance:
    return total(store, lambda ticket: ticket.result())


@pytest.mark.parametrize("count", [2, 5, 10, 50, 100])
def test_threads(store: Store, count: int) -> None:
    fits = max(1, count // 2)
    store.put_budget(make_budget("b", tokens=SIZE * fits + SIZE - 1)).result()
    barrier = threading.Barrier(count)
    answers: list[object] = []

    def run(number: int) -> None:
        planned = plan(store, f"call-{number}")
        barrier.wait()
        answers.append(store.place(planned).result())

    workers = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(isinstance(answer, Placed) for answer in answers) == fits
    assert sum(isinstance(answer, Denied) for answer in answers) == count - fits
    assert tokens(store) == Balance(0, SIZE * fits)


@pytest.mark.parametrize("count", [2, 5, 10, 50, 100, 1_000])
def test_tasks(store: Store, count: int) -> None:
    fits = count // 2
    store.put_budget(make_budget("b", tokens=SIZE * fits + SIZE - 1)).result()

    async def run(number: int) -> object:
        return await store.place(plan(store, f"call-{number}"))

    async def main() -> list[object]:
        return await asyncio.gather(*(run(number) for number in range(count)))

    answers = asyncio.run(main())
    assert sum(isinstance(answer, Placed) for answer in answers) == fits
    assert tokens(store) == Balance(0, SIZE * fits)


def test_threads_that_settle_let_others_in(store: Store) -> None:
    """20 threads on an account for 10 at once: all get their 20 calls through in the end, never above the limit."""
    workers, calls, limit = 20, 20, 10 * SIZE
    store.put_budget(make_budget("b", tokens=10**9, concurrency=10)).result()
    store.put_budget(make_budget("rate", tokens=limit + workers * calls * 120)).result()
    over: list[int] = []

    def run(worker: int) -> None:
        for number in range(calls):
            call, tries = f"call-{worker}-{number}", 0
            while not isinstance(store.place(plan(store, f"{call}-{tries}")).result(), Placed):
                tries += 1
            in_flight = [row.held_concurrency for row in store.balances().result().values()]
            over.extend(calls for calls in in_flight if calls > 10)
            store.settle(f"{call}-{tries}", outcome()).result()

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert over == []
    assert len(store.entries().result()) == workers * calls
    assert {row.of("tokens") for row in store.balances().result().values()} == {Balance(120 * workers * calls)}


def test_one_end_among_many_is_the_one_that_counts(store: Store) -> None:
    store.put_budget(make_budget("b", tokens=10**6)).result()
    store.place(plan(store, "call")).result()
    entries: list[object] = []
    conflicts: list[Exception] = []

    def run(number: int) -> None:
        try:
            entries.append(store.settle("call", outcome(output=number)).result().entry)
        except Exception as error:  # noqa: BLE001 - what it is, is what is asserted below
            conflicts.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {type(error).__name__ for error in conflicts} == {"HoldConflict"}
    assert store.entries().result() == entries
    assert len(entries) == 1


PROCESS = """
import sys, threading
from farthing.kernel.ledger import Placed
from farthing.stores.sqlite import SQLiteStore
from tests.contract.calls import plan, outcome
path, me, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = SQLiteStore(path)
plans = [plan(store, f"{me}-{number}") for number in range(count)]
print("ready", flush=True)
sys.stdin.readline()
admitted = []
def run(share):
    for planned in share:
        if isinstance(store.place(planned).result(), Placed):
            admitted.append(planned.id)
threads = [threading.Thread(target=run, args=(plans[start::8],)) for start in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for call in admitted[::2]:
    store.settle(call, outcome(input=100, output=50)).result()
print(len(admitted), flush=True)
sys.stdin.readline()
store.close()
"""


def test_four_processes_on_one_file(tmp_path: Path) -> None:
    path, each = tmp_path / "ledger.db", 60
    fits = PROCESSES * each // 2
    store = SQLiteStore(path)
    store.put_budget(make_budget("b", tokens=SIZE * fits + SIZE - 1)).result()
    argv = [sys.executable, "-c", PROCESS, str(path)]
    processes = [
        subprocess.Popen([*argv, f"p{number}", str(each)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert said(process) == "ready"
        for process in processes:
            tell(process)
        admitted = [int(said(process)) for process in processes]
        assert sum(admitted) == fits
        balance = tokens(store)
        assert balance.settled + balance.held == SIZE * fits
        assert len(store.entries().result()) == sum((count + 1) // 2 for count in admitted)
        assert len({hold.owner for hold in store.holds().result()}) == sum(count > 1 for count in admitted)
        check_books(store)
    finally:
        for process in processes:
            process.communicate("\n", timeout=60)
    assert [process.returncode for process in processes] == [0] * PROCESSES
    store.close()


PASSER_BY = """
import sys
from farthing.kernel.ledger import Placed
from farthing.stores.sqlite import SQLiteStore
from tests.contract.calls import plan
store = SQLiteStore(sys.argv[1])
print(sum(isinstance(store.place(plan(store, f"{sys.argv[2]}-{n}")).result(), Placed) for n in range(int(sys.argv[3]))))
store.close()
"""


def test_a_file_that_one_process_has_opened_twice_and_others_come_to_and_go_from(tmp_path: Path) -> None:
    """
    A proxy beside the library, in one process on one ledger. SQLite's locks belong to the process: whoever opens and
    closes the file by hand takes them off, and then the next program that leaves takes the log away with it.
    """
    path, fits = tmp_path / "ledger.db", 30
    first = SQLiteStore(path)
    first.put_budget(make_budget("b", tokens=SIZE * fits)).result()
    second = SQLiteStore(path)

    def passer_by(name: str, calls: int) -> int:
        argv = [sys.executable, "-c", PASSER_BY, str(path), name, str(calls)]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout)

    def here(name: str, store: Store, calls: int) -> int:
        return sum(isinstance(store.place(plan(store, f"{name}-{n}")).result(), Placed) for n in range(calls))

    admitted = passer_by("p1", 5) + here("h1", first, 5) + here("h2", second, 5)
    admitted += passer_by("p2", 20) + here("h3", first, 20) + here("h4", second, 20)
    assert admitted == fits
    assert tokens(first).total == tokens(second).total == SIZE * fits
    check_books(first)
    second.close()
    first.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
