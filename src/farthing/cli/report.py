"""``farthing report``: where the money went."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..kernel.money import div_half_up, nano_of_usd
from ..kernel.scope import OWN_KEYS, one_line
from ..kernel.window import datetime_from_ms
from ..reports.spending import Report, read_report
from .amounts import NOTHING, count_from_text, names_from_texts, number_of, pairs_from_texts, usd_column
from .completing import group_keys
from .failing import UsageMistake, as_typed
from .ledger import open_ledger
from .options import JsonOption, LedgerOption, SinceOption, UntilOption, WhereOption, span_of_time
from .screen import bar, console, print_json, print_table, said

EXAMPLES = (
    "farthing report",
    "farthing report --group-by feature,user --since 7d",
    "farthing report --group-by day --where feature=search",
    "farthing report --group-by budget --json",
)
_EMPTY = """\
No call is in this ledger yet. A program's calls are written here once it says

    from farthing import configure, instrument
    configure(ledger={url!r})
    client = instrument(OpenAI())

or runs with FARTHING_LEDGER={url}"""


_EXTRAS = {"denied": "denied", "shadow_denied": "would deny", "suspect": "suspect"}
"""Columns that are only there where there is something in them."""


def report(
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY,…",
            autocompletion=group_keys,
            help="One row for each value of these: tags, model, provider, budget, day, hour. By model if not given.",
        ),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    where: WhereOption = None,
    limit: Annotated[
        str | None, typer.Option(metavar="N", help="Show the first N rows only; the total is of all.")
    ] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    Where the money went: cost, tokens, calls and denials, by model, tag, budget or day.

    It reads the ledger, so it shows the calls of programs that wrote to it: those with configure(ledger=…) or
    FARTHING_LEDGER.
    """
    keys = tuple(names_from_texts(group_by)) or ("model",)
    wanted = pairs_from_texts(where, option="--where", form="KEY=VALUE")
    most = count_from_text(limit, option="--limit")
    if most is not None and most < 1:
        raise UsageMistake(f"--limit takes at least 1, not {limit!r}")
    with open_ledger(ledger, as_json=json) as store:
        since_ms, until_ms = span_of_time(since, until, store.now())
        with as_typed():
            found = read_report(store, group_by=keys, since_ms=since_ms, until_ms=until_ms, where=wanted)
        name = store.name
    if json:
        _print_json(found, since_ms, until_ms, most)
    else:
        filtered = bool(wanted) or since_ms is not None or until_ms is not None
        _print_table(found, name, filtered=filtered, limit=most)


def _print_json(found: Report, since_ms: int | None, until_ms: int | None, limit: int | None) -> None:
    def instant(at_ms: int | None) -> str | None:
        return None if at_ms is None else datetime_from_ms(at_ms).isoformat()

    print_json(
        {
            "group_by": list(found.group_by),
            "since": instant(since_ms),
            "until": instant(until_ms),
            "rows": [_plain(row) for row in found.to_dicts()[:limit]],
            "total": _plain(found.totals()),
        }
    )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "usd": format(row["usd"], "f")}


def _print_table(found: Report, ledger_name: str, *, filtered: bool, limit: int | None) -> None:
    out = console()
    whole = found.totals()
    if not len(found):
        if filtered:
            out.print(
                "No call in this ledger matches. Without --since, --until and --where the report is of all of it."
            )
        else:
            # Lines to copy: never wrapped.
            out.print(_EMPTY.format(url=f"sqlite:///{ledger_name}"), soft_wrap=True, markup=False)
        return
    print_table(_table(found, out, limit))
    if limit is not None and len(found) > limit:
        out.print(f"{number_of(len(found) - limit, 'more row')}, not shown but in the total.", style="dim")
    for key in _without_values(found):
        out.print(f"No call here has the tag {key!r}. Tags are what programs give to track(…).", style="yellow")
    for note in _notes(whole):
        out.print(note, style="yellow", markup=False)


def _table(found: Report, out: Console, limit: int | None) -> Table:
    rows = found.to_dicts()[:limit]
    cells = _cells(found, rows)
    heads = [*found.group_by, "cost", "share", "tokens", "calls"]
    whole = found.totals()
    extras = {name: head for name, head in _EXTRAS.items() if whole[name]}
    # The bars take what room the figures leave; without enough of it there are none, rather than folded names.
    natural = sum(max(len(line[index]) for line in (heads, *cells)) for index in range(len(heads)))
    room = out.width - natural - sum(map(len, extras.values())) - 2 * (len(heads) + len(extras))
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_footer=len(rows) > 1, header_style="bold")
    for index, head in enumerate(heads):
        words = index < len(found.group_by)
        table.add_column(
            said(head), cells[-1][index], justify="left" if words else "right", overflow="fold", no_wrap=not words
        )
    for name, extra in extras.items():
        table.add_column(extra, f"{whole[name]:,}", justify="right", no_wrap=True, style="yellow")
    with_bars = len(rows) > 1 and room >= 6
    if with_bars:
        table.add_column("", no_wrap=True)
    most = max(1, *(nano_of_usd(row["usd"]) for row in rows))
    for row, line in zip(rows, cells, strict=False):
        end = [bar(out, (max(0, nano_of_usd(row["usd"])),), most, width=min(room, 24))] if with_bars else []
        counts = [f"{row[name]:,}" if row[name] else "" for name in extras]
        table.add_row(*map(escape, line), *counts, *end)
    return table


def _cells(found: Report, rows: list[dict[str, Any]]) -> list[list[str]]:
    """The texts of all rows, and of the total as the last."""
    whole = found.totals()
    total_nano = nano_of_usd(whole["usd"])
    texts = usd_column([nano_of_usd(row["usd"]) for row in (*rows, whole)])
    lines = []
    for row, exact in zip((*rows, whole), texts, strict=True):
        cost = exact
        share = _share(nano_of_usd(row["usd"]), total_nano)
        if row["calls"] and row["unpriced_calls"] == row["calls"]:
            # An unknown price is never zero, not even on the screen.
            cost, share = "unknown", NOTHING
        elif row["unpriced_calls"]:
            cost = f"{exact}*"
        elif not row["calls"]:
            cost = share = NOTHING
        lines.append([cost, share, f"{row['tokens']:,}", f"{row['calls']:,}"])
    names = [[_shown(part, key) for key, part in row["tags"].items()] for row in rows]
    names.append(["total", *[""] * (len(found.group_by) - 1)])
    lines[-1][1] = ""
    return [[*name, *line] for name, line in zip(names, lines, strict=True)]


def _share(part_nano: int, whole_nano: int) -> str:
    if part_nano <= 0 or whole_nano <= 0:
        return NOTHING
    percent = div_half_up(100 * part_nano, whole_nano)
    return f"{percent}%" if percent else "<1%"


def _shown(part: str | None, key: str) -> str:
    return f"(no {key})" if part is None else one_line(part)


def _without_values(found: Report) -> list[str]:
    """Tags that were asked for and that no call carries: misspelt, perhaps."""
    rows = found.to_dicts()
    return [key for key in found.group_by if key not in OWN_KEYS and all(row["tags"][key] is None for row in rows)]


def _notes(whole: dict[str, Any]) -> list[str]:
    """What the figures leave out or assume."""
    notes = []
    if whole["unpriced_calls"]:
        notes.append(
            f"* {number_of(whole['unpriced_calls'], 'call')} without a known price, not in the cost. `farthing report` "
            "shows the models; farthing.prices.register(…) gives one a price."
        )
    if whole["suspect"]:
        notes.append(
            f"{number_of(whole['suspect'], 'call')} with an unknown outcome, counted at all that was held: see "
            "`farthing holds list`."
        )
    if whole["shadow_denied"]:
        notes.append(
            f"{number_of(whole['shadow_denied'], 'call')} went out that a budget in warn mode would have denied."
        )
    return notes
