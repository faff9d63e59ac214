"""``kill -9`` of a proxy that took holds over from a governed program, or of that program, in the middle of calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import openai
import pytest

import farthing
from farthing.admin.standing import set_budget
from farthing.kernel.balances import Balance
from farthing.kernel.hold import HELD
from farthing.stores.sqlite import SQLiteStore
from farthing.testing import FakeProvider, Reply
from tests.contract.conftest import check_books
from tests.doors.clients import HI, HI_TOKENS, openai_client
from tests.doors.proxy.process import served
from tests.race.workers import processes
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("farthing_isolated")

CEILING = 50
EACH = HI_TOKENS + CEILING
CALLS = 5


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply(output_tokens=1_000_000, pause_after_chunks=1)) as provider:
        yield provider


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "ledger.db")
    set_budget(store, "everything", tokens=100 * EACH)
    yield store
    check_books(store)
    store.close()


def call(proxy_url: str) -> None:
    with openai_client(f"{proxy_url}/v1") as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=HI, max_completion_tokens=CEILING)


def counted(ledger: SQLiteStore) -> Balance:
    (row,) = ledger.balances().result().values()
    return row.of("tokens")


def program(line: Connection, ledger: str, proxy_url: str) -> None:
    """A governed program with one call."""
    farthing.configure(ledger=ledger)
    line.send("ready")
    call(proxy_url)


def test_the_proxy_is_killed(provider: FakeProvider, ledger: SQLiteStore) -> None:
    farthing.configure(ledger=f"sqlite:///{ledger.name}")
    with served("--port", "0", "--upstream", provider.openai_url, "--ledger", ledger.name) as proxy:
        url = proxy.ready()
        failures: list[Exception] = []

        def run() -> None:
            try:
                call(url)
            except openai.APIConnectionError as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(CALLS)]
        for thread in threads:
            thread.start()
        provider.wait_in_flight(CALLS)
        assert counted(ledger) == Balance(held=CALLS * EACH), "held once, by the proxy"
        proxy.kill_tree()
        for thread in threads:
            thread.join(60)
    assert len(failures) == CALLS
    eventually(lambda: not ledger.holds(HELD).result())
    assert counted(ledger) == Balance(suspect=CALLS * EACH)
    assert [row.suspect for row in ledger.entries().result()] == [True] * CALLS


def test_the_program_is_killed(provider: FakeProvider, ledger: SQLiteStore) -> None:
    with served("--port", "0", "--upstream", provider.openai_url, "--ledger", ledger.name) as proxy:
        url = proxy.ready()
        line, theirs = processes.Pipe()
        child = processes.Process(target=program, args=(theirs, f"sqlite:///{ledger.name}", url))
        child.start()
        assert line.recv() == "ready"
        provider.wait_in_flight(1, timeout=60)
        child.kill()
        child.join(60)
        provider.resume()
        eventually(lambda: not ledger.holds(HELD).result())
        assert counted(ledger) == Balance(settled=EACH), "the proxy hears the answer to its end"
        assert [row.ending for row in ledger.entries().result()] == ["ok"]
        assert proxy.stop() == 0, proxy.said
