"""
A ledger that fails while calls are made, and ``on_store_failure="allow"``: what goes out then is paid for all the same.

So it counts on the accounts that it could not be held on, as soon as the ledger can be written again. An outage that
budgets forgot would be a way around them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

import farthing
from farthing.kernel.hold import Hold
from farthing.runtime.default import runtime
from farthing.testing import FakeClock, FakeProvider, Reply
from tests.doors.clients import HI_TOKENS, NOTHING, chat
from tests.waiting import eventually, impatient

pytestmark = pytest.mark.usefixtures("farthing_isolated")
CALL_TOKENS = HI_TOKENS + 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "ledger.db"
    farthing.configure(ledger=f"sqlite:///{made}", on_store_failure="allow")
    return made


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """Somebody else holds the lock of this ledger, and whoever waits for it soon gives up."""
    with open(path.with_name(f"{path.name}-lock"), "r+b") as lock, impatient(runtime().main.store):
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)


@pytest.mark.parametrize("also_in_memory", [False, True])
def test_what_was_let_through_counts_once_the_ledger_is_back(
    path: Path, provider: FakeProvider, client: OpenAI, also_in_memory: bool
) -> None:
    inner = [farthing.budget(tokens=1_000)] if also_in_memory else []
    with farthing.budget("day", tokens=3 * CALL_TOKENS, requests=10, concurrency=2) as day:
        chat(client)
        with hanging(path):
            for unit in inner or [farthing.track()]:
                with unit:
                    chat(client)
                    chat(client)
        eventually(lambda: day.spent.tokens == provider.billed_tokens == 3 * CALL_TOKENS)
        assert (day.spent.requests, day.held, day.suspect) == (3, NOTHING, NOTHING)
        with pytest.raises(farthing.BudgetExceeded):
            chat(client)
    assert farthing.report(since="all").total() == day.spent.usd


def test_a_budget_that_cannot_be_named_now(path: Path, client: OpenAI) -> None:
    """A program that starts while its ledger hangs: its calls go out, and count."""
    new = farthing.budget("new", tokens=1_000)
    with hanging(path):
        with new:
            chat(client)
        farthing.configure(on_store_failure="deny")
        with pytest.raises(farthing.StoreUnavailable), new:
            pass
    with new:
        chat(client)
    eventually(lambda: new.spent.tokens == 2 * CALL_TOKENS)
    assert new.remaining.tokens == 1_000 - 2 * CALL_TOKENS


def test_what_is_recorded_by_hand_counts_once(path: Path) -> None:
    """Without ``allow`` the caller is told that it is not written yet, and that it must not be said again."""
    with farthing.budget("day", tokens=1_000) as day:
        with hanging(path):
            farthing.record({"input_tokens": 100}, model="gpt-4o")
            farthing.configure(on_store_failure="deny")
            with pytest.raises(farthing.StoreUnavailable, match="what this call said is kept"):
                farthing.record({"input_tokens": 200}, model="gpt-4o")
        eventually(lambda: day.spent.tokens == 300)


def test_a_hold_by_hand_counts_too(path: Path) -> None:
    with farthing.budget("day", tokens=1_000) as day:
        assert day.spent == NOTHING
        with hanging(path), farthing.hold(tokens=400) as held:
            held.settle(tokens=300)
        eventually(lambda: day.spent.tokens == 300)


def test_a_function_of_an_agent_that_raises_raises_its_own_error(path: Path) -> None:
    manager = farthing.BudgetManager(ledger=f"sqlite:///{path}", name="crew")
    manager.register_agent("writer", max_tokens=10_000)

    @manager.govern("writer")
    def write(text: str) -> str:
        raise KeyError(text)

    with hanging(path), pytest.raises(KeyError):
        write("hello")
    eventually(lambda: manager.report()["writer"]["consumed"] > 0)


def test_a_figure_that_no_ledger_can_keep_costs_nobody_an_answer(
    path: Path, provider: FakeProvider, client: OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    provider.reply = Reply("four", input_tokens=2**53)
    with farthing.budget("day", tokens=1_000) as day:
        assert chat(client).choices[0].message.content == "four"
        assert day.held.tokens == CALL_TOKENS
    assert "cannot be written" in caplog.text


def test_a_hold_that_was_forgotten_costs_nobody_an_answer(
    provider: FakeProvider,
    client: OpenAI,
    fake_clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Past its deadline, resolved by time, and then one of too many ended holds: no ledger knows its id any more."""
    monkeypatch.setattr("farthing.stores.memory.books.ENDED_HOLDS_MAX", 2)
    farthing.configure(suspect_after_hours=0)
    provider.reply = Reply("four", pause_after_chunks=0)
    with farthing.budget("day", tokens=1_000), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(chat, client)
        try:
            eventually(lambda: provider.requests)
            fake_clock.advance(hours=1)
            # Its deadline makes it suspect, and the next look resolves it.
            eventually(lambda: _swept() == ())
            for _ in range(4):
                farthing.record({"input_tokens": 1}, model="gpt-4o")
        finally:
            provider.resume()
        assert answer.result().choices[0].message.content == "four"
    assert "its ledger stays as it is: no hold has the id" in caplog.text


@pytest.mark.parametrize("starts_over", [False, True])
def test_a_ledger_that_is_opened_again_meanwhile_is_told_the_end(
    provider: FakeProvider, client: OpenAI, tmp_path: Path, starts_over: bool
) -> None:
    """When it was closed nobody could know the end; now it is known, and counted in place of what was held."""
    url = f"sqlite:///{tmp_path / 'again.db'}"
    farthing.configure(ledger=url)
    provider.reply = Reply("four", pause_after_chunks=0)
    with farthing.budget("day", tokens=1_000), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(chat, client)
        try:
            eventually(lambda: provider.requests)
            if starts_over:
                farthing.reset()
            else:
                farthing.configure(ledger=f"sqlite:///{tmp_path / 'other.db'}")
            farthing.configure(ledger=url)
        finally:
            provider.resume()
        assert answer.result().choices[0].message.content == "four"
    day = farthing.budget("day")
    assert (day.suspect.tokens, day.spent.tokens) == (0, provider.billed_tokens)


def _swept() -> tuple[Hold, ...]:
    runtime().housekeeper.tick(sweep=True)
    return tuple(runtime().memory_store.holds().result())
