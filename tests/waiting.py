"""Waiting for what happens elsewhere, in a thread, a process or a file: for the event, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SECONDS = 120.0
"""So long is waited for what will certainly happen. No machine is this slow: past it, it does not happen."""


def eventually(condition: Callable[[], T], *, seconds: float = SECONDS) -> T:
    """Wait until this is true, and return it; AssertionError if it never becomes so."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"not so within {seconds:g} s"
        time.sleep(0.002)
    return found
