"""
The line of those who wait for a budget (``on_exceed="wait"``): first come, first served in this process.

Arrivals are numbered; whoever has the lowest number among all that wait for one of the same accounts may try: of a
budget that has one for each user, a user who has used theirs up keeps no other waiting. Other processes are not in the
line: everyone looks again after a short, jittered pause.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

from ..kernel.budget import Budget

Queue = tuple[str | None, ...]
"""What is waited for: the name of a budget, and the values of its ``each`` tags; whatever the window."""

PAUSE_FIRST_SECONDS = 0.002
PAUSE_MOST_SECONDS = 0.05


def queue_of(budget: Budget, tags: Mapping[str, str | None]) -> Queue:
    """The line for the account of this budget that a call with these tags falls into."""
    return (budget.name, *[tags.get(name) for name in budget.each])


class Line:
    """All who wait in one process. Thread-safe: one dict, changed by single operations."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.waiting: dict[int, frozenset[Queue]] = {}
        """By number, what each of them waits for."""

    def join(self, queues: frozenset[Queue]) -> Place:
        """Take the last place in these queues."""
        number = next(self._numbers)
        self.waiting[number] = queues
        return Place(self, number)

    def waits_for(self, queues: frozenset[Queue]) -> bool:
        """Whether somebody waits in one of these queues."""
        return any(waiting & queues for waiting in list(self.waiting.values()))


class Place:
    """One waiting call's place."""

    def __init__(self, line: Line, number: int) -> None:
        self._line = line
        self._number = number
        self._pause = PAUSE_FIRST_SECONDS

    @property
    def is_first(self) -> bool:
        """Nobody who came before waits in one of the same queues."""
        waiting = self._line.waiting
        mine = waiting[self._number]
        return not any(number < self._number and queues & mine for number, queues in list(waiting.items()))

    def widen(self, queues: frozenset[Queue]) -> None:
        """Wait in these queues as well, without losing the place."""
        self._line.waiting[self._number] |= queues

    def pause(self, random: Callable[[], float]) -> float:
        """How long to wait before looking again, in seconds: longer each time, and never in step with others."""
        seconds = self._pause * (0.5 + random())
        self._pause = min(PAUSE_MOST_SECONDS, self._pause * 1.5)
        return seconds

    def leave(self) -> None:
        """Give the place up. Idempotent."""
        self._line.waiting.pop(self._number, None)
