"""``farthing estimate``: what a call can cost at most, without making it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import prices, tokens
from ..errors import UnpricedModel
from ..kernel.money import format_usd, nano_of_usd
from ..runtime.learning import learned_of
from .amounts import per_million
from .ledger import JsonOption, LedgerOption, learned_ratios
from .running import UsageMistake, as_typed
from .screen import console, print_json


def estimate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As the SDK names it.", show_default=False)],
    input_tokens: Annotated[int | None, typer.Option(metavar="N", help="How many tokens the input has.")] = None,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="The prompt itself; its tokens are counted.")] = None,
    file: Annotated[
        typer.FileText | None, typer.Option(metavar="PATH", help="A file with the prompt; - reads standard input.")
    ] = None,
    max_output_tokens: Annotated[int, typer.Option(metavar="N", help="The output ceiling of the call.")] = 0,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose price, where the model's name alone does not say.")
    ] = None,
    ledger: LedgerOption = None,
    json: JsonOption = False,
) -> None:
    """
    What a call can cost at most: this is what a budget would hold for it. No call is made.

    Text of models without a public tokeniser is counted by what the ledger has learned of them, if there is one.
    """
    given = [part for part in (input_tokens, text, file) if part is not None]
    if len(given) > 1:
        raise UsageMistake("give one of --input-tokens, --text and --file")
    if file is not None:
        text = file.read()
    known = None if text is None else learned_of(learned_ratios(ledger), model)
    with as_typed():
        if text is not None:
            messages = [{"role": "user", "content": text}]
            input_tokens = tokens.count(messages, model, family=known and known.family)
        cost = prices.estimate(model, input_tokens or 0, max_output_tokens, provider=provider)
        price = prices.explain(model, provider)
    exact = text is None or tokens.family_of(model).exact
    if price.how == "unpriced":
        raise UnpricedModel(model, provider=provider)
    if json:
        print_json(
            {
                "model": model,
                "input_tokens": input_tokens or 0,
                "input_tokens_exact": exact,
                "learned": known and known.to_dict(),
                "max_output_tokens": max_output_tokens,
                "usd": format(cost, "f"),
                "price": price.to_dict(),
            }
        )
        return
    out = console()
    rates = price.usd_per_million
    out.print(f"[bold]{format_usd(nano_of_usd(cost))}[/bold] at most")
    about = "" if exact else ", an upper estimate"
    if known is not None:
        out.print(f"  text is counted as {known}", style="dim", markup=False, soft_wrap=True)
    out.print(
        f"  {input_tokens or 0:,} tokens of input{about}, {per_million(rates['input'])} per million", markup=False
    )
    out.print(f"  {max_output_tokens:,} tokens of output, {per_million(rates['output'])} per million", markup=False)
    out.print(f"  {price.matched_provider}/{price.matched_model}, {price.source}", style="dim", markup=False)
    if not max_output_tokens:
        print("Give --max-output-tokens to add the output.", file=sys.stderr)
