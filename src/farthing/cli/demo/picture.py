"""What the demo shows: bars on one scale with the budget marked on it, the table, and what to do next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..amounts import NOTHING, number_of, usd_column, usd_text
from ..screen import FREE, HELD, SPENT, SUSPECT
from .callers import MODEL, sdk_version
from .killing import Killed
from .scenes import NAIVE, OURS, Row, Stage

WHY_BURST = (
    "Check, then record: read a counter before the call, add to it afterwards. All of them read it while it says $0."
)
WHY_STREAMS = (
    "What a stream costs is known when it ends. Until then a counter knows nothing; a hold is there from the start."
)
WHY_PROXY = (
    "No farthing in the program, in any language: its base URL points at `farthing serve`, and what does not fit is "
    "answered there."
)
WHY_KILL = (
    "The provider goes on and bills what was in flight. A counter in memory starts again at $0; a ledger does not."
)
_NEXT = """\
Put it around your own client:

    from openai import OpenAI
    from farthing import budget, configure, instrument
    configure(ledger="ledger.db")
    client = instrument(OpenAI())
    with budget(usd=0.05):
        client.chat.completions.create(model="gpt-4o", messages=[…])

Or put a proxy before every client: farthing serve --max-usd-per-day 5

Then see where the money went: farthing report --ledger ledger.db
The tutorial goes on from there: docs/tutorial.md"""
_INDENT = 3
_LABEL_WIDTH = 22
_AMOUNT_WIDTH = 17
_MARK = "│"


class Bars:
    """
    The bars of one scene, which fill while its calls run; the limit is marked on both, on one scale.

    ``naive`` and ``ours`` are told what is spent, held and suspect, in nano-dollars.
    """

    def __init__(self, out: Console, *, limit_nano: int, most_nano: int) -> None:
        self._limit_nano = limit_nano
        self._most_nano = max(most_nano, 1)
        self._figures: dict[str, tuple[int, int, int] | None] = {NAIVE: None, OURS: None}
        self._width = max(20, min(44, out.width - _LABEL_WIDTH - _AMOUNT_WIDTH))
        self._mark = limit_nano * self._width // self._most_nano
        self._out = out
        self._live = Live(console=out, refresh_per_second=12, get_renderable=self._render)

    def __enter__(self) -> Self:
        if self._out.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._out.is_terminal:
            self._live.stop()
        else:
            self._out.print(self._render())

    def naive(self, spent_nano: int, held_nano: int = 0, suspect_nano: int = 0) -> None:
        self._figures[NAIVE] = (spent_nano, held_nano, suspect_nano)

    def ours(self, spent_nano: int, held_nano: int = 0, suspect_nano: int = 0) -> None:
        self._figures[OURS] = (spent_nano, held_nano, suspect_nano)

    def _render(self) -> Text:
        return Text("\n").join([self._scale(), self._line(NAIVE), self._line(OURS)])

    def _scale(self) -> Text:
        words = f"budget {usd_text(self._limit_nano)} ▼"
        at = _LABEL_WIDTH + self._mark
        return Text(f"{words:>{at + 1}}", "bold")

    def _line(self, way: str) -> Text:
        figures = self._figures[way] or (0, 0, 0)
        spent, held, suspect = figures
        text = Text(f"{'':{_INDENT}}{way:<{_LABEL_WIDTH - _INDENT}}")
        ends = [nano * self._width // self._most_nano for nano in (spent, spent + suspect, sum(figures))]
        for cell in range(self._width):
            if cell == self._mark:
                text.append(_MARK, "bold")
            over = cell >= self._mark
            sign, style = (
                (SPENT, "green")
                if cell < ends[0]
                else (SUSPECT, "yellow")
                if cell < ends[1]
                else (HELD, "cyan")
                if cell < ends[2]
                else (" " if over else FREE, "bright_black")
            )
            text.append(sign, "red" if over else style)
        if self._figures[way] is not None:
            total = sum(figures)
            text.append(f" {usd_text(total)}", "bold red" if total > self._limit_nano else "bold green")
            text.append(" held" if held else "")
        return text


def client_text() -> str:
    """What makes the calls."""
    version = sdk_version()
    return f"openai {version}" if version else "http.client"


def print_opening(out: Console, on: Stage) -> None:
    """What is about to happen, and with what."""
    version = sdk_version()
    client = f"the real openai package ({version})" if version else "Python's own HTTP client"
    out.print(
        Text.assemble(
            ("farthing", "bold"),
            ": hard budgets for LLM calls. What you see happens now, on this machine: ",
            f"{client} calls a fake {MODEL} that keeps its own bill. No network, no key, no cost. ",
            f"Every call comes to {usd_text(on.call_nano)}.",
        )
    )
    if version is None:
        out.print(Text("With the openai package installed, the demo uses it, and shows streams too.", "dim"))


def print_scene(out: Console, number: int, title: str, why: str) -> None:
    """The heading of a scene."""
    out.print()
    out.print(Text(f"{number}  {title}", "bold"))
    out.print(Padding(Text(why, "dim"), (0, 0, 0, _INDENT), expand=False))


def show(out: Console, number: int, title: str, why: str, scene: Callable[[], list[Row]]) -> list[Row]:
    """A scene of which only the end is seen: its heading, a moment's wait, its bars. Returns its rows."""
    print_scene(out, number, title, why)
    with out.status("Calling …"):
        rows = scene()
    print_bars(out, rows)
    return rows


def print_bars(out: Console, rows: list[Row], suspect_nano: int = 0) -> None:
    """The bars of a scene that is over: what was billed. *suspect_nano*: the part of ours that nobody heard of."""
    naive, ours = rows
    with Bars(out, limit_nano=naive.budget_nano, most_nano=max(row.billed_nano for row in rows)) as bars:
        bars.naive(naive.billed_nano)
        bars.ours(ours.billed_nano - suspect_nano, 0, suspect_nano)


def print_killed(out: Console, killed: Killed) -> None:
    """What the ledger knew after the kill, and what followed."""
    print_bars(out, killed.rows, killed.suspect_nano)
    billed, suspect = usd_text(killed.billed_nano), usd_text(killed.suspect_nano)
    said = (
        f"{SUSPECT} The provider billed {billed} for {number_of(killed.in_flight, 'answer')} that nobody was there to "
        f"hear. After the kill the ledger still counts {suspect} for them."
    )
    out.print(Padding(Text(said), (0, 0, 0, _INDENT), expand=False))


def print_table(out: Console, rows: list[Row]) -> None:
    """All scenes, side by side. Every amount is the provider's bill."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for head in ("", "tried", "sent", "denied", "wrongly\ndenied", "budget", "billed", "over"):
        table.add_column(head, justify="right" if head else "left", vertical="bottom", no_wrap=True)
    budgets, billed, over = (
        usd_column([getattr(row, name) for row in rows], most_digits=4)
        for name in ("budget_nano", "billed_nano", "over_nano")
    )
    scene = None
    for index, row in enumerate(rows):
        if row.scene != scene:
            table.add_row(Text(row.scene, "bold"), *[""] * 7)
            scene = row.scene
        table.add_row(
            f"  {row.way}",
            f"{row.tried:,}",
            f"{row.sent:,}",
            f"{row.denied:,}",
            str(row.denied_with_room) if row.way == OURS else NOTHING,
            budgets[index],
            billed[index],
            Text(over[index], "bold red") if row.over_nano else Text("0", "bold green"),
        )
    out.print()
    out.print(table)
    out.print(Text("Billed: by the provider's own account. Wrongly denied: it would have fit.", "dim"))


def print_next(out: Console) -> None:
    """What to do now."""
    out.print()
    out.print(Text(_NEXT))
