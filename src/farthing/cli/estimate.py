"""``farthing estimate``: what a call can cost at most, without making it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import prices, tokens
from ..errors import UnpricedModel
from ..kernel.money import format_usd, nano_of_usd
from ..runtime.learning import learned_of
from .amounts import count_from_text, per_million
from .completing import providers
from .failing import UsageMistake, as_typed
from .ledger import learned_ratios
from .options import FileOption, InputTokensOption, JsonOption, LedgerOption, ModelArgument, TextOption
from .screen import console, print_json

EXAMPLES = (
    'farthing estimate gpt-4o --text "Hello" --max-output-tokens 500',
    "farthing estimate gpt-4o --file prompt.txt --max-output-tokens 500 --json",
    "farthing estimate claude-sonnet-4-5 --input-tokens 20k",
)


def estimate(
    model: ModelArgument,
    text: TextOption = None,
    file: FileOption = None,
    input_tokens: InputTokensOption = None,
    max_output_tokens: Annotated[
        str, typer.Option(metavar="N", help="The output ceiling of the call. Without it only the input is counted.")
    ] = "0",
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", autocompletion=providers, help="Whose price, where the model's name alone does not say."
        ),
    ] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    What a call can cost at most: that is what a budget would hold for it. No call is made.

    Where a model has no public tokeniser, its text is counted too high rather than too low, and closer to the truth
    once the ledger has seen what its calls were billed.
    """
    given = [part for part in (text, file, input_tokens) if part is not None]
    if len(given) > 1:
        raise UsageMistake("give only one of --text, --file and --input-tokens")
    count = count_from_text(input_tokens, option="--input-tokens") or 0
    most = count_from_text(max_output_tokens, option="--max-output-tokens") or 0
    if file is not None:
        text = file.read()
    known = None if text is None else learned_of(learned_ratios(ledger), model)
    with as_typed():
        prices.check_provider(provider, model)
        if text is not None:
            messages = [{"role": "user", "content": text}]
            count = tokens.count(messages, model, family=known and known.family)
        cost = prices.estimate(model, count, most, provider=provider)
        price = prices.explain(model, provider)
    exact = text is None or tokens.family_of(model).exact
    if price.how == "unpriced":
        raise UnpricedModel(model, provider=provider)
    if json:
        print_json(
            {
                "model": model,
                "input_tokens": count,
                "input_tokens_exact": exact,
                "learned": known and known.to_dict(),
                "max_output_tokens": most,
                "usd": format(cost, "f"),
                "price": price.to_dict(),
            }
        )
        return
    out = console()
    rates = price.usd_per_million
    out.print(f"[bold]{format_usd(nano_of_usd(cost))}[/bold] at most")
    about = "" if exact else " (an upper estimate)"
    if known is not None:
        out.print(f"  text is counted as {known}", style="dim", markup=False, soft_wrap=True)
    out.print(f"  {count:,} tokens of input{about}, {per_million(rates['input'])} per million tokens", markup=False)
    out.print(f"  {most:,} tokens of output, {per_million(rates['output'])} per million tokens", markup=False)
    priced_as = f"  {price.matched_provider}/{price.matched_model}, {price.source}"
    out.print(priced_as, style="dim", markup=False, soft_wrap=True)
    if not given:
        print("Give --text, --file or --input-tokens to count the input.", file=sys.stderr)
    if not most:
        print("Give --max-output-tokens to count the output.", file=sys.stderr)
