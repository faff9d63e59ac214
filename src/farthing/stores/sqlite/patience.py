"""
The end of patience in an event loop: one timer a loop, for a timer a ticket would cost more than the rest of the wait.

Waiters of one store have the same patience, so the one that waits longest is always first in line.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    _Line = deque[tuple[float, asyncio.Future[None]]]

_lines: dict[tuple[asyncio.AbstractEventLoop, float], _Line] = {}
"""By loop and patience. A line goes when its timer finds it empty, and those of closed loops when a new one comes."""


def wake_at_last(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], patience_seconds: float) -> None:
    """Set this future's result when patience ends, if nobody has before. In the loop's own thread."""
    line = _lines.get((loop, patience_seconds))
    if line is None:
        for known in list(_lines):
            if known[0].is_closed():
                _lines.pop(known, None)
        line = _lines[loop, patience_seconds] = deque()
        loop.call_later(patience_seconds, _look, loop, patience_seconds)
    if line and line[0][1].done():
        # One goes for each that comes, so that there are never more of them than once waited together.
        line.popleft()
    line.append((loop.time() + patience_seconds, future))


def _look(loop: asyncio.AbstractEventLoop, patience_seconds: float) -> None:
    """Wake those whose time has come, and come back for the next."""
    line = _lines[loop, patience_seconds]
    now = loop.time()
    while line and (line[0][1].done() or line[0][0] <= now):
        _, future = line.popleft()
        if not future.done():
            future.set_result(None)
    if line:
        loop.call_at(line[0][0], _look, loop, patience_seconds)
    else:
        del _lines[loop, patience_seconds]
