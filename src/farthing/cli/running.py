"""
Running a command: what it ends with.

Every failure that is known is one line on stderr, or one JSON object with ``--json``; only a bug prints a traceback.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import BudgetExceeded, ConfigError, FarthingError

DONE, FAILED, USAGE, DENIED = 0, 1, 2, 3
EXIT_CODES = "Exit codes: 0 done · 1 failed · 2 usage or configuration · 3 a budget said no · 130 interrupted."


class UsageMistake(Exception):
    """What was typed is not usable; the message says which part and why."""

    def to_dict(self) -> dict[str, Any]:
        return {"error": "UsageMistake", "message": str(self)}


class Failure(Exception):
    """The command could not do what it was asked; the message says why, and what to do."""

    def to_dict(self) -> dict[str, Any]:
        return {"error": "Failure", "message": str(self)}


@contextmanager
def as_typed() -> Iterator[None]:
    """Around what judges words from the command line: a ValueError about them is a mistake in usage, not a bug."""
    try:
        yield
    except FarthingError:
        raise
    except ValueError as error:
        raise UsageMistake(str(error)) from error


def run(argv: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    from .app import app

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show "█" shows "?": no output is worth a UnicodeEncodeError.
            stream.reconfigure(errors="replace")
    code: int | str | None = FAILED
    try:
        app(args=list(argv), prog_name="farthing")
    except SystemExit as end:
        code = end.code
    except (FarthingError, UsageMistake, Failure) as error:
        code = _exit_code(error)
        _say(error, as_json="--json" in argv)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
    _flush()
    return code if isinstance(code, int) else DONE if code is None else FAILED


def _exit_code(error: Exception) -> int:
    if isinstance(error, BudgetExceeded):
        return DENIED
    return USAGE if isinstance(error, (ConfigError, UsageMistake)) else FAILED


def _say(error: FarthingError | UsageMistake | Failure, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.to_dict()), file=sys.stderr)
        return
    # A configuration file may have several mistakes: one line each.
    mistakes = str(error).splitlines() if isinstance(error, ConfigError) else [str(error)]
    for mistake in mistakes:
        print(f"farthing: {' '.join(mistake.split())}", file=sys.stderr)


def _flush() -> None:
    """Write what is buffered now: a reader that has gone must not be heard of at the interpreter's end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
