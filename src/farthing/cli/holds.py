"""``farthing holds``: calls in flight, and calls whose outcome nobody knows."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ..admin.holds import OpenHold, open_holds, resolve_holds
from ..errors import HoldNotFound
from .amounts import age_text, number_of, usd_column, usd_text
from .budgets import user_name
from .completing import suspect_ids
from .failing import UsageMistake, confirm
from .helping import command, group
from .ledger import open_ledger
from .options import JsonOption, LedgerOption
from .screen import console, print_json, said

app = group("Calls in flight, and calls with an unknown outcome.")


@command(app, "list", examples=("farthing holds list", "farthing holds list --json"))
def list_(json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """
    Every hold that is still counted against a budget.

    held: the call is in flight, and its process lives. suspect: its process or its connection has gone, so the call may
    have been billed and nobody knows; it stays counted until the truth is known, or `farthing holds resolve` ends it.
    """
    with open_ledger(ledger, as_json=json) as store:
        found = open_holds(store)
    if json:
        print_json({"holds": [hold.to_dict() for hold in found]})
    else:
        _print_holds(found)


@command(
    app,
    examples=(
        "farthing holds resolve ID --settle-at-hold",
        'farthing holds resolve ID --release --note "not on the bill"',
        "farthing holds resolve --all-suspect --settle-at-hold --yes",
    ),
)
def resolve(
    hold_id: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help="A suspect hold, as `holds list` shows it.",
            show_default=False,
            autocompletion=suspect_ids,
        ),
    ] = None,
    settle_at_hold: Annotated[
        bool, typer.Option("--settle-at-hold", help="It was billed: count all that it held as spent.")
    ] = False,
    release: Annotated[bool, typer.Option("--release", help="It was not billed: give all that it held back.")] = False,
    all_suspect: Annotated[
        bool, typer.Option("--all-suspect", help="Every suspect hold, after a question, instead of one ID.")
    ] = False,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept with the correction.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    End a suspect hold by hand, when you know from the provider whether it was billed.

    Should the call itself still report what it cost, that truth corrects the figure.
    """
    if settle_at_hold == release:
        raise UsageMistake("give either --settle-at-hold (it was billed) or --release (it was not)")
    if (hold_id is None) != all_suspect:
        raise UsageMistake("give either the ID of a suspect hold, as `farthing holds list` shows it, or --all-suspect")
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
                confirm(f"{number_of(len(ids), 'suspect call')}: {what}?")
        who = user_name()
        signed = f"by {who}" if who else "by hand"
        try:
            resolved = resolve_holds(store, ids, policy, note=f"{signed}: {note}" if note else signed)
        except HoldNotFound as error:
            raise UsageMistake(f"{error}; `farthing holds list` shows the holds that are open") from error
    if json:
        print_json({"resolved": [hold.id for hold in resolved], "policy": policy})
        return
    if not resolved:
        console().print("No call is suspect: there is nothing to resolve.")
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
    heading = f"{'id':<24}  {'state':<7}  {'age':>6}  {'tokens':>9}  {'cost':>{width}}  model"
    out.print(Text(heading, "bold"), soft_wrap=True)
    for hold, cost in zip(found, costs, strict=True):
        text = Text(f"{hold.id:<24}  ")
        text.append(f"{hold.state:<7}", "yellow" if hold.state == "suspect" else "cyan")
        text.append(f"  {age_text(hold.age_ms / 1000):>6}  {hold.tokens:>9,}  {cost:>{width}}  ")
        text.append_text(said(hold.model or "?"))
        out.print(text, soft_wrap=True)
        budgets = ", ".join(hold.budgets)
        out.print(said(f"  on {budgets}, by process {hold.owner.partition('-')[0]}", "dim"), soft_wrap=True)
    suspects = [hold for hold in found if hold.state == "suspect"]
    if suspects:
        many = len(suspects) > 1
        out.print(
            f"\n[yellow]{number_of(len(suspects), 'call')} {'are' if many else 'is'} suspect[/yellow]: "
            f"{'they' if many else 'it'} may have been billed, so {'they stay' if many else 'it stays'} counted. Once "
            "you know from the provider:\n\n"
            "    farthing holds resolve ID --settle-at-hold   [dim]it was billed[/dim]\n"
            "    farthing holds resolve ID --release          [dim]it was not[/dim]"
        )
