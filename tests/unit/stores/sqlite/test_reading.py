"""Reads that take their time: a ledger at work is neither locked nor silent, so it is waited for; but not for ever."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from farthing.errors import StoreUnavailable
from farthing.stores.sqlite import SQLiteStore, reader
from farthing.stores.sqlite.tickets import READ, Ticket
from tests.waiting import LITTLE_SECONDS, SECONDS, eventually, impatient


def slow_read(store: SQLiteStore, released: threading.Event) -> Ticket[int]:
    def run(connection: Any) -> int:
        assert released.wait(SECONDS)
        (number,) = connection.execute("SELECT count(*) FROM budgets").fetchone()
        return int(number)

    asked: Ticket[int] = store._ask(READ, run)
    return asked


def answer(ticket: Ticket[int], way: str) -> int:
    async def wait() -> int:
        return await ticket

    return ticket.result() if way == "sync" else asyncio.run(wait())


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_long_report_is_waited_for_beyond_patience(store: SQLiteStore, way: str) -> None:
    released = threading.Event()
    timer = threading.Timer(3 * LITTLE_SECONDS, released.set)
    ticket = slow_read(store, released)
    eventually(lambda: hasattr(ticket, "read_until"))  # it is at work
    timer.start()
    with impatient(store):
        assert answer(ticket, way) == 1
    timer.join()


@pytest.mark.parametrize("way", ["sync", "async"])
def test_but_not_for_ever(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(reader, "READ_SECONDS_MAX", 2 * LITTLE_SECONDS)
    released = threading.Event()
    ticket = slow_read(store, released)
    with impatient(store), pytest.raises(StoreUnavailable, match="no answer"):
        answer(ticket, way)
    released.set()
    assert slow_read(store, released).result() == 1
