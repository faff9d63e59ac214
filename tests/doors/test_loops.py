"""Async clients where asyncio is not alone: under trio, and in scopes of anyio, which cancel whatever waits in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from openai import AsyncOpenAI

from farthing import BudgetExceeded, StoreUnavailable, budget, configure
from farthing.kernel.hold import Entry
from farthing.runtime.default import runtime
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, HI_TOKENS, async_openai_client
from tests.waiting import eventually, impatient

pytestmark = [
    pytest.mark.usefixtures("farthing_isolated"),
    # trio's, of generators that the SDK leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CEILING = 10
SIZE = HI_TOKENS + CEILING


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """The name of an event loop that anyio runs on."""
    name: str = request.param
    pytest.importorskip(name)
    return name


@pytest.fixture(params=["memory", "file"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """What a budget is called: one without a name is kept in memory, the other in a file."""
    if request.param == "memory":
        return None
    configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
    return "all"


def entries() -> list[Entry]:
    here = runtime()
    here.housekeeper.catch_up()
    return list(here.main.store.entries().result())


def run(loop: str, main: Callable[[], Any]) -> None:
    anyio.run(main, backend=loop)


async def chat(client: AsyncOpenAI, ceiling: int = CEILING, **keywords: Any) -> Any:
    return await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=ceiling, **keywords)


@pytest.mark.parametrize("modes", [{"on_exceed": "block"}, {"on_exceed": "wait", "wait_seconds": 30}])
def test_as_many_as_fit(loop: str, name: str | None, provider: FakeProvider, modes: dict[str, Any]) -> None:
    """Of twenty calls at once, plain ones and streams, the five that fit are admitted and settled, and no other."""
    ended: list[str] = []

    async def one(client: AsyncOpenAI, stream: bool) -> None:
        try:
            answer = await chat(client, stream=stream)
            if stream:
                async for _ in answer:
                    pass
            ended.append("answered")
        except BudgetExceeded:
            ended.append("refused")

    async def main() -> None:
        async with async_openai_client(provider) as client, budget(name, tokens=5 * SIZE, **modes) as purse:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(one, client, number % 2 == 0)
            assert (purse.spent.tokens, purse.held.tokens, purse.suspect.tokens) == (5 * SIZE, 0, 0)

    run(loop, main)
    assert sorted(ended) == ["answered"] * 5 + ["refused"] * 15
    assert provider.billed_tokens == 5 * SIZE
    assert [entry.ending for entry in entries()] == ["ok"] * 5


def test_a_call_waits_its_turn(loop: str, name: str | None, provider: FakeProvider) -> None:
    """What waits for room keeps nobody from making it."""
    provider.reply = Reply(output_tokens=1)

    async def main() -> None:
        terms: dict[str, Any] = {"tokens": SIZE + HI_TOKENS + 1, "on_exceed": "wait", "wait_seconds": 60}
        async with async_openai_client(provider) as client, budget(name, **terms) as purse:
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(chat, client)
            assert purse.spent.requests == 2

    run(loop, main)


@pytest.mark.parametrize("where", ["reading", "between"])
def test_a_stream_whose_scope_is_cancelled(loop: str, name: str | None, provider: FakeProvider, where: str) -> None:
    """Closed where everything that waits is called away: what was delivered is counted all the same."""
    pieces = 9
    provider.reply = Reply(output_tokens=500, pause_after_chunks=pieces)

    async def main() -> None:
        async with async_openai_client(provider) as client, budget(name, tokens=5_000) as purse:
            seen = 0
            with anyio.CancelScope() as scope:
                async with await chat(client, 600, stream=True) as stream:
                    async for _ in stream:
                        seen += 1
                        if seen == pieces:
                            scope.cancel()
                            if where == "between":
                                await anyio.sleep(0)
            assert scope.cancelled_caught
            provider.wait_idle()
            assert purse.held.tokens == 0
            assert purse.spent.tokens == provider.billed_tokens < HI_TOKENS + 500

    run(loop, main)
    (entry,) = entries()
    assert entry.ending == {"reading": "cancelled", "between": "abandoned"}[where]
    assert entry.usage_source == "counted"


def test_a_plain_call_whose_scope_is_cancelled(loop: str, name: str | None, provider: FakeProvider) -> None:
    """It may have been billed: it stays counted, and nothing is held for it any more."""
    provider.reply = Reply(output_tokens=CEILING, latency_seconds=600)

    async def main() -> None:
        async with async_openai_client(provider) as client, budget(name, tokens=5_000) as purse:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(chat, client)
                await anyio.to_thread.run_sync(provider.wait_in_flight, 1)
                tasks.cancel_scope.cancel()
            eventually(lambda: purse.held.tokens == 0)
            assert purse.suspect.tokens == SIZE

    run(loop, main)
    provider.resume()


def test_a_locked_ledger_refuses_in_time(loop: str, provider: FakeProvider, tmp_path: Path) -> None:
    """Nobody waits longer than the store's patience lasts, and nothing is sent."""
    path = tmp_path / "ledger.db"
    configure(ledger=f"sqlite:///{path}")

    async def main() -> None:
        async with async_openai_client(provider) as client, budget("all", tokens=5_000):
            durable = runtime().durable
            assert durable is not None
            with sqlite3.connect(path) as other, impatient(durable.store):
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreUnavailable, match="no answer within"):
                    await chat(client)
                other.rollback()

    run(loop, main)
    assert provider.posts == 0


def test_a_trio_of_before(provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 0.27 it could not be asked whether it runs here, and had no shield for a time."""
    trio = pytest.importorskip("trio")
    monkeypatch.delattr(trio.lowlevel, "in_trio_run")
    monkeypatch.setattr(trio, "move_on_after", lambda seconds: trio.CancelScope(deadline=trio.current_time() + seconds))
    configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")

    async def main() -> None:
        async with async_openai_client(provider) as client, budget("all", tokens=5 * SIZE) as purse:
            await chat(client)
            async with await chat(client, stream=True):
                pass
            assert purse.spent.requests == 2

    trio.run(main)
