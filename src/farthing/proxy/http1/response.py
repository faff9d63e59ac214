"""One answer: its head, and its body as it arrives. What a connection puts in at one end, one task takes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...calls.steps import Broken, NotSent
from .errors import ConnectionLost

if TYPE_CHECKING:
    from .connection import Connection

Header = tuple[bytes, bytes]
PAUSE_ABOVE = 256 * 1024
"""Unreceived bytes beyond which the other end is left waiting."""


class Response:
    """
    Implements :class:`..upstream.UpstreamResponse`. Names without an underscore beyond that are for its connection.

    All that has arrived at one time is received as one piece: many small chunks in one packet cost one step of the
    reader, and nothing waits for more.
    """

    status = 0
    """0 until the head of the final answer is complete."""
    headers: Sequence[Header] = ()
    trailers: Sequence[Header] = ()
    """Complete at the end of the body."""
    arrived = 0
    """Bytes that came with ``pieces``; 0 where there are none."""
    whole = False
    error: Broken | NotSent | None = None
    _left_behind = False
    """Something had arrived that nobody will receive."""
    _through: Callable[[bytes], bool] | None = None
    """What is asked first of a piece, while the reader waits for one."""
    _waiter: asyncio.Future[bytes] | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection, pieces: list[bytes]) -> None:
        self.connection: Connection | None = connection
        """Until the exchange is over, however it ends."""
        self.pieces = pieces
        """Of the body, unreceived."""
        self._loop = loop

    async def receive(self, through: Callable[[bytes], bool] | None = None) -> bytes:
        """The next piece; ``b""`` at the end of the body. What arrived before a failure comes before its error."""
        while not self.pieces:
            if self.whole:
                return b""
            if self.error is not None:
                raise self.error
            data = await self._changed(through)
            if data:
                return data
        return self._take()

    def keeps_waiting(self) -> bool:
        connection = self.connection
        return connection is not None and connection.keeps_waiting()

    def has_unread(self) -> bool:
        connection = self.connection
        return bool(self.pieces) or self._left_behind or (connection is not None and connection.has_unread())

    def stop(self) -> bool:
        """
        Read only what is here, and then raise; False where nobody can say what had arrived: then nothing more comes.
        """
        return self.connection is None or self.connection.stop()

    def abort(self) -> None:
        """Close the connection, unless the exchange is over."""
        connection = self.connection
        if connection is not None:
            connection.fail(ConnectionLost("closed on this side"))

    async def head(self) -> None:
        """Wait until the status and headers are here."""
        while not self.status:
            if self.error is not None:
                raise self.error
            await self._changed(None)

    def tell(self) -> None:
        """There are pieces, and were none. In the next turn of the loop a reader that waits has them, or they pass."""
        if self._through is None:
            self.wake()
        else:
            # Not at once: a loop that reads all that has come, then does this for all of it, takes less time.
            self._loop.call_soon(self._offer)

    def wake(self) -> None:
        """Something changed: the reader looks, in the next turn of the loop."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(b"")

    def _offer(self) -> None:
        waiter, through = self._waiter, self._through
        if waiter is None or through is None or waiter.done() or not self.pieces:
            return
        data = self._take()
        try:
            passes = through(data)
        except BaseException:
            self.abort()  # its reader hears of that, and the log of the bug
            raise
        if not passes:
            self._waiter = None
            waiter.set_result(data)

    def _take(self) -> bytes:
        pieces = self.pieces
        data = b"".join(pieces)
        pieces.clear()  # the same list: its connection puts into it
        if self.arrived > PAUSE_ABOVE and self.connection is not None:
            self.connection.resume()
        self.arrived = 0
        return data

    async def _changed(self, through: Callable[[bytes], bool] | None) -> bytes:
        """Wait for something to change; what arrived and did not go *through*."""
        self._through = through
        waiter = self._waiter = self._loop.create_future()
        try:
            data: bytes = await waiter
        except BaseException:  # cancelled: nobody reads on, and a provider that goes on writing would be paid for it
            taken = waiter.done() and not waiter.cancelled() and bool(waiter.result())
            self._left_behind = taken or self.has_unread()
            self.abort()
            raise
        finally:
            self._through = None  # it is whose response this is: no circle stays
        return data
