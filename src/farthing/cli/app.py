"""The commands, assembled. Nothing is loaded here but the parser: each command imports what it needs when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import agents, budgets, demo, doctor, estimate, explain, export, holds, keys, prices, replay, report, serve
from .helping import command, group

app = group(
    "Hard budgets for LLM calls: held before a call leaves, settled to what it really cost.\n\n"
    "New here? `farthing demo` shows it at work, offline and free of charge.",
    name="farthing",
    completion=True,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        # Whoever runs this has imported the package; nothing inside of it imports its public face again.
        print(f"farthing {sys.modules[__name__.partition('.')[0]].__version__}")
        raise typer.Exit


@app.callback()
def farthing(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


command(app, "demo", examples=demo.EXAMPLES)(demo.demo)
command(app, "serve", examples=serve.EXAMPLES)(serve.serve)
command(app, "report", examples=report.EXAMPLES)(report.report)
command(app, "export", examples=export.EXAMPLES)(export.export)
app.add_typer(budgets.app, name="budgets")
app.add_typer(holds.app, name="holds")
command(app, "agents", examples=agents.EXAMPLES)(agents.agents)
app.add_typer(keys.app, name="keys")
command(app, "explain", examples=explain.EXAMPLES)(explain.explain)
command(app, "replay", examples=replay.EXAMPLES)(replay.replay)
command(app, "estimate", examples=estimate.EXAMPLES)(estimate.estimate)
app.add_typer(prices.app, name="prices")
command(app, "doctor", examples=doctor.EXAMPLES)(doctor.doctor)
