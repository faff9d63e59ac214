"""The connections to one origin. The last one freed is the first one used again, so that the others grow old and go."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import dataclass

from aiohappyeyeballs import start_connection

from .connection import Connection
from .errors import ConnectFailed
from .request import Origin

_SECOND_ADDRESS_AFTER_SECONDS = 0.25
_KEEP_MARGIN_SECONDS = 1.0
"""An idle connection is no longer used this long before the other end would close it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of each origin."""

    max_connections: int = 10_000
    """Beyond them requests wait in line, for as long as connecting may take."""
    max_idle: int = 256
    idle_seconds: float = 30.0
    """How long a connection without a request is kept; less where the other end says so (``keep-alive: timeout=5``)."""


class Pool:
    """
    Every connection is being made, leased to one request, or idle. Belongs to one event loop.

    A request waits for the next connection, whether made for it or given back by another. Making one is a task of its
    own: it goes on if its request is cancelled, and serves the next.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, origin: Origin, limits: Limits, context: ssl.SSLContext | None
    ) -> None:
        self.origin = origin
        self.idle: list[Connection] = []
        self.open = 0
        """Connections that exist or are being made."""
        self._loop = loop
        self._limits = limits
        self._context = context
        self._making: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self) -> Connection | None:
        """An idle connection that can be used, at once; None: :meth:`lease` one."""
        now = self._loop.time()
        while self.idle:
            connection = self.idle.pop()
            if now < self._expires_at(connection) and connection.is_usable(now):
                return connection
            connection.close()
        return None

    async def lease(self, seconds: float) -> Connection:
        """A connection that was made for this request, or the next one that is freed. Raises ConnectFailed."""
        if self._closed:
            raise self._failed("connect_error", "this client was closed")
        waiter: asyncio.Future[Connection] = self._loop.create_future()
        self._waiting.append(waiter)
        if self.open < self._limits.max_connections:
            self._make(seconds)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except TimeoutError:
            self._give_back(waiter)
            full = self.open >= self._limits.max_connections and not self._making
            why = f"all {self.open} connections are in use" if full else "not connected"
            raise self._failed("connect_timeout", f"{why} after {seconds:g} s") from None
        except asyncio.CancelledError:
            self._give_back(waiter)
            raise

    def close(self) -> None:
        """Closes what is idle or being made; what is leased is closed when it is freed."""
        self._closed = True
        for task in self._making:
            task.cancel()
        for connection in tuple(self.idle):
            connection.close()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def free(self, connection: Connection) -> None:
        """A connection whose exchange is over, or a new one: for the first in line, else idle."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if self._closed or len(self.idle) >= self._limits.max_idle:
            connection.close()
            return
        self.idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._limits.idle_seconds / 2, self._close_expired)

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        if connection in self.idle:
            self.idle.remove(connection)
        self._gone()

    def _gone(self) -> None:
        """There is one fewer, and so room for one that is waited for."""
        self.open -= 1
        if len(self._waiting) > len(self._making) and self.open < self._limits.max_connections and not self._closed:
            self._make(self._limits.idle_seconds)

    def _give_back(self, waiter: asyncio.Future[Connection]) -> None:
        """Its request no longer waits, though it may just have been given a connection, or an error."""
        if not waiter.done():
            waiter.cancel()
        elif not waiter.cancelled() and waiter.exception() is None:
            self.free(waiter.result())

    def _expires_at(self, connection: Connection) -> float:
        seconds = self._limits.idle_seconds
        if connection.keep_seconds is not None:
            seconds = min(seconds, connection.keep_seconds - _KEEP_MARGIN_SECONDS)
        return connection.idle_since + seconds

    def _close_expired(self) -> None:
        now = self._loop.time()
        for connection in tuple(self.idle):
            if now >= self._expires_at(connection):
                self.idle.remove(connection)
                connection.close()
        self._sweep = None
        if self.idle:
            self._sweep = self._loop.call_later(self._limits.idle_seconds / 2, self._close_expired)

    def _make(self, seconds: float) -> None:
        self.open += 1
        task = self._loop.create_task(self._connect(seconds))
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    async def _connect(self, seconds: float) -> None:
        """Make one connection, for whoever waits by then. Its failure goes to the first in line: each began one."""
        sock: socket.socket | None = None
        connection: Connection | None = None
        try:
            async with asyncio.timeout(seconds):
                sock = await self._reach()
                connection = Connection(self._loop, self, sock)
                await self._open(connection, sock, seconds)
        except BaseException as error:
            if connection is None and sock is not None:
                sock.close()  # from here on it belongs to its transport, which closes it
            if connection is not None and connection.is_made:
                connection.close()
            else:
                self._gone()
            if not isinstance(error, Exception):
                self._fail_next(self._failed("connect_error", "this client was closed"))
                raise
            ending = "connect_timeout" if isinstance(error, TimeoutError) else "connect_error"
            self._fail_next(self._failed(ending, _reason(error, seconds)))
        else:
            self.free(connection)

    async def _reach(self) -> socket.socket:
        """A connected socket: whichever address of the origin answers first, one begun a little after the other."""
        addresses = await self._loop.getaddrinfo(self.origin.host, self.origin.port, type=socket.SOCK_STREAM)
        sock = await start_connection(addresses, happy_eyeballs_delay=_SECOND_ADDRESS_AFTER_SECONDS, loop=self._loop)
        # A provider that thinks for minutes is silent meanwhile: what stands on the way must not forget it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock

    async def _open(self, connection: Connection, sock: socket.socket, seconds: float) -> None:
        if self._context is None:
            await self._loop.create_connection(lambda: connection, sock=sock)
            return
        await self._loop.create_connection(
            lambda: connection,
            sock=sock,
            ssl=self._context,
            server_hostname=self.origin.host,
            ssl_handshake_timeout=seconds,
        )

    def _fail_next(self, error: ConnectFailed) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                return

    def _failed(self, ending: str, why: str) -> ConnectFailed:
        scheme = "http" if self._context is None else "https"
        return ConnectFailed(ending, f"{scheme}://{self.origin.host}:{self.origin.port}: {why}")


def _reason(error: Exception, seconds: float) -> str:
    """What to tell people who wonder why their upstream cannot be reached."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message} (ca_file names other authorities)"
    if isinstance(error, socket.gaierror):
        return f"its name is not known: {error.strerror}"
    if isinstance(error, TimeoutError):
        return f"not connected after {seconds:g} s"
    return str(error) or type(error).__name__
