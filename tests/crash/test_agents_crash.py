"""A process that is killed while it gives budget to another agent: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farthing import BudgetManager, report
from farthing.runtime.default import runtime, use
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.testing import FakeClock
from tests.contract.conftest import check_books

KILLED = """
import os, signal, sys
from farthing import BudgetManager
from farthing.stores.sqlite import SQLiteStore
manager = BudgetManager(sys.argv[1], "crew")
manager.register_agent("planner", 3, 1_000)
manager.register_agent("worker", 2, 500)
verb = getattr(SQLiteStore, sys.argv[3])
def killed(*given, **named):
    if sys.argv[4] == "after":
        verb(*given, **named).result()
    os.kill(os.getpid(), signal.SIGKILL)
setattr(SQLiteStore, sys.argv[3], killed)
exec(sys.argv[2])
"""


def kill(ledger: str, statement: str, verb: str, when: str) -> None:
    """Run this until it comes to this verb of the store, and kill it there."""
    argv = [sys.executable, "-c", KILLED, ledger, statement, verb, when]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def later(ledger: str) -> Iterator[FakeClock]:
    """A process that comes a quarter of an hour later."""
    clock = FakeClock(datetime.now(UTC) + timedelta(minutes=15))
    mine = Runtime(Settings(ledger=ledger), clock=clock)
    before = use(mine)
    yield clock
    check_books(mine.main.store)
    use(before)
    mine.close()


def allocated() -> dict[str, int]:
    runtime().housekeeper.tick(sweep=True)
    manager = BudgetManager(runtime().settings.ledger, "crew")
    return {name: int(of["allocated"]) for name, of in manager.report().items()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
@pytest.mark.parametrize(("when", "planner", "worker"), [("before", 1_000, 500), ("after", 1_200, 300)])
def test_killed_while_it_moves_tokens_by_hand(
    ledger: str, later: FakeClock, when: str, planner: int, worker: int
) -> None:
    """They are where the limits say that they are. What was held for the move was never a call: nothing is spent."""
    kill(ledger, "manager.reallocator.reallocate('planner', 200)", "put_budgets", when)
    assert allocated() == {"planner": planner, "worker": worker}
    later.advance(days=2)
    assert allocated() == {"planner": planner, "worker": worker}
    assert runtime().main.store.holds().result() == ()
    assert report(since="all").totals()["tokens"] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
def test_killed_between_the_debit_and_the_child(ledger: str, later: FakeClock) -> None:
    delegate = """
manager.delegate('planner', 'sub', max_tokens=300)
"""
    kill(ledger, delegate, "put_budget", "before")
    assert allocated() == {"planner": 1_000, "worker": 500}
    assert runtime().main.store.holds().result() == ()
    manager = BudgetManager(ledger, "crew")
    manager.delegate("planner", "sub", max_tokens=300)
    assert allocated() == {"planner": 700, "worker": 500, "sub": 300}
