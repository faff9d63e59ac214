"""
What the meters of all dialects share: cut the stream, look at the events that can matter, keep the others unread.

Most calls end with the provider's figure, and then the text of a stream is never needed. So events with text are kept
as bytes and read only when :meth:`EventMeter.facts` is asked without a figure, or when they take too much room.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from . import json
from .facts import AnswerFacts
from .sse import FrameSplitter, Unparsed, frame_data

MAX_UNREAD_BYTES = 64 * 1024
"""More unread text than this is read, and shrinks to the text itself: a thousand slow streams stay small."""
MAX_TEXT_CHARS = 16 * 1024 * 1024
"""More delivered text than any model's output; what comes after it is not counted."""


class Splitter(Protocol):
    """Cuts a stream into frames; :class:`~.sse.FrameSplitter` is the usual one."""

    held: bytearray

    def feed(self, data: bytes) -> list[bytes]: ...
    def finish(self) -> list[bytes]: ...


class EventMeter(ABC):
    """
    The base of a dialect's meter. A subclass says what an event means:

    - ``_see(frame)`` looks at one frame, in microseconds; True drops it from what is relayed (only asked when *strip*).
    - ``_read(data)`` takes the delivered text out of one decoded event that ``_see`` gave to ``_keep``.
    """

    __slots__ = ("_chars", "_fresh", "_splitter", "_strip", "_text", "_unread", "complete")

    def __init__(self, *, strip: bool, splitter: Splitter | None = None) -> None:
        self._splitter = splitter or FrameSplitter()
        self._strip = strip
        self._unread = bytearray()
        self._text: dict[Hashable, list[str]] = {}
        self._chars = 0
        self._fresh: list[str] | None = None
        self.complete = False
        """A terminal event has been seen. Asked for with each piece, so that it is kept and not found out."""

    def feed(self, data: bytes) -> bytes:
        """The bytes to relay for *data*: the same object, unless this meter strips."""
        if self._strip:
            return self._feed_stripping(data)
        for frame in self._splitter.feed(data):
            if type(frame) is bytes:
                self._see(frame)
        return data

    def finish(self) -> bytes:
        """The body ended: reads a last event that has no blank line, and gives the bytes still held back."""
        kept = [frame for frame in self._splitter.finish() if not self._drops(frame)]
        return b"".join(kept) if self._strip else b""

    def _feed_stripping(self, data: bytes) -> bytes:
        whole = not self._splitter.held
        frames = self._splitter.feed(data)
        kept = [frame for frame in frames if not self._drops(frame)]
        if whole and len(kept) == len(frames) and not self._splitter.held:
            return data
        return b"".join(kept)

    def _drops(self, frame: bytes) -> bool:
        return not isinstance(frame, Unparsed) and self._see(frame)

    @abstractmethod
    def _see(self, frame: bytes) -> bool: ...

    @abstractmethod
    def _read(self, data: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def facts(self) -> AnswerFacts:
        """What has been seen so far."""

    def _keep(self, frames: bytes) -> None:
        """These events, whole, have text; it is read later, if ever."""
        unread = self._unread
        unread += frames
        if len(unread) > MAX_UNREAD_BYTES:
            self._read_kept()

    def _read_kept(self) -> None:
        if not self._unread:
            return
        unread, self._unread = bytes(self._unread), bytearray()
        splitter = FrameSplitter(max_event_bytes=len(unread))
        for frame in splitter.feed(unread) + splitter.finish():
            data = event_data(frame)
            if data is not None:
                self._read(data)

    def _delivered(self, part: Hashable, text: object) -> None:
        """A delta of one part of the answer (a choice's content, one tool call's arguments …)."""
        if isinstance(text, str) and text and self._chars < MAX_TEXT_CHARS:
            self._chars += len(text)
            self._text.setdefault(part, []).append(text)
            if self._fresh is not None:
                self._fresh.append(text)

    def fresh(self) -> list[str]:
        """The deltas since this was last asked, each apart; for who watches a stream while it runs."""
        if self._fresh is None:
            self._fresh = []
        self._read_kept()
        fresh, self._fresh = self._fresh, []
        return fresh

    def _delivered_text(self) -> tuple[str, ...]:
        """All text so far, the deltas of each part joined: pieces would count as more tokens than they are."""
        self._read_kept()
        for part, deltas in self._text.items():
            if len(deltas) > 1:
                self._text[part] = ["".join(deltas)]
        return tuple(deltas[0] for deltas in self._text.values())


def event_data(frame: bytes) -> dict[str, Any] | None:
    """The JSON object that is a frame's data; None for anything else, ``[DONE]`` included."""
    data = frame_data(frame)
    return None if data is None else answer_object(data)


def answer_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a plain answer, or of an event; None for anything else."""
    try:
        data = json.decode(body)
    except ValueError:
        return None  # what cannot be read has no figure of ours in it, and the client gets the bytes as they came
    return data if isinstance(data, dict) else None


def string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list; nothing of anything else."""
    if not isinstance(value, list):
        return []
    for item in value:
        if type(item) is not dict:
            return [item for item in value if isinstance(item, dict)]
    return value
