"""
One suite for every store, sync and async.

``store`` is each kind in turn, ``ask`` waits for a ticket in a thread or in an event loop. After every test the journal
is replayed and must give the balances, and no thread, file or lock may be left behind.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from farthing.kernel import ledger
from farthing.kernel.balances import ZERO
from farthing.stores.contract import Store, Ticket
from farthing.stores.memory import MemoryStore
from farthing.stores.sqlite import SQLiteStore
from farthing.testing import FakeClock

T = TypeVar("T")


class Ask(Protocol):
    def __call__(self, ticket: Ticket[T]) -> T: ...


def make_memory(clock: FakeClock, path: Path) -> Store:
    return MemoryStore(clock=clock, entries_max=None)


def make_sqlite(clock: FakeClock, path: Path) -> Store:
    return SQLiteStore(path / "ledger.db", clock=clock)


STORES: dict[str, Callable[[FakeClock, Path], Store]] = {"memory": make_memory, "sqlite": make_sqlite}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[Store]:
    files, before = open_files(), threads()
    store = STORES[request.param](clock, tmp_path)
    yield store
    check_books(store)
    store.close()
    assert open_files() <= files
    assert threads() <= before
    assert [path.name for path in tmp_path.rglob("*") if path.parent.name.endswith("-owners")] == []


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    if request.param == "sync":
        yield lambda ticket: ticket.result()
        return
    with asyncio.Runner() as runner:

        async def wait(ticket: Ticket[Any]) -> Any:
            return await ticket

        yield lambda ticket: runner.run(wait(ticket))


def let_pass(store: Store, ask: Ask, clock: FakeClock) -> None:
    """That so much time has passed, and no clock leapt, is certain after another half an hour."""
    ask(store.roll_up())
    clock.advance(minutes=30)


def check_books(store: Store) -> None:
    """I4 and I5: balances are the journal's projection, and none is negative."""
    balances = store.balances().result()
    assert all(min(balance) >= 0 for balance in balances.values())
    settled_before, entries, holds = store.journal().result()
    replayed = ledger.replay(dict(settled_before), entries, holds)
    assert replayed == {key: balance for key, balance in balances.items() if balance != ZERO}


def threads() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate()}


def open_files() -> Counter[str]:
    """What this process has open, apart from what the event loop and the test runner hold."""
    directory = Path("/proc/self/fd")
    if not directory.is_dir():
        return Counter()
    names = []
    for link in directory.iterdir():
        try:
            names.append(os.readlink(link))
        except FileNotFoundError:
            # The listing's own.
            continue
    return Counter(name for name in names if "ledger" in name)
