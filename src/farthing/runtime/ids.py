"""
Ids of calls: 24 hexadecimal digits of the system's randomness, fetched for many calls at a time.

Each fetch lets go of the interpreter's lock, and where a ledger's writer runs beside, it is a while until it comes
back: once a call, that was a quarter of what a refusal cost.
"""

from __future__ import annotations

import os

_ID_BYTES = 12
_AT_ONCE = 256

_ready: list[str] = []


def new_id() -> str:
    """An id that nobody else has. From any thread."""
    try:
        return _ready.pop()
    except IndexError:
        digits = os.urandom(_ID_BYTES * _AT_ONCE).hex()
    size = 2 * _ID_BYTES
    fresh = [digits[start : start + size] for start in range(0, len(digits), size)]
    mine = fresh.pop()
    _ready.extend(fresh)
    return mine


if hasattr(os, "register_at_fork"):
    # A child must not give out the same ones as its parent.
    os.register_at_fork(after_in_child=_ready.clear)
