"""A SQLite store with little patience, so that what waits for the end of it is quick to see."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farthing.kernel.budget import make_budget
from farthing.stores.sqlite import SQLiteStore
from tests.contract.conftest import check_books

PATIENCE_SECONDS = 0.2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, patience_seconds=PATIENCE_SECONDS)
    store.put_budget(make_budget("b", tokens=1_000, usd=1)).result()
    yield store
    check_books(store)
    store.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("farthing-")]
