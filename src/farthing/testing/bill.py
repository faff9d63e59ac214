"""The provider's own account: what it really billed, whatever its answers said and whoever heard them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..kernel.money import NANO_PER_USD, div_half_up, usd_from_nano
from ..kernel.usage import Usage

Rates = Mapping[str, Sequence[Decimal | int | float | str]]
"""
USD per million tokens, by model: ``(input, output)``, and if you like the rates of cache reads and cache writes after
them (else those cost what input costs).
"""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that arrived, answered or not."""

    number: int
    """From 1, in order of arrival."""
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)
    json: Any
    """The parsed body; None if it is not JSON."""
    attempt: int
    """Which attempt of the SDK's this is, from 1, by its own ``x-stainless-retry-count``; 1 where it says nothing."""
    at: int
    """Milliseconds since the epoch, by the provider's clock."""


@dataclass(frozen=True, slots=True)
class Billed:
    """One line of the bill."""

    model: str
    usage: Usage
    at: int
    """Milliseconds since the epoch, by the provider's clock: when generation ended."""
    path: str
    aborted: bool
    """The client was gone, or the answer broken off, before it was all generated."""
    request: RecordedRequest = field(repr=False)


class Account:
    """Requests, calls in flight and bill lines of one provider. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: list[RecordedRequest] = []
        self._bill: list[Billed] = []
        self._arrived = 0
        self.in_flight = 0
        self.max_in_flight = 0

    def next_number(self) -> int:
        with self._changed:
            self._arrived += 1
            return self._arrived

    def arrived(self, request: RecordedRequest) -> None:
        with self._changed:
            self._requests.append(request)

    def began(self) -> None:
        with self._changed:
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self._changed.notify_all()

    def ended(self, line: Billed | None) -> None:
        """Generation is over; *line* is what it cost, None for nothing."""
        with self._changed:
            self.in_flight -= 1
            if line is not None:
                self._bill.append(line)
            self._changed.notify_all()

    def wait(self, in_flight: int, *, at_least: bool, deadline: float) -> bool:
        """Waits until so many calls are in flight; False if *deadline* (monotonic seconds) passes first."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.in_flight >= in_flight if at_least else self.in_flight <= in_flight,
                timeout=max(0.0, deadline - time.monotonic()),
            )

    def requests(self) -> list[RecordedRequest]:
        with self._changed:
            return list(self._requests)

    def lines(self) -> list[Billed]:
        with self._changed:
            return list(self._bill)

    def forget(self) -> None:
        with self._changed:
            self._requests.clear()
            self._bill.clear()


def cost_nano(usage: Usage, rates: Sequence[Decimal | int | float | str]) -> int:
    """Nano-dollars of one call, rounded half up, once."""
    if not 2 <= len(rates) <= 4:
        raise ValueError(f"rates are (input, output[, cached[, cache_write]]) in USD per 1M tokens, not {rates!r}")
    per_token = [Fraction(str(rate)) * NANO_PER_USD / 1_000_000 for rate in rates]
    fresh, out = per_token[:2]
    cached = per_token[2] if len(rates) > 2 else fresh
    written = per_token[3] if len(rates) > 3 else fresh
    others = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    cost = (
        others * fresh + usage.cached_tokens * cached + usage.cache_write_tokens * written + usage.output_tokens * out
    )
    return div_half_up(cost.numerator, cost.denominator)


def total_nano(lines: Sequence[Billed], rates: Rates) -> int:
    """Nano-dollars of all lines. Raises ValueError naming a model that has no rate."""
    unknown = sorted({line.model for line in lines} - set(rates))
    if unknown:
        raise ValueError(f"no rate is given for {', '.join(unknown)}")
    return sum(cost_nano(line.usage, rates[line.model]) for line in lines)


def total_usd(lines: Sequence[Billed], rates: Rates) -> Decimal:
    """The same in USD, exact."""
    return usd_from_nano(total_nano(lines, rates))
