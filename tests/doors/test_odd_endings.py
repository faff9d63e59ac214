"""
Goal: a stream whose caller is called away while it closes it, whose connection does not close cleanly, whose event loop
is gone, or whose process was forked, is ended all the same: once, by whom it belongs to.
Method: the real SDK on a provider that waits in the middle of its answer; the odd thing happens exactly there.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from typing import Any

import pytest

import farthing
from farthing.runtime.sockets import SLOW_SECONDS
from farthing.sdk import relay
from farthing.sdk.backlog import is_full
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, anthropic_client, async_openai_client, entries, holds, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")
HALF = Reply(output_tokens=50, pause_after_chunks=10)
WHOLE = Reply(output_tokens=50)
ASK: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": 100, "stream": True}


def ended_once(*endings: str) -> None:
    gc.collect()
    assert holds("held") == []
    assert [entry.ending for entry in entries()] == list(endings)


def test_a_task_that_is_cancelled_while_it_closes_a_stream(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_provider.reply = HALF
    reading = asyncio.Event()

    async def slowly(*given: Any) -> None:
        reading.set()
        await asyncio.sleep(3_600)

    monkeypatch.setattr(relay, "_leftover_async", slowly)

    async def main() -> None:
        async with async_openai_client(fake_provider) as client:
            with farthing.budget(tokens=1_000) as budget:
                stream = await client.chat.completions.create(**ASK)
                closing = asyncio.create_task(stream.close())
                await reading.wait()
                closing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await closing
                assert budget.held.tokens == 0
                assert budget.spent.tokens == 108

    asyncio.run(main())
    ended_once("abandoned")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_connection_that_does_not_close_cleanly(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """The caller sees that; its call is ended before."""
    fake_provider.reply = HALF

    class Broken(Exception):
        pass

    def breaks(stream: Any) -> None:
        ours = stream.response.stream
        while not isinstance(ours, (relay._SyncRelay, relay._AsyncRelay)):
            ours = ours._stream

        def refuse() -> None:
            raise Broken

        async def refuse_async() -> None:
            raise Broken

        name = "aclose" if asynchronous else "close"
        monkeypatch.setattr(ours._stream, name, refuse_async if asynchronous else refuse)

    async def main() -> None:
        async with async_openai_client(fake_provider) as client:
            stream = await client.chat.completions.create(**ASK)
            breaks(stream)
            with pytest.raises(Broken):
                await stream.close()
            monkeypatch.undo()
            await stream.response.aclose()

    with farthing.budget(tokens=1_000) as budget:
        if asynchronous:
            asyncio.run(main())
        else:
            with openai_client(fake_provider) as client:
                stream = client.chat.completions.create(**ASK)
                breaks(stream)
                with pytest.raises(Broken):
                    stream.close()
        assert budget.held.tokens == 0
    ended_once("abandoned")


def test_a_stream_that_another_task_closes_while_its_reader_is_busy(fake_provider: FakeProvider) -> None:
    """A stop button. The reader that wants to go on finds the end; what had arrived by then was billed all the same."""
    fake_provider.reply = WHOLE

    async def main() -> None:
        async with async_openai_client(fake_provider) as client:
            stream = await client.chat.completions.create(**ASK)
            busy, stopped = asyncio.Event(), asyncio.Event()

            async def read() -> int:
                chunks = 0
                async for _ in stream:
                    chunks += 1
                    busy.set()
                    await stopped.wait()
                return chunks

            reading = asyncio.create_task(read())
            await busy.wait()
            await asyncio.to_thread(fake_provider.wait_idle)
            await stream.close()
            stopped.set()
            assert await reading < 50

    with farthing.budget(tokens=1_000) as budget:
        asyncio.run(main())
        assert budget.spent.tokens == fake_provider.billed_tokens == 58
    ended_once("ok")


def test_a_stream_that_another_thread_closes_while_its_reader_is_busy(fake_provider: FakeProvider) -> None:
    fake_provider.reply = WHOLE
    with farthing.budget(tokens=1_000) as budget, openai_client(fake_provider) as client:
        stream = client.chat.completions.create(**ASK)
        reading = iter(stream)
        next(reading)
        fake_provider.wait_idle()
        closing = threading.Thread(target=stream.close)
        closing.start()
        closing.join()
        assert len(list(reading)) < 49
        assert budget.spent.tokens == fake_provider.billed_tokens == 58
    ended_once("ok")


def test_a_stream_that_another_thread_closes_with_a_piece_on_its_way(fake_provider: FakeProvider) -> None:
    """Nobody has all that arrived, in order: the call costs what was held."""
    fake_provider.reply = HALF
    with farthing.budget(tokens=1_000) as budget, openai_client(fake_provider) as client:
        stream = client.chat.completions.create(**ASK)
        ours = stream.response.stream
        while not isinstance(ours, relay._SyncRelay):
            ours = ours._stream
        opened, rest = ours._opened, ours._chunks
        piece = opened.take(rest)
        assert piece
        stream.close()
        opened.feed(piece)
        assert opened.take(rest) is None
        assert budget.spent.tokens == 108
    ended_once("abandoned")


LONG: Any = {**ASK, "max_tokens": 20_000}


def until_full(stream: Any) -> None:
    while not is_full(stream.response.extensions):
        time.sleep(0.001)


@pytest.mark.parametrize("read_on", [False, True])
def test_a_stream_left_by_a_reader_so_slow_that_its_sender_had_to_wait(
    fake_provider: FakeProvider, read_on: bool
) -> None:
    """What the provider generated meanwhile, and bills, is in its own buffers: nobody here can say how much."""
    fake_provider.reply = Reply(output_tokens=6_000, tokens_per_chunk=1)
    with farthing.budget(tokens=100_000) as budget, openai_client(fake_provider) as client:
        stream = client.chat.completions.create(**LONG)
        next(reading := iter(stream))
        until_full(stream)
        time.sleep(2 * SLOW_SECONDS)
        for _ in range(1_000 if read_on else 0):
            next(reading)
        stream.close()
        fake_provider.wait_idle()
        assert fake_provider.billed_tokens > 1_500
        assert budget.spent.tokens == 8 + 20_000
    ended_once("abandoned")


def test_an_async_stream_left_by_a_reader_so_slow_that_its_sender_had_to_wait(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(output_tokens=6_000, tokens_per_chunk=1)

    async def main() -> None:
        async with async_openai_client(fake_provider) as client:
            stream = await client.chat.completions.create(**LONG)
            await anext(reading := aiter(stream))
            await asyncio.to_thread(until_full, stream)
            await asyncio.sleep(2 * SLOW_SECONDS)
            for _ in range(1_000):
                await anext(reading)
            await stream.close()

    with farthing.budget(tokens=100_000) as budget:
        asyncio.run(main())
        fake_provider.wait_idle()
        assert fake_provider.billed_tokens > 1_500
        assert budget.spent.tokens == 8 + 20_000
    ended_once("abandoned")


def test_a_reader_that_was_slow_and_has_caught_up(fake_provider: FakeProvider) -> None:
    """Its sender does not wait any more: what has arrived is all there is."""
    fake_provider.reply = Reply(output_tokens=6_000, tokens_per_chunk=1, pause_after_chunks=5_900)
    with farthing.budget(tokens=100_000) as budget, openai_client(fake_provider) as client:
        stream = client.chat.completions.create(**LONG)
        next(reading := iter(stream))
        until_full(stream)
        time.sleep(2 * SLOW_SECONDS)
        for _ in range(5_890):
            next(reading)
        time.sleep(2 * SLOW_SECONDS)
        next(reading)
        stream.close()
        fake_provider.wait_idle()
        assert fake_provider.billed_tokens <= (budget.spent.tokens or 0) < 7_000
    ended_once("abandoned")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("when", ["before the loop is closed", "after"])
def test_an_event_loop_that_is_closed_with_a_stream_open(fake_provider: FakeProvider, when: str) -> None:
    """What its loop was asked to do, it never does: the call is ended when the loop forgets it, as it was held."""
    fake_provider.reply = HALF
    loop = asyncio.new_event_loop()
    with farthing.budget(tokens=1_000) as budget:
        client = async_openai_client(fake_provider)
        stream = loop.run_until_complete(client.chat.completions.create(**ASK))
        if when == "after":
            loop.close()
        del stream
        gc.collect()
        loop.close()
        del client
        gc.collect()
        assert budget.held.tokens == 0
        assert budget.spent.tokens == 108
    ended_once("abandoned")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_in_the_middle_of_a_stream(fake_provider: FakeProvider) -> None:
    """The child has a copy of the stream; the call is its parent's, who reads on and settles it."""
    fake_provider.reply = HALF
    with openai_client(fake_provider) as client, farthing.budget(tokens=1_000) as budget:
        stream = client.chat.completions.create(**ASK)
        first = next(iter(stream))
        child = os.fork()
        if child == 0:
            # Whatever happens here: no test runner may go on in a child.
            try:
                del stream, first
                gc.collect()
                code = 0 if entries() == [] else 1
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        fake_provider.resume()
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert len(text.split()) == 50
        assert budget.spent.tokens == fake_provider.billed_tokens == 58
    ended_once("ok")


def test_a_reader_who_stops_at_the_final_figure_and_closes_nothing(fake_provider: FakeProvider) -> None:
    """Some clients take the stop reason for the end, and keep the stream for as long as they like."""
    fake_provider.reply = WHOLE
    with anthropic_client(fake_provider) as client, farthing.budget(tokens=1_000) as budget:
        stream = client.messages.create(model="claude-haiku-4-5", messages=HI, max_tokens=100, stream=True)
        assert next(event for event in stream if event.type == "message_delta").delta.stop_reason == "end_turn"
        assert (budget.spent.tokens, budget.held.tokens) == (fake_provider.billed_tokens, 0)
        stream.close()
    ended_once("ok")
