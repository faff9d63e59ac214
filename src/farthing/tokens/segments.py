"""Counts of single texts, kept for long ones: an agent that sends its history again pays for counting it once."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from .vocab import byte_bound, count_ordinary

EXACT_UP_TO = 256 * 1024
"""Characters: a longer text is taken at its byte bound, unless an exact count is asked for; counting it would stall an
event loop for milliseconds."""
_KEEP_FROM = 256
"""Characters: a shorter text is counted faster than it is looked up."""
_KEEP_BYTES = 16 * 1024 * 1024
"""What all kept texts may weigh together."""

_DIGITS = "0123456789"


class _Kept:
    """Counts by (what is counted, text), the least recently used dropped first, bounded by the weight of the texts."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._weight = 0
        self._counts: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        # Re-entrant, since a finaliser may count a text in the middle of a step of ours.
        self._lock = threading.RLock()

    def get(self, key: tuple[str, str]) -> int | None:
        with self._lock:
            found = self._counts.get(key)
            if found is None:
                return None
            self._counts.move_to_end(key)
            return found[0]

    def put(self, key: tuple[str, str], tokens: int) -> None:
        # CPython stores a text with 1, 2 or 4 bytes a character.
        weight = len(key[1]) * (1 if key[1].isascii() else 4)
        with self._lock:
            if key not in self._counts:
                self._weight += weight
            self._counts[key] = (tokens, weight)
            while self._weight > self._limit and self._counts:
                _, (_, dropped) = self._counts.popitem(last=False)
                self._weight -= dropped

    @property
    def weight(self) -> int:
        return self._weight

    def in_child(self) -> None:
        """After a fork: a thread that was in the middle of a step has stayed behind, and has the lock."""
        self._lock = threading.RLock()
        self._weight, self._counts = 0, OrderedDict()


kept = _Kept(_KEEP_BYTES)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=kept.in_child)


def tokens_of(text: str, encoding: str, *, exact: bool = False) -> tuple[int, bool]:
    """
    The tokens of one text, and whether they were counted (True) or are its byte bound.

    The bound stands in for texts longer than ``EXACT_UP_TO`` (unless *exact*), and for all if no tokeniser can be used.
    """
    length = len(text)
    if length > EXACT_UP_TO and not exact:
        return byte_bound(text), False
    key = (encoding, text)
    if length >= _KEEP_FROM and (tokens := kept.get(key)) is not None:
        return tokens, True
    tokens = count_ordinary(text, encoding)
    if tokens is None:
        return byte_bound(text), False
    if length >= _KEEP_FROM:
        kept.put(key, tokens)
    return tokens, True


def digits_of(text: str) -> int:
    """How many ASCII digits a text has; kept like its tokens."""
    if len(text) < _KEEP_FROM:
        return sum(map(text.count, _DIGITS))
    key = ("digits", text)
    digits = kept.get(key)
    if digits is None:
        digits = sum(map(text.count, _DIGITS))
        kept.put(key, digits)
    return digits
