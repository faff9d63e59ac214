"""``farthing explain``: would this call pass, and if not, why and when?"""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

from ..kernel.decision import FailedLine
from ..kernel.scope import matches
from .amounts import count_from_text, pairs_from_texts
from .completing import budget_names, providers
from .failing import DENIED, UsageMistake, as_typed
from .ledger import open_runtime
from .options import FileOption, InputTokensOption, JsonOption, LedgerOption, ModelArgument, TextOption
from .screen import console, print_json

EXAMPLES = (
    'farthing explain gpt-4o --text "Hello" --max-output-tokens 500',
    "farthing explain gpt-4o --file prompt.txt --tag user=alice --budget search",
    "farthing explain gpt-4o --input-tokens 20k --json",
)


def explain(
    model: ModelArgument,
    text: TextOption = None,
    file: FileOption = None,
    input_tokens: InputTokensOption = None,
    max_output_tokens: Annotated[
        str | None, typer.Option(metavar="N", help="The output ceiling of the call. Without it the budgets set one.")
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", autocompletion=providers, help="Which API, where the model's name alone does not say."
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG=VALUE", help="Whose call it is, such as user=alice. Repeatable.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            autocompletion=budget_names,
            help="Also this budget, of those that bind only where a program names them. Repeatable.",
        ),
    ] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    Would this call pass the budgets of a ledger now? If not: which budget says no, its figures, and when it would pass.

    Nothing is sent, and nothing is held. The exit code is 3 if it would be denied.
    """
    from ..reports.explaining import call_for, explain_call
    from ..runtime.ambient import NOWHERE, Binding

    given = [part for part in (text, file, input_tokens) if part is not None]
    if len(given) > 1:
        raise UsageMistake("give only one of --text, --file and --input-tokens")
    prompt = file.read() if file is not None else text or ""
    tags = pairs_from_texts(tag, option="--tag") or {}
    with open_runtime(ledger, as_json=json) as runtime, as_typed():
        ambient = NOWHERE.with_tags(tags)
        known = runtime.main.catalogue.budgets
        by_name = sorted(name for name, of in known.items() if not of.standing and of.lending is None)
        for name in budget or ():
            if name not in known:
                raise UsageMistake(
                    f"--budget: no budget is named {name!r} in this ledger; `farthing budgets list` shows all of them"
                )
            ambient = ambient.with_binding(Binding(known[name], os.getpid()))
        call = call_for(
            runtime,
            ambient,
            model,
            prompt,
            provider=provider,
            max_output_tokens=count_from_text(max_output_tokens, option="--max-output-tokens"),
            input_tokens=count_from_text(input_tokens, option="--input-tokens") if given else None,
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
        for name in budget or ():
            scope = dict(known[name].scope)
            if not matches(scope, tags):
                needed = " ".join(f"--tag {tag}={value}" for tag, value in scope.items())
                out.print(
                    f"Left out: budget {name!r} binds only calls of its scope, so ask with {needed}",
                    style="dim",
                    markup=False,
                    soft_wrap=True,
                )
        if not found.budgets and by_name and not budget:
            # Asked for by somebody whose program names them: "no budget" would be a surprise.
            out.print(
                f"Left out, since they bind only where a program names them: {', '.join(by_name)}. --budget NAME asks "
                "about one.",
                style="dim",
                markup=False,
                soft_wrap=True,
            )
    if not found.allowed:
        raise typer.Exit(DENIED)


def _print_lines(out: Console, lines: tuple[FailedLine, ...]) -> None:
    for line in lines:
        out.print(f"  {line.figures_text()}", markup=False, soft_wrap=True)
