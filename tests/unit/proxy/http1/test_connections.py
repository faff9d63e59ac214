"""
Connections in use and between uses: kept ones that the other end closes at the worst instant, waiting, slow readers,
callers that go.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import threading
import weakref
from collections.abc import Callable

import pytest

from farthing.proxy.http1 import connection as connection_module
from farthing.proxy.http1.errors import ConnectFailed, ConnectionLost, TimedOut
from farthing.proxy.http1.pool import Limits
from farthing.proxy.http1.response import Response
from farthing.proxy.settings import Timeouts
from tests.unit.proxy.http1.hostile import SOON, Peer, allow, ask, client_of, hostile, run, whole
from tests.waiting import SECONDS

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


async def answering(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(ANSWER)


# -- kept connections ----------------------------------------------------------------------------------------------


def test_the_last_freed_is_the_first_used_again(loop: str) -> None:
    async def main() -> None:
        async with hostile(answering) as server, client_of() as client:
            for response in await asyncio.gather(*(ask(client, server.url) for _ in range(3))):
                assert await whole(response) == b"hello"
            idle = client._pools[server.url].idle
            while len(idle) < 3:
                await asyncio.sleep(0.001)
            last = idle[-1]
            for _ in range(5):
                await whole(await ask(client, server.url))
                assert len(idle) == server.connections == 3
                assert idle[-1] is last

    run(loop, main())


def test_one_that_was_closed_while_idle_is_not_used(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ANSWER)

    async def main() -> int:
        async with hostile(script) as server, client_of() as client:
            for _ in range(3):
                assert await whole(await ask(client, server.url)) == b"hello"
                while client._pools[server.url].open:
                    await asyncio.sleep(0.001)
            return server.connections

    assert run(loop, main()) == 3


class Blocking:
    """A server of blocking sockets on a thread, so that what it does falls between two turns of the client's loop."""

    def __init__(self, second: Callable[[socket.socket], None]) -> None:
        self.requests = 0
        self.acted = threading.Event()
        self._over = threading.Event()
        self._second = second
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._listening:
            first, _ = self._listening.accept()
            self._answer(first)
            self._second(first)
            self.acted.set()
            self._listening.settimeout(0.01)
            while True:
                over = self._over.is_set()
                try:
                    other, _ = self._listening.accept()
                    break
                except TimeoutError:
                    if over:
                        return  # what its client has sent by its end has arrived here
            with other:
                self._answer(other)

    def _answer(self, sock: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n{}" not in received:
            received += sock.recv(65536)
        self.requests += 1
        sock.sendall(ANSWER)

    def join(self) -> None:
        """Its client sends no more."""
        self._over.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("looks", ["seen before writing", "crossing the request", "used a moment ago"])
def test_one_that_is_closed_under_the_request_is_replaced(
    loop: str, looks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The server has hung up, and the loop has not seen it yet. Nothing of the request is received: it is sent once more.
    """
    monkeypatch.setattr(connection_module, "_TRUSTED_SECONDS", 60.0 if looks == "used a moment ago" else -1.0)
    if looks == "crossing the request":
        # As if the end arrived just after the look: the request is written to a connection that is closed.
        monkeypatch.setattr(connection_module, "is_silent", lambda sock: True)
    server = Blocking(lambda sock: sock.close())

    async def main() -> None:
        async with client_of() as client:
            assert await whole(await ask(client, server.url)) == b"hello"
            assert server.acted.wait(SECONDS)  # the loop stands still meanwhile
            assert await whole(await ask(client, server.url)) == b"hello"

    run(loop, main())
    server.join()
    assert server.requests == 2


def read_and_close(sock: socket.socket) -> None:
    while b"\r\n\r\n{}" not in sock.recv(65536):
        pass
    sock.close()


def read_and_reset(sock: socket.socket) -> None:
    while b"\r\n\r\n{}" not in sock.recv(65536):
        pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def take_unread_and_reset(sock: socket.socket) -> None:
    while not sock.recv(65536, socket.MSG_PEEK):
        pass
    sock.close()  # with bytes unread, a close is a reset


@pytest.mark.parametrize("trusted_seconds", [-1.0, 60.0])
@pytest.mark.parametrize("act", [read_and_close, read_and_reset, take_unread_and_reset])
def test_a_request_that_was_received_is_never_sent_again(
    loop: str, act: Callable[[socket.socket], None], trusted_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_TRUSTED_SECONDS", trusted_seconds)
    server = Blocking(act)

    async def main() -> None:
        async with client_of() as client:
            assert await whole(await ask(client, server.url)) == b"hello"
            with pytest.raises(ConnectionLost, match="connection_lost") as caught:
                await ask(client, server.url)
            assert str(caught.value.note).endswith(", before its answer")

    run(loop, main())
    server.join()
    assert server.requests == 1


def test_a_new_connection_that_is_closed_at_once_has_sent_nothing(loop: str) -> None:
    """A server that takes no more clients: tried twice, then said, as NotSent."""

    async def main() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        stop = asyncio.Event()

        async def refuse() -> None:
            while not stop.is_set():
                sock, _ = await asyncio.get_running_loop().sock_accept(listening)
                sock.close()

        refusing = asyncio.create_task(refuse())
        async with client_of() as client:
            for _ in range(20):
                with pytest.raises((ConnectFailed, ConnectionLost)):
                    await ask(client, f"http://127.0.0.1:{listening.getsockname()[1]}")
        refusing.cancel()
        await asyncio.gather(refusing, return_exceptions=True)
        listening.close()

    run(loop, main())


def test_what_the_other_end_says_of_idle_time_counts(loop: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=9\r\nContent-Length: 5\r\n\r\nhello")

    async def main() -> int:
        async with hostile(script) as server, client_of() as client:
            for _ in range(3):
                await whole(await ask(client, server.url))
            return server.connections

    # One second, less the margin, is none at all.
    assert run(loop, main()) == 3


def test_idle_connections_are_closed_in_time(loop: str) -> None:
    async def main() -> None:
        async with hostile(answering) as server, client_of(limits=Limits(idle_seconds=0.02)) as client:
            await whole(await ask(client, server.url))
            pool = client._pools[server.url]
            while pool.idle or pool.open:
                await asyncio.sleep(0.005)

    run(loop, main())


def test_no_more_idle_ones_than_allowed(loop: str) -> None:
    async def main() -> None:
        async with hostile(answering) as server, client_of(limits=Limits(max_idle=2)) as client:
            for response in await asyncio.gather(*(ask(client, server.url) for _ in range(6))):
                await whole(response)
            assert 0 < len(client._pools[server.url].idle) <= 2

    run(loop, main())


# -- a bounded number of them --------------------------------------------------------------------------------------


def test_requests_wait_in_line_for_a_bounded_number_of_connections(loop: str) -> None:
    both = asyncio.Event()

    async def script(peer: Peer) -> None:
        """No answer before both connections are in use: a fast one could else serve everybody alone."""
        if peer.number == 1:
            both.set()
        await both.wait()
        await answering(peer)

    async def main() -> None:
        async with hostile(script) as server, client_of(limits=Limits(max_connections=2)) as client:

            async def one() -> bytes:
                return await whole(await ask(client, server.url))

            tasks = [asyncio.create_task(one()) for _ in range(50)]
            await asyncio.sleep(0)
            for task in tasks[10:20]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(result == b"hello" for result in results) == 40
            assert server.connections == 2
            assert client._pools[server.url].open == 2

    run(loop, main())


def test_a_line_that_does_not_move_ends_as_not_sent(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(BEGUN)
        await peer.gone()

    async def main() -> None:
        async with hostile(script) as server, client_of(limits=Limits(max_connections=1)) as client:
            held = await ask(client, server.url)
            with pytest.raises(ConnectFailed, match="connect_timeout") as caught:
                await ask(client, server.url, timeouts=Timeouts(connect_seconds=0.02))
            assert "all 1 connections are in use" in caught.value.note
            held.abort()
            # A closed connection makes room as a freed one does.
            response = await ask(client, server.url)
            assert await response.receive() == b"hello"
            response.abort()

    run(loop, main())


# -- connecting ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_reached_was_not_sent_and_says_why(loop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def main() -> None:
        async with client_of() as client:
            for url, why in (
                (f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{port}: .*[Cc]onnect"),
                ("http://no-such-name.invalid/v1?key=secret", "http://no-such-name.invalid:80: its name is not known"),
            ):
                with pytest.raises(ConnectFailed, match="connect_error") as caught:
                    await ask(client, url)
                note = caught.value.note
                assert re.match(why, note), note
                assert "secret" not in note
                assert not client._pools[url[: url.index("/v1")]].open

    run(loop, main())


def test_a_connection_that_takes_too_long_was_not_sent(loop: str) -> None:
    async def main() -> None:
        # A TLS handshake that is never answered.
        async with hostile(Peer.gone) as server, client_of() as client:
            with pytest.raises(ConnectFailed, match="connect_timeout"):
                await ask(client, server.url.replace("http:", "https:"), timeouts=Timeouts(connect_seconds=0.05))

    run(loop, main())


def test_a_request_that_is_cancelled_while_connecting_leaves_its_connection_to_the_next(loop: str) -> None:
    async def main() -> None:
        async with hostile(answering) as server, client_of() as client:
            first = asyncio.create_task(ask(client, server.url))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert await whole(await ask(client, server.url)) == b"hello"
            assert client._pools[server.url].open <= 2

    run(loop, main())


# -- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["nothing", "a part of its head"])
@pytest.mark.parametrize(
    ("timeouts", "note"),
    [
        (Timeouts(idle_seconds=0.05), "waited 0.05 s for an answer"),
        (Timeouts(total_seconds=0.05), "not finished after 0.05 s"),
    ],
    ids=["idle", "total"],
)
def test_an_answer_that_does_not_begin_is_a_timeout(loop: str, sent: bytes, timeouts: Timeouts, note: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.gone()

    async def main() -> None:
        async with hostile(script) as server, client_of() as client:
            with pytest.raises(TimedOut, match="timeout") as caught:
                await ask(client, server.url, timeouts=timeouts)
            assert caught.value.note == note

    run(loop, main())


@pytest.mark.parametrize(
    ("timeouts", "note"),
    [
        (Timeouts(idle_seconds=0.05), "waited 0.05 s for the rest of the answer"),
        (Timeouts(total_seconds=0.05), "not finished after 0.05 s"),
    ],
    ids=["idle", "total"],
)
def test_an_answer_that_stops_is_a_timeout(loop: str, timeouts: Timeouts, note: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(BEGUN)
        await peer.gone()

    async def main() -> None:
        async with hostile(script) as server, client_of() as client:
            response = await ask(client, server.url)
            allow(response, timeouts)
            with pytest.raises(TimedOut, match="timeout") as caught:
                await whole(response)
            assert caught.value.note == note

    run(loop, main())


def test_a_timer_of_an_earlier_exchange_does_not_end_a_later_one(loop: str) -> None:
    """The timer of a connection stays from one exchange to the next; only the time that is due counts."""

    async def main() -> None:
        fired = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(ANSWER)
            await peer.request()
            await fired.wait()
            await peer.send(ANSWER)

        async with hostile(script) as server, client_of() as client:
            assert await whole(await ask(client, server.url, timeouts=SOON)) == b"hello"
            (connection,) = client._pools[server.url].idle
            assert connection._timer is not None, "it stays"
            second = asyncio.create_task(ask(client, server.url, timeouts=SOON))
            await asyncio.sleep(0)
            connection._timer.cancel()
            connection._look()  # the first one's time is over
            fired.set()
            assert await whole(await second) == b"hello"
            assert server.connections == 1

    run(loop, main())


# -- slow readers, large bodies ------------------------------------------------------------------------------------


def test_a_slow_reader_slows_the_other_end_and_loses_nothing(loop: str) -> None:
    size = 32 * 1024 * 1024
    written = 0

    async def script(peer: Peer) -> None:
        nonlocal written
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = bytes(range(256)) * 256
        while written < size:
            await peer.send(block)
            written += len(block)
        await peer.request()

    async def main() -> None:
        async with hostile(script) as server, client_of() as client:
            response = await ask(client, server.url)
            connection = response.connection
            assert isinstance(connection, connection_module.Connection)
            while not connection.is_paused:
                await asyncio.sleep(0.001)
            allow(response, Timeouts(idle_seconds=0.05))
            before = -1
            while written != before:  # until the server is held up
                before = written
                await asyncio.sleep(0.1)  # longer than the upstream may be silent: it is we who wait
            assert written < size
            allow(response, SOON)
            assert response.arrived < 1024 * 1024
            received = 0
            while piece := await response.receive():
                assert piece[:2] == bytes(((received % 256), (received + 1) % 256))
                received += len(piece)
            assert received == size
            assert len(client._pools[server.url].idle) == 1

    run(loop, main())


def test_an_answer_that_comes_while_the_request_is_still_written(loop: str) -> None:
    """A 413 that does not wait for the body: it is the answer, and the connection is not used again."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nhello")
        await peer.gone()

    async def main() -> int:
        async with hostile(script) as server, client_of() as client:
            for _ in range(2):
                response = await ask(client, server.url, b"x" * (32 * 1024 * 1024))
                assert response.status == 413
                assert await whole(response) == b"hello"
            return server.connections

    assert run(loop, main()) == 2


def test_a_large_request_arrives_whole(loop: str) -> None:
    body = bytes(range(256)) * 40_000

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            assert request.endswith(b"\r\n\r\n" + body)
            await peer.send(ANSWER)

    async def main() -> int:
        async with hostile(script) as server, client_of() as client:
            for _ in range(2):
                assert await whole(await ask(client, server.url, body)) == b"hello"
            return server.connections

    assert run(loop, main()) == 1


# -- callers that go -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", BEGUN], ids=["before the answer", "within it"])
def test_a_cancelled_caller_closes_the_connection(loop: str, sent: bytes) -> None:
    async def main() -> None:
        closed = asyncio.Event()
        waits = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(sent)
            waits.set()
            await peer.gone()
            closed.set()

        async with hostile(script) as server, client_of() as client:

            async def call() -> None:
                await whole(await ask(client, server.url))

            task = asyncio.create_task(call())
            await waits.wait()
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await closed.wait()

    run(loop, main())


def test_abort_closes_at_once_and_as_often_as_one_likes(loop: str) -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(BEGUN)
            await peer.gone()
            closed.set()

        async with hostile(script) as server, client_of() as client:
            response = await ask(client, server.url)
            reading = asyncio.create_task(whole(response))
            await asyncio.sleep(0.01)
            response.abort()
            response.abort()
            with pytest.raises(ConnectionLost):
                await reading
            await closed.wait()
            response.abort()

    run(loop, main())


def test_stop_gives_what_had_arrived_and_then_an_error(loop: str) -> None:
    """Also what only the kernel has: a provider's usage may be in it, though nobody has read it."""

    async def main() -> None:
        read, written, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(BEGUN)
            await read.wait()
            await peer.send(b"5\r\nworld\r\n")
            written.set()
            await peer.gone()
            closed.set()

        async with hostile(script) as server, client_of() as client:
            response = await ask(client, server.url)
            assert await response.receive() == b"hello"
            read.set()
            await written.wait()
            assert response.stop()
            assert await response.receive() == b"world"
            with pytest.raises(ConnectionLost):
                await response.receive()
            await closed.wait()

    run(loop, main())


def test_stop_ends_a_reader_that_waits_and_an_unbounded_body_is_not_whole_by_it(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")  # a body that ends with its connection
        await peer.gone()

    async def main() -> None:
        async with hostile(script) as server, client_of() as client:
            response = await ask(client, server.url)
            assert await response.receive() == b"hello"
            reading = asyncio.create_task(response.receive())
            await asyncio.sleep(0.01)
            assert response.stop()
            with pytest.raises(ConnectionLost):
                await reading

    run(loop, main())


def test_a_connection_that_was_stopped_serves_no_other_request(loop: str) -> None:
    """The end of the answer had arrived by then, so it is whole. But nothing more is read on that connection."""

    async def main() -> None:
        end_it = asyncio.Event()

        async def script(peer: Peer) -> None:
            if peer.number:
                await answering(peer)
            await peer.request()
            await peer.send(BEGUN)
            await end_it.wait()
            # Between these two lines no loop reads: what arrived is in the kernel when its reader stops.
            os.write(peer.writer.get_extra_info("socket").fileno(), b"5\r\nworld\r\n0\r\n\r\n")
            assert response.stop()
            await peer.gone()

        async with hostile(script) as server, client_of() as client:
            response = await ask(client, server.url)
            assert await response.receive() == b"hello"
            end_it.set()
            assert await whole(response) == b"world"
            assert await whole(await ask(client, server.url)) == b"hello"
            assert server.connections == 2

    run(loop, main())


def test_after_the_end_there_is_nothing_to_stop(loop: str) -> None:
    async def main() -> None:
        async with hostile(answering) as server, client_of() as client:
            response = await ask(client, server.url)
            await whole(response)
            assert response.stop()
            response.abort()
            assert await whole(await ask(client, server.url)) == b"hello"
            assert server.connections == 1

    run(loop, main())


def test_a_closed_client_sends_nothing(loop: str) -> None:
    async def main() -> None:
        async with hostile(answering) as server, client_of() as client:
            await whole(await ask(client, server.url))
            await client.close()
            with pytest.raises(ConnectFailed):
                await ask(client, server.url)

    run(loop, main())


def test_pieces_pass_a_reader_that_has_nothing_to_wait_for(loop: str) -> None:
    """They go through in the turn in which they came; the one that is refused is the reader's, and the rest with it."""

    async def main() -> None:
        passed: list[bytes] = []
        turn = asyncio.Event()

        def through(data: bytes) -> bool:
            passed.append(data)
            turn.set()
            return data != b"world"

        async def passes(number: int) -> None:
            while len(passed) < number:
                await turn.wait()
                turn.clear()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(BEGUN)
            for number, piece in enumerate((b"one", b"two", b"world"), 1):
                await reading.wait()
                await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await passes(number)
            await peer.send(b"3\r\nend\r\n0\r\n\r\n")
            await answering(peer)

        reading = asyncio.Event()
        async with hostile(script) as server, client_of() as client:
            response = await ask(client, server.url)
            assert await response.receive() == b"hello", "nobody waited when this came"
            task = asyncio.create_task(response.receive(through))
            await asyncio.sleep(0)
            reading.set()
            assert await task == b"world"
            assert passed == [b"one", b"two", b"world"]
            assert await whole(response) == b"end"
            assert await whole(await ask(client, server.url)) == b"hello"
            assert server.connections == 1

    run(loop, main())


def test_whom_pieces_pass_is_not_left_to_the_garbage_collector(loop: str) -> None:
    """It looks rarely in a process that serves, and a call has a whole request with it."""

    class Reader:
        def __init__(self, response: Response) -> None:
            self.response = response

        def passes(self, data: bytes) -> bool:
            passed.set()
            return True

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(BEGUN)
        await reading.wait()
        await peer.send(b"5\r\nworld\r\n")
        await passed.wait()
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async def main() -> None:
        async with hostile(script) as server, client_of() as client:
            reader = Reader(await ask(client, server.url))
            assert await reader.response.receive() == b"hello"
            task = asyncio.create_task(reader.response.receive(reader.passes))
            await asyncio.sleep(0)
            reading.set()
            assert await task == b""
            kept = weakref.ref(reader)
            del reader, task
            assert kept() is None

    reading, passed = asyncio.Event(), asyncio.Event()
    gc.disable()
    try:
        run(loop, main())
    finally:
        gc.enable()


def test_what_comes_with_the_end_of_a_body_is_the_readers(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(BEGUN)
        await reading.wait()
        await peer.send(b"5\r\nworld\r\n0\r\n\r\n")
        await peer.gone()

    async def main() -> None:
        async with hostile(script) as server, client_of() as client:
            response = await ask(client, server.url)
            assert await response.receive() == b"hello"
            task = asyncio.create_task(response.receive(lambda data: False))
            await asyncio.sleep(0)
            reading.set()
            assert await task == b"world"
            assert await response.receive() == b""

    reading = asyncio.Event()
    run(loop, main())
