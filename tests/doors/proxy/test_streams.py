"""Streams through the proxy: a thousand slow ones at once, readers that do not read, and no piece held back."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from farthing import ProxyServer
from farthing.kernel.budget import make_budget
from farthing.proxy.forward import _Exchange
from farthing.proxy.settings import Bounds
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, HI_TOKENS
from tests.doors.proxy.raw import hang_up, send
from tests.doors.proxy.running import entries, holds, proxy_with, settings_for
from tests.waiting import eventually

STREAMS = 1_000
LONG = 400_000
STILL_TIMES = 100
"""What is seen so often in a row, while every other thread had its turns, does not change."""
BODY = {"model": "gpt-4o", "messages": HI, "max_completion_tokens": 50, "stream": True}


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for four sockets a stream: the client's, the proxy's two and the provider's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = STREAMS * 4 + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(needed, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_slow_streams_at_once(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(chunks=["one ", "two ", "three ", "four"], output_tokens=4, pause_after_chunks=2)
    with proxy_with(settings_for(fake_provider)) as server:
        server.runtime.put_budget(make_budget("all", tokens=STREAMS * (HI_TOKENS + 50), standing=True))
        ends = asyncio.run(stream_all(server, fake_provider))
        assert ends == Counter({True: STREAMS})
        eventually(lambda: len(entries(server)) == STREAMS)
        assert fake_provider.max_in_flight == STREAMS
        assert Counter((entry.ending, entry.usage_source) for entry in entries(server)) == {("ok", "provider"): STREAMS}
        assert sum(entry.tokens("input", "output") for entry in entries(server)) == fake_provider.billed_tokens
        assert holds(server) == []


async def stream_all(server: ProxyServer, provider: FakeProvider) -> Counter[bool]:
    """All streams at once: each has begun before the first ends; how many came to their end."""
    begun = asyncio.Semaphore(0)
    reading = [asyncio.create_task(read_stream(server.url, begun)) for _ in range(STREAMS)]
    for _ in range(STREAMS):
        await asyncio.wait_for(begun.acquire(), 120)
    provider.resume()
    return Counter(await asyncio.wait_for(asyncio.gather(*reading), 120))


async def read_stream(url: str, begun: asyncio.Semaphore) -> bool:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    body = json.dumps(BODY).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        await reader.readuntil(b"two")
        begun.release()
        await reader.readuntil(b"[DONE]")
        await reader.readuntil(b"0\r\n\r\n")
        return True
    finally:
        writer.close()


def test_each_piece_comes_before_the_next_is_made(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(chunks=["one ", "two ", "three "], pause_after_chunks=1)
    with proxy_with(settings_for(fake_provider)) as server:
        response = send(server.url, "/v1/chat/completions", BODY)
        read = b""
        while b"one" not in read:
            read += response.read1(65536)
        assert b"two" not in read
        fake_provider.resume()
        assert b"[DONE]" in response.read()
        hang_up(response)


def test_a_client_that_does_not_read_slows_its_provider(fake_provider: FakeProvider) -> None:
    """No more is kept for it here than buffers hold, however much the provider would send."""
    piece = "x" * 50_000
    fake_provider.reply = Reply(chunks=[piece] * 400, output_tokens=400)
    with proxy_with(settings_for(fake_provider)) as server:
        where = urlsplit(server.url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.connect((where.hostname, where.port))
            body = json.dumps({**BODY, "max_completion_tokens": 500}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            client.recv(1_000)
            fake_provider.wait_in_flight(1)
            # The provider cannot come to its end, 20 MB on, for as long as nobody reads.
            with pytest.raises(TimeoutError):
                fake_provider.wait_idle(timeout=1.0)
            client.settimeout(60)
            rest = b""
            while b"[DONE]" not in rest:
                rest = rest[-10:] + client.recv(1_000_000)
        fake_provider.wait_idle()
        (entry,) = eventually(lambda: entries(server))
        assert (entry.ending, entry.tokens("output")) == ("ok", 400)


def kept_waiting() -> list[_Exchange]:
    """The calls of a proxy in this process whose provider has to wait, now."""
    exchanges = [of for of in gc.get_objects() if type(of) is _Exchange]
    return [of for of in exchanges if of._response is not None and of._response.keeps_waiting()]


def stands_still() -> _Exchange:
    """The one call whose provider has to wait, once no buffer on the way grows any more: then it waits for good."""
    still, last = 0, []
    while still < STILL_TIMES:
        found = eventually(kept_waiting)
        still = still + 1 if found == last else 0
        last = found
        time.sleep(0.005)
    (exchange,) = last
    return exchange


@pytest.mark.parametrize("how", ["client_gone", "timeout", "cancelled"])
def test_a_stream_that_ends_while_its_client_keeps_the_provider_waiting(fake_provider: FakeProvider, how: str) -> None:
    """
    The client reads nothing, so its provider fills every buffer on the way, and its own. Whether the client leaves
    then, the time for an answer is over, or the proxy stops: nobody here knows how much was generated. The answer is
    longer than all buffers together may grow, and its end is never sent, however much is read to the last.
    """
    fake_provider.reply = Reply(output_tokens=LONG, tokens_per_chunk=1, pause_after_chunks=LONG - 1)
    with proxy_with(settings_for(fake_provider, bounds=Bounds(shutdown_seconds=1))) as server:
        server.runtime.put_budget(make_budget("all", tokens=1_000_000, standing=True))
        response = send(server.url, "/v1/chat/completions", {**BODY, "max_completion_tokens": LONG})
        exchange = stands_still()
        if how == "client_gone":
            hang_up(response)
        elif how == "timeout":
            # Its time is over when all is full, however long that took here.
            loop = server._worker._loop
            assert loop is not None
            loop.call_soon_threadsafe(exchange._out_of_time)
        elif how == "cancelled":
            server.stop()
        (entry,) = eventually(lambda: entries(server))
        fake_provider.wait_idle()
        hang_up(response)
    assert (entry.ending, entry.usage_source, entry.tokens("output")) == (how, "estimate", LONG)
    assert holds(server) == []


def test_a_stop_counts_what_was_read_of_a_stream_between_two_pieces(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(chunks=["one ", "two ", "three "], pause_after_chunks=2)
    with proxy_with(settings_for(fake_provider, bounds=Bounds(shutdown_seconds=1))) as server:
        server.runtime.put_budget(make_budget("all", tokens=1_000_000, standing=True))
        response = send(server.url, "/v1/chat/completions", {**BODY, "max_completion_tokens": 1_000})
        read = b""
        while b"two" not in read:
            read += response.read1(65536)
        server.stop()
        (entry,) = entries(server)
        hang_up(response)
    assert (entry.ending, entry.usage_source) == ("cancelled", "counted")
    assert 64 < entry.tokens("output") < 80
