"""
What a fork must not interrupt: a lock that another thread has, a module that another thread is importing.

That thread stays behind with the parent, and nobody would ever let go of the child's copy. So these locks are free in a
child: they are for what is right at every step, or begun again by the next who takes the lock. And a fork waits while
this package loads something, for whoever imports that in the child would wait for ever.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOADING_SECONDS = 10.0
"""How long a fork waits at most. (What is imported may itself wait for the thread that forks.)"""
_LOOK_SECONDS = 0.002

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_loads: dict[object, int] = {}
"""By what is loaded now, the thread that does."""
_watching = False
_gate = threading.RLock()
"""Held by a fork, so that nobody begins to load in the middle of it. Never held while something is imported."""


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


@contextmanager
def loading() -> Iterator[None]:
    """Around an import that is done on use."""
    load, here = object(), threading.get_ident()
    if here in list(_loads.values()):
        # Within another, which a fork waits for already.
        yield
        return
    with _gate:
        _watch()
        _loads[load] = here
    try:
        yield
    finally:
        del _loads[load]


def _watch() -> None:
    """Have forks wait, from the first load on."""
    global _watching  # noqa: PLW0603 - whether this process is watched is state of the process
    if _watching or not hasattr(os, "register_at_fork"):
        return
    # What is registered last is asked first: logging would take its lock, and whoever is importing may want that.
    import logging  # noqa: F401

    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
    _watching = True


def _before() -> None:
    _gate.acquire()
    here, until = threading.get_ident(), time.monotonic() + LOADING_SECONDS
    while any(thread != here for thread in list(_loads.values())) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)


def _in_parent() -> None:
    _gate.release()


def _in_child() -> None:
    here = threading.get_ident()
    for load, thread in list(_loads.items()):
        if thread != here:
            del _loads[load]
    _gate.release()


def _open_all() -> None:
    for known in list(_locks):
        # Not in the public interface, but what logging and threading themselves do.
        known._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
