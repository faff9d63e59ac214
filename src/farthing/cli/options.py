"""Options that several commands have: one name, one form and one sentence for one idea."""

from __future__ import annotations

from typing import Annotated

import typer

from ..kernel.instants import instant_ms
from .completing import models
from .failing import as_typed

LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="PATH|URL",
        envvar="FARTHING_LEDGER",
        help="The ledger: a file, or a URL such as sqlite:////srv/ledger.db. Without it your own; `farthing doctor` "
        "says where that is.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with USD as decimal text.")]

SinceOption = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="From then on: a date, an ISO time (UTC), or a span back from now such as 7d."),
]
UntilOption = Annotated[str | None, typer.Option(metavar="WHEN", help="Up to, but not including, then.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Only calls with this tag, model, provider or budget. Repeatable."),
]

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="As the SDK names it.", show_default=False, autocompletion=models)
]
TextOption = Annotated[str | None, typer.Option(metavar="TEXT", help="The prompt; its tokens are counted.")]
FileOption = Annotated[
    typer.FileText | None, typer.Option(metavar="PATH", help="A file with the prompt; - reads standard input.")
]
InputTokensOption = Annotated[str | None, typer.Option(metavar="N", help="How many tokens the input has.")]


def span_of_time(since: str | None, until: str | None, now_ms: int) -> tuple[int | None, int | None]:
    """What --since and --until mean, in milliseconds; None: no bound. Raises UsageMistake."""
    with as_typed():
        return (
            None if since in (None, "all") else instant_ms(since, now_ms, argument="--since"),
            None if until is None else instant_ms(until, now_ms, argument="--until"),
        )
