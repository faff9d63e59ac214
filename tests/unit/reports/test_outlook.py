"""What is ahead of a budget: from the ledger's own rows, account by account."""

from __future__ import annotations

from collections.abc import ItemsView
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import farthing
from farthing.kernel.sums import Figures, SumKey
from farthing.reports.accounts import list_accounts
from farthing.reports.outlook import Outlook, outlooks
from farthing.runtime.default import runtime
from farthing.stores.contract import Ready
from farthing.testing import FakeClock


def ahead(name: str) -> dict[tuple[tuple[str, str | None], ...], Outlook]:
    here = runtime()
    here.housekeeper.tick(sweep=False)
    found = list_accounts(here.main.store, name)
    (of_accounts,) = outlooks(here.main.store, found)
    return {
        tuple(account.scope.items()): outlook for account, outlook in zip(found[0].accounts, of_accounts, strict=True)
    }


def spend(tokens: int, **tags: str) -> None:
    farthing.record({"input_tokens": tokens}, model="gpt-4o", **tags)


@pytest.mark.parametrize("ledger", ["memory", "sqlite"])
def test_each_account_is_forecast_at_its_own_rate(tmp_path: Path, ledger: str) -> None:
    with FakeClock(datetime(2026, 3, 2, tzinfo=UTC)) as clock:
        if ledger == "sqlite":
            farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
        with farthing.budget("each", tokens=1_000, per="month", each=["user"]):
            for _ in range(10):
                spend(10, user="slow")
                spend(50, user="fast")
                clock.advance(hours=1)
        by_user = ahead("each")
    # 50 tokens an hour, 500 are left: ten hours from now.
    fast, slow = by_user[("user", "fast"),], by_user[("user", "slow"),]
    assert fast.exhausted_at == {"tokens": datetime(2026, 3, 2, 20, tzinfo=UTC)}
    assert slow.exhausted_at == {"tokens": datetime(2026, 3, 2, 10, tzinfo=UTC) + timedelta(hours=90)}


def test_what_lasts_until_the_reset_is_not_forecast() -> None:
    with FakeClock(datetime(2026, 3, 2, tzinfo=UTC)) as clock, farthing.budget("daily", tokens=1_000, per="day"):
        spend(10)
        clock.advance(hours=1)
        assert ahead("daily")[()].exhausted_at == {}
        spend(980)
        clock.advance(hours=1)
        assert ahead("daily")[()].exhausted_at.keys() == {"tokens"}


@pytest.mark.parametrize("minute", [0, 2, 58])
@pytest.mark.parametrize("ledger", ["memory", "sqlite"])
def test_a_rate_is_of_the_time_since_the_first_call(tmp_path: Path, ledger: str, minute: int) -> None:
    """Not since its hour began: a burst at 9:58 was spread over 58 minutes, one at 9:02 was said nothing of."""
    with FakeClock(datetime(2026, 3, 2, 9, minute, tzinfo=UTC)) as clock:
        if ledger == "sqlite":
            farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
        with farthing.budget("day", tokens=1_000, per="day"):
            spend(60)
            clock.advance(minutes=4)
            assert ahead("day")[()].exhausted_at == {}, "with less than five minutes of calls nothing is said"
            clock.advance(minutes=2)
            spend(60)
        # 120 in six minutes, 880 are left: 44 minutes.
        assert ahead("day")[()].exhausted_at == {
            "tokens": datetime(2026, 3, 2, 9, minute, tzinfo=UTC) + timedelta(minutes=50)
        }


def test_denials_of_this_window_are_counted_by_account() -> None:
    with FakeClock() as clock:
        tight = farthing.budget("tight", tokens=10, per="day", each=["user"])
        trial = farthing.budget("trial", tokens=10, on_exceed="warn")
        for user, times in (("a", 3), ("b", 1)):
            for _ in range(times):
                with trial, farthing.track(user=user):
                    with farthing.hold(tokens=20):
                        pass
                    with pytest.raises(farthing.BudgetExceeded), tight, farthing.hold(tokens=20):
                        pass
        spend(1, user="a")
        with tight:
            spend(1, user="a")
            spend(1, user="b")
        assert [outlook.denied for outlook in ahead("tight").values()] == [3, 1]
        assert [(outlook.denied, outlook.would_deny) for outlook in ahead("trial").values()] == [(0, 4)]
        clock.advance(days=1)
        with tight:
            spend(1, user="a")
        assert [outlook.denied for outlook in ahead("tight").values()] == [0]


class Walked(dict[SumKey, Figures]):
    """Sums that count how often they are gone through."""

    walks = 0

    def items(self) -> ItemsView[SumKey, Figures]:
        Walked.walks += 1
        return super().items()


@pytest.mark.usefixtures("farthing_isolated")
def test_history_is_gone_through_once_however_many_accounts_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2,000 users and a week of their hours, `farthing budgets list` took more than a minute."""
    with farthing.budget("each", tokens=1_000, each=["user"]), farthing.budget("team", tokens=1_000):
        for number in range(20):
            spend(1, user=f"u{number}")
    store = runtime().memory_store
    sums = store.sums
    monkeypatch.setattr(store, "sums", lambda *by, **span: Ready(Walked(sums(*by, **span).result())))
    monkeypatch.setattr(Walked, "walks", 0)
    of_each, of_team = outlooks(store, list_accounts(store))
    assert [len(of_each), len(of_team)] == [20, 1]
    assert Walked.walks == 1
