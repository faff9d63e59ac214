"""A clock that stands still until it is told to move."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..kernel.window import datetime_from_ms, ms_from_datetime

if TYPE_CHECKING:
    from ..runtime.ambient import Ambient
    from ..runtime.runtime import Runtime

_MS = timedelta(milliseconds=1)
_START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """
    Call it for the time in milliseconds since the epoch; move it with :meth:`advance`, :meth:`set`, :meth:`jump_back`.

    Thread-safe. *start* is a datetime with a time zone, or milliseconds since the epoch; by default
    2026-01-01 00:00 UTC.

    Inside a ``with`` all of farthing in this process goes by it (windows, deadlines, reports), from a fresh start:
    no budget, setting or record from before is seen. At its end everything is as it was before::

        with FakeClock() as clock:
            run_my_agent()              # uses up the budget of this day
            clock.advance(hours=24)
            run_my_agent()              # has a new one
    """

    def __init__(self, start: datetime | int = _START) -> None:
        self._lock = threading.Lock()
        self._ms = _to_ms(start)
        self._before: list[tuple[Runtime, Ambient]] = []

    def __enter__(self) -> Self:
        from ..runtime.ambient import NOWHERE, current, enter
        from ..runtime.default import use
        from ..runtime.runtime import Runtime

        self._before.append((use(Runtime(clock=self)), current()))
        enter(NOWHERE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from ..runtime.ambient import enter
        from ..runtime.default import use

        runtime, outside = self._before.pop()
        enter(outside)
        use(runtime).close()

    def __call__(self) -> int:
        with self._lock:
            return self._ms

    @property
    def now(self) -> datetime:
        """The same as a datetime in UTC."""
        return datetime_from_ms(self())

    def advance(
        self, *, milliseconds: int = 0, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0
    ) -> int:
        """Moves forward and returns the new time in milliseconds; ValueError on a step back."""
        step = timedelta(milliseconds=milliseconds, seconds=seconds, minutes=minutes, hours=hours, days=days)
        if step < timedelta(0):
            raise ValueError(f"advance moves forward, not by {step}: use jump_back for a clock that is set back")
        return self._move(step)

    def jump_back(
        self, *, milliseconds: int = 0, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0
    ) -> int:
        """Moves backward, as a clock that is corrected does, and returns the new time in milliseconds."""
        step = timedelta(milliseconds=milliseconds, seconds=seconds, minutes=minutes, hours=hours, days=days)
        if step < timedelta(0):
            raise ValueError(f"jump_back takes how far back, not {step}")
        return self._move(-step)

    def set(self, when: datetime | int) -> int:
        """Sets the time, either way, and returns it in milliseconds."""
        ms = _to_ms(when)
        with self._lock:
            self._ms = ms
        return ms

    def __repr__(self) -> str:
        return f"FakeClock({self.now.isoformat()})"

    def _move(self, step: timedelta) -> int:
        with self._lock:
            self._ms += step // _MS
            return self._ms


def _to_ms(when: datetime | int) -> int:
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError(f"the time must have a time zone: {when!r}")
        return ms_from_datetime(when)
    if type(when) is not int:
        raise ValueError(f"the time must be a datetime or milliseconds since the epoch, not {when!r}")
    return when
