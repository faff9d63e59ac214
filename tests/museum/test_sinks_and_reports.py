"""Telemetry that cost money: sinks that reach the caller, logs that die with the process, silent history."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import farthing
from farthing import sinks
from farthing.runtime.default import runtime
from farthing.testing import FakeProvider, Reply
from tests.museum.calls import LONG_SIZE, admitted, chat

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def test_e2_a_sink_whose_disk_is_full(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors E2: OSError to the caller each time, its response lost, 0 accrued: 5,080 tokens past a cap."""

    def full(row: object) -> None:
        raise OSError(28, "No space left on device")

    farthing.use_sink(full)
    with farthing.budget("capped", tokens=1_000) as budget:
        answers = [admitted(lambda: chat(client)) for _ in range(10)]
    assert answers == [True] + [False] * 9
    assert budget.spent.tokens == provider.billed_tokens == LONG_SIZE


def test_e2_a_sink_whose_file_is_locked(provider: FakeProvider, client: OpenAI, tmp_path: Path) -> None:
    """predecessors E2: a locked SQLite file stalled the call for 5.0 s, then raised."""
    path = tmp_path / "spend.db"
    subscription = farthing.use_sink(sinks.SQLiteSink(path))
    assert subscription is not None
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for _ in range(5):
        chat(client)
    assert provider.calls == 5, "all were answered, and the file is still locked"
    assert other.in_transaction
    other.execute("ROLLBACK")
    assert subscription.flush(60)
    assert other.execute("SELECT count(*) FROM calls").fetchone() == (5,)
    other.close()


KILLED = """
import os, signal, sys
import farthing
from farthing import sinks
farthing.configure(ledger=sys.argv[1])
farthing.use_sink(sinks.QueueSink(sinks.JSONLSink(sys.argv[2])))
with farthing.budget("night", tokens=100_000):
    for number in range(300):
        with farthing.hold(tokens=250, model="gpt-4o-mini") as held:
            held.settle({"input_tokens": 200, "output_tokens": 50})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_m3_rows_in_a_queue_die_with_the_process_and_the_ledgers_do_not(tmp_path: Path) -> None:
    """predecessors M3: kill -9 at call 300: a queued sink kept 5 and 21 of 300, and the budget began at 0 again."""
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), ledger, str(tmp_path / "rows.jsonl")]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr
    farthing.configure(ledger=ledger)
    with farthing.budget("night", tokens=100_000) as night:
        assert night.spent.tokens == 75_000
    here = runtime()
    assert here.durable is not None
    kept = {entry.id for entry in here.durable.store.entries().result()}
    assert len(kept) == 300
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} <= kept


def test_l1_the_last_clamps_and_downgrades_are_kept_and_no_more(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors L1: 5,000 clamped calls, 5,000 list entries for ever; rows beyond 100,000 were lost silently."""
    provider.reply = Reply(output_tokens=1)
    events = runtime().events
    assert (events.clamps.maxlen, events.downgrades.maxlen) == (1_000, 1_000)
    farthing.configure(max_records=10)
    with farthing.budget("all", tokens=100_000, on_exceed="clamp"):
        for _ in range(15):
            chat(client, 200_000)
    (last, *_) = reversed(farthing.clamps())
    assert len(farthing.clamps()) == 15
    assert (last.action, last.name, last.model, last.asked) == ("clamped", "all", "gpt-4o", 200_000)
    assert isinstance(last.remaining, int)
    assert last.remaining < 100_000
    assert farthing.dropped() == 5
    assert "5 earlier calls are not in it" in str(farthing.report())


def test_the_events_that_were_never_sent(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors 3.3: raise, truncate and break emitted no event; a blocked call left no other trace."""
    heard: list[farthing.BudgetEvent] = []
    subscription = farthing.use_sink(events=heard.append)
    assert subscription is not None
    cheaper = {"gpt-4o": "gpt-4o-mini"}
    budgets: list[dict[str, Any]] = [
        {"tokens": 10},
        {"tokens": 10, "on_exceed": "truncate"},
        {"tokens": 300, "on_exceed": "clamp"},
        {"usd": 0.001, "on_exceed": "downgrade", "downgrade": cheaper},
        {"tokens": 10, "on_exceed": "warn"},
    ]
    for number, terms in enumerate(budgets):
        with farthing.budget(f"budget-{number}", description=f"the {number}th", **terms):
            admitted(lambda: chat(client))
    with farthing.budget("runaway", tokens=10, on_exceed="raise", description="a guard"):
        for _ in range(2):
            admitted(lambda: chat(client))
    assert subscription.flush(60)
    assert [(event.action, event.name) for event in heard] == [
        ("blocked", "budget-0"),
        ("blocked", "budget-1"),
        ("clamped", "budget-2"),
        ("downgraded", "budget-3"),
        ("would_block", "budget-4"),
        ("raised", "runaway"),
        ("blocked", "runaway"),
    ]
    assert all(event.reason and event.call_id and event.model == "gpt-4o" for event in heard)
    assert [event.description for event in heard] == [*(f"the {number}th" for number in range(5)), *["a guard"] * 2]
    (downgraded,) = farthing.downgrades()
    assert (downgraded.to_model, downgraded.unit, downgraded.limit) == ("gpt-4o-mini", "usd", Decimal("0.001"))
    assert isinstance(downgraded.asked, Decimal)
    assert downgraded.asked > downgraded.limit, "what the dearer model asked for did not fit"


def test_an_alert_is_not_repeated(provider: FakeProvider, client: OpenAI) -> None:
    """pains P19: alerts absent, fixed, or spam: any thresholds, each once."""
    heard: list[farthing.BudgetEvent] = []
    subscription = farthing.use_sink(events=heard.append)
    assert subscription is not None
    with farthing.budget("team", tokens=10 * LONG_SIZE, alerts=[0.3, 0.95]):
        for _ in range(10):
            chat(client)
    assert subscription.flush(60)
    assert [str(event.threshold) for event in heard] == ["0.3", "0.95"]
