"""The commands, assembled. Nothing is loaded here but the parser: each command imports what it needs when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import agents, budgets, demo, doctor, estimate, explain, export, holds, keys, prices, replay, report, serve
from .running import EXIT_CODES

app = typer.Typer(
    name="farthing",
    help="Hard budgets for LLM calls: held before a call leaves, settled to what it really cost.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        # Whoever runs this has imported the package; nothing inside of it imports its public face again.
        print(f"farthing {sys.modules[__name__.partition('.')[0]].__version__}")
        raise typer.Exit


@app.callback()
def farthing(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command("demo", epilog=EXIT_CODES)(demo.demo)
app.command("serve", epilog=EXIT_CODES)(serve.serve)
app.command("report", epilog=EXIT_CODES)(report.report)
app.command("export", epilog=EXIT_CODES)(export.export)
app.add_typer(budgets.app, name="budgets")
app.add_typer(holds.app, name="holds")
app.command("agents", epilog=EXIT_CODES)(agents.agents)
app.add_typer(keys.app, name="keys")
app.command("explain", epilog=EXIT_CODES)(explain.explain)
app.command("replay", epilog=EXIT_CODES)(replay.replay)
app.command("estimate", epilog=EXIT_CODES)(estimate.estimate)
app.add_typer(prices.app, name="prices")
app.command("doctor", epilog=EXIT_CODES)(doctor.doctor)
