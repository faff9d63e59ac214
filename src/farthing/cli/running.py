"""
Running a command: what it ends with.

Every failure that is known is one line on stderr, or one JSON object with ``--json``; only a bug prints a traceback.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from ..errors import BudgetExceeded, ConfigError, FarthingError
from .app import app
from .failing import DENIED, DONE, FAILED, INTERRUPTED, USAGE, Failure, UsageMistake

_PARSER_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What the parser raises about a command line. Where the class lives depends on the version of typer."""

_PLAIN = {"–": "-", "—": "-", "·": "|", "→": "->", "…": "...", "×": "x", "ʼ": "'"}
"""Signs that a terminal without Unicode is shown in another way; every other is a "?"."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(argv: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Closed by who started this: whatever is said is for nobody.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as this runs
    codecs.register_error("farthing.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # No output is worth a UnicodeEncodeError.
            stream.reconfigure(errors="farthing.plain")
    code: int | str | None = FAILED
    try:
        code = app(args=list(argv), prog_name="farthing", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except typer.Abort:
        code = INTERRUPTED
    except (FarthingError, UsageMistake, Failure) as error:
        code = _exit_code(error)
        _say(error, argv)
    except _PARSER_ERROR as error:
        code = _say_misread(error, argv)
    except OSError as error:
        if error.errno in _FULL:
            _say(Failure(f"the output cannot be written: {error.strerror}"), argv)
        elif error.errno != errno.EPIPE:
            raise
    full = _flush()
    if full is not None:
        code = FAILED
        _say(Failure(f"the output cannot be written: {full.strerror}"), argv)
    return code if isinstance(code, int) else DONE if code is None else FAILED


def _exit_code(error: Exception) -> int:
    if isinstance(error, BudgetExceeded):
        return DENIED
    return USAGE if isinstance(error, (ConfigError, UsageMistake)) else FAILED


def _say(error: FarthingError | UsageMistake | Failure, argv: Sequence[str]) -> None:
    if "--json" in argv:
        print(json.dumps(error.to_dict()), file=sys.stderr)
        return
    # A configuration file may have several mistakes: one line each.
    mistakes = str(error).splitlines() if isinstance(error, ConfigError) else [str(error)]
    for mistake in mistakes:
        print(f"farthing: {_in_options(' '.join(mistake.split()), argv)}{_another_ledger(mistake)}", file=sys.stderr)


def _another_ledger(said: str) -> str:
    """What to do about the user's own ledger, which stands nowhere in what was typed."""
    from ..stores import default_path

    named = str(default_path()) in said and "--ledger" not in said
    return "; --ledger, or FARTHING_LEDGER, names another ledger" if named else ""


def _in_options(text: str, argv: Sequence[str]) -> str:
    """The field that a message begins with, as the option that was typed: ``--on-exceed='halt' is unknown``."""
    field = re.match(r"[a-z_]+(?=[=: ])", text)
    if field is None:
        return text
    option = "--" + field[0].replace("_", "-")
    typed = any(word == option or word.startswith(f"{option}=") for word in argv)
    return option + text[field.end() :] if typed else text


def _say_misread(error: Any, argv: Sequence[str]) -> int:
    """What the parser says, as everything else is said, and where the options are listed."""
    if type(error).__name__ == "NoArgsIsHelpError":
        # Its help is printed already.
        return USAGE
    said = " ".join(error.format_message().split())
    text = (said[:1].lower() + said[1:]).rstrip(".")
    text += " " if text.endswith("?") else "; "
    context = getattr(error, "ctx", None)
    path = "farthing" if context is None else context.command_path
    _say(UsageMistake(f"{text}`{path} --help` shows what there is"), argv)
    return USAGE


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def _flush() -> OSError | None:
    """
    Write what is buffered now: a reader that has gone must not be heard of at the interpreter's end. What cannot be
    written for another reason is returned.
    """
    full = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            full = full or (None if error.errno == errno.EPIPE else error)
    return full
