"""One end of a TCP connection, for clients and providers that misbehave: bytes as they come, and every way to end."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import cast

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Ended(Exception):
    """The other end has said all it will say, and it was not enough."""


class Wire(asyncio.Protocol):
    """Read by one task. The other end may shut its side and still be written to."""

    def __init__(self, made: Callable[[Wire], None] = lambda wire: None) -> None:
        self.received = bytearray()
        self.ended = False
        """Nothing more will come."""
        self._made = made
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    # -- called by the transport ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._made(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.wake()

    def eof_received(self) -> bool:
        self.ended = True
        self.wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.wake()

    # -- reading -------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something happened that its reader may wait for."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def changed(self) -> None:
        """Wait for the next bytes, the end, or a :meth:`wake`. Raises Ended where nothing can come any more."""
        if self.ended:
            raise Ended
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    async def through(self, mark: bytes) -> bytes:
        """Take all up to this mark, and the mark. Raises Ended."""
        looked = 0
        while (at := self.received.find(mark, looked)) < 0:
            looked = max(0, len(self.received) - len(mark))
            await self.changed()
        return self.take(at + len(mark))

    async def exactly(self, size: int) -> bytes:
        """Raises Ended."""
        while len(self.received) < size:
            await self.changed()
        return self.take(size)

    async def to_the_end(self) -> None:
        """Wait until the other end has said all it will."""
        while not self.ended:
            await self.changed()

    def take(self, size: int) -> bytes:
        """These bytes, which are here."""
        taken = bytes(self.received[:size])
        del self.received[:size]
        return taken

    def pause(self) -> None:
        """Read nothing more from the system: the other end's words pile up."""
        self._open.pause_reading()

    def go_on(self) -> None:
        if not self._open.is_closing():
            self._open.resume_reading()

    def narrow(self) -> None:
        """Let the system keep next to nothing of what comes: the other end feels it when nobody reads."""
        with self._socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)

    # -- writing, and the ends -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Raises Ended where nothing can be said any more."""
        if self._open.is_closing():
            raise Ended
        self._open.write(data)

    def shut(self) -> None:
        """Nothing more will be said here; what the other end says is still read."""
        if not self._open.is_closing():
            self._open.write_eof()

    def close(self) -> None:
        """An orderly end, once what was sent is written."""
        self._open.close()

    def reset(self) -> None:
        """The end that says that something was wrong."""
        if self._open.is_closing():
            return
        with self._socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self._open.abort()

    def _socket(self) -> socket.socket:
        """A duplicate, for the transport's own is not to be touched."""
        return socket.socket(fileno=os.dup(self._open.get_extra_info("socket").fileno()))

    @property
    def _open(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport
