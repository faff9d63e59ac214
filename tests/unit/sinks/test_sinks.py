"""
Sinks: each call once, with the ledger's figures; and whatever goes wrong in one stays there.

Goal: a sink can lose rows of its own only, and says how many. Method: calls recorded by hand, sinks that fail, block,
fill up and fork, real files.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing import sinks
from farthing.reports.rows import COLUMNS, row_of
from farthing.runtime.default import runtime

pytestmark = pytest.mark.usefixtures("farthing_isolated")
USAGE = {"input_tokens": 1_000, "output_tokens": 200, "cached_tokens": 400, "reasoning_tokens": 50}


def call(**tags: str) -> None:
    farthing.record(USAGE, model="gpt-4o", **tags)


def deny() -> None:
    with pytest.raises(farthing.BudgetExceeded), farthing.budget("tight", tokens=10), farthing.hold(tokens=20):
        pass


def use(*args: Any, **keywords: Any) -> sinks.Subscription:
    made = farthing.use_sink(*args, **keywords)
    assert made is not None
    return made


def test_a_function_gets_the_row_of_each_call() -> None:
    rows: list[dict[str, Any]] = []
    with use(rows.append), farthing.track(feature="search"):
        call(user="alice")
        call(user="bob")
    (entry, _) = runtime().memory_store.entries().result()
    assert rows[0] == row_of(entry)
    assert tuple(rows[0]) == COLUMNS
    assert [row["tags"] for row in rows] == [{"feature": "search", "user": name} for name in ("alice", "bob")]
    assert {name: rows[0][name] for name in USAGE} == USAGE
    assert Decimal(rows[0]["usd"]) == farthing.report(where={"user": "alice"}).total()
    call()
    assert len(rows) == 2, "a closed sink is told no more"


def test_a_flush_brings_the_alerts_of_a_durable_ledger_too(tmp_path: Path) -> None:
    """They cost no call anything, so they are looked for afterwards; who asks for all that happened gets them."""
    farthing.configure(ledger=tmp_path / "ledger.db")
    events: list[farthing.BudgetEvent] = []
    with use(events=events.append) as subscription, farthing.budget("team", tokens=100, alerts=[0.5]):
        with farthing.hold(tokens=60):
            pass
        assert subscription.flush(60)
        assert [(event.action, event.spent) for event in events] == [("alert", 60)]
    farthing.reset()


def test_events_tell_what_budgets_did() -> None:
    events: list[farthing.BudgetEvent] = []
    with use(events=events.append) as subscription:
        deny()
        with farthing.budget("shadow", tokens=10, on_exceed="warn"), farthing.hold(tokens=20):
            pass
        assert subscription.flush(60)
        blocked, would = events
    assert (blocked.action, blocked.name, blocked.unit, blocked.limit, blocked.asked) == (
        "blocked",
        "tight",
        "tokens",
        10,
        20,
    )
    assert "'tight'" in blocked.reason
    assert (would.action, would.name, would.limit, would.asked) == ("would_block", "shadow", 10, 20)
    json.dumps([event.to_dict() for event in events])


def test_several_at_once_each_get_everything(tmp_path: Path) -> None:
    rows: list[Any] = []
    use(rows.append)
    use(sinks.JSONLSink(tmp_path / "calls.jsonl"))
    use(sinks.SQLiteSink(tmp_path / "calls.db"))
    for number in range(30):
        call(number=str(number))
    deny()
    assert sinks.flush(60)
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["kind"] == "call"] == rows
    assert [(line["action"], line["name"]) for line in lines if line["kind"] == "event"] == [("blocked", "tight")]
    found = sqlite3.connect(tmp_path / "calls.db")
    assert [json.loads(tags) for (tags,) in found.execute("SELECT tags FROM calls")] == [row["tags"] for row in rows]
    names = ("usd", "input_tokens", "output_tokens", "reasoning_tokens", "model")
    spend = found.execute(f"SELECT tags, {', '.join(names)} FROM spend").fetchall()
    assert spend == [(json.dumps(row["tags"]), *(row[name] for name in names)) for row in rows]
    (nano,) = found.execute("SELECT sum(usd_nano) FROM calls").fetchone()
    assert Decimal(nano) / 10**9 == farthing.report().total()
    assert found.execute("SELECT action, name FROM events").fetchall() == [("blocked", "tight")]
    found.close()


def test_a_correction_is_a_row_of_differences(tmp_path: Path) -> None:
    farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
    rows: list[Any] = []
    use(rows.append)
    with farthing.budget("b", tokens=10_000), farthing.hold(tokens=2_000, model="gpt-4o") as held:
        here = runtime()
        assert here.durable is not None
        here.durable.store.suspect(held.id, ending="expired").result()
        held.settle(USAGE)
    assert sinks.flush(60)
    (row,) = rows
    assert (row["id"], row["kind"]) == (held.id, "correction")
    assert Decimal(row["usd"]) < 0
    assert row["input_tokens"] == 1_000 - 2_000


@pytest.mark.parametrize("broken", ["function", "jsonl", "sqlite"])
def test_a_sink_that_fails_reaches_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str) -> None:
    def full(row: object) -> None:
        raise OSError(28, "No space left on device")

    sink: Any = full
    if broken == "jsonl":
        sink = sinks.JSONLSink(tmp_path / "calls.jsonl")
        sink.close()
    if broken == "sqlite":
        sink = sinks.SQLiteSink(tmp_path / "calls.db")
        with sqlite3.connect(tmp_path / "calls.db") as other:
            other.execute("DROP TABLE calls")
            other.execute("CREATE TABLE calls (something_else)")
        other.close()
    good: list[Any] = []
    with use(sink) as failing, use(good.append) as working:
        for _ in range(5):
            call()
        assert failing.flush(60)
        assert working.flush(60)
        assert (failing.failed, working.failed) == (5, 0)
    assert len(good) == 5
    assert farthing.report().totals()["calls"] == 5
    assert sum("the ledger has what it missed" in record.message for record in caplog.records) == 1


def test_a_slow_sink_delays_no_call_and_counts_what_it_drops() -> None:
    entered, go_on = threading.Event(), threading.Event()
    rows: list[Any] = []

    def slow(row: Any) -> None:
        rows.append(row)
        entered.set()
        assert go_on.wait(60)

    heard: list[BaseException | None] = []
    subscription = use(sinks.QueueSink(slow, max_queue=3, on_drop_error=heard.append))
    call()
    assert entered.wait(60)
    for _ in range(10):
        call()
    assert subscription.dropped == 7
    assert heard == [None] * 7
    assert not subscription.flush(0.01)
    go_on.set()
    subscription.close()
    assert len(rows) == 4
    assert farthing.report().totals()["calls"] == 11


def test_a_full_disk_cuts_no_second_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = sinks.JSONLSink(tmp_path / "calls.jsonl")
    write = os.write

    def half(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(file, data[: len(data) - 10])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        sink.write({"kind": "call", "id": "torn", "ending": "ok"})
    monkeypatch.setattr(os, "write", write)
    sink.write({"kind": "call", "id": "whole"})
    sink.close()
    torn, whole = (tmp_path / "calls.jsonl").read_text().splitlines()
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(torn)
    assert json.loads(whole)["id"] == "whole"


@pytest.mark.parametrize("kind", [sinks.JSONLSink, sinks.SQLiteSink])
@pytest.mark.parametrize("away", ["moved", "removed"])
def test_a_file_that_is_moved_away_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, away: str
) -> None:
    """As log rotation does: rows went on into a file that had another name by then, or none."""
    path, older = tmp_path / "calls", tmp_path / "calls.1"

    def users(path: Path) -> list[str]:
        if kind is sinks.JSONLSink:
            return [json.loads(line)["tags"]["user"] for line in path.read_text().splitlines()]
        with closing(sqlite3.connect(path)) as file:
            return [json.loads(tags)["user"] for (tags,) in file.execute("SELECT tags FROM calls")]

    monkeypatch.chdir(tmp_path)
    with use(kind("calls")) as subscription:
        call(user="alice")
        assert subscription.flush(60)
        for file in sorted(tmp_path.iterdir()):
            if away == "moved":
                file.rename(tmp_path / file.name.replace("calls", "calls.1", 1))
            else:
                file.unlink()
        # Where the program is by now does not matter.
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        call(user="bob")
        assert subscription.flush(60)
        assert subscription.failed == 0
    assert users(path) == ["bob"]
    assert not older.exists() or users(older) == ["alice"]


def test_nothing_is_made_where_nobody_listens() -> None:
    call()
    assert runtime().events.subscribers == ()
    assert not [thread for thread in threading.enumerate() if thread.name == "farthing-sink"]


def test_none_closes_all(tmp_path: Path) -> None:
    rows: list[Any] = []
    use(rows.append)
    use(sinks.JSONLSink(tmp_path / "x"))
    call()
    assert farthing.use_sink(None) is None
    assert len(rows) == 1
    assert runtime().events.subscribers == ()


@pytest.mark.parametrize(
    ("sink", "keywords", "named"),
    [
        (3, {}, "a sink is"),
        (print, {"max_queue": 0}, "max_queue"),
        (None, {"events": "x"}, "events"),
    ],
)
def test_what_is_no_sink_is_said(sink: Any, keywords: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        farthing.use_sink(sink, **keywords)
    with pytest.raises(ValueError, match=r"max_queue|a sink is"):
        sinks.QueueSink(3) if sink == 3 else sinks.QueueSink(print, max_queue=-1)


PROGRAM = """
import os, sys
import farthing
from farthing import sinks
farthing.use_sink(sinks.{sink}({path!r}))
for number in range(5):
    farthing.record({{"input_tokens": 10}}, model="gpt-4o", by="parent")
if {fork}:
    child = os.fork()
    if child == 0:
        for number in range(5):
            farthing.record({{"input_tokens": 10}}, model="gpt-4o", by="child")
        assert sinks.flush(60)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
farthing.record({{"input_tokens": 10}}, model="gpt-4o", by="parent")
"""


@pytest.mark.parametrize("sink", ["JSONLSink", "SQLiteSink"])
@pytest.mark.parametrize("fork", [False, True])
def test_the_end_of_a_program_and_a_fork_lose_and_repeat_nothing(tmp_path: Path, sink: str, fork: bool) -> None:
    path = tmp_path / "calls"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    program = PROGRAM.format(sink=sink, path=str(path), fork=fork)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    if sink == "JSONLSink":
        tags = [json.loads(line)["tags"] for line in path.read_text().splitlines()]
    else:
        connection = sqlite3.connect(path)
        tags = [json.loads(text) for (text,) in connection.execute("SELECT tags FROM calls")]
        connection.close()
    assert sorted(tag["by"] for tag in tags) == ["child"] * (5 if fork else 0) + ["parent"] * 6
