"""``farthing holds``: calls in flight, and calls whose outcome nobody knows."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ..admin.holds import OpenHold, open_holds, resolve_holds
from .amounts import age_text, number_of, usd_column, usd_text
from .budgets import user_name
from .ledger import JsonOption, LedgerOption, open_ledger
from .running import EXIT_CODES, UsageMistake
from .screen import console, print_json

app = typer.Typer(help="Calls in flight, and calls with an unknown outcome.", no_args_is_help=True, epilog=EXIT_CODES)


@app.command("list", epilog=EXIT_CODES)
def list_(json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """
    Every hold that is still counted. "held": its process lives. "suspect": it may have been billed, and nobody knows.
    """
    with open_ledger(ledger, as_json=json) as store:
        found = open_holds(store)
    if json:
        print_json({"holds": [hold.to_dict() for hold in found]})
    else:
        _print_holds(found)


@app.command(epilog=EXIT_CODES)
def resolve(
    hold_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Which suspect hold.", show_default=False)
    ] = None,
    settle_at_hold: Annotated[bool, typer.Option("--settle-at-hold", help="Count all that it held as spent.")] = False,
    release: Annotated[bool, typer.Option("--release", help="Give it back: the call certainly cost nothing.")] = False,
    all_suspect: Annotated[bool, typer.Option("--all-suspect", help="Every suspect hold, after a question.")] = False,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept with the correction.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    End a suspect hold by hand. Should its call still report what it cost, that truth corrects the figure.
    """
    if settle_at_hold == release:
        raise UsageMistake("give either --settle-at-hold or --release")
    if (hold_id is None) != all_suspect:
        raise UsageMistake("give either a hold's ID or --all-suspect")
    policy = "settle_at_hold" if settle_at_hold else "release"
    with open_ledger(ledger, as_json=json) as store:
        if hold_id is not None:
            ids = [hold_id]
        else:
            suspects = [hold for hold in open_holds(store) if hold.state == "suspect"]
            ids = [hold.id for hold in suspects]
            if ids and not yes:
                what = (
                    f"count all {_sum_text(suspects)} as spent"
                    if settle_at_hold
                    else f"give {_sum_text(suspects)} back"
                )
                typer.confirm(f"{number_of(len(ids), 'suspect call')}: {what}?", abort=True, err=True)
        who = user_name()
        signed = f"by {who}" if who else "by hand"
        resolved = resolve_holds(store, ids, policy, note=f"{signed}: {note}" if note else signed)
    if json:
        print_json({"resolved": [hold.id for hold in resolved], "policy": policy})
        return
    done = "counted as spent" if settle_at_hold else "given back"
    console().print(f"{number_of(len(resolved), 'call')}, {_sum_text(resolved)}: {done}")


def _sum_text(holds: list[OpenHold]) -> str:
    tokens = f"{sum(hold.tokens for hold in holds):,} tokens"
    known = [hold.usd_nano for hold in holds if hold.usd_nano is not None]
    return f"{usd_text(sum(known))} ({tokens})" if known else tokens


def _print_holds(found: list[OpenHold]) -> None:

    out = console()
    if not found:
        out.print("Nothing is held: no call is in flight, and none has an unknown outcome.")
        return
    costs = usd_column([hold.usd_nano for hold in found])
    width = max(len(cost) for cost in (*costs, "cost"))
    out.print(Text(f"{'id':<24}  {'state':<7}  {'age':>6}  {'tokens':>9}  {'cost':>{width}}  model", "bold"))
    for hold, cost in zip(found, costs, strict=True):
        text = Text(f"{hold.id:<24}  ")
        text.append(f"{hold.state:<7}", "yellow" if hold.state == "suspect" else "cyan")
        text.append(f"  {age_text(hold.age_ms / 1000):>6}  {hold.tokens:>9,}  {cost:>{width}}  {hold.model or '?'}")
        out.print(text)
        budgets = ", ".join(hold.budgets)
        out.print(Text(f"  on {budgets}, by process {hold.owner.partition('-')[0]}", "dim"))
    suspects = [hold for hold in found if hold.state == "suspect"]
    if suspects:
        out.print(
            f"\n[yellow]{len(suspects):,} suspect[/yellow]: they may have been billed, so they stay counted. Once you "
            "know from the provider:\n\n    farthing holds resolve ID --settle-at-hold   [dim]or[/dim] --release"
        )
