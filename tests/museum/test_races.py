"""Faults of concurrency: check-then-act, threads that do not inherit, processes that do not share."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import farthing
from farthing.runtime.default import runtime
from farthing.testing import FakeProvider, Reply
from farthing.testing.bill import RecordedRequest
from tests.doors.clients import HI, async_openai_client, entries, openai_client
from tests.museum.calls import LONG, LONG_SIZE, admitted, chat, in_threads
from tests.race.workers import workers

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def pause_after(provider: FakeProvider, number: int) -> threading.Semaphore:
    """So many calls are answered, later ones are not; the semaphore is released once for each that arrives."""
    arrived = threading.Semaphore(0)

    def answer(request: RecordedRequest) -> Reply:
        arrived.release()
        return Reply(output_tokens=10, pause_after_chunks=0 if request.number > number else None)

    provider.respond(answer)
    return arrived


@pytest.mark.parametrize("mode", ["block", "clamp"])
def test_c1_fifty_plain_threads_follow_the_budget_they_were_started_in(
    provider: FakeProvider, client: OpenAI, mode: str
) -> None:
    """predecessors C1: 50 plain threads, cap 1,000: 25,400 tokens spent, the budget saw none of them."""
    with farthing.budget(tokens=1_000, on_exceed=mode) as budget:
        number = in_threads(lambda: chat(client), 50)
    assert number == provider.calls == (1 if mode == "block" else 2)
    assert provider.billed_tokens == budget.spent.tokens == (LONG_SIZE if mode == "block" else 1_000)


def test_c1_a_pool_of_eight_follows_the_budget_its_tasks_were_submitted_in(
    provider: FakeProvider, client: OpenAI
) -> None:
    """predecessors C1: ThreadPoolExecutor(8), 50 calls, cap 1,000: 25,400 tokens spent."""
    with ThreadPoolExecutor(8) as pool, farthing.budget(tokens=1_000) as budget:
        assert sum(pool.map(lambda _: admitted(lambda: chat(client)), range(50))) == 1
    assert provider.billed_tokens == budget.spent.tokens == LONG_SIZE


def test_c1_under_raise_what_is_over_is_what_was_in_flight(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors C1, raise: 50 threads spent 25 times the cap, nobody was told. ``raise`` is a guard, no hard cap."""
    with farthing.budget(tokens=1_000, on_exceed="raise") as budget:
        in_threads(lambda: chat(client), 50)
        assert not admitted(lambda: chat(client))
    assert budget.spent.tokens == provider.billed_tokens
    assert len(entries()) == provider.calls


def test_c2_threads_with_a_copied_context(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors C2: 50 threads with copy_context(): 27 of 50 calls sent and paid in block mode."""
    with farthing.budget(tokens=1_000) as budget:
        contexts = [contextvars.copy_context() for _ in range(50)]
        barrier = threading.Barrier(50)

        def run(context: contextvars.Context) -> None:
            barrier.wait()
            context.run(admitted, lambda: chat(client))

        threads = [threading.Thread(target=run, args=(context,)) for context in contexts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert provider.billed_tokens == budget.spent.tokens == LONG_SIZE


@pytest.mark.parametrize(("mode", "billed"), [("block", LONG_SIZE), ("clamp", 1_000)])
def test_c3_gather_of_fifty(provider: FakeProvider, mode: str, billed: int) -> None:
    """predecessors C3: asyncio.gather of 50 in one task tree, block and clamp: +24,400 over a cap of 1,000."""

    async def main() -> list[Any]:
        async with async_openai_client(provider) as client:
            call = client.chat.completions.create
            calls = (call(model="gpt-4o", messages=HI, max_tokens=LONG) for _ in range(50))
            return await asyncio.gather(*calls, return_exceptions=True)

    with farthing.budget(tokens=1_000, on_exceed=mode) as budget:
        asyncio.run(main())
    assert provider.billed_tokens == budget.spent.tokens == billed


@pytest.mark.parametrize("number", [2, 5, 10, 25, 50, 100])
def test_c4_exact_calls_of_250_tokens(provider: FakeProvider, number: int) -> None:
    """predecessors C4: asyncio, 250-token calls, cap 1,000: +25 % at 5 calls, +2,400 % at 100."""

    async def main() -> list[Any]:
        async with async_openai_client(provider) as client:
            call = client.chat.completions.create
            calls = (call(model="gpt-4o", messages=HI, max_tokens=242) for _ in range(number))
            return await asyncio.gather(*calls, return_exceptions=True)

    with farthing.budget(tokens=1_000) as budget:
        answers = asyncio.run(main())
    assert sum(isinstance(answer, farthing.BudgetExceeded) for answer in answers) == max(0, number - 4)
    assert provider.billed_tokens == budget.spent.tokens == min(number, 4) * 250


def test_t2_a_thousand_attempts_at_one_token_too_many(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors T1, T2: cap 100, calls of 101: 1,001 calls paid after the fact, the ledger at 0."""
    with farthing.budget(tokens=100) as budget:
        assert not any(admitted(lambda: chat(client, 93)) for _ in range(1_001))
        assert admitted(lambda: chat(client, 92))
    assert provider.posts == 1
    assert budget.spent.tokens == provider.billed_tokens == 100
    assert farthing.report().totals()["denied"] == 1_001


def test_t4_an_async_function_is_metered_by_its_calls(provider: FakeProvider) -> None:
    """predecessors T4: async function, 50 tasks, cap 1,000: 5,050 tokens spent, 50 in the ledger."""

    async def main() -> list[Any]:
        async with async_openai_client(provider) as client:

            @farthing.budget("team", tokens=1_000)
            async def ask() -> Any:
                return await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=93)

            return await asyncio.gather(*(ask() for _ in range(50)), return_exceptions=True)

    answers = asyncio.run(main())
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 9
    assert provider.billed_tokens == 909


def test_d3_one_budget_object_used_by_two_tasks(provider: FakeProvider) -> None:
    """predecessors D3: one budget object entered by two tasks: ValueError, a token of another Context."""
    budget = farthing.budget("two tasks", tokens=1_000)

    async def main() -> None:
        async with async_openai_client(provider) as client:
            first, second = asyncio.Event(), asyncio.Event()

            async def ask(mine: asyncio.Event, other: asyncio.Event) -> None:
                async with budget:
                    mine.set()
                    await other.wait()
                    await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=92)

            await asyncio.gather(ask(first, second), ask(second, first))

    asyncio.run(main())
    assert budget.spent.tokens == provider.billed_tokens == 200


def test_a_pool_thread_does_not_keep_the_scope_it_was_born_in(provider: FakeProvider, client: OpenAI) -> None:
    """design 05: a worker that a pool made inside budget A ran every later task as A."""
    with ThreadPoolExecutor(1) as pool:
        with farthing.budget(tokens=LONG_SIZE) as budget, farthing.track(feature="a"):
            pool.submit(chat, client).result()
        for _ in range(3):
            pool.submit(chat, client).result()
        with farthing.track(feature="b"):
            pool.submit(chat, client).result()
    assert budget.spent.tokens == LONG_SIZE
    assert [row.facts.tags for row in entries()] == [(("feature", "a"),), (), (), (), (("feature", "b"),)]


def test_m1_four_processes_have_one_budget(provider: FakeProvider, tmp_path: Path) -> None:
    """predecessors M1: 4 processes, one cap, one file: +3,000 over 1,000; the file was written and never read."""
    with workers(4, f"sqlite:///{tmp_path}/ledger.db", provider, {"tokens": 1_000}, 1, 50) as started:
        for worker in started:
            worker.go()
        assert sum(worker.admitted() for worker in started) == 1_000 // 18
    assert provider.billed_tokens == 1_000 // 18 * 18


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_m2_a_fork_inside_an_open_budget(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors M2: fork inside an open budget: 4 children spent 3,000 more, the parent saw 250."""
    with farthing.budget(tokens=1_000) as budget:
        chat(client, 242)
        for _ in range(4):
            child = os.fork()
            if child == 0:
                with openai_client(provider) as mine:
                    os._exit(admitted(lambda: chat(mine, 242)))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sum(admitted(lambda: chat(client, 242)) for _ in range(9)) == 3
    assert provider.billed_tokens == budget.spent.tokens == 1_000


def test_m3_kill_does_not_reset_the_budget(provider: FakeProvider, tmp_path: Path) -> None:
    """predecessors M3: kill -9, restart: the budget starts at 0 and is spent again; queued rows were lost."""
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    limits = {"tokens": 20 * 18}
    arrived = pause_after(provider, 12)
    with workers(1, ledger, provider, limits, 2, 50) as (worker,):
        worker.go()
        for _ in range(14):
            assert arrived.acquire(timeout=60)
        worker.kill()
    provider.wait_idle()
    provider.respond(None)
    with workers(1, ledger, provider, limits, 2, 50) as (worker,):
        worker.go()
        assert worker.admitted() == 6
    assert provider.billed_tokens == 20 * 18
    farthing.configure(ledger=ledger)
    durable = runtime().durable
    assert durable is not None
    assert len(durable.store.entries().result()) == provider.calls == 20


def test_a_crash_gives_concurrency_back(provider: FakeProvider, tmp_path: Path) -> None:
    """design 05: a concurrency slot leaked by a crash. Money stays suspect; a slot is free once its owner is dead."""
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    limits = {"concurrency": 2, "tokens": 1_000}
    provider.reply = Reply(output_tokens=10, pause_after_chunks=0)
    with workers(1, ledger, provider, limits, 2, 1) as (worker,):
        worker.go()
        provider.wait_in_flight(2)
        worker.kill()
    provider.wait_idle()
    provider.reply = Reply(output_tokens=10)
    farthing.configure(ledger=ledger)
    durable = runtime().durable
    assert durable is not None
    durable.store.sweep().result()
    with workers(1, ledger, provider, limits, 1, 2) as (worker,):
        worker.go()
        assert worker.admitted() == 2
    assert farthing.budget("shared", tokens=1_000, concurrency=2).suspect.tokens == 2 * 18


def test_spend_survives_a_supervisors_sigterm(provider: FakeProvider, tmp_path: Path) -> None:
    """design 05: spend lost at SIGTERM, because it was waiting in a queue."""
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    arrived = pause_after(provider, 10)
    with workers(1, ledger, provider, {"tokens": 5_000}, 1, 11) as (worker,):
        worker.go()
        for _ in range(11):
            assert arrived.acquire(timeout=60)
        worker.terminate()
    provider.wait_idle()
    farthing.configure(ledger=ledger)
    durable = runtime().durable
    assert durable is not None
    durable.store.sweep().result()
    budget = farthing.budget("shared", tokens=5_000)
    assert (budget.spent.tokens or 0) + (budget.suspect.tokens or 0) == provider.billed_tokens == 11 * 18
    assert len(durable.store.entries().result()) == 11
