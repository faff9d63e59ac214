"""
The HTTP half: a thousand clients at once, other processes, any split of a request, and nothing left behind.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from farthing.testing import FakeProvider, Reply
from farthing.testing.server import Server
from tests.unit.testing.words import HI, TEN_WORDS, count_words
from tests.waiting import eventually

BODY = json.dumps({"model": "m", "messages": HI}).encode()
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: fake\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


def port(provider: FakeProvider) -> int:
    return int(provider.url.rsplit(":", 1)[1])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def call(url: str) -> str:
    """One call without an SDK, for other processes too: the text of the answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    try:
        connection.request("POST", "/v1/chat/completions", BODY)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        text: str = answer["choices"][0]["message"]["content"]
        return text
    finally:
        connection.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files by /proc")
def test_leaves_no_thread_and_no_socket_behind() -> None:
    with FakeProvider(count=count_words) as warm_up:
        call(warm_up.url)
    threads, files = threading.active_count(), open_files()
    for _ in range(20):
        with FakeProvider(count=count_words) as provider, socket.create_connection(("127.0.0.1", port(provider))):
            call(provider.url)
    assert threading.active_count() <= threads
    assert open_files() <= files


@pytest.mark.filterwarnings("error")
def test_stops_while_connections_arrive() -> None:
    """One that was being accepted had been left to the garbage collector, with its socket open."""
    for _ in range(20):
        provider = FakeProvider(count=count_words).start()
        clients = [socket.create_connection(("127.0.0.1", port(provider))) for _ in range(3)]
        clients[0].sendall(REQUEST)
        provider.stop()
        for client in clients:
            client.close()
    gc.collect()


@contextmanager
def stopped(server: Server) -> Iterator[Callable[[], None]]:
    """The server's thread does nothing in here, until this is called."""
    inside, go_on = threading.Event(), threading.Event()

    def stand_still() -> None:
        inside.set()
        go_on.wait()

    server.call(stand_still)
    try:
        assert inside.wait(60)
        yield go_on.set
    finally:
        go_on.set()


def test_settles_down_after_all_that_was_sent(provider: FakeProvider) -> None:
    """Also what came on a connection that is new, in the very turn of the loop that began to count."""
    server = provider._server
    assert server is not None
    arrived = threading.Event()

    def until_arrived() -> None:
        assert arrived.wait(60)

    with stopped(server) as go_on, ThreadPoolExecutor() as pool:
        server.call(until_arrived)
        settled = pool.submit(server.settle_down, 60)
        eventually(lambda: len(server.loop._ready) >= 2)  # type: ignore[attr-defined]
        go_on()
        with socket.create_connection(("127.0.0.1", port(provider))) as client:
            client.sendall(REQUEST)
            arrived.set()
            assert settled.result()
            assert len(provider.requests) == 1


def test_a_client_may_be_gone_before_its_connection_is_closed(provider: FakeProvider) -> None:
    server = provider._server
    assert server is not None
    with stopped(server), socket.create_connection(("127.0.0.1", port(provider))) as client:
        client.sendall(REQUEST.replace(b"host: fake", b"connection: close"))
    provider.wait_idle()
    assert provider.calls == 1
    provider.stop()


def test_can_be_started_again_but_not_twice() -> None:
    provider = FakeProvider(count=count_words)
    with pytest.raises(RuntimeError, match="not running"):
        provider.url  # noqa: B018 - reading it is what fails
    for calls in (1, 2):
        with provider:
            assert call(provider.url) == TEN_WORDS
            with pytest.raises(RuntimeError, match="already"):
                provider.start()
        assert provider.calls == calls
    provider.stop()


def test_a_port_that_is_taken_is_an_error() -> None:
    with FakeProvider() as first, pytest.raises(OSError, match="in use"):
        FakeProvider(port=port(first)).start()


def test_a_thousand_connections_at_once(provider: FakeProvider) -> None:
    provider.reply = Reply(pause_after_chunks=0)
    clients = 1000

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port(provider))
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(size)
        writer.close()
        await writer.wait_closed()
        return body

    async def everyone() -> list[bytes]:
        tasks = [asyncio.create_task(one()) for _ in range(clients)]
        await asyncio.to_thread(provider.wait_in_flight, clients, 60)
        provider.resume()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(everyone())
    assert len({json.loads(answer)["id"] for answer in answers}) == clients
    assert provider.calls == provider.max_in_flight == clients


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_serves_other_processes(provider: FakeProvider, method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(call, [provider.url] * 6) == [TEN_WORDS] * 6
        pool.close()
        pool.join()
    assert provider.calls == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # 3.12 on; it is the point
def test_a_forked_child_calls_the_parents_provider_and_cannot_stop_it() -> None:
    provider = FakeProvider(count=count_words).start()
    url = provider.url
    child = os.fork()
    if child == 0:
        try:
            text = call(url)
            provider.stop()
            os._exit(0 if text == TEN_WORDS and call(url) == TEN_WORDS else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert provider.calls == 2
    provider.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_port_open() -> None:
    provider = FakeProvider(count=count_words).start()
    taken = port(provider)
    ready, ring = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        os.write(ring, b"1")
        os.read(told, 1)
        os._exit(0)
    try:
        os.read(ready, 1)
        provider.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", taken), timeout=60)
    finally:
        for end in (ready, ring, told, tell):
            os.close(end)
        os.waitpid(child, 0)


def exchange(provider: FakeProvider, *pieces: bytes) -> bytes:
    """Sends the pieces apart, then reads until the provider closes."""
    with socket.create_connection(("127.0.0.1", port(provider))) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        received = b""
        while data := client.recv(65536):
            received += data
        return received


def test_requests_in_any_pieces_and_in_a_row(provider: FakeProvider) -> None:
    last = REQUEST.replace(b"host: fake", b"connection: close")
    received = exchange(provider, *(bytes([byte]) for byte in REQUEST), REQUEST + last)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert [request.number for request in provider.requests] == [1, 2, 3]


def test_a_body_in_chunks_after_a_continue(provider: FakeProvider) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\nexpect: 100-continue\r\n"
    chunked = b"".join(b"%x\r\n%b\r\n" % (1, BODY[i : i + 1]) for i in range(len(BODY))) + b"0\r\n\r\n"
    received = exchange(provider, head + b"transfer-encoding: chunked\r\n\r\n", chunked)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_nonsense_is_refused_and_the_server_lives(provider: FakeProvider) -> None:
    assert exchange(provider, b"\x16\x03\x01 this is not HTTP\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    bad = b"POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: 3\r\n\r\n\xff{]"
    assert b"could not parse the JSON" in exchange(provider, bad)
    assert call(provider.url) == TEN_WORDS


def test_a_websocket_is_not_found(provider: FakeProvider) -> None:
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: MTIz\r\n"
    with socket.create_connection(("127.0.0.1", port(provider))) as client:
        client.sendall(b"GET /v1/realtime?model=m HTTP/1.1\r\nhost: fake\r\n" + upgrade + b"\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 404 Not Found")
    provider.stop()  # and nothing has failed


def test_unknown_routes_are_not_found_in_the_callers_shape(provider: FakeProvider) -> None:
    openai = exchange(provider, b"GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n")
    assert openai.startswith(b"HTTP/1.1 404 Not Found")
    assert json.loads(openai.split(b"\r\n\r\n")[1])["error"]["type"] == "invalid_request_error"
    theirs = exchange(provider, b"GET /nowhere HTTP/1.1\r\nanthropic-version: 1\r\nconnection: close\r\n\r\n")
    assert json.loads(theirs.split(b"\r\n\r\n")[1])["error"]["type"] == "not_found_error"


def test_a_stream_waits_for_a_reader_that_does_not_read(provider: FakeProvider) -> None:
    """A long stream is not all taken for sent: it stops with the connection's buffers, and goes on with its reader."""
    tokens = 32_000
    provider.reply = Reply(output_tokens=tokens)
    body = json.dumps({"model": "m", "messages": HI, "stream": True}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port(provider)))
        client.sendall(request % (len(body), body))
        with pytest.raises(TimeoutError):
            provider.wait_idle(timeout=0.5)
        received = bytearray()
        while data := client.recv(1 << 20):
            received += data
    assert received.count(b'"content":"') == tokens + 1
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert [line.usage.output for line in provider.bill] == [tokens]


def test_a_stream_may_end_as_soon_as_its_reader_reads_on(provider: FakeProvider) -> None:
    """Asyncio loses a connection twice, and fails, where that is closed in the very call that says it can take more."""
    provider.reply = Reply(output_tokens=600)  # Two batches and a bit: the second is more than a connection buffers.
    body = json.dumps({"model": "m", "messages": HI, "stream": True}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    server = provider._server
    assert server is not None
    server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port(provider)))
        client.sendall(request % (len(body), body))
        while not any(connection.congested for connection in tuple(server.connections)):
            assert server.settle_down(60)
        (connection,) = server.connections
        # All that waits leaves at once, and what is left of the stream with it.
        sending = connection._transport.get_extra_info("socket")
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        received = bytearray()
        while data := client.recv(1 << 20):
            received += data
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    provider.stop()
