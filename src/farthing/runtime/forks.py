"""
Locks that a forked child finds free.

The thread that has one at the moment of a fork stays behind with the parent, and nobody would ever let go of the
child's copy. So they are for what is right at every step, or begun again by the next who takes the lock.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> threading.Lock:
    """A ``threading.Lock``."""
    made = threading.Lock()
    _locks.add(made)
    return made


def rlock() -> threading.RLock:
    """A ``threading.RLock``."""
    made = threading.RLock()
    _locks.add(made)
    return made


def _in_child() -> None:
    for known in list(_locks):
        # Not in the public interface, but what logging and threading themselves do.
        known._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
