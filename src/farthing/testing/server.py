"""
A small HTTP/1.1 server on loopback, on a thread of its own: requests in, :class:`~.exchange.Answer`\\ s out.

It knows nothing of providers or of billing. Start and stop take milliseconds, and nothing is left behind: no thread,
no socket, no loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, cast
from urllib.parse import unquote

import httptools

from .exchange import Answer, Exchange

_BACKLOG = 4096
_MAX_BODY_BYTES = 64 * 1024 * 1024
_STOP_SECONDS = 30.0
_QUIET_TURNS = 6
"""So many turns of the loop may lie between a connection's arrival and the next that is seen of it."""
_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_MALFORMED = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpRequest(NamedTuple):
    """One request as it came: header names in lower case, the last of several of one name wins."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


Handler = Callable[[HttpRequest], Answer]


class Server:
    """
    Serves *handler* on ``127.0.0.1``; the handler is called on the server's own thread.

    *failed* gets what the handler, or the server itself, raised unexpectedly.
    """

    def __init__(self, handler: Handler, *, port: int, failed: Callable[[BaseException], None]) -> None:
        self.handler = handler
        self.failed = failed
        self.connections: set[_Connection] = set()
        self.heard = 0
        """How often a connection was made, lost, or had something to read."""
        self._process = os.getpid()
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._loop_failed)
        self._thread = threading.Thread(target=self._run, name="farthing-fake-provider", daemon=True)
        self._ready = threading.Event()
        _running.add(self)
        self._thread.start()
        self._ready.wait(_STOP_SECONDS)

    def call(self, function: Callable[[], None]) -> None:
        """Runs *function* on the server's thread, soon."""
        self.loop.call_soon_threadsafe(function)

    def resume_exchanges(self) -> None:
        """Ends every pause. On the server's thread only."""
        for connection in tuple(self.connections):
            connection.resume_exchange()

    def settle_down(self, timeout: float) -> bool:
        """Waits until what clients had sent before this call has been read; False if that took too long."""
        turned = threading.Event()

        def turn(left: int, heard: int) -> None:
            if heard != self.heard:
                left = _QUIET_TURNS
            if left:
                self.loop.call_soon(turn, left - 1, self.heard)
            else:
                turned.set()

        self.call(lambda: turn(_QUIET_TURNS, self.heard))
        return turned.wait(timeout)

    def stop(self) -> None:
        """Ends every exchange and connection, and joins the thread. A forked child's copy does nothing."""
        if os.getpid() != self._process or self.loop.is_closed():
            return
        _running.discard(self)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError("the fake provider's thread does not stop: a handler is still running")

    def close_in_child(self) -> None:
        """After a fork: the child must not keep the parent's port open when the parent stops."""
        self._socket.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        listening = self.loop.run_until_complete(
            self.loop.create_server(lambda: _Connection(self), sock=self._socket, backlog=_BACKLOG)
        )
        self._ready.set()
        try:
            self.loop.run_forever()
        finally:
            # What is being accepted is first made: asyncio forgets its socket where the server is closed meanwhile.
            self.loop.remove_reader(self._socket)
            while accepting := asyncio.all_tasks(self.loop):
                self.loop.run_until_complete(asyncio.wait(accepting))
            listening.close()
            for connection in tuple(self.connections):
                connection.abandon()
            # Aborted transports close their sockets in the next turn of the loop.
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        # A peer that resets its connection is normal life here.
        if isinstance(error, BaseException) and not isinstance(error, OSError):
            self.failed(error)


class _Connection(asyncio.Protocol):
    """One client's connection: parses requests, and lets one exchange at a time answer them."""

    def __init__(self, server: Server) -> None:
        self.loop = server.loop
        self.congested = False
        self._server = server
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None
        self._waiting: deque[tuple[HttpRequest, bool]] = deque()
        self._keep_alive = True
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0

    # asyncio's half

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.heard += 1
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._server.heard += 1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # A WebSocket is asked for: that is answered as a request like any other, and there will be none after it.
            pass
        except httptools.HttpParserCallbackError as error:
            # Not the client's fault: our own half raised.
            self._server.failed(error.__context__ or error)
            self._transport.abort()
        except httptools.HttpParserError:
            self._transport.write(_MALFORMED)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.heard += 1
        self._server.connections.discard(self)
        if self._exchange is not None:
            self._exchange.client_gone()

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        # In a turn of its own: asyncio loses a connection twice, and fails, where that is closed in here.
        self.loop.call_soon(self._go_on)

    # httptools' half

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body, self._body_bytes = b"", {}, [], 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > _MAX_BODY_BYTES:
            self._transport.write(_TOO_LARGE)
            self.close()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport.is_closing():
            return
        path, _, query = self._target.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("latin-1")
        request = HttpRequest(method, unquote(path), query, self._headers, b"".join(self._body))
        self._waiting.append((request, self._parser.should_keep_alive()))
        if self._exchange is None:
            self._answer_next()

    # The exchange's half

    def write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def finished(self) -> None:
        """The answer is out: the next request may be answered."""
        self._exchange = None
        if not self._keep_alive:
            self.close()
        elif self._waiting:
            self.loop.call_soon(self._answer_next)

    def close(self) -> None:
        """Closes in order: what was written still arrives."""
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() == 0:
            # A forked child may hold a copy of this socket: only a shutdown ends the connection for sure.
            try:
                self._transport.write_eof()
            except OSError:
                pass  # the client was first
        self._transport.close()

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        linger_none = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
        self._transport.abort()

    def resume_exchange(self) -> None:
        if self._exchange is not None:
            self._exchange.resume()

    def abandon(self) -> None:
        """The server stops."""
        if self._exchange is not None:
            self._exchange.abandon()
        self._transport.abort()

    def _go_on(self) -> None:
        if self._exchange is not None:
            self._exchange.writable()

    def _answer_next(self) -> None:
        if not self._waiting or self._transport.is_closing():
            return
        request, self._keep_alive = self._waiting.popleft()
        try:
            answer = self._server.handler(request)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises must reach the thread that owns the server
            self._server.failed(error)
            self.close()
            return
        self._exchange = exchange = Exchange(self, answer)
        exchange.start()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


_running: weakref.WeakSet[Server] = weakref.WeakSet()


def _close_in_child() -> None:
    for server in tuple(_running):
        server.close_in_child()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
