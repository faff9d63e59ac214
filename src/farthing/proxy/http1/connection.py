"""
One connection to an origin, one exchange at a time.

What is written, what the parser makes of what comes back, and when that has taken too long.

The parser is ``httptools`` (llhttp, strict): ambiguous framing, such as two lengths, is an error. Added here are bounds
on all that is not body, answers to nothing, transfer codings, and bodies that end with their connection.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol, cast

import httptools

from ...calls.steps import Broken, NotSent
from ...runtime.sockets import is_full, refused_certificate
from ..settings import Timeouts
from .delivery import bytes_acknowledged, is_silent
from .errors import BadAnswer, ConnectFailed, ConnectionLost, StaleConnection, TimedOut
from .response import PAUSE_ABOVE, Header, Response

MAX_HEAD_BYTES = 64 * 1024
"""Of the headers and trailers of an answer, the 1xx answers before it included."""
_HEADER_OVERHEAD = 32
_TRANSFER_ENCODING, _KEEP_ALIVE = b"transfer-encoding", b"keep-alive"
_LENGTHS = frozenset({len(_TRANSFER_ENCODING), len(_KEEP_ALIVE)})
"""Of the names of headers that are looked at."""
_TOO_LARGE = f"its headers are larger than {MAX_HEAD_BYTES} bytes"
_TRUSTED_SECONDS = 0.1
"""A connection that was idle for longer is looked at before it is used again."""


class Home(Protocol):
    """Where a connection belongs: its pool."""

    def free(self, connection: Connection) -> None:
        """Its exchange is over, and another may follow."""

    def lost(self, connection: Connection) -> None:
        """It is closed. Called once for each that was opened."""


class _Violation(Exception):
    """Raised in a callback of the parser: its text is what is wrong with the answer."""


class Connection(asyncio.Protocol):
    """Made by a pool over a connected socket, which its transport then owns. Not for threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, home: Home, sock: socket.socket) -> None:
        self.idle_since = 0.0
        self.keep_seconds: float | None = None
        """How long the other end says that it keeps an idle connection; None: it does not say."""
        self._home = home
        self._loop = loop
        self._socket = sock
        self._stopped = False
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        """Of a body, unreceived: its response has this same list until it is whole."""
        self.on_body: Callable[[bytes], None] = self._pieces.append
        """Called by the parser, as the methods below; a body may have thousands of pieces."""
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._headers: list[Header] = []
        self._head_only = False
        self._interim = False
        self._whole = False
        self._keep = True
        self._room = 0
        self._barren = 0
        self._heard_at = 0.0
        self._heard = False
        self._acknowledged: int | None = None
        self.is_paused = False
        """The other end is left waiting, for the reader is behind."""
        self._timeouts = Timeouts()
        self._total_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # -- for the client and the pool -----------------------------------------------------------------------------

    @property
    def is_made(self) -> bool:
        """Its transport has it: :meth:`connection_lost` will be called."""
        return self._transport is not None

    def send(self, request: Sequence[bytes], *, head_only: bool, timeouts: Timeouts) -> Response:
        """
        Write a request. Only on a connection that is not in use and :meth:`is_usable`.

        ``head_only``: the method is HEAD, so that whatever length the answer speaks of does not come.
        """
        transport = self._transport
        assert transport is not None
        response = Response(self._loop, self, self._pieces)
        if transport.is_closing():
            # Lost in the turn of the loop between its lease and now.
            response.connection, response.error = None, StaleConnection()
            return response
        now = self._loop.time()
        self._response = response
        self._acknowledged = bytes_acknowledged(self._socket)
        self._head_only = head_only
        self._whole = self._interim = self._heard = False
        self._room = MAX_HEAD_BYTES
        self._barren = 0
        self._heard_at = now
        self._timeouts = timeouts
        self._total_at = now + timeouts.total_seconds
        if len(request) == 1:
            transport.write(request[0])
        else:
            transport.writelines(request)
        # A timer that runs already and fires before this can be due stays: it will look, and serves the next one too.
        if self._timer is None or self._timer_at > now + timeouts.idle_seconds:
            self._watch(response)
        return response

    def is_usable(self, now: float) -> bool:
        """Whether a request may be written. Looks at the socket where time has passed since the last answer."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        return now - self.idle_since <= _TRUSTED_SECONDS or is_silent(self._socket)

    def fail(self, error: Broken | NotSent) -> None:
        """End the exchange with this error, and close."""
        response, self._response = self._response, None
        if response is not None:
            response.connection = None
            response.error = error
            response.wake()
        self.close()

    def close(self) -> None:
        """At once: nothing is left to be said on it."""
        if self._transport is not None:
            self._transport.abort()

    def keeps_waiting(self) -> bool:
        """Whether the other end may wait to go on: the reader is behind, and so is the system."""
        return self.is_paused and is_full(self._socket)

    def has_unread(self) -> bool:
        """Whether something of the answer has come that was not taken from the system."""
        return self.is_paused or not is_silent(self._socket)

    def stop(self) -> bool:
        """
        Shut this side for reading: the reader gets what had arrived, and then an error. False: nobody can say what had
        arrived, since the system throws it away; the exchange has failed.

        With TLS the same: whole records that had arrived are decrypted. One that had come in part is on its way like
        what the network still carries.
        """
        if sys.platform != "linux":
            self.fail(ConnectionLost("stopped on this side"))
            return False
        self._stopped = True
        # What had arrived may still be read after the time for an answer is over.
        self._total_at = self._loop.time() + self._timeouts.idle_seconds
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # the other end was first: all that will ever arrive is here, and its end too
        self.resume()
        return True

    def resume(self) -> None:
        """The body that had arrived was received: the other end may go on."""
        if self.is_paused:
            self.is_paused = False
            self._heard_at = self._loop.time()
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    # -- called by the transport ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self.idle_since = self._loop.time()

    def data_received(self, data: bytes) -> None:
        response, parser = self._response, self._parser
        if response is None or parser is None:
            # An answer to nothing, such as a 408 before the other end hangs up. Nothing can follow it.
            self.close()
            return
        self._heard = True
        self._heard_at = self._loop.time()
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._spoil(response, str(error.__context__))
        except httptools.HttpParserUpgrade:
            self._spoil(response, "the connection changes its protocol")
        except httptools.HttpParserError as error:
            self._spoil(response, str(error))
        else:
            if self._whole:
                self._finish(response, keep=self._keep)
            elif self._pieces:
                if not response.arrived:
                    response.tell()
                response.arrived += len(data)
                if response.arrived > PAUSE_ABOVE:
                    self._pause()
            else:
                self._barren += len(data)
                if self._barren + _HEADER_OVERHEAD * len(self._headers) > MAX_HEAD_BYTES:
                    self._spoil(response, f"over {MAX_HEAD_BYTES} bytes of it are not body")

    def eof_received(self) -> None:
        response = self._response
        if response is None:
            return
        if self._stopped:
            self.fail(ConnectionLost("stopped on this side"))
        elif response.status and _ends_with_connection(response.headers):
            self._finish(response, keep=False)
        elif self._was_not_taken():
            self.fail(StaleConnection())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._response is not None:
            why = "closed by the upstream" if exc is None else f"{type(exc).__name__}: {exc}"
            where = "in the middle of its answer" if self._heard else "before its answer"
            if not self._heard and refused_certificate(exc):
                self.fail(ConnectFailed("connect_error", f"it wants another certificate of this side: {why}"))
            else:
                self.fail(ConnectionLost(f"{why}, {where}"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # The parser holds methods of this object: not left to the garbage collector.
        self._parser = None
        self._home.lost(self)

    # -- called by the parser ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._whole:
            raise _Violation("more than one answer")
        self._headers = []
        self._take_room(_HEADER_OVERHEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        if len(name) in _LENGTHS:
            self._look_at(name.lower(), value)

    def on_headers_complete(self) -> None:
        response, parser = self._response, self._parser
        assert response is not None
        assert parser is not None
        headers = self._headers
        self._take_room(_size_of(headers))
        status = parser.get_status_code()
        if status == 101:
            raise _Violation("101, which was not asked for")
        if status < 200:
            self._interim = True
            return
        response.status = status
        response.headers = headers
        self._headers = response.trailers = []
        response.wake()
        if self._head_only:
            self._whole = True
            self._keep = False

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            return
        if self._headers:
            self._take_room(_size_of(self._headers))
        assert self._parser is not None
        self._whole = True
        self._keep = self._parser.should_keep_alive()

    def _look_at(self, name: bytes, value: bytes) -> None:
        if name == _TRANSFER_ENCODING and value.strip().lower() != b"chunked":
            raise _Violation("a transfer coding besides chunked, which was not asked for")
        if name == _KEEP_ALIVE:
            self.keep_seconds = _kept_for(value)

    def _take_room(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise _Violation(_TOO_LARGE)

    # -- within an exchange --------------------------------------------------------------------------------------

    def _finish(self, response: Response, *, keep: bool) -> None:
        """
        The answer is whole. A request that is still being written then will not be read: no other may follow it. Nor on
        a connection whose reading side was shut meanwhile: its answer would not be read.
        """
        self._response = None
        response.connection = None
        response.whole = True
        # The next exchange has the list that the parser fills.
        response.pieces = self._pieces.copy()
        self._pieces.clear()
        response.wake()
        self.resume()
        transport = self._transport
        assert transport is not None
        if not keep or self._stopped or transport.is_closing() or transport.get_write_buffer_size():
            transport.abort()
            return
        self.idle_since = self._heard_at
        self._home.free(self)

    def _spoil(self, response: Response, wrong: str) -> None:
        """Whatever came behind a whole answer spoils the connection, not the answer."""
        if self._whole:
            self._finish(response, keep=False)
        else:
            self.fail(BadAnswer(f"not an HTTP/1.1 answer that can be used: {wrong}"))

    def _was_not_taken(self) -> bool:
        """Whether the other end, which has just ended the connection, had received nothing of the request."""
        if self._heard or self._acknowledged is None:
            return False
        return bytes_acknowledged(self._socket) == self._acknowledged

    def _pause(self) -> None:
        if not self.is_paused and self._transport is not None and not self._transport.is_closing():
            self.is_paused = True
            self._transport.pause_reading()

    def _due_at(self, response: Response) -> float:
        """When this exchange has taken too long. While its reader is behind, the upstream keeps nobody waiting."""
        waiting_since = self._loop.time() if self.is_paused or response.pieces else self._heard_at
        return min(self._total_at, waiting_since + self._timeouts.idle_seconds)

    def _watch(self, response: Response) -> None:
        """Look at the time when this exchange may be due, and not before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._due_at(response)
        self._timer = self._loop.call_at(self._timer_at, self._look)

    def _look(self) -> None:
        self._timer = None
        response = self._response
        if response is None:
            return
        now = self._loop.time()
        if now < self._due_at(response):
            self._watch(response)
        elif now >= self._total_at:
            self.fail(TimedOut(f"not finished after {self._timeouts.total_seconds:g} s"))
        else:
            part = "the rest of the answer" if response.status else "an answer"
            self.fail(TimedOut(f"waited {self._timeouts.idle_seconds:g} s for {part}"))


def _size_of(headers: Sequence[Header]) -> int:
    return _HEADER_OVERHEAD * len(headers) + len(b"".join(chain.from_iterable(headers)))


def _ends_with_connection(headers: Sequence[Header]) -> bool:
    return not any(name.lower() in {b"content-length", b"transfer-encoding"} for name, _ in headers)


def _kept_for(value: bytes) -> float | None:
    """The seconds of ``keep-alive: timeout=5, max=100``."""
    for part in value.lower().split(b","):
        key, _, number = part.strip().partition(b"=")
        if key == b"timeout" and number.isdigit() and len(number) < 7:
            return float(number)
    return None
