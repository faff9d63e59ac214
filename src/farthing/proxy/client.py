"""
A client's request and the way back to it.

What the handlers know of ASGI is here, so that another server can take its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from .connection import HEAD_BYTES, KEY, Connection
from .settings import Bounds
from .upstream import Header

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class BadBody(Exception):
    """The request's body cannot be had: ``status`` 413 or 408, and why."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Gone(Exception):
    """The client has left before its request was whole."""


class Client:
    """One request. ``gone`` is set once its connection is lost."""

    address: str | None = None
    begun = False
    gone = False
    _ends_body = False
    _then: Callable[[], None] | None = None

    def __init__(self, scope: dict[str, Any], send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")
        self.query: str = scope["query_string"].decode("latin-1")
        self.header_list: list[Header] = scope["headers"]
        """Names in lower case, in order."""
        self.headers: dict[bytes, bytes] = dict(self.header_list)
        peer = scope["client"]
        if peer is not None:
            self.address = peer[0]
        # Uvicorn's own state of this request is what its ``send`` is a method of.
        self._cycle = cast("Any", send).__self__
        self._head_bytes: int = scope[HEAD_BYTES]
        self._connection: Connection = scope[KEY]
        self._connection.when_gone = self._lost

    def header_bytes_exceed(self, most: int) -> bool:
        # What was read with them bounds their size, and nearly always answers.
        return self._head_bytes > most and sum([len(name) + len(value) for name, value in self.header_list]) > most

    def whole_body(self, bounds: Bounds) -> bytes | None:
        """The body, where all of it came with its headers, as nearly always; None: wait for it with :meth:`body`."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or len(cycle.body) > bounds.max_body_bytes:
            return None
        cycle.flow.resume_reading()
        body, cycle.body = cycle.body, b""
        return bytes(body)

    async def body(self, bounds: Bounds) -> bytes:
        """The whole body. Raises BadBody, or Gone."""
        most = bounds.max_body_bytes
        if int(self.headers.get(b"content-length", b"0")) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._cycle.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message["body"])
            size += len(parts[-1])
            if size > most:
                raise _too_large(most)
            if not message["more_body"]:
                return b"".join(parts)
            if self._connection.too_slow:
                raise BadBody(
                    408, "request_timeout", f"no more of the request's body came within {bounds.read_seconds:g} s"
                )

    def when_gone(self, then: Callable[[], None] | None) -> None:
        """What to do when its connection is lost, from now on; at once, if it is lost already."""
        self._then = then
        if self.gone and then is not None:
            then()

    def leave(self) -> None:
        """Its request is done with: the connection forgets it."""
        self._connection.when_gone = self._then = None

    def _lost(self) -> None:
        self.gone = True
        self._connection.lose(self._cycle)
        if self._then is not None:
            self._then()

    async def answer(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """A whole answer at once; its length is among the headers."""
        self.begun = True
        if self._connection.answer(self._cycle, status, headers, body):
            return
        await self._cycle.send({"type": "http.response.start", "status": status, "headers": headers})
        await self._cycle.send({"type": "http.response.body", "body": body, "more_body": False})

    async def begin(self, status: int, headers: Sequence[Header]) -> None:
        self.begun = True
        if self._connection.begin(self._cycle, status, headers):
            return
        self._ends_body = self._connection.ends_body(self._cycle, headers)
        await self._cycle.send({"type": "http.response.start", "status": status, "headers": headers})

    def relay_at_once(self, data: bytes) -> bool:
        """As :meth:`relay`, where nothing is to be waited for. False: not done; while the client is slow, say."""
        cycle = self._cycle
        if not cycle.chunked_encoding or cycle.flow.write_paused:
            return False
        if not cycle.disconnected:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    async def relay(self, data: bytes) -> None:
        """More of the body. Waits while the client is slow; does nothing once it has gone."""
        await self._cycle.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        if self._connection.end(self._cycle):
            return
        if self._ends_body:
            self._cycle.expected_content_length = 0
        await self._cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    def cut(self) -> None:
        """End the connection in the middle, so that the client sees that its answer is not whole."""
        self._connection.cut(self._cycle)


def _too_large(most: int) -> BadBody:
    return BadBody(413, "request_too_large", f"the request's body is larger than {most} bytes")
