"""Signals of a process that is a proxy: SIGTERM and Ctrl-C stop it, SIGHUP lets it read its configuration anew."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPS = (signal.SIGTERM, signal.SIGINT)
HANGUP = getattr(signal, "SIGHUP", None)


def hang_up(process: int) -> Callable[[], None] | None:
    """What lets this process, which listens with :func:`signals`, read its configuration anew; None on Windows."""
    if HANGUP is None:
        return None
    number = HANGUP
    return lambda: os.kill(process, number)


@contextmanager
def signals(stop: Callable[[], None], reload: Callable[[], None] | None = None) -> Iterator[None]:
    """
    While inside, in the main thread: these signals call these functions. In any other thread nothing is touched.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_stop(number: int, frame: FrameType | None) -> None:
        stop()

    def on_hangup(number: int, frame: FrameType | None) -> None:
        if reload is not None:
            reload()

    before: dict[int, Any] = {number: signal.signal(number, on_stop) for number in STOPS}
    if HANGUP is not None and reload is not None:
        before[HANGUP] = signal.signal(HANGUP, on_hangup)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
