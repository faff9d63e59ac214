"""The calls that the museum's tests make: 8 tokens in (``hi`` to gpt-4o), and as much out as the ceiling says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from openai import OpenAI

import farthing
from tests.doors import clients
from tests.doors.clients import HI

LONG = 500
"""The ceiling of a call as the predecessors' experiments made them: 508 tokens in all."""
LONG_SIZE = 508
HAIKU: Mapping[str, Any] = MappingProxyType({"model": "claude-haiku-4-5", "max_tokens": 20, "messages": HI})


def chat(client: OpenAI, ceiling: int | None = LONG, **keywords: Any) -> Any:
    """One chat completion, with that ceiling; None: with none of its own."""
    return clients.chat(client, ceiling, **keywords)


def admitted(call: Callable[[], object]) -> bool:
    """Whether it was allowed."""
    try:
        call()
    except farthing.BudgetExceeded:
        return False
    return True


def in_threads(call: Callable[[], object], number: int) -> int:
    """How many of so many calls were allowed that plain threads made at once."""
    barrier = threading.Barrier(number)
    done: list[bool] = []

    def run() -> None:
        barrier.wait()
        done.append(admitted(call))

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done)
