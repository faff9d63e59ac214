"""A SQLite store that has patience with a busy machine, and how to have it short of that, or its writer stuck."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farthing.kernel.budget import make_budget
from farthing.stores.sqlite import SQLiteStore
from tests.contract.conftest import check_books
from tests.waiting import SECONDS


def working() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("farthing-")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    before = working()
    store = SQLiteStore(path, patience_seconds=SECONDS)
    store.put_budget(make_budget("b", tokens=1_000, usd=1)).result()
    yield store
    check_books(store)
    store.close()
    assert working() <= before


@contextmanager
def stuck(store: SQLiteStore) -> Iterator[None]:
    """The writer cannot begin a group; afterwards it has caught up."""
    with store._at_work()._gate:
        yield
    store.balances([]).result()
