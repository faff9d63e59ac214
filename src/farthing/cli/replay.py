"""``farthing replay``: what other budgets would have done to the calls of a ledger."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from ..kernel.money import usd_decimal
from ..kernel.window import datetime_from_ms
from .amounts import names_from_texts, number_of, usd_column, usd_text
from .completing import group_keys
from .failing import as_typed
from .ledger import open_ledger
from .options import JsonOption, LedgerOption, SinceOption, UntilOption, span_of_time
from .screen import console, print_json, print_table, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..config.reading import Configuration
    from ..reports.replaying import Replayed, Sums

EXAMPLES = (
    "farthing replay --config farthing.toml",
    "farthing replay --config farthing.toml --since 30d --group-by feature,model",
)
ROWS_SHOWN = 20
_WHAT = ("denied", "downgraded", "clamped", "waited", "warned")


def replay(
    config: Annotated[
        str, typer.Option(metavar="PATH", help="The configuration file with the budgets to try.", show_default=False)
    ],
    since: SinceOption = None,
    until: UntilOption = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY,…",
            autocompletion=group_keys,
            help="Also sum by each of these: tags, model, provider. If not given, by the tags that the budgets name.",
        ),
    ] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    What other budgets would have done to the calls of a ledger: denied, downgraded, clamped, and what that would cost.

    Plays the ledger's history again under the budgets of a configuration file. Nothing is sent, and the ledger stays as
    it is.
    """
    from .. import prices
    from ..config.loading import load
    from ..reports.past import read_past
    from ..reports.replaying import replay as run
    from ..runtime.settings import Settings

    configuration = load(config)
    settings = Settings().changed(**configuration.given)
    prices.register_all(configuration.prices)
    names = names_from_texts(group_by) or _named_by(configuration)
    with Progress(
        console=Console(file=sys.stderr), transient=True, disable=json or not sys.stderr.isatty()
    ) as progress:
        with open_ledger(ledger, as_json=json) as store, as_typed():
            since_ms, until_ms = span_of_time(since, until, store.now())
            reading = progress.add_task("Reading the history", total=None)
            calls = read_past(store, since_ms=since_ms, until_ms=until_ms, progress=_steps(progress, reading))
            denials = store.denials(since_ms=since_ms, until_ms=until_ms).result()
        again = progress.add_task("Making the calls again", total=len(calls))
        found = run(
            calls,
            configuration.budgets,
            settings=settings,
            prices=prices.default_book,
            tag_names=names,
            progress=_steps(progress, again),
        )
    denied_then = sum(count for key, count in denials.items() if not key.shadow)
    if json:
        print_json(_plain(found, denied_then))
    else:
        _print(console(), found, denied_then)


def _steps(progress: Progress, task: TaskID) -> Callable[[int], None]:
    return lambda done: progress.update(task, completed=done)


def _named_by(configuration: Configuration) -> list[str]:
    """The tags that the budgets are about."""
    names = [name for of in configuration.budgets for name in (*(tag for tag, _ in of.scope), *of.each)]
    return list(dict.fromkeys(names))


# -- what it prints --------------------------------------------------------------------------------------------------


def _plain(found: Replayed, denied_then: int) -> dict[str, Any]:
    return {
        "since": _iso(found.starts_ms),
        "until": _iso(found.ends_ms),
        **_sums(found.whole),
        "unheld": found.unheld,
        "denied_then": denied_then,
        "budgets": [{"budget": name, **_sums(sums)} for name, sums in found.budgets.items()],
        "tags": [{"tag": name, "value": value, **_sums(sums)} for (name, value), sums in found.tags.items()],
    }


def _sums(sums: Sums) -> dict[str, Any]:
    return {
        "calls": sums.calls,
        **{what: getattr(sums, what) for what in _WHAT},
        "usd": usd_decimal(sums.spent_nano),
        "usd_then": usd_decimal(sums.would_nano),
        "first_denied_at": _iso(sums.first_ms),
    }


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime_from_ms(at_ms).isoformat()


def _print(out: Console, found: Replayed, denied_then: int) -> None:
    whole = found.whole
    if found.starts_ms is None or found.ends_ms is None:
        out.print("There is no call to make again in this ledger, or none in this span of time.")
        return
    span = f"{_day(datetime_from_ms(found.starts_ms))} to {_day(datetime_from_ms(found.ends_ms))}"
    out.print(f"[bold]{number_of(whole.calls, 'call')}[/bold], {span}: {usd_text(whole.spent_nano)}", highlight=False)
    done = [f"{number:,} {word}" for word in _WHAT if (number := getattr(whole, word))]
    under = ", ".join(done) or "nothing would have changed"
    out.print(f"under these budgets: {usd_text(whole.would_nano)}; {under}\n", highlight=False, markup=False)
    print_table(_table("budget", _by_budget(found), first=True))
    for name in dict.fromkeys(tag for tag, _ in found.tags):
        rows = [(value or f"(no {name})", sums) for (tag, value), sums in found.tags.items() if tag == name]
        rows.sort(key=lambda row: (-row[1].denied, -row[1].spent_nano, row[0]))
        out.print()
        print_table(_table(name, rows[:ROWS_SHOWN]))
        if len(rows) > ROWS_SHOWN:
            out.print(f"and {len(rows) - ROWS_SHOWN:,} more: --json has all of them", style="dim")
    if found.unheld:
        out.print(
            f"\n{number_of(found.unheld, 'call')} had no budget, so nobody knows what they asked for: what they used "
            "is taken for it.",
            style="dim",
        )
    if denied_then:
        out.print(
            f"\n{number_of(denied_then, 'call')} denied at the time cannot be made again.",
            style="dim",
        )


def _by_budget(found: Replayed) -> Iterator[tuple[str, Sums]]:
    from ..reports.replaying import UNPRICED

    for name, sums in found.budgets.items():
        yield f"({name})" if name == UNPRICED else name, sums


def _table(head: str, rows: Iterable[tuple[str, Sums]], *, first: bool = False) -> Table:
    rows = list(rows)
    first = first and any(sums.first_ms is not None for _, sums in rows)
    shown = [what for what in _WHAT if what == "denied" or any(getattr(sums, what) for _, sums in rows)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(said(head), overflow="fold")
    for column in ("calls", *shown, "cost", "would cost"):
        table.add_column(column, justify="right", no_wrap=True)
    if first:
        table.add_column("first denied", no_wrap=True)
    costs = usd_column([amount for _, sums in rows for amount in (sums.spent_nano, sums.would_nano)])
    for (name, sums), cost, would_cost in zip(rows, costs[::2], costs[1::2], strict=True):
        cells = [f"{sums.calls:,}", *(f"{getattr(sums, what):,}" if getattr(sums, what) else "" for what in shown)]
        cells += [cost, would_cost]
        if first:
            cells.append("" if sums.first_ms is None else f"{datetime_from_ms(sums.first_ms):%Y-%m-%d %H:%M}")
        table.add_row(said(name), *cells)
    return table


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"
