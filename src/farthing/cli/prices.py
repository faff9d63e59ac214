"""``farthing prices``: what models cost, and where each figure comes from."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .. import prices
from ..prices.listing import list_prices
from ..runtime.learning import learned_of
from .amounts import per_million
from .ledger import JsonOption, LedgerOption, learned_ratios
from .running import EXIT_CODES, FAILED, Failure
from .screen import console, print_json

app = typer.Typer(
    help="What models cost, offline, and where each figure comes from.", no_args_is_help=True, epilog=EXIT_CODES
)


@app.command(epilog=EXIT_CODES)
def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As the SDK names it.", show_default=False)],
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="The API that is called: openai, anthropic, azure …")
    ] = None,
    ledger: LedgerOption = None,
    json: JsonOption = False,
) -> None:
    """
    Which price a model gets and why; and what the ledger has learned of how dense its text is, if anything.

    Exit code 1 if it has no price: an unknown price is never zero.
    """
    found = prices.explain(model, provider)
    known = learned_of(learned_ratios(ledger), model)
    if json:
        print_json({**found.to_dict(), "learned": known and known.to_dict()})
    else:
        console().print(str(found), markup=False, soft_wrap=True)
        if known is not None:
            console().print(f"its text is counted as {known}", markup=False, soft_wrap=True)
        if found.how == "unpriced":
            console().print(
                f"Name it in your program: farthing.prices.register({model!r}, input=…, output=…)",
                markup=False,
                soft_wrap=True,
            )
    if found.how == "unpriced":
        raise typer.Exit(FAILED)


@app.command("list", epilog=EXIT_CODES)
def list_(
    pattern: Annotated[
        str | None, typer.Argument(metavar="[PATTERN]", help='A part of the name, or "gpt-4o*".', show_default=False)
    ] = None,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only this provider's.")] = None,
    json: JsonOption = False,
) -> None:
    """The price table: USD per million tokens."""
    found = list(list_prices(provider=provider, pattern=pattern, at_ms=time.time_ns() // 1_000_000))
    if not found:
        raise Failure("no model in the price table matches; `farthing prices list` shows all of it")
    if json:
        print_json({"prices": [price.to_dict() for price in found]})
        return

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("model", overflow="fold", ratio=1)
    table.add_column("provider", no_wrap=True)
    for head in ("input", "cached", "output"):
        table.add_column(head, justify="right", no_wrap=True)
    for price in found:
        cells = ["" if usd is None else per_million(usd) for usd in (price.input, price.cached, price.output)]
        if price.reason is not None:
            cells = ["[yellow]no price[/yellow]", "", ""]
        table.add_row(escape(price.model), escape(price.provider), *cells)
    out = console()
    out.print(table)
    out.print("[dim]USD per million tokens. `farthing prices explain MODEL` says more.[/dim]")
