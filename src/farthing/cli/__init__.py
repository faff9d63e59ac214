"""The command line: a door. It parses, calls one thing of ``calls`` or a store, and renders; it holds no rules."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """What the command ``farthing`` runs. Ends in SystemExit with the command's exit code."""
    from .running import run

    sys.exit(run(sys.argv[1:] if argv is None else argv))
