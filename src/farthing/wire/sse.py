"""
Server-sent events, decoded as they arrive (WHATWG HTML, section "Server-sent events").

Pure: bytes in, events out. The work is in two steps, since most events of a long stream need never be read: a
:class:`FrameSplitter` cuts the bytes at blank lines into *frames* (one event each, its blank line included, so that
the frames laid end to end are the stream), and :func:`frame_data` reads one of them.

Lines end with LF, CRLF or CR, in any mixture, and a chunk may end between any two bytes: every split of a stream gives
the same frames.
"""

from __future__ import annotations

import re

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A larger event is passed on as :class:`Unparsed` pieces: nobody's memory grows with what a provider sends."""

# Atomic groups: a CRLF is one line end, never a CR and then an LF.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BOM = b"\xef\xbb\xbf"
_LONGEST_PARTIAL_END = 3
"""Of the four bytes CR LF CR LF, three may have come already."""


class Unparsed(bytes):
    """A piece of an event that is too large to be held; to be relayed, never read."""


class FrameSplitter:
    """Cuts a stream into frames. Holds at most one incomplete frame, and at most *max_event_bytes* of it."""

    __slots__ = ("_limit", "_searched", "_skipping", "held")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.held = bytearray()
        """What has come of an incomplete frame, and waits for the rest."""
        self._searched = 0
        self._skipping = False
        self._limit = max_event_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that *data* completes, and, of an event too large, :class:`Unparsed` pieces."""
        if not self.held and data.endswith(b"\n\n") and b"\r" not in data and len(data) <= self._limit:
            # The common case: one event, not even copied; or several. An odd number of LFs at the end leaves one over.
            if data.find(b"\n\n") == len(data) - 2:
                return [data]
            *whole, rest = data.split(b"\n\n")
            self.held += rest
            self._searched = len(rest)
            return [frame + b"\n\n" for frame in whole]
        held = self.held
        held += data
        frames: list[bytes] = []
        start = 0
        position = max(0, self._searched - _LONGEST_PARTIAL_END)
        while (end := _frame_end(held, position)) is not None:
            frames.append(self._frame(bytes(held[start:end])))
            start = position = end
        del held[:start]
        if self._skipping or len(held) > self._limit:
            self._skipping = True
            cut = max(0, len(held) - _LONGEST_PARTIAL_END)
            if cut:
                frames.append(Unparsed(held[:cut]))
                del held[:cut]
        self._searched = len(held)
        return frames

    def finish(self) -> list[bytes]:
        """The stream ended: what was held, as the last frame (a last event may lack its blank line)."""
        if not self.held:
            return []
        last = self._frame(bytes(self.held))
        self.held.clear()
        self._searched = 0
        return [last]

    def _frame(self, frame: bytes) -> bytes:
        if self._skipping or len(frame) > self._limit:
            self._skipping = False
            return Unparsed(frame)
        return frame


def frame_data(frame: bytes) -> bytes | None:
    """The data of a frame's event, its lines joined by LF; None for a comment, a blank, or an event without data."""
    data: list[bytes] = []
    for line in frame.removeprefix(_BOM).rstrip(b"\r\n").splitlines():
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            data.append(b"")
    return b"\n".join(data) if data else None


def _frame_end(held: bytearray, position: int) -> int | None:
    """Where the frame ends that is being read at *position*; None if its end has not come, or might not have."""
    match = _BLANK_LINE.search(held, position)
    if match is None:
        return None
    end = match.end()
    # A CR at the very end may be the first half of a CRLF.
    if end == len(held) and held[end - 1] == 0x0D:
        return None
    return end
