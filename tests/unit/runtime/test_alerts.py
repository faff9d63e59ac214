"""
Alerts: each threshold once for each account and window, over all processes; and nothing where nobody asked for any.

Method: the ledger's own figures, two runtimes on one file, a clock that is moved over the windows.
"""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.kernel.budget import make_budget
from farthing.runtime.default import runtime
from farthing.testing import FakeClock

pytestmark = pytest.mark.usefixtures("farthing_isolated")


@pytest.fixture
def heard() -> list[farthing.BudgetEvent]:
    return []


def listen(heard: list[farthing.BudgetEvent]) -> None:
    class Direct:
        def tell(self, fact: Any) -> None:
            if isinstance(fact, farthing.BudgetEvent) and fact.action == "alert":
                heard.append(fact)

        def close(self, seconds: float) -> None: ...

    runtime().events.subscribe(Direct())


def spend(tokens: int, **tags: str) -> None:
    farthing.record({"input_tokens": tokens}, model="gpt-4o", **tags)


def thresholds(heard: list[farthing.BudgetEvent]) -> list[str]:
    return [str(event.threshold) for event in heard]


def test_each_threshold_once_and_the_highest_of_several(
    heard: list[farthing.BudgetEvent], caplog: pytest.LogCaptureFixture
) -> None:
    listen(heard)
    with farthing.budget("team", tokens=1_000, alerts=[0.5, 0.8, 1.0], description="who"):
        spend(499)
        assert heard == []
        spend(1)
        spend(100)
        assert thresholds(heard) == ["0.5"]
        spend(400)
        spend(400)
    assert thresholds(heard) == ["0.5", "1"]
    last = heard[-1]
    assert (last.name, last.unit, last.limit, last.spent, last.description) == ("team", "tokens", 1_000, 1_000, "who")
    said = [record.message for record in caplog.records if "is spent" in record.message]
    assert len(said) == 2
    assert "budget 'team': 50 % of its limit is spent: 500 tokens of 1,000 tokens" in said[0]


@pytest.mark.parametrize("ledger", ["memory", "sqlite"])
def test_each_account_and_each_window_anew(tmp_path: Path, ledger: str) -> None:
    heard: list[farthing.BudgetEvent] = []
    with FakeClock(datetime(2026, 3, 2, 12, tzinfo=UTC)) as clock:
        if ledger == "sqlite":
            farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
        listen(heard)
        with farthing.budget("each", usd=Decimal("0.001"), per="day", each=["user"], alerts=[0.5]):
            for _ in range(2):
                for user in ("a", "b"):
                    for _ in range(3):
                        spend(250, user=user)
                        runtime().housekeeper.tick(sweep=False)
                clock.advance(days=1)
    assert [event.scope["user"] for event in heard] == ["a", "b", "a", "b"]
    assert "Resets at 2026-03-03 00:00:00 UTC" in heard[0].reason
    assert heard[0].limit == Decimal("0.001")


def test_a_raised_limit_has_thresholds_of_its_own(heard: list[farthing.BudgetEvent]) -> None:
    listen(heard)
    with farthing.budget("b", tokens=100, alerts=[0.8]):
        spend(90)
    with farthing.budget("b", tokens=1_000, alerts=[0.8], update=True):
        spend(100)
        assert len(heard) == 1
        spend(700)
    assert [event.limit for event in heard] == [100, 1_000]


def test_the_first_denial_is_the_end_of_the_limit(heard: list[farthing.BudgetEvent]) -> None:
    listen(heard)
    with farthing.budget("hard", tokens=100, alerts=[0.5, 1.0]):
        spend(90)
        for _ in range(3):
            with pytest.raises(farthing.BudgetExceeded), farthing.hold(tokens=50):
                pass
    assert thresholds(heard) == ["0.5", "1"]
    assert "it denies calls that do not fit any more: 90 tokens of 100 tokens" in heard[-1].reason


def test_a_unit_of_work_has_its_own(heard: list[farthing.BudgetEvent]) -> None:
    listen(heard)
    work = farthing.budget(tokens=100, alerts=[0.5])
    for _ in range(2):
        with work, farthing.hold(tokens=60):
            pass
    assert thresholds(heard) == ["0.5", "0.5"]


def test_what_is_held_is_not_spent(heard: list[farthing.BudgetEvent]) -> None:
    listen(heard)
    with farthing.budget("b", tokens=100, alerts=[0.5]), farthing.hold(tokens=90) as held:
        with farthing.hold(tokens=1):
            pass
        assert heard == []
        held.settle(tokens=10)
    assert heard == []


def worker(ledger: str, barrier: Any, counts: Any) -> None:
    farthing.configure(ledger=ledger)
    heard: list[farthing.BudgetEvent] = []
    listen(heard)
    with farthing.budget("shared", tokens=10_000, alerts=[0.25, 0.5, 0.75]):
        barrier.wait()
        for _ in range(40):
            spend(50)
            runtime().housekeeper.tick(sweep=False)
    counts.put(thresholds(heard))


def test_four_processes_say_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(4), context.Queue()
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    processes = [context.Process(target=worker, args=(ledger, barrier, counts)) for _ in range(4)]
    for process in processes:
        process.start()
    said = sorted(part for _ in processes for part in counts.get(timeout=60))
    for process in processes:
        process.join(60)
    assert said == ["0.25", "0.5", "0.75"]


def test_a_call_that_meets_no_threshold_looks_for_none() -> None:
    with farthing.budget("plain", tokens=10_000):
        spend(5)
    assert not runtime().main.alerting
    with farthing.budget("told", tokens=10_000, alerts=[1]):
        assert runtime().main.alerting


@pytest.mark.parametrize(
    ("alerts", "named"),
    [
        ([0], "above 0"),
        ([50], "80 %"),
        (["0.5"], "not a part"),
        ([True], "not a part"),
        ([float("nan")], "above 0"),
        ([0.123456], "four decimals"),
        (0.5, "such as"),
        ("0.5", "such as"),
    ],
)
def test_thresholds_that_make_no_sense(alerts: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make_budget("b", tokens=5, alerts=alerts)
    with pytest.raises(ValueError, match="request"):
        make_budget("b", tokens=5, per="request", alerts=[1])
    with pytest.raises(ValueError, match="alerts"):
        make_budget("b", concurrency=5, alerts=[1])


def test_thresholds_are_kept_with_the_terms() -> None:
    budget = make_budget("b", tokens=5, alerts=[Decimal("0.8"), 1, 0.5, 0.5])
    assert budget.alerts == (5_000, 8_000, 10_000)
    assert type(budget).from_dict(budget.to_dict()) == budget
    kept = budget.to_dict()
    del kept["alerts"]  # as an earlier version wrote it
    assert type(budget).from_dict(kept).alerts == ()


def test_another_ledger_says_its_own(tmp_path: Path, heard: list[farthing.BudgetEvent]) -> None:
    listen(heard)
    for name in ("one", "two"):
        farthing.configure(ledger=f"sqlite:///{tmp_path}/{name}.db")
        with farthing.budget("b", tokens=100, alerts=[0.5]):
            spend(60)
            runtime().housekeeper.tick(sweep=False)
    assert thresholds(heard) == ["0.5", "0.5"]
