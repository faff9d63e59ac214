"""
Counts of single texts, kept: an agent that sends its instructions and its history again pays for counting them once.

Short texts too. Counting one takes a microsecond or two, but the tokeniser lets go of the interpreter's lock meanwhile,
and in a proxy the ledger's thread takes it: a fifth of a call's time was spent on having it back.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from .vocab import byte_bound, count_ordinary

EXACT_UP_TO = 256 * 1024
"""Characters: a longer text is taken at its byte bound, unless an exact count is asked for; counting it would stall an
event loop for milliseconds."""
_KEEP_BYTES = 16 * 1024 * 1024
"""What all kept texts may weigh together."""
_ENTRY_BYTES = 256
"""What is kept beside each text: short ones would otherwise weigh next to nothing, and be millions."""

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
        weight = _ENTRY_BYTES + len(key[1]) * (1 if key[1].isascii() else 4)
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
    if len(text) > EXACT_UP_TO and not exact:
        return byte_bound(text), False
    key = (encoding, text)
    tokens = kept.get(key)
    if tokens is not None:
        return tokens, True
    tokens = count_ordinary(text, encoding)
    if tokens is None:
        return byte_bound(text), False
    kept.put(key, tokens)
    return tokens, True


def digits_of(text: str) -> int:
    """How many ASCII digits a text has; kept like its tokens."""
    key = ("digits", text)
    digits = kept.get(key)
    if digits is None:
        digits = sum(map(text.count, _DIGITS))
        kept.put(key, digits)
    return digits
