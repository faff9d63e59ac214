"""
One answer on its way: latency, pacing, pauses, faults, and the moment at which generation ends and is billed.

Runs on the server's event loop with timers and callbacks only, no task per call: a thousand calls in flight are a
thousand small objects.
"""

from __future__ import annotations

import asyncio
import http
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from .endpoint import Frame
from .reply import Fault

_BEFORE_ANSWER: frozenset[str] = frozenset({"reset", "close_before_answer", "hang"})
_BATCH_FRAMES = 256
"""How many frames of a stream without pacing are sent in one turn of the loop."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """
    A rendered answer, and how it travels.

    ``generated`` is called exactly once, when generation is over, before the last of it is sent: with the output
    tokens that were generated, and whether the client was gone by then.
    """

    status: int
    headers: list[tuple[str, str]]
    frames: Iterator[Frame]
    generated: Callable[[int, bool], None]
    total_tokens: int = 0
    """Output tokens of the complete answer, over all choices."""
    hidden_tokens: int = 0
    """Those that are generated before anything is shown."""
    stream: bool = False
    abort_margin: int = 0
    latency_seconds: float = 0.0
    chunk_delay_seconds: float = 0.0
    pause_after_chunks: int | None = None
    split_bytes: int | None = None
    gzip: bool = False
    fault: Fault | None = None
    cut_after_chunks: int | None = None
    error_event: bytes = b""
    """Sent where a stream breaks off, if it ends with an error rather than with the connection."""


class Connection(Protocol):
    """What an exchange needs of its connection."""

    loop: asyncio.AbstractEventLoop
    congested: bool

    def write(self, data: bytes) -> None: ...
    def finished(self) -> None: ...
    def close(self) -> None: ...
    def reset(self) -> None: ...


class _Step(NamedTuple):
    """Bytes to send, and what comes after them."""

    data: bytes
    then: Literal["on", "turn", "pause", "end", "cut"] = "on"
    delay_seconds: float = 0.0


class Exchange:
    """Sends one :class:`Answer` over one connection."""

    def __init__(self, connection: Connection, answer: Answer) -> None:
        self._connection = connection
        self._answer = answer
        self._steps = self._plan()
        self._timer: asyncio.Handle | None = None
        self._begun = False
        self._paused = False
        self._billed = False
        self._gone = False
        self._over = False
        self._generated = answer.hidden_tokens
        self._compressor = zlib.compressobj(wbits=31) if answer.gzip else None

    def start(self) -> None:
        """Begins, after the answer's latency."""
        if self._answer.latency_seconds:
            self._timer = self._connection.loop.call_later(self._answer.latency_seconds, self._begin)
        else:
            self._begin()

    def client_gone(self) -> None:
        """
        The client hung up. A plain answer is generated to its end all the same; a stream stops within the margin.
        """
        self._gone = True
        if self._begun or self._answer.stream:
            self.abandon()

    def abandon(self) -> None:
        """Stops here and bills what was generated; a plain answer in full."""
        if self._timer is not None:
            self._timer.cancel()
        self._gone = self._over = True
        self._bill(self._cut_tokens())

    def resume(self) -> None:
        """Ends a pause."""
        if self._paused and not self._over:
            self._paused = False
            self._advance()

    def writable(self) -> None:
        """The connection can take more."""
        if self._begun and self._timer is None and not self._paused:
            self._advance()

    def _begin(self) -> None:
        self._begun = True
        self._timer = None
        if self._gone:
            self.abandon()
        elif self._answer.fault in _BEFORE_ANSWER:
            self._break_before_answer()
        else:
            self._advance()

    def _break_before_answer(self) -> None:
        """A hang ends when the client leaves; the others end the connection here."""
        if self._answer.fault == "hang":
            return
        self._over = True
        self._bill(self._answer.total_tokens)
        if self._answer.fault == "reset":
            self._connection.reset()
        else:
            self._connection.close()

    def _advance(self) -> None:
        """Sends as much as pacing, pauses and the connection allow now."""
        self._timer = None
        sent: list[bytes] = []
        step = _Step(b"")
        while step.then == "on" and not self._over and not self._connection.congested:
            step = next(self._steps) if len(sent) < _BATCH_FRAMES else _Step(b"", "turn")
            sent.append(step.data)
        if step.then in ("end", "cut"):
            self._over = True
        self._connection.write(b"".join(sent))
        if step.then == "turn" and not self._over:
            self._timer = self._connection.loop.call_later(step.delay_seconds, self._advance)
        elif step.then == "pause":
            self._paused = True
        elif step.then == "end":
            self._connection.finished()
        elif step.then == "cut":
            self._connection.close()

    def _plan(self) -> Iterator[_Step]:
        """Everything that is sent, in order; asked for the next step only when that may go out."""
        answer = self._answer
        if not answer.stream:
            if answer.pause_after_chunks is not None:
                yield _Step(b"", "pause")
            self._bill(answer.total_tokens)
        if answer.stream or answer.split_bytes is not None:
            yield _Step(_head(answer))
            yield from self._plan_frames()
        else:
            yield self._whole()

    def _whole(self) -> _Step:
        answer = self._answer
        body = b"".join(frame.data for frame in answer.frames)
        if self._compressor is not None:
            body = self._compressor.compress(body) + self._compressor.flush()
        head = _head(answer, length=len(body))
        if answer.cut_after_chunks is not None:
            return _Step(head + body[: len(body) // 2], "cut")
        return _Step(head + body, "end")

    def _plan_frames(self) -> Iterator[_Step]:
        """The body in chunked encoding: frame by frame, with pauses, delays and the cut where they are due."""
        answer = self._answer
        pause_at = answer.pause_after_chunks if answer.stream else None
        chunks = 0
        for frame in answer.frames:
            if chunks == pause_at:
                pause_at = None
                yield _Step(b"", "pause")
            if chunks == answer.cut_after_chunks:
                yield from self._plan_cut()
                return
            if frame.chunk and chunks and answer.chunk_delay_seconds:
                yield _Step(b"", "turn", answer.chunk_delay_seconds)
            chunks += frame.chunk
            self._generated = frame.generated
            if frame.generated >= answer.total_tokens:
                # Generation is over with its last token: billed before the client can have seen it.
                self._bill(answer.total_tokens)
            yield from self._wire(frame.data)
        self._bill(answer.total_tokens)
        if self._compressor is not None:
            yield _Step(_chunk(self._compressor.flush()))
        yield _Step(_LAST_CHUNK, "end")

    def _plan_cut(self) -> Iterator[_Step]:
        """Breaks off: with an error event in an orderly end, or with the connection."""
        answer = self._answer
        self._bill(self._cut_tokens())
        if not answer.error_event:
            yield _Step(b"", "cut")
            return
        yield from self._wire(answer.error_event)
        yield _Step(_LAST_CHUNK, "end")

    def _wire(self, data: bytes) -> Iterator[_Step]:
        """One frame as it travels: compressed, split, in chunked encoding."""
        if self._compressor is not None:
            data = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        size = self._answer.split_bytes
        if size is None:
            yield _Step(_chunk(data))
            return
        for start in range(0, len(data), size):
            yield _Step(_chunk(data[start : start + size]), "turn")

    def _cut_tokens(self) -> int:
        """What has been generated by the time that a broken answer stops."""
        answer = self._answer
        if not answer.stream:
            return answer.total_tokens
        return min(answer.total_tokens, self._generated + answer.abort_margin)

    def _bill(self, tokens: int) -> None:
        if not self._billed:
            self._billed = True
            self._answer.generated(tokens, self._gone)


_LAST_CHUNK = b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    # An empty chunk would end the body.
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _head(answer: Answer, *, length: int | None = None) -> bytes:
    """Status line and headers; chunked unless the length is known."""
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    if answer.gzip:
        lines.append("content-encoding: gzip")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_REASONS = {status.value: status.phrase for status in http.HTTPStatus}
