"""A server that does to its clients whatever a script says, byte by byte, and the loops that the tests run on."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop

from farthing.proxy.http1.client import Http1Client
from farthing.proxy.http1.connection import Connection
from farthing.proxy.http1.response import Response
from farthing.proxy.settings import Timeouts

T = TypeVar("T")
SOON = Timeouts(connect_seconds=60, idle_seconds=60, total_seconds=90)
"""For what will certainly come; yet a hang ends."""
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Peer:
    """The server's side of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        """Which connection this is, from 0."""
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """One whole request, as it came. Raises IncompleteReadError when the client has gone."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b": ")
            if name == b"content-length":
                length = int(value)
        return head + await self.reader.readexactly(length)

    async def send(self, data: bytes, *, piece: int | None = None) -> None:
        """In pieces that really arrive one by one, if a size is given."""
        size = piece or len(data) or 1
        for start in range(0, len(data), size):
            self.writer.write(data[start : start + size])
            await self.writer.drain()
            if piece is not None:
                await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until the client has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """End the connection by a reset, not by its orderly end."""
        own = self.writer.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)
        with socket.socket(fileno=os.dup(own.fileno())) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Hostile:
    """What the server saw."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections = 0
        self.failures: list[BaseException] = []


@asynccontextmanager
async def hostile(script: Script, *, context: ssl.SSLContext | None = None) -> AsyncIterator[Hostile]:
    """Serves every connection by *script*, then closes it. What a script raises fails the test."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, seen.connections = seen.connections, seen.connections + 1
        try:
            await script(Peer(number, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:  # noqa: BLE001 - reported below
            seen.failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    seen = Hostile(f"{'https' if context else 'http'}://127.0.0.1:{port}")
    try:
        yield seen
    finally:
        while accepting := _accepting():
            await asyncio.wait(accepting)
        server.close()
    assert not seen.failures, seen.failures


@asynccontextmanager
async def client_of(**settings: Any) -> AsyncIterator[Http1Client]:
    client = Http1Client(**settings)
    try:
        yield client
    finally:
        await client.close()


async def ask(client: Http1Client, url: str, body: bytes = b"{}", timeouts: Timeouts = SOON, **more: Any) -> Response:
    """One POST, or whatever ``method`` says."""
    method = more.pop("method", "POST")
    return await client.request(method, url, [(b"x-test", b"1")], body, timeouts=timeouts)


def allow(response: Response, timeouts: Timeouts) -> None:
    """From now on this answer, which has begun, has so much time: however long it took to begin."""
    connection = response.connection
    assert isinstance(connection, Connection)
    now = asyncio.get_running_loop().time()
    connection._timeouts = timeouts
    connection._heard_at = now
    connection._total_at = now + timeouts.total_seconds
    connection._watch(response)


async def whole(response: Response) -> bytes:
    """The body to its end."""
    parts = []
    while piece := await response.receive():
        parts.append(piece)
    assert await response.receive() == b""
    return b"".join(parts)


def _accepting() -> set[asyncio.Task[Any]]:
    """What asyncio is accepting: where its server is closed meanwhile, it forgets the socket of that."""
    return {task for task in asyncio.all_tasks() if "_accept_connection2" in repr(task.get_coro())}


async def _warm_up() -> None:
    """What a loop opens once for itself, at its first connection or the end of it, is no leak."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()
    writer.close()
    await writer.wait_closed()
    server.close()


def run(loop: str, main: Coroutine[Any, Any, T]) -> T:
    """Runs *main* on a loop of its own, bounded in time, and holds that no task and no descriptor is left."""

    async def bounded() -> tuple[T, int]:
        async with asyncio.timeout(120):
            await _warm_up()
            before = len(os.listdir("/proc/self/fd"))
            result = await main
        for _ in range(100):  # closed transports close their sockets in the next turns of the loop
            others = asyncio.all_tasks() - {asyncio.current_task()}
            left = len(os.listdir("/proc/self/fd")) - before
            if not others and left <= 0:
                break
            await asyncio.sleep(0.01)
        assert not others, others
        return result, left

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result, left = runner.run(bounded())
    assert left <= 0, f"{left} descriptors are left open"
    return result
