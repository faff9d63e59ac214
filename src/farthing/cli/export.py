"""``farthing export``: the ledger's rows, for other programs."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, TextIO

import typer

from ..reports.exporting import FORMATS, export_rows, to_lines
from .amounts import names_from_texts, number_of, pairs_from_texts
from .completing import one_of
from .failing import Failure, UsageMistake
from .ledger import open_ledger
from .options import LedgerOption, SinceOption, UntilOption, WhereOption, span_of_time

EXAMPLES = (
    "farthing export --since 7d",
    "farthing export --output calls.csv",
    "farthing export --format csv --column feature,user --where feature=search",
)


def export(
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="csv|jsonl",
            autocompletion=one_of(*FORMATS),
            help="csv for a file named .csv if not given, else jsonl.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="Write to this file instead of standard output."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    where: WhereOption = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="TAG,…", help="In CSV, a column of its own for this tag. Repeatable.")
    ] = None,
    ledger: LedgerOption = None,
) -> None:
    """
    Every row of the ledger, for other programs: one call each, with its times, model, tags, tokens, cost and ending.

    As CSV or as JSON lines. A row of kind "correction" is a later truth about a call: its figures are differences.
    """
    form = form or ("csv" if output is not None and output.suffix.lower() == ".csv" else "jsonl")
    if form not in FORMATS:
        raise UsageMistake(f"--format is one of {', '.join(FORMATS)}, not {form!r}")
    wanted = pairs_from_texts(where, option="--where", form="KEY=VALUE")
    with open_ledger(ledger, as_json=output is None) as store:
        since_ms, until_ms = span_of_time(since, until, store.now())
        rows = export_rows(store, since_ms=since_ms, until_ms=until_ms, where=wanted)
        written = 0
        file = nullcontext(sys.stdout) if output is None else _opened(output)
        with file as out:
            for line in to_lines(rows, form=form, tags=names_from_texts(column)):
                out.write(line)
                written += 1
    if output is not None:
        print(f"{output}: {number_of(written - (form == 'csv'), 'row')}")


def _opened(output: Path) -> TextIO:
    try:
        return output.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise Failure(f"{output} cannot be written: {error.strerror or error}") from error
