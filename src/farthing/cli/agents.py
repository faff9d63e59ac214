"""``farthing agents``: who has what, and who lent to whom."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..agents.overview import AgentFigures, CrewFigures, LentFigures, overview
from ..stores.contract import Store
from .amounts import usd_text
from .failing import UsageMistake
from .ledger import open_ledger
from .options import JsonOption, LedgerOption
from .screen import bar, console, print_json, print_table, said

EXAMPLES = ("farthing agents", "farthing agents newsroom --all", "farthing agents --watch")
BAR_WIDTH = 24
WIDE = 110
"""From how many columns on there is room for a picture."""


def agents(
    crew: Annotated[
        str | None, typer.Argument(metavar="CREW", help="Only the crew of this name. Else all.", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also agents that are closed or expired.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every second, until you press Ctrl-C.")] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    Agents that share a budget: what each has, has used and has left, and who lent to whom.

    A crew is what a program makes with BudgetManager(name=…) on this ledger.
    """
    if watch and json:
        raise UsageMistake("give either --watch or --json")
    if watch and not console().is_terminal:
        raise UsageMistake("--watch is for a terminal; without it, the agents are shown once")
    with open_ledger(ledger, as_json=json) as store:
        if json:
            print_json({"crews": [of.to_dict() for of in _look(store, crew, ended=all_)]})
        elif watch:
            _watch(store, crew, ended=all_)
        else:
            for part in _parts(_look(store, crew, ended=all_)):
                print_table(part) if isinstance(part, Table) else console().print(part)


def _look(store: Store, crew: str | None, *, ended: bool) -> list[CrewFigures]:
    found = overview(store, crew, ended=ended)
    if crew is not None and not found:
        raise UsageMistake(f"no crew is named {crew!r} in this ledger; `farthing agents` shows all of them")
    return found


def _watch(store: Store, crew: str | None, *, ended: bool) -> None:
    with Live(_shown(_look(store, crew, ended=ended)), console=console(), auto_refresh=False) as live:
        try:
            while True:
                time.sleep(1)
                live.update(_shown(_look(store, crew, ended=ended)), refresh=True)
        except KeyboardInterrupt:
            return


def _shown(crews: list[CrewFigures]) -> RenderableType:
    return Group(*_parts(crews))


def _parts(crews: list[CrewFigures]) -> list[RenderableType]:
    if not crews:
        return [Text("No agents are in this ledger: a program makes them with BudgetManager(name=…) and its ledger.")]
    return [part for crew in crews for part in _crew(crew)]


def _crew(crew: CrewFigures) -> list[RenderableType]:
    table = Table(title=said(f"crew {crew.name}", "bold"), title_justify="left", box=None, pad_edge=False)
    table.add_column("agent", no_wrap=True)
    for heading in ("priority", "allocated", "used", "held", "left", "lent", "borrowed"):
        table.add_column(heading, justify="right", no_wrap=True)
    wide = console().width >= WIDE
    if wide:
        table.add_column("")
    for agent in crew.agents:
        row = _row(agent)
        table.add_row(*(row if wide else row[:-1]))
    lines: list[RenderableType] = [table]
    lines += [said(_sentence(lent), "cyan") for lent in crew.lent]
    lines.append(Text())
    return lines


def _row(agent: AgentFigures) -> list[RenderableType]:
    of = agent.figures
    name = said(agent.name)
    if agent.parent is not None:
        name.append_text(said(f" of {agent.parent}", "dim"))
    if agent.closed:
        name.append(" closed", "dim")
    amounts = (of.allocated, of.consumed, of.held, of.remaining, of.lent.total, of.borrowed.total)
    parts = (max(0, of.consumed - of.suspect), max(0, of.held), max(0, of.suspect))
    picture = bar(console(), parts, max(1, of.allocated), width=BAR_WIDTH)
    return [name, str(agent.priority), *(_amount(of.unit, amount) for amount in amounts), picture]


def _sentence(lent: LentFigures) -> str:
    text = f"  {lent.donor} → {lent.taker}: {_amount(lent.unit, lent.used)}"
    if lent.unit != "usd":
        text += " tokens"
    return f"{text}, and {_amount(lent.unit, lent.in_flight)} in flight" if lent.in_flight else text


def _amount(unit: str, amount: int) -> str:
    return usd_text(amount) if unit == "usd" else f"{amount:,}"
