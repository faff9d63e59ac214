"""
``python -m bench.guard [--update]`` (``make bench-quick``): has a call grown, through the proxy or in an SDK?

Counts what each stage executes for a call and compares it with ``baseline.json``, the counts of when somebody last
looked. Exit code 1 if a stage grew by more than a twentieth: then it is made smaller again, or the baseline is moved
with ``--update``, in a commit that says what the growth buys. Processor time, memory and latency: ``python -m bench``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .stages import measure

BASELINE = Path(__file__).parent / "baseline.json"
GREW_BY, AND_BY = 1.05, 30
"""A stage grew if it executes this times as many bytecodes, and this many more: rounding and housekeeping are less."""

Counts = dict[str, dict[str, int]]


def grown(before: Counts, now: Counts) -> list[str]:
    """What grew, in words."""
    found = []
    for kind, stages in now.items():
        for stage, count in stages.items():
            was = before.get(kind, {}).get(stage, 0)
            if count > was * GREW_BY and count > was + AND_BY:
                found.append(f"{kind} call, {stage}: {was:,} → {count:,} bytecodes")
    return found


def show(before: Counts, now: Counts, console: Console) -> None:
    """The cost sheet, beside the baseline."""
    table = Table(title="bytecodes a call (baseline)", title_justify="left")
    table.add_column("stage")
    for kind in now:
        table.add_column(kind, justify="right")
    stages = sorted({stage for counts in now.values() for stage in counts}, key=lambda stage: -_total(now, stage))
    for stage in stages:
        table.add_row(stage, *(_cell(now[kind].get(stage, 0), before.get(kind, {}).get(stage)) for kind in now))
    table.add_section()
    table.add_row("all", *(_cell(sum(now[kind].values()), sum(before.get(kind, {}).values()) or None) for kind in now))
    console.print(table)


def _total(counts: Counts, stage: str) -> int:
    return sum(of.get(stage, 0) for of in counts.values())


def _cell(count: int, was: int | None) -> str:
    return f"{count:,}" if was is None else f"{count:,} ({was:,})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.guard", description=__doc__)
    parser.add_argument("--update", action="store_true", help="move the baseline to today's counts")
    update = parser.parse_args().update
    before: Counts = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    now = measure()
    console = Console(width=max(100, Console().width))
    show(before, now, console)
    if update:
        BASELINE.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
        return 0
    for what in grown(before, now):
        console.print(f"[red]grew[/]: {what}")
    return 1 if grown(before, now) else 0


if __name__ == "__main__":
    sys.exit(main())
