"""
A stream that is ended early, by us: relayed until what was delivered reaches a limit, then closed in order.

Pure: bytes in, bytes out. Where it ends does not depend on how the bytes were cut into pieces on their way: always
behind the same event. What comes after that event is not relayed, but it is still metered, for the provider's figure
may be in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..kernel.usage import Usage
from . import json
from .facts import AnswerFacts, Closer
from .json_array import ArraySplitter
from .metering import EventMeter, answer_object, event_data
from .sse import FrameSplitter, Unparsed


class Frame(NamedTuple):
    """A piece of the stream that ends where one of its events does (or that is part of one), and that event."""

    data: bytes
    event: dict[str, Any] | None


class CutStream:
    """
    The meter of a stream that may not deliver more than *most_tokens*: :class:`~.facts.StreamMeter`, and
    :attr:`reached`, after which :meth:`closing` has the last bytes to relay.

    *count* gives the tokens of a text. Every delta is counted as it passes, and all the text anew where their sum
    reaches the limit: pieces come to a little more than the whole.
    """

    def __init__(
        self,
        meter: EventMeter,
        closer: Closer,
        *,
        most_tokens: int,
        count: Callable[[str], int],
        array: bool = False,
    ) -> None:
        self._meter = meter
        self._closer = closer
        self._most = most_tokens
        self._count = count
        self._framing: _Events | _Array = _Array() if array else _Events()
        self._tally = 0
        self.reached = False
        """The limit is reached: nothing that the provider still sends is relayed."""
        meter.fresh()

    @property
    def complete(self) -> bool:
        return self._meter.complete

    @property
    def delivered_tokens(self) -> int:
        """What was delivered, counted anew where the limit came near."""
        return self._tally

    def facts(self) -> AnswerFacts:
        return self._meter.facts()

    def feed(self, data: bytes) -> bytes:
        """The bytes to relay for these: whole events, the one that reaches the limit included."""
        return self._relayed(self._framing.feed(data))

    def finish(self) -> bytes:
        """The body ended before the limit was reached: the bytes that were still held back."""
        return self._relayed(self._framing.finish()) + self._meter.finish()

    def closing(self, usage: Usage) -> bytes:
        """What ends the stream in order, its usage told as *usage*."""
        return self._framing.joined(self._closer.close(usage))

    def _relayed(self, frames: Iterator[Frame]) -> bytes:
        relayed: list[bytes] = []
        for frame in frames:
            if self.reached:
                self._meter.feed(frame.data)
                continue
            relayed.append(self._meter.feed(frame.data))
            if frame.event is not None:
                if _says_where(frame.event):
                    self._closer.see(frame.event)
                self._look()
        return b"".join(relayed)

    def _look(self) -> None:
        if self._meter.complete or not self._framing.closable:
            return
        self._tally += sum(map(self._count, self._meter.fresh()))
        if self._tally >= self._most:
            self._tally = sum(map(self._count, self._meter.facts().text))
            self.reached = self._tally >= self._most


_PLACES = ("index", "output_index", "content_index", "summary_index", "item_id")


def _says_where(event: dict[str, Any]) -> bool:
    """Whether it belongs somewhere, if it says so: what stands at a list or an object, nobody could close."""
    return not any(isinstance(event.get(place), (list, dict)) for place in _PLACES)


class _Events:
    """Server-sent events."""

    closable = True

    def __init__(self) -> None:
        self._splitter = FrameSplitter()

    def feed(self, data: bytes) -> Iterator[Frame]:
        return map(_event_of, self._splitter.feed(data))

    def finish(self) -> Iterator[Frame]:
        return map(_event_of, self._splitter.finish())

    def joined(self, events: list[bytes]) -> bytes:
        return b"".join(events)


def _event_of(frame: bytes) -> Frame:
    return Frame(frame, None if isinstance(frame, Unparsed) else event_data(frame))


class _Array:
    """One JSON array, object by object. Its bytes pass as they are; only where an object ends is looked for."""

    def __init__(self) -> None:
        self._splitter = ArraySplitter()
        self._opened = b""

    @property
    def closable(self) -> bool:
        """Whether it is an array: an object alone cannot be followed by another."""
        return self._opened == b"["

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._opened = self._opened or data.lstrip()[:1]
        start = 0
        while start < len(data):
            end = data.find(b"}", start) + 1 or len(data)
            piece = data[start:end]
            found = self._splitter.feed(piece)
            yield Frame(piece, answer_object(found[0]) if found else None)
            start = end

    def finish(self) -> Iterator[Frame]:
        return iter(())

    def joined(self, events: list[bytes]) -> bytes:
        return b"".join(b",\r\n" + event for event in events) + b"]"


def event_bytes(data: dict[str, Any], name: str | None = None) -> bytes:
    """One server-sent event, as it goes out."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + json.encode(data) + b"\n\n"
