"""``on_exceed``: ``wait``, ``truncate`` and a callable, through the real SDK."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import Any

import pytest

import farthing
from farthing import Allow, BudgetExceeded, Decision
from farthing.runtime.default import runtime
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, anthropic_client, async_anthropic_client, async_openai_client, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")
SIZE = 8 + 100
LEFT = 8 + 1 + 64
"""What a stream costs that is left after its first token: with what may still be billed of it."""


def test_wait_lets_all_through_as_the_ones_before_them_settle(fake_provider: FakeProvider) -> None:
    """Ten threads, room for two at once: nobody is refused, and never are more than two in flight."""
    fake_provider.reply = Reply(output_tokens=1, latency_seconds=0.02)
    refused: list[Exception] = []
    with openai_client(fake_provider) as client, farthing.budget(tokens=2 * SIZE, on_exceed="wait") as budget:

        def work() -> None:
            try:
                client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)
            except BudgetExceeded as error:
                refused.append(error)

        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused == []
        assert fake_provider.calls == 10
        assert fake_provider.max_in_flight <= 2
        assert budget.spent.tokens == fake_provider.billed_tokens == 10 * 9


def test_wait_denies_at_once_what_can_never_fit(fake_provider: FakeProvider) -> None:
    """Asking for more than the limit, or of what is spent for ever, is not worth waiting for."""
    with openai_client(fake_provider) as client, farthing.budget(tokens=SIZE, on_exceed="wait", wait_seconds=3_600):
        with pytest.raises(BudgetExceeded):
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=101)
        fake_provider.reply = Reply(output_tokens=50)
        client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)
        with pytest.raises(BudgetExceeded):
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)
    assert fake_provider.posts == 1


def test_wait_gives_up_in_time(fake_provider: FakeProvider) -> None:
    """What is held might come back, but does not within wait_seconds: denied, and the line is left."""
    fake_provider.reply = Reply(output_tokens=100, pause_after_chunks=1)
    with (
        openai_client(fake_provider) as client,
        farthing.budget(tokens=2 * SIZE - 1, on_exceed="wait", wait_seconds=0.05) as budget,
        client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100, stream=True),
    ):
        with pytest.raises(BudgetExceeded) as caught:
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)
        assert caught.value.held == SIZE
        assert budget.held.tokens == SIZE


def test_a_cancelled_waiter_leaves_the_line(fake_provider: FakeProvider) -> None:
    """A task that is cancelled while it waits holds nothing and blocks nobody."""
    fake_provider.reply = Reply(output_tokens=1, pause_after_chunks=1)

    async def main() -> None:
        async with async_openai_client(fake_provider) as client:

            async def call() -> None:
                await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)

            first = asyncio.create_task(call())
            while not fake_provider.in_flight:
                await asyncio.sleep(0)
            waiting, last = asyncio.create_task(call()), asyncio.create_task(call())
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            fake_provider.resume()
            fake_provider.reply = Reply(output_tokens=1)
            await asyncio.gather(first, last)

    with farthing.budget(tokens=SIZE + 9, on_exceed="wait") as budget:
        asyncio.run(main())
        assert budget.spent.tokens == fake_provider.billed_tokens == 2 * 9
        assert budget.held.tokens == 0


def test_who_has_room_does_not_wait_for_who_has_none(fake_provider: FakeProvider) -> None:
    """Each user has an account: alice, who waits for hers, is in nobody else's way."""
    fake_provider.reply = Reply(output_tokens=1, pause_after_chunks=1)
    ask: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": 100}
    with (
        openai_client(fake_provider) as client,
        concurrent.futures.ThreadPoolExecutor() as pool,
        farthing.budget("each", tokens=SIZE + LEFT, each=["user"], on_exceed="wait", wait_seconds=60) as budget,
    ):
        with farthing.track(user="alice"):
            stream = client.chat.completions.create(**ask, stream=True)
            waiting = pool.submit(lambda: client.chat.completions.create(**ask))
        while not runtime().line.waiting:
            time.sleep(0.001)
        fake_provider.reply = Reply(output_tokens=1)
        with farthing.track(user="bob"):
            client.chat.completions.create(**ask)
            assert budget.spent.tokens == 9
        assert runtime().line.waiting, "bob waited until alice gave up"
        stream.close()
        waiting.result()
    assert fake_provider.calls == 3


def test_a_waiter_finds_what_a_stream_gave_back_that_was_left(fake_provider: FakeProvider) -> None:
    """The stream is closed by a thread that makes no other call: the waiter itself has to see to its end."""
    fake_provider.reply = Reply(output_tokens=1, pause_after_chunks=1)
    ask: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": 100}
    with (
        openai_client(fake_provider) as client,
        farthing.budget(tokens=SIZE + LEFT, on_exceed="wait", wait_seconds=60) as budget,
    ):
        stream = client.chat.completions.create(**ask, stream=True)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(lambda: client.chat.completions.create(**ask))
            while not runtime().line.waiting:
                time.sleep(0.001)
            fake_provider.reply = Reply(output_tokens=1)
            stream.close()
            waiting.result()
        assert budget.spent.tokens == LEFT + 9


def test_truncate_ends_the_with_quietly(fake_provider: FakeProvider) -> None:
    done = []
    with openai_client(fake_provider) as client:
        with farthing.budget(tokens=SIZE - 1, on_exceed="truncate") as budget:
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)
            done.append("never")
        assert (done, budget.spent.tokens, fake_provider.posts) == ([], 0, 0)


def test_truncate_returns_none_from_functions_of_each_kind(fake_provider: FakeProvider) -> None:
    with openai_client(fake_provider) as client:

        def ask() -> object:
            return client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)

        @farthing.budget(tokens=1, on_exceed="truncate")
        def plain() -> object:
            return ask()

        @farthing.budget(tokens=1, on_exceed="truncate")
        async def coroutine() -> object:
            return ask()

        @farthing.budget(tokens=1, on_exceed="truncate")
        def generator():  # type: ignore[no-untyped-def]
            yield "before"
            yield ask()

        assert plain() is None
        assert asyncio.run(coroutine()) is None
        assert list(generator()) == ["before"]
    assert fake_provider.posts == 0


def test_an_outer_block_is_not_truncated(fake_provider: FakeProvider) -> None:
    """Quietly only if every failing budget says so."""
    with (
        openai_client(fake_provider) as client,
        farthing.budget(tokens=1),
        pytest.raises(BudgetExceeded),
        farthing.budget(tokens=1, on_exceed="truncate"),
    ):
        client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)


def test_a_callable_may_allow_other_terms(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(output_tokens=1_000)
    seen: list[Decision] = []

    def decide(decision: Decision) -> Allow | None:
        seen.append(decision)
        return Allow(model="gpt-4o-mini", max_output_tokens=20)

    with openai_client(fake_provider) as client, farthing.budget(tokens=SIZE, on_exceed=decide) as budget:
        answer = client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=5_000)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 20
        assert budget.spent.tokens == 28
    assert [(decision.unit, decision.asked, decision.limit) for decision in seen] == [("tokens", 5_008, SIZE)]
    assert fake_provider.requests[-1].json["model"] == "gpt-4o-mini"


@pytest.mark.parametrize("answer", [None, Allow(max_output_tokens=4_000)])
def test_a_callable_may_deny_and_is_asked_once(fake_provider: FakeProvider, answer: Allow | None) -> None:
    asked = []

    def decide(decision: Decision) -> Allow | None:
        asked.append(decision)
        return answer

    with (
        openai_client(fake_provider) as client,
        farthing.budget(tokens=SIZE, on_exceed=decide),
        pytest.raises(BudgetExceeded),
    ):
        client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=5_000)
    assert len(asked) == 1
    assert fake_provider.posts == 0


def test_what_a_callable_raises_reaches_the_caller(fake_provider: FakeProvider) -> None:
    def decide(decision: Decision) -> Allow | None:
        raise LookupError(decision.budget)

    with openai_client(fake_provider) as client, farthing.budget(tokens=1, on_exceed=decide) as budget:
        with pytest.raises(LookupError):
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10)
        assert budget.held.tokens == 0
    assert fake_provider.posts == 0


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_callable_raises_is_not_retried_by_an_sdk(
    fake_provider: FakeProvider, asynchronous: bool, streamed: bool
) -> None:
    """The Anthropic client takes a foreign exception for a broken connection: it would ask three times, and wrap it."""
    asked = []

    class Mine(OSError):
        pass

    def decide(decision: Decision) -> Allow | None:
        asked.append(decision)
        raise Mine(5, "my own word")

    ask: Any = {"model": "claude-haiku-4-5", "messages": HI, "max_tokens": 10, "stream": streamed}

    async def main() -> None:
        async with async_anthropic_client(fake_provider, max_retries=2) as client:
            await client.messages.create(**ask)

    def plainly() -> None:
        with anthropic_client(fake_provider, max_retries=2) as client:
            client.messages.create(**ask)

    with farthing.budget(tokens=1, on_exceed=decide), pytest.raises(Mine) as raised:
        asyncio.run(main()) if asynchronous else plainly()
    assert type(raised.value) is Mine
    assert raised.value.strerror == "my own word"
    assert "decide" in [entry.name for entry in raised.traceback]
    assert len(asked) == 1
    assert fake_provider.posts == 0
