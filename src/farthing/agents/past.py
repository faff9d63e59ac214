"""What an agent's calls came to, so that the next one's hold is neither far too large nor far too small."""

from __future__ import annotations

from collections import deque

from .. import forks
from ..calls.lending import EXPECTED_OUTPUT
from ..kernel.money import div_ceil

SAMPLES_MAX = 200
PERCENTILE = 95


class Past:
    """Of one agent, in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = forks.lock()
        self._outputs: deque[int] = deque(maxlen=SAMPLES_MAX)
        self._totals: deque[int] = deque(maxlen=SAMPLES_MAX)

    def add(self, *, output: int, total: int) -> None:
        with self._lock:
            self._outputs.append(output)
            self._totals.append(total)

    def expected_output(self) -> int:
        """The output that 95 of 100 calls stay within; 1,024 tokens until there was a call."""
        with self._lock:
            ordered = sorted(self._outputs)
        if not ordered:
            return EXPECTED_OUTPUT
        return max(1, ordered[div_ceil(len(ordered) * PERCENTILE, 100) - 1])

    def typical_total(self) -> int | None:
        """The tokens of a call in the middle; None until there was one."""
        with self._lock:
            ordered = sorted(self._totals)
        return max(1, ordered[len(ordered) // 2]) if ordered else None
