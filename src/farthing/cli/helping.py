"""
Commands as ``--help`` shows them: what a command is for, its options, lines that can be copied, and what it exits with.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from .failing import EXIT_CODES

Function = TypeVar("Function", bound=Callable[..., Any])

EXAMPLES = "Examples:"
"""What stands above them in a command's epilog; each follows on a line of its own."""


class _Command(TyperCommand):
    """Its parameters are shown by their metavars alone: ``--json <bool>`` looks as if a word had to follow."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    """As :class:`_Command`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def group(help_text: str, *, name: str | None = None, completion: bool = False) -> typer.Typer:
    """What has commands of its own, and shows them if none is given."""
    return typer.Typer(
        name=name,
        help=help_text,
        cls=_Group,
        no_args_is_help=True,
        add_completion=completion,
        epilog=EXIT_CODES,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def command(app: typer.Typer, name: str | None = None, *, examples: Sequence[str]) -> Callable[[Function], Function]:
    """
    Register a function as a command. Lists of commands have the first sentence of its docstring, its own help all of
    it. *examples* are whole command lines; the tests run each.
    """

    def register(function: Function) -> Function:
        text = _reflowed(inspect.cleandoc(function.__doc__ or ""))
        lines = "\n".join(f"  {line}" for line in examples)
        app.command(
            name,
            cls=_Command,
            help=text,
            short_help=_first_sentence(text),
            epilog=f"{EXAMPLES}\n{lines}\n\n{EXIT_CODES}",
        )(function)
        return function

    return register


def _reflowed(text: str) -> str:
    """Each paragraph on one line: a terminal wraps it where its own width says so."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _first_sentence(text: str) -> str:
    first, stop, _ = text.partition("\n\n")[0].partition(". ")
    return first + "." if stop else first


def _without_types(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
        if parameter.param_type_name == "argument":
            # NAME says what it is; the parser would add "<str>" to it, and braces to a required one.
            parameter.display_type_rich = lambda ctx: None
            if parameter.required:
                parameter.get_usage_pieces = lambda ctx, name=parameter.metavar: [name]
    return parameters
