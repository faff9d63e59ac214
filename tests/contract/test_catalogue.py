"""Budgets in the ledger: naming, changing, granting, freezing; and counts of denials."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from farthing.errors import ConfigError
from farthing.kernel.balances import Balance
from farthing.kernel.budget import Budget, make_budget
from farthing.kernel.catalogue import Catalogue, Grant
from farthing.kernel.ledger import Denied, Placed
from farthing.stores.contract import DenialKey, Store
from farthing.testing import FakeClock

from .calls import outcome, plan
from .conftest import Ask
from .test_holds import put, total

RICH = make_budget(
    "all \N{SNOWMAN} terms",
    usd=Decimal("12.345678901"),
    tokens=1,
    requests=2,
    per="month Europe/Berlin",
    on_exceed="downgrade",
    downgrade={"gpt-4o": "gpt-4o-mini", "gpt-4o-mini": "gpt-5-nano"},
    scope={"team": "search", "org": "acme"},
    each=["user", "run"],
    description='for "everyone"',
    min_output_tokens=20,
    default_output_tokens=500,
    uncapped="reject",
    open_bound="overrun",
    standing=True,
)


def test_a_ledger_begins_without_budgets(store: Store, ask: Ask) -> None:
    assert ask(store.catalogue()) == Catalogue()


def test_a_budget_is_kept_as_it_was_named(store: Store, ask: Ask) -> None:
    after = ask(store.put_budget(RICH))
    assert (after.version, dict(after.budgets)) == (1, {RICH.name: RICH})
    assert ask(store.catalogue()) == after
    assert isinstance(ask(store.catalogue()).budgets[RICH.name], Budget)


def test_naming_it_again_changes_nothing(store: Store, ask: Ask) -> None:
    first = ask(store.put_budget(RICH))
    assert ask(store.put_budget(RICH)) == first


def test_other_terms_need_update(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=100)
    put(store, ask, "other", tokens=7)
    with pytest.raises(ConfigError, match="update=True"):
        put(store, ask, tokens=200)
    assert ask(store.catalogue()).budgets["b"].tokens == 100
    after = ask(store.put_budget(make_budget("b", tokens=200), update=True))
    assert (after.version, after.budgets["b"].tokens, list(after.budgets)) == (3, 200, ["b", "other"])
    assert ask(store.catalogue()) == after


def test_changed_terms_bind_the_next_hold_and_keep_what_was_spent(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=150)
    ask(store.place(plan(store, "call")))
    ask(store.put_budget(make_budget("b", tokens=300), update=True))
    assert isinstance(ask(store.place(plan(store, "second"))), Placed)
    assert isinstance(ask(store.place(plan(store, "third"))), Denied)


def test_a_budget_is_removed_with_its_grants(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=100)
    ask(store.grant(Grant("b", "tokens", 50, clock())))
    ask(store.freeze("b", frozen=True))
    after = ask(store.remove_budget("b"))
    assert after == Catalogue(4)
    with pytest.raises(ConfigError, match="'b'"):
        ask(store.remove_budget("b"))
    put(store, ask, tokens=100)
    assert ask(store.catalogue()).frozen == frozenset()
    assert ask(store.catalogue()).grants == ()


def test_a_budget_of_a_file_is_removed_by_its_file_only(store: Store, ask: Ask) -> None:
    owned = replace(RICH, defined_by="farthing.toml")
    assert ask(store.put_budget(owned)).budgets == {RICH.name: owned}
    with pytest.raises(ConfigError, match=r"defined by farthing\.toml"):
        ask(store.remove_budget(RICH.name))
    assert ask(store.remove_budget(RICH.name, defined_by="farthing.toml")).budgets == {}


def test_another_window_is_another_account(store: Store, ask: Ask, clock: FakeClock) -> None:
    """Midnight of the first: day, month, minute and a rolling bucket all begin at this instant."""
    clock.set(datetime(2026, 12, 1, tzinfo=UTC))
    for number, per in enumerate(("day", "month", "day Europe/London", "rolling 12h", "minute")):
        assert ask(store.put_budget(make_budget("b", tokens=150, per=per), update=True))
        assert isinstance(ask(store.place(plan(store, f"call-{number}"))), Placed), per


def test_a_grant_raises_the_ceiling_until_it_ends(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=150)
    ask(store.place(plan(store, "call")))
    assert isinstance(ask(store.place(plan(store, "second"))), Denied)
    grant = Grant("b", "tokens", 150, clock(), clock() + 60_000, (), "a \N{SNOWMAN}", "alice")
    assert ask(store.grant(grant)).grants == (grant,)
    assert ask(store.catalogue()).grants == (grant,)
    assert isinstance(ask(store.place(plan(store, "second"))), Placed)
    assert isinstance(ask(store.place(plan(store, "third", want=1, floor=1, input_tokens=0))), Denied)
    ask(store.void("second"))
    clock.advance(seconds=60)
    assert isinstance(ask(store.place(plan(store, "second-again"))), Denied)


def test_a_grant_for_one_value_raises_that_account_only(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=100, each=["user"])
    ask(store.grant(Grant("b", "tokens", 50, clock(), None, (("user", "alice"),))))
    assert isinstance(ask(store.place(plan(store, "hers", tags={"user": "alice"}))), Placed)
    assert isinstance(ask(store.place(plan(store, "his", tags={"user": "bob"}))), Denied)


def test_grants_of_nothing_to_nobody_are_refused(store: Store, ask: Ask, clock: FakeClock) -> None:
    put(store, ask, tokens=100)
    for wrong in (Grant("x", "tokens", 1, clock()), Grant("b", "usd", 1, clock()), Grant("b", "tokens", 0, clock())):
        with pytest.raises(ConfigError):
            ask(store.grant(wrong))
    assert ask(store.catalogue()).grants == ()


def test_a_frozen_budget_denies_at_once_and_thaws(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    ask(store.place(plan(store, "in flight")))
    ask(store.freeze("b", frozen=True))
    assert ask(store.freeze("b", frozen=True)) == ask(store.catalogue())
    denied = ask(store.place(plan(store, "call")))
    assert isinstance(denied, Denied)
    assert denied.failed[0].line.frozen
    ask(store.settle("in flight", outcome()))
    assert total(store, ask) == Balance(120)
    ask(store.freeze("b", frozen=False))
    assert isinstance(ask(store.place(plan(store, "call"))), Placed)
    with pytest.raises(ConfigError):
        ask(store.freeze("nobody", frozen=True))


def test_an_updated_budget_stays_frozen(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=1_000)
    ask(store.freeze("b", frozen=True))
    ask(store.put_budget(make_budget("b", tokens=2_000), update=True))
    assert ask(store.catalogue()).frozen == {"b"}


def test_denials_are_added_up_and_found_by_hour(store: Store, ask: Ask) -> None:
    hour_ms = 3_600_000
    first = DenialKey(0, "b", "tokens", "gpt-4o", "openai", (("user", "zoë"),), shadow=False)
    shadow = first._replace(shadow=True)
    later = first._replace(hour_ms=hour_ms, tags=())
    ask(store.add_denials({first: 2, later: 1}))
    ask(store.add_denials({first: 3, shadow: 5}))
    assert ask(store.denials()) == {first: 5, shadow: 5, later: 1}
    assert ask(store.denials(since_ms=hour_ms)) == {later: 1}
    assert ask(store.denials(until_ms=hour_ms)) == {first: 5, shadow: 5}
    ask(store.add_denials({}))
    assert len(ask(store.denials())) == 3
