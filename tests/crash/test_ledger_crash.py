"""
A process that is killed with calls in flight, one that stops cleanly, one that forks: what the ledger says afterwards.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farthing.errors import StoreUnavailable
from farthing.kernel.balances import Balance
from farthing.kernel.budget import make_budget
from farthing.kernel.ledger import Denied, Placed
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores.contract import SWEEP_BATCH
from farthing.stores.sqlite import SQLiteStore
from farthing.stores.sqlite.tickets import Ticket
from tests.contract.calls import outcome, plan
from tests.contract.conftest import check_books
from tests.contract.test_holds import total
from tests.waiting import eventually

CALLS = 50
SIZE = 150

IN_FLIGHT = """
import sys, os, threading
from farthing.stores.sqlite import SQLiteStore
from tests.contract.calls import plan, outcome
store = SQLiteStore(sys.argv[1])
for number in range(int(sys.argv[2])):
    store.place(plan(store, f"call-{number}")).result()
if sys.argv[3] == "settled":
    for number in range(int(sys.argv[2])):
        store.settle(f"call-{number}", outcome())
print(store.owner, flush=True)
if sys.argv[3] == "held":
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    store = SQLiteStore(path)
    store.put_budget(make_budget("b", tokens=(CALLS + 1) * SIZE, concurrency=CALLS + 1)).result()
    store.close()
    return path


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    check_books(store)
    store.close()


def tokens(store: SQLiteStore) -> Balance:
    return total(store, lambda ticket: ticket.result())


def concurrent(store: SQLiteStore) -> Balance:
    (row,) = store.balances().result().values()
    return row.of("concurrency")


def start(path: Path, how: str, calls: int = CALLS) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", IN_FLIGHT, str(path), str(calls), how]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def owner_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=60)


def test_a_killed_process_leaves_every_call_as_suspect(store: SQLiteStore, path: Path) -> None:
    process = start(path, "held")
    owner = owner_of(process)
    assert store.sweep().result() == ()
    assert concurrent(store) == Balance(0, CALLS)
    kill(process)
    swept = store.sweep().result()
    assert sorted(settled.hold.id for settled in swept) == sorted(f"call-{number}" for number in range(CALLS))
    assert {(settled.hold.state, settled.hold.owner) for settled in swept} == {("suspect", owner)}
    entries = store.entries().result()
    assert {(entry.ending, entry.suspect, entry.note) for entry in entries} == {
        ("owner_died", True, f"process {owner} is gone")
    }
    assert len(entries) == CALLS
    assert (tokens(store), concurrent(store)) == (Balance(0, 0, CALLS * SIZE), Balance())
    # The budget still holds.
    assert isinstance(store.place(plan(store, "one more")).result(), Placed)
    assert isinstance(store.place(plan(store, "too many")).result(), Denied)
    assert os.listdir(f"{path}-owners") == [store.owner]


def test_a_restart_finds_what_the_killed_process_left(path: Path) -> None:
    process = start(path, "held")
    owner_of(process)
    kill(process)
    store = SQLiteStore(path)
    assert len(store.holds("suspect").result()) == CALLS
    assert os.listdir(f"{path}-owners") == [store.owner]
    check_books(store)
    store.close()


def test_more_calls_were_in_flight_than_one_sweep_takes(tmp_path: Path) -> None:
    """All that were are said to be suspect before anything is admitted: the calls at once are free again."""
    path, calls = tmp_path / "ledger.db", 2 * SWEEP_BATCH + 1
    store = SQLiteStore(path)
    store.put_budget(make_budget("b", concurrency=calls)).result()
    store.close()
    process = start(path, "held", calls)
    owner_of(process)
    kill(process)
    store = SQLiteStore(path)
    assert sum(isinstance(store.place(plan(store, f"new-{n}")).result(), Placed) for n in range(calls)) == calls
    assert len(store.holds("suspect").result()) == calls
    check_books(store)
    store.close()


def test_one_round_of_housekeeping_sweeps_all(path: Path, tmp_path: Path) -> None:
    calls = 2 * SWEEP_BATCH + 1
    runtime = Runtime(Settings(ledger=f"sqlite:///{tmp_path / 'ledger.db'}"))
    store = runtime.main.store
    runtime.put_budget(make_budget("b", concurrency=calls), update=True)
    process = start(path, "held", calls)
    owner_of(process)
    kill(process)
    runtime.housekeeper.tick(sweep=True)
    assert store.holds("held").result() == ()
    assert len(store.holds("suspect").result()) == calls
    runtime.close()


def test_a_clean_stop_leaves_nothing_suspect_and_loses_nothing(store: SQLiteStore, path: Path) -> None:
    """The settles were only handed over: the process ends without waiting for one, and without close()."""
    process = start(path, "settled")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert store.sweep().result() == ()
    assert store.holds().result() == ()
    assert [entry.ending for entry in store.entries().result()] == ["ok"] * CALLS
    assert tokens(store) == Balance(CALLS * 120)
    assert os.listdir(f"{path}-owners") == [store.owner]


def test_a_stopped_process_is_not_a_dead_one(store: SQLiteStore, path: Path) -> None:
    process = start(path, "held")
    owner_of(process)
    process.send_signal(signal.SIGSTOP)
    try:
        assert store.sweep().result() == ()
    finally:
        kill(process)
    assert len(store.sweep().result()) == CALLS


def test_killed_at_any_moment_the_file_is_whole(store: SQLiteStore, path: Path) -> None:
    """A process that places and settles without pause is killed again and again, wherever it is."""
    script = """
import os, sys, threading
from farthing.stores.sqlite import SQLiteStore
from tests.contract.calls import plan, outcome
store = SQLiteStore(sys.argv[1])
def run(worker):
    number = 0
    while True:
        call = f"{sys.argv[2]}-{worker}-{number}"
        store.place(plan(store, call, budgets=["b2"])).result()
        os.write(1, f"{call}\\n".encode())
        store.settle(call, outcome()).result()
        number += 1
for worker in range(4): threading.Thread(target=run, args=(worker,)).start()
"""
    store.put_budget(make_budget("b2", tokens=10**9)).result()
    told: list[str] = []
    for life in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path), f"life{life}"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        told += [process.stdout.readline().strip() for _ in range(20 + 13 * life)]
        process.kill()
        rest, _ = process.communicate(timeout=60)
        told += rest.splitlines()
        while store.sweep().result():
            pass
        check_books(store)
    # What a process was told is there: settled or suspect.
    assert len(set(told)) == len(told) >= 4 * 20
    assert set(told) <= {entry.hold_id for entry in store.entries().result()}
    assert tokens(store).held == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestForks:
    """What the child does is said by its exit code: its assertions run where no test runner is."""

    def child(self, work: Callable[[], None]) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:  # noqa: BLE001 - the child's whole answer
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    def test_a_child_holds_in_its_own_name_on_the_same_budget(self, store: SQLiteStore) -> None:
        store.place(plan(store, "of the parent")).result()
        parent = store.owner

        def work() -> None:
            assert store.owner != parent
            assert [hold.owner for hold in store.holds().result()] == [parent]
            assert isinstance(store.place(plan(store, "of the child")).result(), Placed)
            store.place(plan(store, "settled by the child")).result()
            store.settle("settled by the child", outcome()).result()
            assert tokens(store) == Balance(120, 2 * SIZE)

        self.child(work)
        # The child is gone, the parent is not.
        (settled,) = store.sweep().result()
        assert settled.hold.id == "of the child"
        assert [hold.id for hold in store.holds("held").result()] == ["of the parent"]
        store.settle("of the parent", outcome()).result()
        assert tokens(store) == Balance(240, 0, SIZE)

    def test_a_child_that_ends_does_not_end_its_parent(self, store: SQLiteStore, path: Path) -> None:
        store.place(plan(store, "of the parent")).result()
        self.child(lambda: None)
        self.child(store.close)
        other = SQLiteStore(path)
        assert other.sweep().result() == ()
        other.close()
        store.settle("of the parent", outcome()).result()

    def test_tickets_are_not_inherited(self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        answered = store.place(plan(store, "answered"))
        placed = answered.result()
        writer, go_on = store._at_work(), threading.Event()
        serve = writer._serve

        def wait_and_serve(tickets: list[Ticket[Any]]) -> None:
            go_on.wait()
            serve(tickets)

        monkeypatch.setattr(writer, "_serve", wait_and_serve)
        waiting = store.place(plan(store, "waiting"))

        def work() -> None:
            assert answered.result() == placed
            with pytest.raises(StoreUnavailable, match="forked"):
                waiting.result()
            assert [hold.id for hold in store.holds().result()] == ["answered"]

        self.child(work)
        go_on.set()
        assert isinstance(waiting.result(), Placed)
        assert [hold.id for hold in store.holds().result()] == ["answered", "waiting"]

    def test_forking_among_busy_threads(self, store: SQLiteStore) -> None:
        """Threads place and settle while the process forks: every child can use the ledger, none disturbs it."""
        store.put_budget(make_budget("b2", tokens=10**9)).result()
        stop = threading.Event()
        counts = [0] * 4

        def run(worker: int) -> None:
            while not stop.is_set():
                call = f"thread-{worker}-{counts[worker]}"
                assert isinstance(store.place(plan(store, call, budgets=["b2"])).result(), Placed)
                store.settle(call, outcome()).result()
                counts[worker] += 1

        def work() -> None:
            call = f"child-{os.getpid()}"
            assert isinstance(store.place(plan(store, call, budgets=["b2"])).result(), Placed)
            store.settle(call, outcome()).result()

        threads = [threading.Thread(target=run, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                self.child(work)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert len(store.entries().result()) == sum(counts) + 10
        assert store.holds().result() == ()

    def test_a_child_of_a_stuck_process_says_why_it_cannot(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        store = SQLiteStore(path, patience_seconds=0.1)
        with store._at_work()._gate:

            def work() -> None:
                with pytest.raises(StoreUnavailable, match="spawn"):
                    store.catalogue()

            self.child(work)
        assert "the process forked now cannot use it" in caplog.text
        eventually(lambda: store._at_work().why_not_wait() is None)
        assert store.catalogue().result().budgets
        store.close()

    def test_a_file_opened_by_parent_and_child_stays_whole_when_the_parent_goes_first(self, path: Path) -> None:
        """SQLite's notes of its locks are inherited by a fork; the child must not live by them."""
        script = """
import os, sys
from farthing.stores.sqlite import SQLiteStore
from tests.contract.calls import plan, outcome
store = SQLiteStore(sys.argv[1])
store.place(plan(store, "parent")).result()
read, write = os.pipe()
if os.fork() == 0:
    store.place(plan(store, "child-before")).result()
    os.read(read, 1)
    for number in range(20):
        store.record(plan(store, f"child-{number}", budgets=[]), outcome()).result()
    store.settle("child-before", outcome()).result()
    store.close()
    print("child done", flush=True)
    os._exit(0)
os.write(write, b"x")
store.settle("parent", outcome()).result()
store.close()
print("parent done", flush=True)
"""
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=False
        )
        assert sorted(done.stdout.split("\n")) == ["", "child done", "parent done"], done.stderr
        store = SQLiteStore(path)
        assert len(store.entries().result()) == 22
        assert store.holds().result() == ()
        check_books(store)
        store.close()
