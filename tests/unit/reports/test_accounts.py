"""Accounts as an operator looks at them, on the ledger in memory with a clock that stands still."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from farthing.errors import ConfigError
from farthing.kernel.budget import Budget, make_budget
from farthing.kernel.catalogue import Grant
from farthing.kernel.hold import Outcome
from farthing.kernel.plan import Ask, CallFacts, Formula, make_plan
from farthing.kernel.scope import read_account_key
from farthing.reports import accounts
from farthing.reports.accounts import AccountFigures, list_accounts
from farthing.stores.memory import MemoryStore
from farthing.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


def hold(store: MemoryStore, budget: Budget, name: str, tokens: int, **tags: str) -> str:
    account = replace(store.catalogue().result().account(budget, tags, store.now()), limits=())
    facts = CallFacts(input_tokens=tokens, price=Formula(1_000 * tokens))
    ask = Ask(name, facts, 0, 0, store.now() + 1_000)
    store.place(make_plan(ask, [account], catalogue_version=store.catalogue().result().version)).result()
    return name


def spend(store: MemoryStore, budget: Budget, name: str, tokens: int, **tags: str) -> None:
    hold(store, budget, name, tokens, **tags)
    store.settle(name, Outcome((tokens, 1_000 * tokens, 1, 0))).result()


def tokens_of(account: AccountFigures) -> tuple[int, int, int, int | None, int]:
    figures = account.figures("tokens")
    assert figures is not None
    return figures.spent, figures.held, figures.suspect, figures.remaining, figures.overrun


def test_spent_held_and_suspect_are_told_apart(store: MemoryStore) -> None:
    budget = make_budget("b", tokens=100)
    store.put_budget(budget).result()
    spend(store, budget, "done", 10)
    hold(store, budget, "in flight", 20)
    store.suspect(hold(store, budget, "lost", 30), ending="lost").result()
    ((account,),) = [found.accounts for found in list_accounts(store)]
    assert tokens_of(account) == (10, 20, 30, 40, 0)
    usd = account.figures("usd")
    assert usd is not None
    assert (usd.limit, usd.remaining, usd.spent, usd.counted) == (None, None, 10_000, 60_000)
    assert usd.to_dict()["spent"] == "0.00001"
    assert account.figures("concurrency") is None, "a unit that is neither limited nor posted"


def test_without_a_call_there_is_the_account_that_it_would_fall_into(store: MemoryStore) -> None:
    store.put_budget(make_budget("one", tokens=100)).result()
    store.put_budget(make_budget("each", tokens=100, each=["user"])).result()
    each, one = list_accounts(store)
    assert [budget.budget.name for budget in (each, one)] == ["each", "one"]
    assert (len(each.accounts), len(one.accounts)) == (0, 1)
    (row,) = each.to_dicts()
    assert row["tokens"] == {"limit": 100}


def test_a_calendar_window_shows_the_current_one_only(store: MemoryStore, clock: FakeClock) -> None:
    budget = make_budget("b", tokens=100, per="day", each=["user"])
    store.put_budget(budget).result()
    spend(store, budget, "yesterday", 10, user="alice")
    spend(store, budget, "also yesterday", 10, user="bob")
    clock.advance(days=1)
    spend(store, budget, "today", 3, user="bob")
    ((account,),) = [found.accounts for found in list_accounts(store)]
    assert account.scope == {"user": "bob"}
    assert tokens_of(account) == (3, 0, 0, 97, 0)
    assert account.resets_at is not None
    assert account.resets_at > datetime.fromtimestamp(clock() / 1000, UTC)


def test_a_rolling_window_sums_its_buckets(store: MemoryStore, clock: FakeClock) -> None:
    budget = make_budget("b", tokens=100, per="rolling 60s")
    store.put_budget(budget).result()
    for number in range(3):
        spend(store, budget, f"call {number}", 10)
        clock.advance(seconds=20)
    ((account,),) = [found.accounts for found in list_accounts(store)]
    assert tokens_of(account) == (30, 0, 0, 70, 0)
    assert account.resets_at is None


def test_grants_raise_the_limit_and_what_is_beyond_it_is_overrun(store: MemoryStore, clock: FakeClock) -> None:
    budget = make_budget("b", tokens=100)
    store.put_budget(budget).result()
    store.grant(Grant("b", "tokens", 50, store.now(), store.now() + 60_000)).result()
    spend(store, budget, "big", 160)
    (found,) = list_accounts(store)
    assert tokens_of(found.accounts[0]) == (160, 0, 0, 0, 10)
    figures = found.accounts[0].figures("tokens")
    assert figures is not None
    assert (figures.limit, figures.granted) == (150, 50)
    assert len(found.grants) == 1
    clock.advance(seconds=61)
    (later,) = list_accounts(store)
    assert tokens_of(later.accounts[0]) == (160, 0, 0, 0, 60)
    assert later.grants == ()


def test_one_budget_by_name(store: MemoryStore) -> None:
    for name in ("a", "b"):
        store.put_budget(make_budget(name, tokens=1)).result()
    assert [found.budget.name for found in list_accounts(store, "b")] == ["b"]
    with pytest.raises(ConfigError, match="no budget is named 'c'"):
        list_accounts(store, "c")


def test_names_and_values_may_hold_any_sign(store: MemoryStore) -> None:
    budget = make_budget('a|b["c', tokens=10, each=["user"])
    store.put_budget(budget).result()
    spend(store, budget, "x", 1, user='o|"}]ö')
    ((account,),) = [found.accounts for found in list_accounts(store)]
    assert account.scope == {"user": 'o|"}]ö'}


def test_accounts_of_windows_that_are_over_are_not_looked_through(
    store: MemoryStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a rolling minute there are some 750 within their grace, for each user: a scrape of them took seconds."""
    budget = make_budget("r", tokens=1_000, per="rolling 60s", each=["user"])
    store.put_budget(budget).result()
    for number in range(90):
        spend(store, budget, f"call-{number}", 5, user="u")
        clock.advance(seconds=10)
    looked = []

    def read(key: str) -> tuple[str, dict[str, str | None], str]:
        looked.append(key)
        return read_account_key(key)

    monkeypatch.setattr(accounts, "read_account_key", read)
    (found,) = list_accounts(store, "r")
    (account,) = found.accounts
    figures = account.figures("tokens")
    assert figures is not None
    assert figures.spent == 30
    assert len(looked) < 20
