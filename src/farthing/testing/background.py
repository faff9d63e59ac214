"""
Responses that run in the background: kept under their ids, and told to whoever asks.

A response that was created with ``background`` is queued; asked for, it is in progress as often as its reply says, then
it is over, and billed. Cancelling one that is not over bills half of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from .endpoint import Body

KEPT_MAX = 10_000


@dataclass(slots=True)
class Job:
    """One response: its body when it is over, how it is billed, and how often it is still in progress."""

    done: Body
    total_tokens: int
    generated: Callable[[int, bool], None]
    polls: int
    over: Body | None = None

    def unfinished(self, status: str) -> Body:
        """As it is before it is over: nothing of its output, and no usage."""
        return {**self.done, "status": status, "output": [], "usage": None, "incomplete_details": None}


class Background:
    """All such responses of one provider. Thread-safe."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def queue(self, job: Job) -> Body:
        """Take it on; what its creation answers."""
        with self._lock:
            if len(self._jobs) >= KEPT_MAX:
                del self._jobs[next(iter(self._jobs))]
            self._jobs[job.done["id"]] = job
        return job.unfinished("queued")

    def ask(self, response_id: str) -> Body | None:
        """How it stands; None if there is none of this id."""
        with self._lock:
            job = self._jobs.get(response_id)
            if job is None or job.over is not None:
                return None if job is None else job.over
            if job.polls:
                job.polls -= 1
                return job.unfinished("in_progress")
            job.over = job.done
        job.generated(0 if job.over["status"] == "failed" else job.total_tokens, False)
        return job.over

    def cancel(self, response_id: str) -> Body | None:
        """Stop it; None if there is none of this id."""
        with self._lock:
            job = self._jobs.get(response_id)
            if job is None or job.over is not None:
                return None if job is None else job.over
            job.over = job.unfinished("cancelled")
        job.generated(job.total_tokens // 2, True)
        return job.over
