"""
A client's connection: uvicorn's, with bounds that it lacks, and a word when the client has gone.

The bounds are the size of headers, the time they take, and how many connections there are.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from .refusal import refuse
from .routing import family_of
from .settings import Bounds
from .upstream import Header

KEY = "farthing.connection"
"""Where the ASGI scope of a request has its connection."""
HEAD_BYTES = "farthing.head_bytes"
"""And this, at least as many bytes as its headers have."""
_FRAMING = (b"content-length", b"transfer-encoding")
_WITHOUT_BODY = (204, 304)
for _status in range(600, 1000):
    # No server should send them, and some do: they pass like all others (uvicorn's table ends before).
    STATUS_LINE.setdefault(_status, b"HTTP/1.1 %d \r\n" % _status)
_REASONS = {408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}


class Connection(HttpToolsProtocol):
    """One connection; requests on it come one after the other."""

    bounds = Bounds()

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # Uvicorn would log whole URLs, keys in their queries too, as soon as anybody in this process listens to it.
        self.access_log = False
        app = self.config.app
        self.bounds = getattr(app, "bounds", self.bounds)
        self.when_gone: Callable[[], None] | None = None
        """Called once when the connection is lost."""
        self.too_slow = False
        self._reading = self._in_headers = False
        self._header_bytes = 0
        self._arriving = b""
        self._left_off: int | None = None
        """How much of that was read before an offer to speak another protocol."""
        self._declining = False
        self._timer: asyncio.TimerHandle | None = None
        self._unspoken: asyncio.TimerHandle | None = None
        """Until a request begins, where uvicorn waits for none: it may be idle for as long as between two of them."""
        self._last_seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._wait_for_a_word()
        if len(self.connections) > self.bounds.max_connections:
            self._refuse(503, "too_many_connections", "this proxy has as many connections as it takes; try again")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._has_spoken()
        self._stop_timer()
        gone, self.when_gone = self.when_gone, None
        if gone is not None:
            gone()

    def data_received(self, data: bytes) -> None:
        if self.parser is None:
            return
        self._arriving = data
        super().data_received(data)
        while self._left_off is not None:
            self._go_on(self._left_off)
        self._arriving = b""
        if not self._reading:
            if self.cycle is not None and self.cycle.response_complete:
                # Line ends, or the rest of a request that was refused: for uvicorn it is idle no more.
                self._wait_for_a_word()
            return
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > self.bounds.max_header_bytes:
                self.refuse_headers()
                return
        self._last_seconds = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(self.bounds.read_seconds, self._look)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_spoken()
        self._reading = self._in_headers = True
        self._header_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._declining:
            self._declining = False
            return
        super().on_headers_complete()
        scope = cast("dict[str, Any]", self.scope)
        scope[KEY] = self
        scope[HEAD_BYTES] = self._header_bytes + len(self._arriving)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._reading = False
        self._stop_timer()

    def _unsupported_upgrade_warning(self) -> None:
        """
        Where uvicorn warns that it speaks no other protocol. HTTP lets a server pass over the offer, and clients that
        make it with every request count on that: Java's, and curl's with ``--http2``.
        """
        error = sys.exc_info()[1]
        assert isinstance(error, HttpParserUpgrade)
        self._left_off = error.args[0]

    def _go_on(self, left_off: int) -> None:
        """
        The parser takes a request with an offer for one without a body, and leaves off after its headers: give another
        the rest as that of a request that offers nothing. This one hears no more where the connection is to close.
        """
        self._left_off = None
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        framing = b"".join([b"%b: %b\r\n" % header for header in self.headers if header[0] in _FRAMING])
        self._arriving = b"POST / HTTP/1.1\r\n%b\r\n%b" % (framing, self._arriving[left_off:])
        self.cycle.more_body = True
        self.cycle.message_event.clear()
        self._declining = True
        super().data_received(self._arriving)

    def answer(self, cycle: RequestResponseCycle, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """
        Write a whole answer, whose headers tell its length, in one go. False where uvicorn must do that step by step:
        while the client is slow, where the connection ends with the answer, and for headers that no answer may have.
        """
        if cycle.disconnected:
            return True
        lines = self._lines(cycle, headers)
        if lines is None:
            return False
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"%b%b\r\n\r\n%b" % (STATUS_LINE[status], lines, body))
        self._complete(cycle)
        return True

    def begin(self, cycle: RequestResponseCycle, status: int, headers: Sequence[Header]) -> bool:
        """Begin an answer in chunks. False where uvicorn must, as above, and where there are to be no chunks."""
        if cycle.disconnected:
            return True
        lines = self._lines(cycle, headers)
        if lines is None or b"content-length" in lines.lower() or status in _WITHOUT_BODY:
            return False
        cycle.response_started = cycle.chunked_encoding = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"%b%b\r\ntransfer-encoding: chunked\r\n\r\n" % (STATUS_LINE[status], lines))
        return True

    def end(self, cycle: RequestResponseCycle) -> bool:
        """End it. False where uvicorn must: while the client is slow, and where the connection is to end with it."""
        if cycle.disconnected:
            return True
        if not cycle.chunked_encoding or self.flow.write_paused or not cycle.keep_alive:
            return False
        self.transport.write(b"0\r\n\r\n")
        self._complete(cycle)
        return True

    def _lines(self, cycle: RequestResponseCycle, headers: Sequence[Header]) -> bytes | None:
        """The lines of an answer's headers, where it may begin here and now."""
        if cycle.response_started or self.flow.write_paused or not cycle.keep_alive or cycle.scope["method"] == "HEAD":
            return None
        lines = b"\r\n".join(map(b": ".join, headers))
        ends = len(headers) - 1
        if lines.count(b"\n") != ends or lines.count(b"\r") != ends or b"\0" in lines:
            return None
        return None if b"connection" in lines.lower() else lines

    def _complete(self, cycle: RequestResponseCycle) -> None:
        cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()

    def ends_body(self, cycle: RequestResponseCycle, headers: Sequence[Header]) -> bool:
        """
        Before an answer begins: whether the end of the connection is to be the end of its body. A client that speaks
        HTTP/1.0 knows no chunks, which are what uvicorn gives to every answer without a length.
        """
        if cycle.scope["http_version"] != "1.0" or any(name.lower() == b"content-length" for name, _ in headers):
            return False
        cycle.chunked_encoding = False
        cycle.expected_content_length = sys.maxsize
        return True

    def cut(self, cycle: RequestResponseCycle) -> None:
        """End the connection in the middle of an answer, so that its client sees that it is not whole."""
        self.lose(cycle)
        if self.transport is not None and self.flow.write_paused:
            # It does not read, so what is written would not leave, and whoever waits for that would wait on.
            self.transport.abort()
        elif self.transport is not None:
            self.transport.close()

    def lose(self, cycle: RequestResponseCycle) -> None:
        """
        Nobody is there for this answer any more. Uvicorn itself says so to the last request of a connection only, and
        it may not be the one that is being answered.
        """
        cycle.disconnected = True
        cycle.message_event.set()

    def refuse_headers(self) -> None:
        most = self.bounds.max_header_bytes
        self._refuse(431, "headers_too_large", f"the request's headers are larger than {most} bytes")

    def _look(self) -> None:
        """Whether the client still sends its request."""
        self._timer = None
        if not self._reading or self.transport.is_closing():
            return
        if self.pipeline or (self._in_headers and self.cycle is not None and not self.cycle.response_complete):
            # Sent ahead, while an earlier request is answered: that answer comes first, however long it takes.
            self._last_seconds = self.loop.time()
        quiet_seconds = self.loop.time() - self._last_seconds
        if quiet_seconds < self.bounds.read_seconds:
            self._timer = self.loop.call_later(self.bounds.read_seconds - quiet_seconds, self._look)
        elif self._in_headers:
            self._refuse(408, "request_timeout", "the request's headers did not come in time")
        elif self.cycle.response_complete:
            # It was answered before its request was whole: nobody here waits for more.
            self.transport.close()
        else:
            # Its request is being answered already, by a task that waits for the body: that says so.
            self.too_slow = True
            self.cycle.message_event.set()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer a request whose headers never came to their end, and close."""
        path = bytes(getattr(self, "url", b"")).decode("latin-1").partition("?")[0]
        answer = refuse(family_of("POST", path), status, code, message)
        head = b"HTTP/1.1 %d %s\r\n" % (status, _REASONS[status])
        fields = b"".join(b"%s: %s\r\n" % header for header in (*answer.headers, (b"connection", b"close")))
        self.transport.write(head + fields + b"\r\n" + answer.body)
        self.transport.close()

    def _wait_for_a_word(self) -> None:
        if self._unspoken is None:
            self._unspoken = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _has_spoken(self) -> None:
        if self._unspoken is not None:
            self._unspoken.cancel()
            self._unspoken = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
