"""
The line of those who wait for a budget (``on_exceed="wait"``): first come, first served in this process.

Arrivals are numbered; whoever has the lowest number among all that wait for one of the same budgets may try. Other
processes are not in the line: everyone looks again after a short, jittered pause.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

PAUSE_FIRST_SECONDS = 0.002
PAUSE_MOST_SECONDS = 0.05


class Line:
    """All who wait in one process. Thread-safe: one dict, changed by single operations."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: dict[int, frozenset[str]] = {}

    @property
    def is_waited_in(self) -> bool:
        """Whether anybody waits at all."""
        return bool(self._waiting)

    def join(self, budgets: frozenset[str]) -> Place:
        """Take the last place for these budgets."""
        number = next(self._numbers)
        self._waiting[number] = budgets
        return Place(self, number)

    def waits_for(self, budgets: frozenset[str]) -> bool:
        """Whether somebody waits for one of these budgets."""
        return any(names & budgets for names in list(self._waiting.values()))


class Place:
    """One waiting call's place."""

    def __init__(self, line: Line, number: int) -> None:
        self._line = line
        self._number = number
        self._pause = PAUSE_FIRST_SECONDS

    @property
    def is_first(self) -> bool:
        """Nobody who came before waits for one of the same budgets."""
        waiting = self._line._waiting
        mine = waiting[self._number]
        return not any(number < self._number and names & mine for number, names in list(waiting.items()))

    def widen(self, budgets: frozenset[str]) -> None:
        """Wait for these budgets as well, without losing the place."""
        self._line._waiting[self._number] |= budgets

    def pause(self, random: Callable[[], float]) -> float:
        """How long to wait before looking again, in seconds: longer each time, and never in step with others."""
        seconds = self._pause * (0.5 + random())
        self._pause = min(PAUSE_MOST_SECONDS, self._pause * 1.5)
        return seconds

    def leave(self) -> None:
        """Give the place up. Idempotent."""
        self._line._waiting.pop(self._number, None)
