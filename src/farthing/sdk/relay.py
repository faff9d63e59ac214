"""
Relaying a stream: the body that a client reads, each piece passing through the life of its call.

A client that closes a stream early has not read all that arrived, and the provider bills what it generated, not what
was read. So what is left in the socket is read before it is closed: with its receiving side shut down that never waits.
Where that cannot be done (several streams share an HTTP/2 connection), or where a slow reader kept the sender waiting
(:mod:`farthing.runtime.sockets`), nobody can say what was generated.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..loops import shielded
from ..runtime.sockets import SLOW_SECONDS
from .backlog import is_full, own_socket

if TYPE_CHECKING:
    from .streaming import OpenStream

LEFTOVER_BYTES_MAX = 16 * 1024 * 1024


def relayed(response: Any, opened: OpenStream, *, encoded: bool, http: Any, asynchronous: bool) -> Any:
    """The response with a relaying stream. A compressed stream is relayed decoded, and says so."""
    relay = _relay(http, asynchronous)
    if not encoded and not hasattr(response, "_content"):
        response.stream = relay(opened, response, response.stream)
        return response
    decoded = response.aiter_bytes() if asynchronous else response.iter_bytes()
    headers = [
        (name, value)
        for name, value in response.headers.raw
        if name.lower() not in (b"content-encoding", b"content-length")
    ]
    stream = relay(opened, response, decoded)
    return type(response)(response.status_code, headers=headers, stream=stream, extensions=response.extensions)


class _SyncRelay:
    """The body stream of a sync client. Mixed with its module's own base class."""

    def __init__(self, opened: OpenStream, response: Any, chunks: Any) -> None:
        self._opened, self._extensions = opened, response.extensions
        self._stream, self._chunks = response.stream, iter(chunks)
        opened.keep = (self._stream, self._chunks)
        extensions, stream, rest = response.extensions, self._stream, self._chunks

        def read_and_close() -> list[bytes] | None:
            unread = _leftover(opened, extensions, rest) if opened.claim() else None
            stream.close()
            return unread

        # For when nobody closes it: it is collected, or the program ends.
        opened.leftover = read_and_close

    def __iter__(self) -> Iterator[bytes]:
        opened, chunks = self._opened, self._chunks
        try:
            while (chunk := opened.take(chunks)) is not None:
                relay = opened.feed(chunk)
                if relay is None or not (data := relay.data):
                    continue
                if relay.last:
                    # Its provider is told to stop before its caller has the end in hand. That the connection may not
                    # close cleanly is nothing to a caller whose answer is whole.
                    with suppress(Exception):
                        self._stream.close()
                    yield data
                    break
                before = monotonic()
                yield data
                if monotonic() - before > SLOW_SECONDS:
                    opened.kept_waiting = is_full(self._extensions)
            while not opened.is_left and (relay := opened.feed(None)) is not None:
                yield relay.data
        except GeneratorExit:
            raise
        except BaseException as error:  # every way out ends the call
            opened.broke(error)
            raise
        if (crossed := opened.take_crossed()) is not None:
            raise crossed

    def close(self) -> None:
        try:
            if self._opened.claim():
                rest = _leftover(self._opened, self._extensions, self._chunks)
                self._opened.leave(rest)
            self._stream.close()
            self._opened.closed()
        finally:
            # Who is interrupted here has claimed the stream, so nobody else would end its call.
            self._opened.abandon()
        if (crossed := self._opened.take_crossed()) is not None:
            raise crossed

    def __del__(self) -> None:
        # Nothing is read here: a finaliser may run inside of the connection pool's own lock.
        self._opened.abandon()


class _AsyncRelay:
    """The same for an async client."""

    def __init__(self, opened: OpenStream, response: Any, chunks: Any) -> None:
        self._opened, self._extensions = opened, response.extensions
        self._stream, self._chunks = response.stream, aiter(chunks)
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            # Another kind of loop (trio's): it does not close what nobody closed.
            self._loop = None
        opened.keep = (self._stream, self._chunks)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        opened, chunks = self._opened, self._chunks
        try:
            while (chunk := await opened.take_async(chunks)) is not None:
                relay = await opened.feed_async(chunk)
                if relay is None or not (data := relay.data):
                    continue
                if relay.last:
                    with suppress(Exception):
                        await self._stream.aclose()
                    yield data
                    break
                before = monotonic()
                yield data
                if monotonic() - before > SLOW_SECONDS:
                    opened.kept_waiting = is_full(self._extensions)
            while not opened.is_left and (relay := await opened.feed_async(None)) is not None:
                yield relay.data
        except GeneratorExit:
            raise
        except BaseException as error:  # every way out ends the call
            opened.broke(error)
            raise
        if (crossed := opened.take_crossed()) is not None:
            raise crossed

    async def aclose(self) -> None:
        try:
            if self._opened.claim():
                # All of it is here: nothing is waited for that a cancelled scope would have to be let out of.
                with shielded():
                    rest = await _leftover_async(self._opened, self._extensions, self._chunks)
                self._opened.leave(rest)
            await self._stream.aclose()
            self._opened.closed()
        finally:
            self._opened.abandon()
        if (crossed := self._opened.take_crossed()) is not None:
            raise crossed

    def __del__(self) -> None:
        if not self._opened.is_open:
            return
        closing = _Closing(self._opened, self._extensions, self._chunks, self._stream)
        if self._loop is not None and not self._loop.is_closed():
            # As the interpreter does with a generator that is left half-way: its loop closes it.
            with suppress(RuntimeError):  # closed by another thread since
                self._loop.call_soon_threadsafe(closing)


class _Closing:
    """
    Closes a stream that nobody closed, in its own loop; or, where that never runs it, when it forgets it: then the
    provider is told to stop, and what arrived stays unknown.
    """

    def __init__(self, opened: OpenStream, extensions: Any, chunks: AsyncIterator[bytes], stream: Any) -> None:
        self._opened, self._extensions = opened, extensions
        self._chunks, self._stream = chunks, stream

    def __call__(self) -> None:
        _closing.add(task := asyncio.ensure_future(self._read_and_close()))
        task.add_done_callback(_closing.discard)

    async def _read_and_close(self) -> None:
        opened = self._opened
        if not opened.claim():
            return
        try:
            rest = await _leftover_async(opened, self._extensions, self._chunks)
            opened.leave(rest)
        finally:
            opened.abandon()
        await self._stream.aclose()

    def __del__(self) -> None:
        if self._opened.claim():
            _shut(self._extensions, socket.SHUT_RDWR)
            self._opened.abandon()


_closing: set[asyncio.Future[None]] = set()
"""Tasks that close what nobody closed: a loop keeps only weak references to its tasks."""


@cache
def _relay(http: Any, asynchronous: bool) -> type:
    """A relay that its HTTP module takes for one of its own body streams."""
    own, base = (_AsyncRelay, http.AsyncByteStream) if asynchronous else (_SyncRelay, http.SyncByteStream)
    return type(own.__name__, (own, base), {})


def _leftover(opened: OpenStream, extensions: Any, chunks: Iterator[bytes]) -> list[bytes] | None:
    """
    What has arrived and was not read; None if nobody can say. Never waits for more.

    A generator that was closed, by the garbage collector or with its connection, has thrown away what it had.
    """
    if getattr(chunks, "gi_frame", chunks) is None or not _is_all_here(opened, extensions):
        return None
    rest: list[bytes] = []
    size = 0
    try:
        for chunk in chunks:
            rest.append(chunk)
            size += len(chunk)
            if size > LEFTOVER_BYTES_MAX:
                return None
    except Exception as error:  # noqa: BLE001 - two HTTP modules, each with errors of its own
        return rest if _ended_in_the_middle(error) else None
    return rest


async def _leftover_async(opened: OpenStream, extensions: Any, chunks: AsyncIterator[bytes]) -> list[bytes] | None:
    """The same in an event loop."""
    if getattr(chunks, "ag_frame", chunks) is None or not _is_all_here(opened, extensions):
        return None
    rest: list[bytes] = []
    size = 0
    try:
        async for chunk in chunks:
            rest.append(chunk)
            size += len(chunk)
            if size > LEFTOVER_BYTES_MAX:
                return None
    except Exception as error:  # noqa: BLE001 - as above
        return rest if _ended_in_the_middle(error) else None
    return rest


def _ended_in_the_middle(error: Exception) -> bool:
    """What was asked for: the connection ends before the body does. Anything else says nothing of what arrived."""
    return bool({kind.__name__ for kind in type(error).__mro__} & {"TransportError", "DecodingError"})


def _is_all_here(opened: OpenStream, extensions: Any) -> bool:
    """
    Whether all that its provider has generated has arrived, but for what is on its way. No more will: reads end after
    what is here.
    """
    return not (opened.kept_waiting or is_full(extensions)) and _shut(extensions, socket.SHUT_RD)


def _shut(extensions: Any, how: int) -> bool:
    """
    Shut down a side of the connection, if it is this stream's alone: reads then end after what has arrived.

    Linux keeps what has arrived; other systems throw it away, so there nobody can say.
    """
    with own_socket(extensions) as duplicate:
        if duplicate is None or sys.platform != "linux":
            return False
        # The peer may have closed already: then all that will ever arrive is here.
        with suppress(OSError):
            duplicate.shutdown(how)
    return True
