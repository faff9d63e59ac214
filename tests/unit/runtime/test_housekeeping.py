"""The housekeeper outlives whatever goes wrong in one of its rounds."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

import farthing
from farthing.admin.standing import set_budget
from farthing.kernel.budget import make_budget
from farthing.runtime.default import runtime
from farthing.stores.sqlite import SQLiteStore
from farthing.stores.sqlite.files import FileLock
from tests.contract.calls import plan
from tests.waiting import eventually, impatient

OUT_OF_HANDLES = """
import os, resource, sys, threading
from farthing import BudgetExceeded, configure, hold
from farthing.runtime.default import runtime

configure(ledger=f"sqlite:///{sys.argv[1]}")
keeper, swept = runtime().housekeeper, threading.Event()
tick = keeper.tick
def watched(*, sweep):
    try:
        tick(sweep=sweep)
    finally:
        if sweep:
            swept.set()
keeper.tick = watched
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
swept.wait()
for handle in taken:
    os.close(handle)
print("swept", flush=True)
while sys.stdin.readline():
    try:
        with hold(tokens=50) as call:
            call.void()
        print("paid", flush=True)
    except BudgetExceeded:
        print("refused", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on open files")
def test_a_moment_without_file_handles(tmp_path: Path) -> None:
    """The sweep cannot look whose process lives. Afterwards new budgets are learned of, as before."""
    path = tmp_path / "ledger.db"
    store = SQLiteStore(path)
    store.put_budget(make_budget("b", tokens=1_000)).result()
    store.place(plan(store, "in flight")).result()
    argv = [sys.executable, "-c", OUT_OF_HANDLES, str(path)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(word: str = "\n") -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(word)
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        assert say("") == "swept"
        assert say() == "paid"
        set_budget(store, "all", tokens=5)
        eventually(lambda: say() == "refused")
        (held,) = store.holds().result()
        assert held.state == "held", "whose process could not be looked at is alive"
    finally:
        process.kill()
        process.communicate()
        store.close()


@pytest.mark.usefixtures("farthing_isolated")
def test_an_outage_of_the_ledger_is_said_once_and_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    farthing.configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
    here, lock = runtime(), FileLock(tmp_path / "ledger.db-lock")
    here.housekeeper.stop()
    caplog.clear()
    lock.acquire()
    with impatient(here.main.store):
        for _ in range(3):
            here.housekeeper.tick_safely(sweep=True)
    lock.release()
    lock.drop()
    here.main.store.balances([]).result()
    here.housekeeper.tick_safely(sweep=True)
    said = [record for record in caplog.records if record.name == "farthing.housekeeping"]
    assert [record.levelname for record in said] == ["ERROR", "WARNING"]
    assert not any(record.exc_info for record in said)


CHILD_WITH_THREADS = """
import multiprocessing, sys, threading
from concurrent.futures import ThreadPoolExecutor

from farthing import budget, configure, hold
from farthing.runtime.default import runtime


def work(over, begun):
    with hold(tokens=10, model="gpt-4o") as held:
        begun.set()
        over.wait()
        held.settle({"output_tokens": 5})
    with hold(tokens=10, model="gpt-4o") as held:
        held.settle({"output_tokens": 5})


def child(ledger, how):
    configure(ledger=ledger)
    over, begun = threading.Event(), threading.Event()
    # Called when this process begins to wait for its threads.
    threading._register_atexit(over.set)
    with budget("day", tokens=1_000):
        if how == "pool":
            ThreadPoolExecutor(4).submit(work, over, begun)
        else:
            threading.Thread(target=work, args=(over, begun)).start()
        begun.wait()


if __name__ == "__main__":
    ledger, method, how = sys.argv[1:]
    process = multiprocessing.get_context(method).Process(target=child, args=(ledger, how))
    process.start()
    process.join()
    configure(ledger=ledger)
    store = runtime().main.store
    print(process.exitcode, [entry.ending for entry in store.entries().result()], store.holds().result())
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("how", ["thread", "pool"])
def test_threads_of_a_child_may_outlive_what_it_was_started_for(method: str, how: str, tmp_path: Path) -> None:
    """It waits for them before it ends, as every process does: their calls had found the ledger closed."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{method} is not there")
    script = tmp_path / "script.py"
    script.write_text(CHILD_WITH_THREADS)
    command = [sys.executable, "-W", "ignore", str(script), f"sqlite:///{tmp_path / 'ledger.db'}", method, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.stdout, done.stderr) == ("0 ['ok', 'ok'] ()\n", "")
