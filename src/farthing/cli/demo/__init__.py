"""``farthing demo``: what a newcomer sees first. Offline, a few seconds, nothing left behind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Annotated

import typer

from ...kernel.money import usd_decimal
from ..amounts import count_from_text
from ..failing import Failure, UsageMistake
from ..options import JsonOption
from ..screen import console, print_json

LATENCY_SECONDS, QUICK_LATENCY_SECONDS = 1.0, 0.3
QUICK_CALLS = 50
CALLS_LEAST, CALLS_MOST = 10, 1000
EXAMPLES = ("farthing demo", "farthing demo --quick --json")


def demo(
    calls: Annotated[
        str, typer.Option(metavar="N", help="How many calls the burst makes, all at once: 10 to 1000.")
    ] = "200",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer calls, faster answers: a few seconds.")] = False,
    json: JsonOption = False,
) -> None:
    """
    See budgets hold, beside the usual check-then-record: a burst, streams, a proxy, kill -9. Offline, in seconds.

    Real calls go to a fake provider on this machine, which keeps its own bill; the table shows that bill.
    """
    # Here, not above: the fake provider and its HTTP parser are nothing that `farthing --help` should wait for.
    from . import picture
    from .killing import kill_and_go_on
    from .proxied import through_the_proxy, with_proxy
    from .scenes import NANO_A_CALL, burst, stage, streams, with_sdk

    wanted = count_from_text(calls, option="--calls") or 0
    if not CALLS_LEAST <= wanted <= CALLS_MOST:
        raise UsageMistake(f"--calls takes {CALLS_LEAST} to {CALLS_MOST}, not {calls!r}")
    number = min(wanted, QUICK_CALLS) if quick else wanted
    few = max(20, number // 5)
    latency_seconds = QUICK_LATENCY_SECONDS if quick else LATENCY_SECONDS
    out = console()
    out.quiet = json
    with _own_runtime(), ExitStack() as stack:
        with out.status("Starting a fake provider …"):
            on = stack.enter_context(stage())
        picture.print_opening(out, on)
        scene = itertools.count(1)
        picture.print_scene(out, next(scene), f"{number} calls at the same moment", picture.WHY_BURST)
        with picture.Bars(out, limit_nano=number * NANO_A_CALL, most_nano=number * on.call_nano) as bars:
            rows = burst(on, number, latency_seconds, bars.naive, bars.ours)
        if with_sdk():
            title = f"{few} streams, all opened before any is read"
            rows += picture.show(out, next(scene), title, picture.WHY_STREAMS, lambda: streams(on, few))
        if with_proxy():
            title = f"{few} plain HTTP calls, through a proxy"
            proxied = partial(through_the_proxy, on, few, latency_seconds)
            rows += picture.show(out, next(scene), title, picture.WHY_PROXY, proxied)
        in_flight = max(4, few // 5)
        picture.print_scene(
            out, next(scene), f"kill -9 with {in_flight} calls in flight, then a restart", picture.WHY_KILL
        )
        with out.status("Starting a process, and killing it …"):
            killed = kill_and_go_on(on, in_flight, few)
        picture.print_killed(out, killed)
        rows += killed.rows
    picture.print_table(out, rows)
    if json:
        print_json(
            {
                "client": picture.client_text(),
                "call_usd": usd_decimal(on.call_nano),
                "rows": [row.to_dict() for row in rows],
                "killed": killed.to_dict(),
            }
        )
    broken = [row for row in rows if row.way == "farthing" and (row.over_nano or row.denied_with_room)]
    if broken or killed.suspect_nano != killed.billed_nano:
        raise Failure("a budget was not kept: this is a bug of ours; please report it with the table above")
    picture.print_next(out)


@contextmanager
def _own_runtime() -> Iterator[None]:
    """Settings and ledgers of the demo's own: it neither reads nor writes what this user has configured."""
    from ...runtime.default import use
    from ...runtime.runtime import Runtime
    from ...runtime.settings import Settings

    mine = Runtime(Settings(watch=False))  # the counters beside it are not governed, and that is their point
    before = use(mine)
    try:
        yield
    finally:
        use(before)
        mine.close()
