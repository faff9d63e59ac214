"""
The confidence gate: an answer that is good enough ends the spending on its task, and on no other.

The last answer outside of any named task is kept on the contract (``last_confidence``), those of named tasks here. Both
live in their process: another process of the same pool has gates of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from .. import forks

TASKS_MAX = 10_000
"""Tasks of one agent that are remembered; the oldest are forgotten first."""


class Answer(NamedTuple):
    """The last answer of a task."""

    confidence: float
    result: Any


class Gates:
    """The tasks of one agent. Thread-safe."""

    def __init__(self) -> None:
        self._lock = forks.lock()
        self._answers: OrderedDict[str | None, Answer] = OrderedDict()

    def answer(self, task: str | None) -> Answer | None:
        """The last answer of this task."""
        with self._lock:
            return self._answers.get(task)

    def put(self, task: str | None, answer: Answer) -> None:
        with self._lock:
            self._answers[task] = answer
            self._answers.move_to_end(task)
            while len(self._answers) > TASKS_MAX:
                self._answers.popitem(last=False)

    def forget(self, task: str | None) -> None:
        with self._lock:
            self._answers.pop(task, None)

    def forget_all(self) -> None:
        """Of every task, named or not."""
        with self._lock:
            self._answers.clear()
