"""The last scene: a process is killed with calls in flight; another one goes on with the same budget."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...kernel.money import nano_of_usd, usd_decimal, usd_from_nano
from ...runtime.default import configure
from ...scopes.budgets import budget
from ...testing import Reply
from ..failing import Failure
from .callers import OUTPUT_TOKENS
from .counters import CheckThenRecord, Tally
from .scenes import NANO_A_CALL, Row, Stage
from .victim import BUDGET, Orders

SCENE = "kill -9, restarted"
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Killed:
    """What was in flight when the process was killed, by the provider's bill and by the ledger, and the rows."""

    in_flight: int
    billed_nano: int
    """What the provider billed for calls whose answers nobody was there to hear."""
    suspect_nano: int
    """What the ledger still counts for them."""
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the rows: USD as decimal strings."""
        amounts = {"billed_usd": self.billed_nano, "suspect_usd": self.suspect_nano}
        return {"in_flight": self.in_flight, **{name: usd_decimal(of) for name, of in amounts.items()}}


def kill_and_go_on(on: Stage, in_flight: int, calls: int) -> Killed:
    """
    Kill a process with so many calls in flight for each way; then make so many calls in this one, one after the other.

    One after the other is the kindest that can be done for a counter in memory: there is no race left, only the kill.
    """
    limit_nano = calls * NANO_A_CALL
    with tempfile.TemporaryDirectory(prefix="farthing-demo-", ignore_cleanup_errors=True) as directory:
        ledger = f"sqlite:///{Path(directory, 'ledger.db')}"
        # A plain call that is paused is generated, and billed, once its client has gone.
        waiting = Reply(output_tokens=OUTPUT_TOKENS, pause_after_chunks=0)
        on.naive.start_over(waiting)
        on.ours.start_over(waiting)
        with _victim(_orders(on, ledger, limit_nano, in_flight), Path(directory, "last-words")) as victim:
            for side in (on.naive, on.ours):
                side.provider.wait_in_flight(in_flight, timeout=_PATIENCE_SECONDS)
            victim.kill()
            victim.wait()
        billed_nano = on.billed_nano(on.ours)
        for side in (on.naive, on.ours):
            side.provider.wait_idle()
            side.provider.reply = Reply(output_tokens=OUTPUT_TOKENS)
        naive, ours = Tally(tried=in_flight), Tally(tried=in_flight)
        counter = CheckThenRecord(limit_nano, on.tariff)
        configure(ledger=ledger)
        for _ in range(calls):
            naive.attempt(lambda: counter.call(on.naive.caller.call))
        try:
            with budget(BUDGET, usd=usd_from_nano(limit_nano)) as handle:
                suspect_nano = nano_of_usd(handle.suspect.usd or usd_from_nano(0))
                for _ in range(calls):
                    ours.attempt(on.ours.caller.call)
        finally:
            configure(ledger=None)
        rows = [on.row(SCENE, on.naive, limit_nano, naive), on.row(SCENE, on.ours, limit_nano, ours)]
    return Killed(in_flight, billed_nano, suspect_nano, rows)


def _orders(on: Stage, ledger: str, limit_nano: int, in_flight: int) -> Orders:
    return Orders(
        ledger=ledger,
        naive_url=on.naive.provider.openai_url,
        ours_url=on.ours.provider.openai_url,
        budget_usd=usd_decimal(limit_nano),
        call_usd=usd_decimal(on.call_nano),
        calls=in_flight,
    )


@contextmanager
def _victim(orders: Orders, last_words: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process; it is gone when this ends, whatever happens. Raises Failure if its calls never arrive."""
    command = [sys.executable, "-m", "farthing.cli.demo.victim", json.dumps(orders._asdict())]
    silent = subprocess.DEVNULL
    with last_words.open("wb") as stderr:
        victim = subprocess.Popen(command, stdin=silent, stdout=silent, stderr=stderr)  # noqa: S603 - ourselves, again
    try:
        yield victim
    except TimeoutError as error:
        said = last_words.read_text("utf-8", errors="replace").strip().splitlines()
        raise Failure(f"the process that was to be killed made no calls ({said[-1] if said else error})") from error
    finally:
        victim.kill()
        victim.wait()
