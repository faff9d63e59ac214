"""``farthing doctor``: what is configured, reachable and priced, and which clients are not governed."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .checks import checks
from .configured import Check
from .failing import FAILED
from .options import JsonOption, LedgerOption
from .screen import print_json, print_table

EXAMPLES = ("farthing doctor", "farthing doctor --config farthing.toml")
_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "failed": "red"}


def doctor(
    config: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            envvar="FARTHING_CONFIG",
            show_default=False,
            help="Check this configuration file too: its mistakes, its budgets, whether its upstreams can be reached.",
        ),
    ] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    Check what budgets depend on: the ledger, the clock, the prices, the token counts, and the SDKs installed here.

    It changes nothing, and uses the network only to reach the upstreams of --config. The exit code is 1 if a check
    failed; warnings leave it 0.
    """
    found = list(checks(ledger, config))
    failed = any(check.status == "failed" for check in found)
    if json:
        print_json({"ok": not failed, "checks": [check.to_dict() for check in found]})
    else:
        _print(found)
    if failed:
        raise typer.Exit(FAILED)


def _print(found: list[Check]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    before = ""
    for check in found:
        says = escape(check.says) + (f"\n[dim]→ {escape(check.remedy)}[/dim]" if check.remedy else "")
        name = "" if check.name == before else check.name
        table.add_row(f"[{_STYLES[check.status]}]{check.status}[/]", name, says)
        before = check.name
    print_table(table)
