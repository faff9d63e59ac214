"""Standing budgets: whole commands, exact differences, grants that are signed and dated."""

from __future__ import annotations

from decimal import Decimal

import pytest

from farthing.admin.standing import grant_more, set_budget
from farthing.errors import ConfigError
from farthing.kernel.budget import make_budget
from farthing.stores.memory import MemoryStore
from farthing.testing import FakeClock


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(clock=FakeClock())


def test_a_new_budget_stands(store: MemoryStore) -> None:
    done = set_budget(store, "b", usd=Decimal("5.00"), per="day")
    assert (done.before, done.now.standing, done.changes()) == (None, True, [])
    assert store.catalogue().result().budgets["b"] == done.now


def test_the_same_terms_again_change_nothing(store: MemoryStore) -> None:
    set_budget(store, "b", tokens=5)
    version = store.catalogue().result().version
    assert set_budget(store, "b", tokens=5).changes() == []
    assert set_budget(store, "b", tokens=5, update=True).changes() == []
    assert store.catalogue().result().version == version


def test_other_terms_are_named_and_refused_without_update(store: MemoryStore) -> None:
    set_budget(store, "b", tokens=5, scope={"team": "a"}, each=["user"])
    with pytest.raises(ConfigError, match="tokens 5 → 6; scope team=a → none; each user → none"):
        set_budget(store, "b", tokens=6)
    assert store.catalogue().result().budgets["b"].tokens == 5


def test_an_update_keeps_what_is_not_named(store: MemoryStore) -> None:
    set_budget(store, "b", tokens=5, usd=Decimal(3), per="day", scope={"team": "a"}, each=["user"], description="x")
    done = set_budget(store, "b", tokens=6, update=True)
    assert done.changes() == ["tokens 5 → 6"]
    now = done.now
    assert (now.tokens, now.usd_nano, str(now.window), now.scope) == (6, 3_000_000_000, "day", (("team", "a"),))
    assert (now.each, now.description, now.standing) == (("user",), "x", True)


def test_leaving_a_downgrade_leaves_its_map(store: MemoryStore) -> None:
    set_budget(store, "b", tokens=5, on_exceed="downgrade", downgrade={"a": "b"})
    done = set_budget(store, "b", on_exceed="block", update=True)
    assert done.changes() == ["on_exceed downgrade → block", "downgrade a=b → none"]
    with pytest.raises(ValueError, match="downgrade is only used"):
        set_budget(store, "b", downgrade={"a": "b"}, update=True)


def test_a_budget_of_a_program_stays_where_it_is_named(store: MemoryStore) -> None:
    store.put_budget(make_budget("b", tokens=5)).result()
    assert set_budget(store, "b", tokens=9, update=True).now.standing is False


def test_a_grant_in_two_units_is_made_whole_or_not_at_all(store: MemoryStore) -> None:
    set_budget(store, "b", tokens=5)
    with pytest.raises(ConfigError, match="no limit in usd"):
        grant_more(store, "b", tokens=5, usd=Decimal(1))
    assert store.catalogue().result().grants == ()
    set_budget(store, "b", usd=Decimal(1), update=True)
    made = grant_more(store, "b", tokens=5, usd=Decimal("0.5"), until="7d", reason="why", who="olga")
    assert store.catalogue().result().grants == made
    assert {(grant.unit, grant.amount) for grant in made} == {("usd", 500_000_000), ("tokens", 5)}
    assert {(grant.until_ms, grant.reason, grant.who) for grant in made} == {
        (store.now() + 7 * 86_400_000, "why", "olga")
    }


def test_a_grant_for_one_account(store: MemoryStore) -> None:
    set_budget(store, "b", tokens=5, each=["user"])
    (made,) = grant_more(store, "b", tokens=5, scope={"user": "alice"})
    assert made.scope == (("user", "alice"),)
    with pytest.raises(ValueError, match="no account for each 'run'"):
        grant_more(store, "b", tokens=5, scope={"run": "1"})


@pytest.mark.parametrize("tokens", [0, -1])
def test_a_grant_only_raises(store: MemoryStore, tokens: int) -> None:
    set_budget(store, "b", tokens=5)
    with pytest.raises(ConfigError, match="above 0"):
        grant_more(store, "b", tokens=tokens)
