"""How a command fails: what was typed wrong, what could not be done, and the code that it exits with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from ..errors import FarthingError

DONE, FAILED, USAGE, DENIED, INTERRUPTED = 0, 1, 2, 3, 130
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


def confirm(question: str) -> None:
    """Ask on stderr. Raises Failure unless the answer is yes."""
    try:
        if typer.confirm(question, err=True):
            return
    except typer.Abort:
        print(file=sys.stderr)  # nobody answered: the question has its line still open
    raise Failure("nothing was changed; --yes answers the question beforehand")
