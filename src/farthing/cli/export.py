"""``farthing export``: the ledger's rows, for other programs."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ..kernel.instants import instant_ms
from ..reports.exporting import FORMATS, export_rows, to_lines
from .amounts import names_from_texts, number_of, pairs_from_texts
from .ledger import LedgerOption, open_ledger
from .running import UsageMistake, as_typed


def export(
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="csv|jsonl", help="By the name of the file if not given; else jsonl."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to the screen.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Rows written from then on: a date, an ISO time (UTC), a span such as 7d."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Up to, but not including, then.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only calls with this tag, model, provider or budget; may be repeated."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG,…", help="csv: a column of its own for this tag.")
    ] = None,
    ledger: LedgerOption = None,
) -> None:
    """Every row of the ledger, one call each: id, times, model, tags, tokens, cost, how it ended. CSV or JSON lines."""
    form = form or ("csv" if output is not None and output.suffix.lower() == ".csv" else "jsonl")
    if form not in FORMATS:
        raise UsageMistake(f"--format is one of {', '.join(FORMATS)}, not {form!r}")
    wanted = pairs_from_texts(where, option="--where")
    with open_ledger(ledger, as_json=output is None) as store:
        now_ms = store.now()
        with as_typed():
            since_ms = None if since in (None, "all") else instant_ms(since, now_ms, argument="--since")
            until_ms = None if until is None else instant_ms(until, now_ms, argument="--until")
        rows = export_rows(store, since_ms=since_ms, until_ms=until_ms, where=wanted)
        written = 0
        file = nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8", newline="")
        with file as out:
            for line in to_lines(rows, form=form, tags=names_from_texts(tag)):
                out.write(line)
                written += 1
    if output is not None:
        print(f"{output}: {number_of(written - (form == 'csv'), 'row')}")
