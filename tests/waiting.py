"""
Waiting for what happens elsewhere, in a thread, a process or a file: for the event, never for a time. And for the end
of a ledger's patience, without waiting for it long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from farthing.stores.contract import Store
from farthing.stores.sqlite import SQLiteStore

T = TypeVar("T")
SECONDS = 120.0
"""So long is waited for what will certainly happen. No machine is this slow: past it, it does not happen."""
LITTLE_SECONDS = 0.05
"""The patience of those who are to lose it."""


def eventually(condition: Callable[[], T], *, seconds: float = SECONDS) -> T:
    """Wait until this is true, and return it; AssertionError if it never becomes so."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"not so within {seconds:g} s"
        time.sleep(0.002)
    return found


@contextmanager
def impatient(store: Store) -> Iterator[None]:
    """Whoever begins to wait for this ledger in here has little patience; outside of it, as much as a program has."""
    assert isinstance(store, SQLiteStore)
    writer = store._at_work()
    patience_seconds, writer.patience_seconds = writer.patience_seconds, LITTLE_SECONDS
    try:
        yield
    finally:
        writer.patience_seconds = patience_seconds
