"""
``python -m bench [NAME …] [--quick] [--json FILE]``: measure, and hold the figures against their bars.

Names: import, holds, agents, sdk, streams, memory, overspend, proxy, faults, replay, reports; none: all. Exit 1: a bar
was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from . import agents, faults, holds, imports, memory, overspend, proxy, replay, reports, sdk_calls, streams
from .bars import Figure, say_load, show

SUITES: dict[str, Callable[..., list[Figure]]] = {
    "import": imports.measure,
    "holds": holds.measure,
    "agents": agents.measure,
    "sdk": sdk_calls.measure,
    "streams": streams.measure,
    "memory": memory.measure,
    "overspend": overspend.measure,
    "proxy": proxy.measure,
    "faults": faults.measure,
    "replay": replay.measure,
    "reports": reports.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(SUITES)}")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(SUITES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(SUITES)}")
    console = Console(width=max(120, Console().width))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    figures: list[Figure] = []
    for name in arguments.names or SUITES:
        with console.status(f"measuring {name} …"):
            figures += SUITES[name](quick=arguments.quick)
    show(figures, console)
    say_load(console, load, os.cpu_count() or 1)
    if arguments.json:
        arguments.json.write_text(json.dumps([figure.to_dict() for figure in figures], indent=1) + "\n")
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
