"""``import farthing``, over an interpreter that imports nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from .bars import Figure


def measure(*, quick: bool) -> list[Figure]:
    """Milliseconds of wall time, each import in a fresh interpreter, in turn with an empty one."""
    pairs = [(_run("import farthing"), _run("pass")) for _ in range(5 if quick else 15)]
    added = statistics.median(ours - empty for ours, empty in pairs)
    empty = statistics.median(empty for _, empty in pairs)
    return [Figure("import farthing", added, "ms", 100, f"an empty interpreter: {empty:.0f} ms")]


def _run(program: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return (time.perf_counter() - started) * 1e3
