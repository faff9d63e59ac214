"""``farthing explain``: would this call pass, and if not, why and when?"""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

from ..errors import ConfigError
from ..kernel.decision import FailedLine
from .amounts import pairs_from_texts
from .ledger import JsonOption, LedgerOption, open_runtime
from .running import DENIED, UsageMistake, as_typed
from .screen import console, print_json


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As the SDK names it.", show_default=False)],
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="The prompt; its tokens are counted.")] = None,
    file: Annotated[
        typer.FileText | None, typer.Option(metavar="PATH", help="A file with the prompt; - reads standard input.")
    ] = None,
    input_tokens: Annotated[int | None, typer.Option(metavar="N", help="How many tokens the input has.")] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="The output ceiling of the call; without it a budget sets one.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG=VALUE", help="Whose call it is, such as user=alice; repeatable.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A budget that binds only where a program names it; repeatable."),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which API, where the model's name alone does not say.")
    ] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    Would this call pass the budgets of a ledger now? If not: which budget, its figures, and when. Nothing is sent or
    held. Exit code 3 if it would be denied.
    """
    from ..reports.explaining import call_for, explain_call
    from ..runtime.ambient import NOWHERE, Binding

    given = [part for part in (text, file, input_tokens) if part is not None]
    if len(given) > 1:
        raise UsageMistake("give one of --text, --file and --input-tokens")
    prompt = file.read() if file is not None else text or ""
    tags = pairs_from_texts(tag, option="--tag") or {}
    with open_runtime(ledger, as_json=json) as runtime, as_typed():
        ambient = NOWHERE.with_tags(tags)
        known = runtime.main.catalogue.budgets
        for name in budget or ():
            if name not in known:
                raise ConfigError(f"no budget is named {name!r} in this ledger", key="--budget")
            ambient = ambient.with_binding(Binding(known[name], os.getpid()))
        call = call_for(
            runtime,
            ambient,
            model,
            prompt,
            provider=provider,
            max_output_tokens=max_output_tokens,
            input_tokens=input_tokens if given else None,
        )
        found = explain_call(call)
    if json:
        print_json(found.to_dict())
    else:
        out = console()
        out.print("[green]allowed[/green]" if found.allowed else "[red]denied[/red]")
        for step in found.steps:
            out.print(f"  {step}", markup=False, soft_wrap=True)
        _print_lines(out, found.decision.failed or ((found.tightest,) if found.tightest else ()))
        if not found.allowed and not found.decision.failed:
            out.print(found.decision.message(), markup=False, soft_wrap=True)
        for line in found.shadow:
            out.print(f"  budget {line.budget!r} (on_exceed='warn') would have denied it", style="yellow", markup=False)
        out.print(found.passes, markup=False, soft_wrap=True)
    if not found.allowed:
        raise typer.Exit(DENIED)


def _print_lines(out: Console, lines: tuple[FailedLine, ...]) -> None:
    for line in lines:
        out.print(f"  {line.figures_text()}", markup=False, soft_wrap=True)
