"""
A whole governed SDK call over the ungoverned one, in turn, with a transport that answers at once: what farthing adds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import httpx2
from openai import OpenAI

import farthing

from .answers import ANSWER
from .bars import Figure

WORDS = "budget ledger settle window account scope usage token money hold ".split()


class Instant(httpx2.BaseTransport):
    """Answers every request with the same body, at once."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": "application/json", "content-length": str(len(ANSWER))}
        return httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(ANSWER))


def measure(*, quick: bool) -> list[Figure]:
    """Microseconds of processor time that farthing adds to a call."""
    rounds, calls = (5, 100) if quick else (15, 200)
    return [
        _added("short prompt, 1 budget", rounds, calls, lambda _: "hi", budgets=1, bar=150),
        _added("short prompt, 3 nested budgets", rounds, calls, lambda _: "hi", budgets=3, bar=150),
        _added("new 16k-token prompt, 3 nested budgets", rounds, calls // 4, _long_prompt, budgets=3, bar=1_000),
    ]


def ungoverned() -> OpenAI:
    """A client that is answered at once."""
    return OpenAI(api_key="x", base_url="http://bench.invalid/v1", http_client=httpx2.Client(transport=Instant()))


def governed() -> OpenAI:
    """The same, instrumented."""
    return farthing.instrument(ungoverned())


def ask(client: OpenAI, prompts: Iterable[str]) -> None:
    """A call for each prompt, one after the other."""
    for prompt in prompts:
        message: Any = {"role": "user", "content": prompt}
        client.chat.completions.create(model="gpt-4o", messages=[message], max_tokens=50)


def _added(
    what: str, rounds: int, calls: int, prompt: Callable[[int], str], *, budgets: int, bar: float | None
) -> Figure:
    plain, with_budgets = ungoverned(), governed()
    farthing.reset()
    differences, alone = [], []
    with ExitStack() as stack:
        for _ in range(budgets):
            stack.enter_context(farthing.budget(usd=1_000_000, tokens=10**12))
        number = 0
        for turn in range(rounds + 1):
            prompts = [prompt(number + index) for index in range(calls)]
            number += calls
            without, with_us = _time(plain, prompts), _time(with_budgets, prompts)
            if turn:
                differences.append(with_us - without)
                alone.append(without)
    beside = f"the call without us: {statistics.median(alone):.0f} µs"
    return Figure(f"governed SDK call, {what}: added", statistics.median(differences), "µs", bar, beside)


def _time(client: OpenAI, prompts: list[str]) -> float:
    started = time.process_time()
    ask(client, prompts)
    return (time.process_time() - started) / len(prompts) * 1e6


def _long_prompt(number: int) -> str:
    """About 16,000 tokens that were not counted before."""
    return f"{number} " + " ".join(f"{word} {number + index}" for index in range(700) for word in WORDS)[:64_000]
