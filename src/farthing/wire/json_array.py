"""
A JSON array that arrives piece by piece, cut into its objects: how Gemini streams without ``alt=sse``.

Pure. Only quotes, backslashes and braces are looked at, each byte once, so that a piece may end anywhere and every
split gives the same objects. What stands between them (commas, white space, the array's brackets) is left out.
"""

from __future__ import annotations

import re

from .sse import MAX_EVENT_BYTES

_STRUCTURE = re.compile(rb'["\\{}]')
_QUOTE, _BACKSLASH, _OPEN = b'"\\{'


class ArraySplitter:
    """Cuts an array into its objects. Holds at most one that is incomplete, and at most *max_object_bytes* of it."""

    __slots__ = ("_depth", "_escaped", "_in_string", "_limit", "_skipping", "held")

    def __init__(self, *, max_object_bytes: int = MAX_EVENT_BYTES) -> None:
        self.held = bytearray()
        """What has come of an incomplete object, and waits for the rest."""
        self._depth = 0
        self._in_string = False
        self._escaped = -1
        """Where in the next piece a character stands that a backslash escapes."""
        self._skipping = False
        self._limit = max_object_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """The objects that *data* completes; one that is too large is left out."""
        objects: list[bytes] = []
        start = 0
        for match in _STRUCTURE.finditer(data):
            place = match.start()
            if place == self._escaped:
                continue
            mark = data[place]
            if self._in_string:
                if mark == _BACKSLASH:
                    self._escaped = place + 1
                elif mark == _QUOTE:
                    self._in_string = False
            elif mark == _QUOTE:
                self._in_string = True
            elif mark == _OPEN:
                if not self._depth:
                    start = place
                self._depth += 1
            elif mark != _BACKSLASH and self._depth:
                self._depth -= 1
                if not self._depth:
                    self._hold(data[start : place + 1])
                    objects += self._taken()
        self._escaped = 0 if self._escaped == len(data) else -1
        if self._depth:
            self._hold(data[start:])
        return objects

    def finish(self) -> list[bytes]:
        """The stream ended: an object without its end is none."""
        self.held.clear()
        self._depth = 0
        return []

    def _hold(self, piece: bytes) -> None:
        if len(self.held) + len(piece) > self._limit:
            self._skipping = True
            self.held.clear()
        if not self._skipping:
            self.held += piece

    def _taken(self) -> list[bytes]:
        whole, self._skipping = [] if self._skipping else [bytes(self.held)], False
        self.held.clear()
        return whole
