"""The housekeeper outlives whatever goes wrong in one of its rounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farthing.admin.standing import set_budget
from farthing.kernel.budget import make_budget
from farthing.stores.sqlite import SQLiteStore
from tests.contract.calls import plan
from tests.waiting import eventually

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
