"""
A planner in one process, its workers in others, a proxy between them and the provider, one ledger: the crew spends at
most what the planner was given, and what a killed worker leaves comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

import farthing
from farthing import BudgetManager
from farthing.agents import BudgetExceededError
from farthing.agents.child import Child
from farthing.kernel.hold import DELEGATION, LIVE
from farthing.kernel.lending import account_of
from farthing.kernel.money import usd_from_nano
from farthing.runtime.default import runtime
from farthing.stores import open_store
from farthing.stores.contract import Store
from farthing.testing import FakeProvider, Reply
from tests.contract.conftest import check_books
from tests.crash import crew_worker
from tests.crash.crew_worker import CEILING, MODEL
from tests.doors.clients import HI, HI_TOKENS, RATES, openai_client
from tests.doors.proxy.keyed import bearer
from tests.doors.proxy.process import Served, served
from tests.race.workers import processes
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("farthing_isolated")

EACH_NANO = HI_TOKENS * 150 + CEILING * 600
"""What each call holds, and costs: the provider fills what it is allowed."""
GIVEN_NANO = 20 * EACH_NANO + EACH_NANO // 2 + 7
GRANTS_NANO = {"sub-1": 6 * EACH_NANO + 5, "sub-2": 5 * EACH_NANO + EACH_NANO // 3, "sub-3": 4 * EACH_NANO + 1}


class Worker:
    """A process of its own, with an address and a key."""

    def __init__(self, url: str, key: str) -> None:
        self.pipe, theirs = processes.Pipe()
        self.process = processes.Process(target=crew_worker.main, args=(theirs, f"{url}/v1", key))
        self.process.start()
        theirs.close()

    def go(self) -> None:
        assert self.pipe.recv() == "ready"
        self.pipe.send("go")

    def admitted(self) -> int:
        number = self.pipe.recv()
        self.process.join(60)
        assert self.process.exitcode == 0
        return int(number)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.join(60)


@contextmanager
def crew_of(url: str, keys: list[str]) -> Iterator[list[Worker]]:
    started = [Worker(url, key) for key in keys]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.pipe.close()


def key_of(child: Child, url: str) -> str:
    """A key of the child's, once the proxy has looked at its ledger again, as it does within a second."""
    key = child.key()
    eventually(lambda: httpx2.get(f"{url}/v1/models", headers=bearer(key), timeout=60).status_code == 200)
    return key


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply(output_tokens=1_000_000)) as running:
        yield running


@pytest.fixture
def proxy(provider: FakeProvider, ledger: str) -> Iterator[Served]:
    arguments = ("--port", "0", "--upstream", provider.openai_url, "--api-key", "sk-real", "--ledger", ledger)
    with served(*arguments, "--quiet") as running:
        yield running


def planner_of(ledger: str) -> BudgetManager:
    manager = BudgetManager(ledger, "crew", wait_seconds=0)
    manager.register_agent("planner", 2, max_usd=usd_from_nano(GIVEN_NANO), min_reserve_usd=0)
    return manager


def counted_nano(store: Store) -> int:
    """What counts against the planner's budget now, by the ledger's own row: nothing is swept by looking."""
    (row,) = [row for key, row in store.balances().result().items() if "planner" in key and key == account_of(key)]
    return row.of("usd").total


def let_its_time_be_over(store: Store, agent: str) -> None:
    """The hour that the child was given ends now, by the terms that every process reads."""
    (budget,) = [of for of in store.catalogue().result().budgets.values() if of.lending and of.lending.agent == agent]
    assert budget.lending is not None
    assert budget.lending.expires_ms is not None
    ended = replace(budget, lending=replace(budget.lending, expires_ms=store.now()))
    store.put_budget(ended, update=True).result()


def test_a_crew_spends_at_most_what_its_planner_was_given(provider: FakeProvider, proxy: Served, ledger: str) -> None:
    url = proxy.ready()
    manager = planner_of(ledger)
    children = [
        manager.delegate("planner", name, priority=1, max_usd=usd_from_nano(nano)) for name, nano in GRANTS_NANO.items()
    ]
    assert manager.remaining("planner") == usd_from_nano(GIVEN_NANO - sum(GRANTS_NANO.values()))

    def plan() -> int:
        admitted = 0
        with manager.agent("planner"), openai_client(provider) as client:
            while True:
                try:
                    client.chat.completions.create(model=MODEL, messages=HI, max_completion_tokens=CEILING)
                except BudgetExceededError:
                    return admitted
                admitted += 1

    with crew_of(url, [key_of(child, url) for child in children]) as workers, ThreadPoolExecutor(1) as pool:
        for worker in workers:
            worker.go()
        planned = pool.submit(plan)
        by_workers = [worker.admitted() for worker in workers]
        by_planner = planned.result()
    provider.wait_idle()
    calls = by_planner + sum(by_workers)
    billed_nano = provider.billed_nano(RATES)
    assert provider.posts == provider.calls == calls
    assert billed_nano == calls * EACH_NANO <= GIVEN_NANO
    # Each of the four was refused only when it could not have paid for one more call.
    assert billed_nano > GIVEN_NANO - 4 * EACH_NANO
    for child in children:
        child.close()
    report = manager.report(detail=True)
    assert list(report) == ["planner"]
    # What its workers used, it lent for good.
    assert report["planner"]["consumed"] == usd_from_nano(by_planner * EACH_NANO)
    assert report["planner"]["lent"] - report["planner"]["borrowed"] == usd_from_nano(sum(by_workers) * EACH_NANO)
    assert report["planner"]["remaining"] == usd_from_nano(GIVEN_NANO - billed_nano)
    assert [report["planner"][figure] for figure in ("held", "suspect", "overrun")] == [0, 0, 0]
    store = manager.crew.ledger.store
    check_books(store)
    rows = [entry for entry in store.entries().result() if entry.kind == "call"]
    assert [row.cost_nano for row in rows] == [EACH_NANO] * calls
    spent_by = {name: sum(("agent", name) in row.facts.tags for row in rows) for name in ("planner", *GRANTS_NANO)}
    assert spent_by == dict(zip(("planner", *GRANTS_NANO), (by_planner, *by_workers), strict=True))


def test_what_a_killed_worker_leaves_is_its_planners_again(provider: FakeProvider, proxy: Served, ledger: str) -> None:
    """The planner's process is gone too: it is the proxy's sweep that gives the rest back."""
    url = proxy.ready()
    manager = planner_of(ledger)
    provider.script([Reply(output_tokens=1_000_000)] * 2)
    provider.reply = Reply(output_tokens=1_000_000, pause_after_chunks=0)
    grant_nano = GRANTS_NANO["sub-1"]
    child = manager.delegate("planner", "sub-1", priority=1, max_usd=usd_from_nano(grant_nano), expires="1h")
    with crew_of(url, [key_of(child, url)]) as (worker,):
        worker.go()
        eventually(lambda: provider.calls == 2 and provider.in_flight == 1)
        worker.kill()
    assert manager.remaining("planner") == usd_from_nano(GIVEN_NANO - grant_nano), "its time is not over yet"
    farthing.reset()
    store = open_store(ledger)
    let_its_time_be_over(store, child.name)
    # The call in flight was paid for, so the proxy waits for its answer, and what it may cost stays with the child.
    eventually(lambda: counted_nano(store) == 3 * EACH_NANO)
    assert provider.in_flight == 1
    provider.resume()
    provider.wait_idle()
    eventually(lambda: all(hold.facts.dialect == DELEGATION for hold in store.holds(*LIVE).result()))
    store.close()
    manager = planner_of(ledger)
    assert list(manager.contracts) == ["planner"]
    assert provider.billed_nano(RATES) == 3 * EACH_NANO
    assert manager.remaining("planner") == usd_from_nano(GIVEN_NANO - 3 * EACH_NANO)
    ended = runtime().main.store
    assert not ended.holds(*LIVE).result()
    check_books(ended)
