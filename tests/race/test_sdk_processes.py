"""
Several processes on one ledger file, with the real SDKs; and what is left of a process that is killed in mid-flight.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import farthing
from farthing.kernel.hold import Entry
from farthing.runtime.default import runtime
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, openai_client
from tests.race.workers import workers

pytestmark = pytest.mark.usefixtures("farthing_isolated")

SIZE = 18
"""What each call of the worker costs: 8 tokens in, 10 out."""


def rows() -> list[Entry]:
    """Every row of the durable ledger."""
    durable = runtime().durable
    assert durable is not None
    return list(durable.store.entries().result())


def sweep() -> None:
    """What the housekeeper does every five seconds, now."""
    durable = runtime().durable
    assert durable is not None
    while durable.store.sweep().result():
        pass


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.mark.parametrize("fit", [1, 50, 137])
def test_four_processes_spend_one_budget(provider: FakeProvider, ledger: str, fit: int) -> None:
    cap = fit * SIZE + SIZE - 1
    with workers(4, ledger, provider, {"tokens": cap}, 10, 5) as started:
        for worker in started:
            worker.go()
        total = sum(worker.admitted() for worker in started)
    provider.wait_idle()
    assert total == provider.calls == provider.posts == fit
    assert provider.billed_tokens == fit * SIZE <= cap
    farthing.configure(ledger=ledger)
    budget = farthing.budget("shared", tokens=cap)
    assert (budget.spent.tokens, budget.held.tokens, budget.suspect.tokens) == (fit * SIZE, 0, 0)
    assert len(rows()) == fit
    assert farthing.report(since="all").totals()["denied"] == 200 - fit


def test_after_a_clean_stop_nothing_is_suspect(provider: FakeProvider, ledger: str) -> None:
    with workers(1, ledger, provider, {"tokens": 10_000}, 10, 5) as (worker,):
        worker.go()
        assert worker.admitted() == 50
    farthing.configure(ledger=ledger)
    sweep()
    assert [row.ending for row in rows()] == ["ok"] * 50
    assert not any(row.suspect for row in rows())
    assert farthing.budget("shared", tokens=10_000).suspect.tokens == 0


def test_killed_with_fifty_calls_in_flight(provider: FakeProvider, ledger: str) -> None:
    """
    20 calls are over and 50 on their way when the process is killed. After a restart on the same file all 70 have a
    row, the 50 are counted at what was held for them, and exactly what is left of the budget can be spent.
    """
    cap = 75 * SIZE
    provider.script([Reply(output_tokens=10)] * 20)
    provider.reply = Reply(output_tokens=10, pause_after_chunks=0)
    with workers(1, ledger, provider, {"tokens": cap}, 50, 21) as (worker,):
        worker.go()
        provider.wait_in_flight(50)
        worker.kill()
    provider.wait_idle()
    assert provider.calls == 70
    farthing.configure(ledger=ledger)
    sweep()
    after = rows()
    assert len(after) == 70
    assert sum(row.suspect for row in after) == 50
    budget = farthing.budget("shared", tokens=cap)
    assert (budget.spent.tokens, budget.held.tokens, budget.suspect.tokens) == (20 * SIZE, 0, 50 * SIZE)
    assert provider.billed_tokens == 70 * SIZE
    provider.reply = Reply(output_tokens=10)
    with workers(1, ledger, provider, {"tokens": cap}, 10, 2) as (worker,):
        worker.go()
        assert worker.admitted() == 5
    assert provider.billed_tokens == cap
    sweep()
    assert [row.ending for row in rows()[70:]] == ["ok"] * 5


def test_killed_again_and_again_the_budget_holds(provider: FakeProvider, ledger: str) -> None:
    """A crash loop does not refill a budget."""
    cap = 30 * SIZE + SIZE - 1
    provider.reply = Reply(output_tokens=10, pause_after_chunks=0)
    for done in (0, 10, 20):
        with workers(1, ledger, provider, {"tokens": cap}, 10, 1) as (worker,):
            worker.go()
            provider.wait_in_flight(10)
            worker.kill()
        provider.wait_idle()
        assert provider.calls == done + 10
    provider.reply = Reply(output_tokens=10)
    with workers(1, ledger, provider, {"tokens": cap}, 10, 5) as (worker,):
        worker.go()
        assert worker.admitted() == 0
    assert provider.billed_tokens == 30 * SIZE <= cap


def test_held_by_a_live_process_and_denied_to_another(provider: FakeProvider, ledger: str) -> None:
    provider.reply = Reply(output_tokens=10, pause_after_chunks=0)
    farthing.configure(ledger=ledger)
    with workers(1, ledger, provider, {"tokens": 3 * SIZE}, 3, 1) as (worker,):
        worker.go()
        provider.wait_in_flight(3)
        sweep()
        with openai_client(provider) as client, farthing.budget("shared", tokens=3 * SIZE) as budget:
            with pytest.raises(farthing.BudgetExceeded) as denied:
                client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10)
            assert (denied.value.held, denied.value.spent, denied.value.suspect) == (3 * SIZE, 0, 0)
        provider.resume()
        assert worker.admitted() == 3
    assert (budget.spent.tokens, budget.held.tokens) == (3 * SIZE, 0)
