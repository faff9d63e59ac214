"""
Counts of single texts, kept: an agent that sends its instructions and its history again pays for counting them once.

Short texts too. Counting one takes a microsecond or two, but the tokeniser lets go of the interpreter's lock meanwhile,
and in a proxy the ledger's thread takes it: a fifth of a call's time was spent on having it back.
"""

from __future__ import annotations

import os
import threading

from .vocab import count_ordinary

EXACT_UP_TO = 256 * 1024
"""Characters: a longer text is taken at its byte bound, unless an exact count is asked for; counting it would stall an
event loop for milliseconds."""
_KEEP_BYTES = 16 * 1024 * 1024
"""What all kept texts may weigh together."""
_ENTRY_BYTES = 256
"""What is kept beside each text: short ones would otherwise weigh next to nothing, and be millions."""

_DIGITS = "0123456789"


class _Kept:
    """
    Counts by (what is counted, text), bounded by the weight of the texts. When the young ones have half the room they
    become the old ones, and what was old is dropped, unless it was asked for meanwhile and so is young again. What is
    asked for all the time is found in a plain dictionary, without a lock.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._half = limit_bytes // 2
        self.start()

    def start(self) -> None:
        """Empty. Also after a fork: a thread that was in the middle of a step has stayed behind, and has the lock."""
        # Re-entrant, since a finaliser may count a text in the middle of a step of ours.
        self._lock = threading.RLock()
        self.young: dict[tuple[str, str], int] = {}
        self.old: dict[tuple[str, str], int] = {}
        self._young_weight = self._old_weight = 0

    def put(self, key: tuple[str, str], count: int) -> None:
        # CPython stores a text with 1, 2 or 4 bytes a character.
        weight = _ENTRY_BYTES + len(key[1]) * (1 if key[1].isascii() else 4)
        with self._lock:
            if key in self.young or weight > self._half:
                return
            if self._young_weight + weight > self._half:
                self.old, self._old_weight = self.young, self._young_weight
                self.young, self._young_weight = {}, 0
            self.young[key] = count
            self._young_weight += weight

    @property
    def weight(self) -> int:
        return self._young_weight + self._old_weight


kept = _Kept(_KEEP_BYTES)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=kept.start)


def tokens_of(text: str, encoding: str, exact: bool = False) -> int | None:
    """
    The tokens of one text; None where it is not counted, so that only its bytes bound it: if no tokeniser can be used,
    and, unless *exact*, if it is longer than ``EXACT_UP_TO``.
    """
    if len(text) > EXACT_UP_TO and not exact:
        return None
    key = (encoding, text)
    tokens = kept.young.get(key)
    return _count_anew(key) if tokens is None else tokens


def _count_anew(key: tuple[str, str]) -> int | None:
    encoding, text = key
    tokens = kept.old.get(key)
    if tokens is None:
        tokens = count_ordinary(text, encoding)
    if tokens is not None:
        kept.put(key, tokens)
    return tokens


def digits_of(text: str) -> int:
    """How many ASCII digits a text has; kept like its tokens."""
    key = ("digits", text)
    digits = kept.young.get(key)
    if digits is None:
        digits = kept.old.get(key)
        if digits is None:
            digits = sum(map(text.count, _DIGITS))
        kept.put(key, digits)
    return digits
