"""``QueueSink``: how long the queue of one sink is, and who hears of what it drops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class QueueSink:
    """
    A sink with a queue of its own length. Every sink in use has a queue and a thread, wrapped or not.

    Args:
        inner: the sink.
        max_queue: how many rows may wait; None: as :func:`farthing.use_sink` says.
        on_drop_error: called with the error for each write that failed, and with None for a row that found the queue
            full (then by the thread that made the call, so it should be quick).
    """

    def __init__(
        self,
        inner: Any,
        *,
        max_queue: int | None = None,
        on_drop_error: Callable[[BaseException | None], object] | None = None,
    ) -> None:
        check_sink(inner)
        if max_queue is not None:
            check_max_queue(max_queue)
        self.inner = inner
        self.max_queue = max_queue
        self.on_drop_error = on_drop_error


def check_sink(sink: Any) -> None:
    """Raises ValueError for what no row can be written to."""
    if not callable(getattr(sink, "write", sink)) and not hasattr(sink, "write_entry"):
        raise ValueError(f"a sink is a function of a row, or has a write(row): {sink!r} is neither")


def check_max_queue(max_queue: int) -> None:
    """Raises ValueError for what is no length of a queue."""
    if type(max_queue) is not int or max_queue < 1:
        raise ValueError(f"max_queue must be an integer of at least 1, not {max_queue!r}")
