"""Reports: the same figures from a process and from its ledger; and what is gone is said."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

import farthing
from farthing.runtime.default import runtime
from farthing.testing import FakeClock

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def some_calls() -> None:
    for number in range(12):
        tags = farthing.track(feature="ab"[number % 2], user="xyz"[number % 3])
        with tags, farthing.budget("all", tokens=10**6), farthing.hold(tokens=100, model="gpt-4o") as held:
            held.settle({"input_tokens": 50 + number, "output_tokens": 10})


@pytest.mark.parametrize(
    "group_by", [[], ["feature"], ["feature", "user"], ["model", "budget"], ["hour"], ["day", "user"]]
)
def test_the_ledger_says_what_the_process_says(tmp_path: Path, group_by: list[str]) -> None:
    farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
    some_calls()
    here, there = farthing.report(group_by), farthing.report(group_by, since="all")
    assert here.to_dicts() == there.to_dicts()
    assert sum(row["calls"] for row in there) == 12


def test_where_takes_every_kind_of_key(tmp_path: Path) -> None:
    farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
    some_calls()
    for where, calls in (
        ({"feature": "a"}, 6),
        ({"feature": "a", "user": "x"}, 2),
        ({"budget": "all"}, 12),
        ({"budget": "none"}, 0),
        ({"model": "gpt-4o", "day": farthing.report("day").to_dicts()[0]["tags"]["day"]}, 12),
        ({"provider": "anthropic"}, 0),
    ):
        for since in (None, "all"):
            assert farthing.report(where=where, since=since).totals()["calls"] == calls, where


def test_assert_under_reads_again_what_was_not_told_apart(tmp_path: Path) -> None:
    farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
    some_calls()
    whole = farthing.report(since="all")
    whole.assert_under(usd=whole.total())
    half = farthing.report(since="all", where={"feature": "a"}).total()
    whole.assert_under(usd=half, feature="a")
    with pytest.raises(AssertionError, match="6 calls for feature=a cost"):
        whole.assert_under(usd=half - Decimal("0.000001"), feature="a")


def test_what_a_process_no_longer_knows_is_said() -> None:
    farthing.configure(max_records=5)
    some_calls()
    assert farthing.dropped() == 7
    report = farthing.report()
    assert (report.dropped, report.totals()["calls"]) == (7, 5)
    assert "7 earlier calls are not in it" in str(report)


def test_a_row_may_be_asked_for_by_its_place() -> None:
    for user, tokens in (("alice", 10), ("bob", 20)):
        farthing.record({"input_tokens": tokens}, model="gpt-4o", user=user)
    report = farthing.report(group_by=["user"])
    assert [report[0], report[-1]] == list(report)
    assert report[0]["tags"] == {"user": "bob"}
    with pytest.raises(IndexError):
        report[2]


def test_a_shell_shows_the_table() -> None:
    farthing.record({"input_tokens": 7}, model="gpt-4o", user="alice")
    report = farthing.report(group_by="user")
    assert repr(report) == str(report)
    assert repr(report).splitlines()[0].split()[0] == "user"


def test_a_table_says_what_its_mark_means() -> None:
    with pytest.warns(farthing.UnpricedModelWarning):
        farthing.record({"input_tokens": 5}, model="of-nobody")
    assert str(farthing.report()).splitlines()[-1] == "* without 1 call whose price is not known"
    farthing.record({"input_tokens": 5})
    assert str(farthing.report()).splitlines()[-1] == "* without 2 calls whose price is not known"


def test_unpriced_calls_are_counted() -> None:
    with pytest.warns(farthing.UnpricedModelWarning):
        farthing.record({"input_tokens": 7}, model="our-own-model")
    farthing.record({"input_tokens": 7}, model="gpt-4o")
    assert farthing.unpriced_calls() == farthing.report().totals()["unpriced_calls"] == 1
    farthing.reset()
    assert farthing.unpriced_calls() == 0


def test_rows_that_were_rolled_up_are_still_reported(tmp_path: Path) -> None:
    with FakeClock() as clock:
        farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db", retention_days=2)
        some_calls()
        before = farthing.report(["day", "feature"], since="all").to_dicts()
        clock.advance(days=5)
        here = runtime()
        for _ in range(4):
            here.housekeeper.tick(sweep=True)
            clock.advance(minutes=30)
        assert here.durable is not None
        assert here.durable.store.entries().result() == []
        assert farthing.report(["day", "feature"], since="all").to_dicts() == before


def test_old_prices_are_said_once_where_money_is_counted() -> None:
    age_days = runtime().prices.age_days(runtime().clock())
    assert age_days is not None
    later = 46 - age_days
    with FakeClock(runtime().clock() + later * 86_400_000):
        here = runtime()
        tokens, usd = (farthing.budget(name, **{name: 5}).terms for name in ("tokens", "usd"))
        here.check_prices([tokens], here.clock())
        with pytest.warns(farthing.StalePricesWarning, match="46 days ago"):
            here.check_prices([usd], here.clock())
        here.check_prices([usd], here.clock())  # not again: warnings are errors here
    assert farthing.StalePriceTableWarning is farthing.StalePricesWarning
    with FakeClock(runtime().clock() + (later - 1) * 86_400_000):
        runtime().check_prices([usd], runtime().clock())
        farthing.configure(stale_prices_after_days=None)


def test_track_knows_its_report_by_the_predecessors_name() -> None:
    some_calls()
    assert farthing.track.report(["feature"]).to_dicts() == farthing.report(["feature"]).to_dicts()
    with pytest.raises(ValueError, match="'budget' is what a call says itself"):
        farthing.track(budget="x")
