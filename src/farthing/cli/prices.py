"""``farthing prices``: what models cost, and where each figure comes from."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .. import prices
from ..prices.listing import list_prices
from ..runtime.learning import learned_of
from ..stores.contract import wall_clock_ms
from .amounts import per_million
from .completing import providers
from .failing import FAILED, Failure, as_typed
from .helping import command, group
from .ledger import learned_ratios
from .options import JsonOption, LedgerOption, ModelArgument
from .screen import console, print_json, print_table

app = group("What models cost, offline, and where each figure comes from.")


@command(app, examples=("farthing prices explain gpt-4o", "farthing prices explain gpt-4o --provider azure"))
def explain(
    model: ModelArgument,
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=providers,
            help="Whose price, where the model's name alone does not say, such as azure.",
        ),
    ] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    The price of one model, and where it comes from.

    Also how its text is counted, where the ledger has learned that from bills. The exit code is 1 if no price is known:
    an unknown price is never zero.
    """
    with as_typed():
        prices.check_provider(provider, model)
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


@command(app, "list", examples=("farthing prices list gpt-4o", "farthing prices list 'claude-*' --provider anthropic"))
def list_(
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="PATTERN", help="A part of the name, or a pattern such as 'gpt-4o*'.", show_default=False
        ),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", autocompletion=providers, help="Only the prices of this provider.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """The price table, in USD per million tokens."""
    found = list(list_prices(provider=provider, pattern=pattern, at_ms=wall_clock_ms()))
    if not found:
        with as_typed():
            prices.check_provider(provider, pattern or "")
        raise Failure("no model in the price table matches; `farthing prices list` shows the whole table")
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
    print_table(table)
    console().print("[dim]USD per million tokens. `farthing prices explain MODEL` says more.[/dim]")
