"""What a measurement is, and how it is shown: a figure, its bar, and the reference it was taken beside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. ``bar`` is the most it may be; None: shown for comparison only."""

    what: str
    value: float
    unit: str
    bar: float | None = None
    beside: str = ""
    """The reference of the same run, for a host whose speed drifts."""

    @property
    def met(self) -> bool | None:
        return None if self.bar is None else self.value <= self.bar

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def show(figures: Iterable[Figure], console: Console) -> None:
    """The table of a run."""
    table = Table(title="farthing bench", title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("bar", justify="right")
    table.add_column("")
    table.add_column("beside, in the same run")
    for figure in figures:
        bar = "" if figure.bar is None else f"≤ {_text(figure.bar)} {figure.unit}"
        verdict = {None: "", True: "met", False: "MISSED"}[figure.met]
        table.add_row(figure.what, f"{_text(figure.value)} {figure.unit}", bar, verdict, figure.beside)
    console.print(table)


def say_load(console: Console, load: float | None, processors: int) -> None:
    """How busy the machine was before anything was measured: a missed bar means little on a busy one."""
    busy = "" if load is None else f"Load when it began: {load:.1f} on {processors} processors. "
    if load is not None and load > processors / 4:
        busy += "Other work ran on this machine: times are too long, and a missed bar means little. "
    console.print(f"{busy}How to read this: bench/README.md", style="dim", highlight=False)


def _text(value: float) -> str:
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"
