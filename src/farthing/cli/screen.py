"""What the terminal can show: consoles, JSON, and bars that read well without colour too."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..kernel.scope import one_line, printable_json

SPENT, HELD, SUSPECT, FREE = "█▓▒░"
_PLAIN = {SPENT: "#", HELD: "+", SUSPECT: "?", FREE: "."}
_STYLES = {SPENT: "green", HELD: "cyan", SUSPECT: "yellow", FREE: "bright_black"}
_OVER = "red"
_WORDS_LEAST = 8
_ENDLESS = 10_000


def console() -> Console:
    """
    For what people read. Made for each command: tests and pipes change what stdout is. What goes to a file or to
    another program has no edge to wrap at: a name that is cut in two is not found by grep.
    """
    endless = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return _console(_ENDLESS if endless else None)


def _console(width: int | None) -> Console:
    made = Console(file=sys.stdout, highlight=False, width=width)
    made.push_render_hook(_Unpainted())
    return made


class _Unpainted(RenderHook):
    """Callers choose tags: what they put in one does not paint the terminal of who reads a report."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(of) for of in renderables]


class _Escaped:
    def __init__(self, of: ConsoleRenderable) -> None:
        self._of = of

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._of, options):
            text, style, control = segment
            if control or text.isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(one_line, text.split("\n"))), style)


def said(text: str, style: str = "") -> Text:
    """A name that somebody chose: on one line, and none of it is markup."""
    return Text(one_line(text), style)


def print_table(table: Table) -> None:
    """
    A table, as wide as the terminal if it fits. Where it does not, the terminal wraps its lines: a figure that was cut
    to its column would be another figure. Columns of words (those that may wrap) are folded before that.
    """
    out = console()
    endless = out.options.update(width=_ENDLESS)
    _, right, _, left = table.padding
    least = -(left + right)  # our tables have no edges
    for column in table.columns:
        cells = (column.header, column.footer if table.show_footer else "", *column.cells)
        natural = max(Measurement.get(out, endless, cell).maximum for cell in cells)
        column.min_width = natural if column.no_wrap else min(natural, _WORDS_LEAST)
        least += column.min_width + left + right
    wide = _console(max(out.width, least))
    with wide.capture() as drawn:
        wide.print(table, crop=False)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in drawn.get().splitlines())


def print_json(answer: Any) -> None:
    """For programs."""
    utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    print(printable_json(json.dumps(answer, indent=2, ensure_ascii=not utf8)))


def bar(console: Console, parts: tuple[int, ...], whole: int, *, width: int, style: str | None = None) -> Text:
    """
    How full a budget is: its spent, held and suspect parts, then what is free; all red where it is over.

    *parts* are amounts of one unit, in the order of ``SPENT HELD SUSPECT``.
    """
    plain = not console.encoding.lower().startswith("utf")
    colour = style or (_OVER if sum(parts) > whole else None)
    text = Text()
    for sign, cells in _cells(parts, whole, width):
        text.append(
            (_PLAIN[sign] if plain else sign) * cells, _STYLES[sign] if sign == FREE else colour or _STYLES[sign]
        )
    return text


def _cells(parts: tuple[int, ...], whole: int, width: int) -> Iterator[tuple[str, int]]:
    """How many cells each part fills. The ends of the parts are rounded, so that they never add up to more."""
    whole = max(whole, sum(parts), 1)
    done = before = 0
    for sign, amount in zip((SPENT, HELD, SUSPECT), parts, strict=False):
        done += amount
        end = done * width // whole
        if amount and end == before and end < width:
            end += 1  # a little is not nothing
        if end > before:
            yield sign, end - before
        before = max(before, end)
    if before < width:
        yield FREE, width - before
