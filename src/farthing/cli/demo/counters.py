"""
The two ways to keep a budget that the demo compares. Both are asked before a call and told its cost afterwards.

:class:`CheckThenRecord` is what most programs do, written as well as it can be: the check is right, the addition is
locked. It fails all the same, for between its check and its record the money is spent and nobody knows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from ...errors import BudgetExceeded
from ...kernel.money import div_half_up


@dataclass(frozen=True, slots=True)
class Tariff:
    """What the demo's model costs, in USD per million tokens, as the price table says."""

    input: Decimal
    output: Decimal

    def cost_nano(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars of one call, rounded half up."""
        cost = 1000 * (input_tokens * Fraction(self.input) + output_tokens * Fraction(self.output))
        return div_half_up(cost.numerator, cost.denominator)


class Refused(Exception):
    """The counter said no, or a proxy. ``had_room``: the call would have fit, by the refusal's own figures."""

    def __init__(self, *, had_room: bool = False) -> None:
        super().__init__()
        self.had_room = had_room


class CheckThenRecord:
    """Read what is spent; if that is below the limit, call; then add the cost."""

    def __init__(self, limit_nano: int, tariff: Tariff) -> None:
        self.limit_nano = limit_nano
        self.spent_nano = 0
        self._tariff = tariff
        self._adding = threading.Lock()

    def check(self) -> None:
        if self.spent_nano >= self.limit_nano:
            raise Refused

    def record(self, usage: tuple[int, int]) -> None:
        with self._adding:
            self.spent_nano += self._tariff.cost_nano(*usage)

    def call(self, make: Callable[[], tuple[int, int]]) -> None:
        self.check()
        self.record(make())


@dataclass(slots=True)
class Tally:
    """What became of the calls of one scene, as their callers saw it. Thread-safe."""

    tried: int = 0
    answered: int = 0
    denied: int = 0
    denied_with_room: int = 0
    """Denied although the call would have fit at that instant, by the figures of the denial itself."""
    failures: list[Exception] = field(default_factory=list)
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def attempt(self, make: Callable[[], object]) -> None:
        """Make one call and count what becomes of it. What is no denial is kept, and raised when the scene is over."""
        try:
            make()
        except BudgetExceeded as denied:
            with self._counting:
                self.tried += 1
                self.denied += 1
                self.denied_with_room += denied.asked <= denied.remaining
        except Refused as refused:
            with self._counting:
                self.tried += 1
                self.denied += 1
                self.denied_with_room += refused.had_room
        except Exception as error:  # noqa: BLE001 - kept for the scene's own thread, which raises it
            with self._counting:
                self.failures.append(error)
        else:
            with self._counting:
                self.tried += 1
                self.answered += 1
