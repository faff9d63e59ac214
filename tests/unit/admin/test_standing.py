"""Standing budgets: whole commands, exact differences, grants that are signed and dated."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from farthing.admin.standing import grant_more, set_budget
from farthing.errors import ConfigError
from farthing.kernel.budget import make_budget
from farthing.stores.changing import latest
from farthing.stores.memory import MemoryStore
from farthing.stores.sqlite import SQLiteStore
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


def test_two_who_change_one_budget_undo_nothing(tmp_path: Path) -> None:
    """Two processes, one after the other; what the second knows of the ledger is from before the first."""
    with closing(SQLiteStore(tmp_path / "ledger.db")) as one, closing(SQLiteStore(tmp_path / "ledger.db")) as two:
        set_budget(one, "b", tokens=100, requests=10)
        assert latest(two).budgets["b"].tokens == 100
        set_budget(one, "b", tokens=5, update=True)
        done = set_budget(two, "b", requests=20, update=True)
        assert (done.now.tokens, done.now.requests) == (5, 20)
        assert done.changes() == ["requests 10 → 20"]
        set_budget(one, "b", tokens=6, update=True)
        assert set_budget(two, "b", tokens=5, update=True).now.tokens == 5, "the last word counts"


def test_a_budget_that_stands_goes_on_standing_whoever_changes_its_terms(store: MemoryStore) -> None:
    set_budget(store, "b", tokens=5)
    changed = store.put_budget(make_budget("b", tokens=8), update=True).result().budgets["b"]
    assert (changed.tokens, changed.standing) == (8, True)
    again = store.put_budget(make_budget("b", tokens=8)).result().budgets["b"]
    assert again is changed


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
    with pytest.raises(ValueError, match="no account of its own for each 'run'"):
        grant_more(store, "b", tokens=5, scope={"run": "1"})


@pytest.mark.parametrize("tokens", [0, -1])
def test_a_grant_only_raises(store: MemoryStore, tokens: int) -> None:
    set_budget(store, "b", tokens=5)
    with pytest.raises(ConfigError, match="above 0"):
        grant_more(store, "b", tokens=tokens)
