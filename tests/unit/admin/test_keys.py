"""Keys as an operator handles them: whose they are, what they bring, when they end."""

from __future__ import annotations

import re
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from farthing.admin.keys import Made, create_key, id_of, list_keys, revoke_key, rotate_key
from farthing.errors import ConfigError
from farthing.kernel.keys import PARENTS_MAX, Key, Refused
from farthing.stores.memory import MemoryStore
from farthing.testing import FakeClock

DAY_MS = 86_400_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


def make(store: MemoryStore, **terms: Any) -> Made:
    return create_key(store, **terms)


def opens(store: MemoryStore, text: str) -> Key | Refused:
    return store.keys().result().recognise(text, store.now())


def test_a_key_is_who_its_caller_is(store: MemoryStore) -> None:
    made = make(store, user="alice", team="search", tags={"project": "x"}, label="laptop", deny_status=403)
    key = made.key
    assert dict(key.tags) == {"user": "alice", "team": "search", "project": "x", "key": key.id}
    assert (key.label, key.deny_status, key.admin) == ("laptop", 403, False)
    assert opens(store, made.text) == key
    assert made.text.startswith(f"fk_{key.id}_")


def test_two_keys_have_nothing_in_common(store: MemoryStore) -> None:
    first, second = make(store), make(store)
    assert first.key.id != second.key.id
    assert first.text.rpartition("_")[2] != second.text.rpartition("_")[2]
    assert len(bytes.fromhex(first.text.rpartition("_")[2])) == 32


def test_the_secret_is_random_in_full_and_an_id_is_given_once(store: MemoryStore) -> None:
    seeds = [bytes([1]) * 6, bytes([2]) * 32, bytes([1]) * 6, bytes([3]) * 6, bytes([4]) * 32]
    asked: list[int] = []

    def random_hex(length: int) -> str:
        asked.append(length)
        return seeds[len(asked) - 1].hex()

    assert create_key(store, random_hex=random_hex).text == f"fk_{'01' * 6}_{'02' * 32}"
    assert create_key(store, random_hex=random_hex).text == f"fk_{'03' * 6}_{'04' * 32}"
    assert asked == [6, 32, 6, 6, 32]


def test_what_lists_show_opens_nothing(store: MemoryStore) -> None:
    made = make(store, user="alice")
    secret = made.text.rpartition("_")[2]
    (figures,) = list_keys(store)
    shown = f"{figures.to_dict()}"
    assert secret not in shown
    assert made.key.hash not in shown
    assert secret not in f"{store.keys().result()}"
    assert figures.to_dict()["tags"] == {"user": "alice"}


def test_a_user_has_one_account_for_all_keys(store: MemoryStore) -> None:
    first = make(store, user="alice", budgets=["$5/day", "100k tokens/day", "$50/month"])
    second = make(store, user="alice", budgets=["$5/day", "100k tokens/day"])
    budgets = store.catalogue().result().budgets
    assert set(budgets) == {"alice per day", "alice per month"}
    assert first.key.budgets == ("alice per day", "alice per month")
    assert second.key.budgets == ("alice per day",)
    day = budgets["alice per day"]
    assert (day.scope, day.usd_nano, day.tokens, str(day.window), day.standing) == (
        (("user", "alice"),),
        5_000_000_000,
        100_000,
        "day",
        True,
    )


def test_a_key_without_a_user_has_an_account_of_its_own(store: MemoryStore) -> None:
    made = make(store, team="search", budgets=["$5"])
    (budget,) = store.catalogue().result().budgets.values()
    assert (budget.name, dict(budget.scope)) == (f"key {made.key.id}", {"key": made.key.id})


def test_other_terms_for_one_user_make_no_key(store: MemoryStore) -> None:
    make(store, user="alice", budgets=["$5/day"])
    with pytest.raises(ConfigError, match=r"'alice per day' exists with other terms \(\$5.00 per day\).*--update"):
        make(store, user="alice", budgets=["$6/day"])
    assert len(list_keys(store)) == 1
    assert store.catalogue().result().budgets["alice per day"].usd_nano == 5_000_000_000


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"admin": True, "user": "alice"}, "admin key"),
        ({"admin": True, "budgets": ["$5"]}, "admin key"),
        ({"admin": True, "deny_status": 403}, "admin key"),
        ({"deny_status": 404}, "deny_status"),
        ({"deny_status": "403"}, "deny_status"),
        ({"user": ""}, "user must not be empty"),
        ({"user": " "}, "user must not be empty"),
        ({"user": "x" * 300}, "longer than"),
        ({"tags": {"key": "x"}}, "'key'"),
        ({"tags": {"model": "gpt-4o"}}, "'model'"),
        ({"tags": {"provider": "openai"}}, "'provider'"),
        ({"user": "alice", "tags": {"user": "bob"}}, "'user' is given twice"),
        ({"expires": "2020-01-01"}, "is in the past"),
        ({"expires": "soon"}, "expires="),
        ({"budgets": ["5"]}, "budget="),
        ({"budgets": ["$5/day", "$6/day"]}, "two limits in usd"),
        ({"label": ""}, "label"),
    ],
)
def test_what_makes_no_sense_makes_nothing(store: MemoryStore, terms: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        make(store, **terms)
    assert list_keys(store) == []
    assert store.catalogue().result().budgets == {}


def test_a_key_expires(store: MemoryStore, clock: FakeClock) -> None:
    made = make(store, expires="30d")
    assert made.key.expires_ms == store.now() + 30 * DAY_MS
    clock.advance(seconds=30 * 86_400)
    assert opens(store, made.text) == Refused("expired", made.key.shown)
    assert [figures.state for figures in list_keys(store)] == ["expired"]


@pytest.mark.parametrize("written", ["id", "shown", "text"])
def test_a_key_is_revoked_by_whatever_names_it(store: MemoryStore, written: str) -> None:
    made = make(store, user="alice", budgets=["$5/day"])
    named = {"id": made.key.id, "shown": made.key.shown, "text": made.text}[written]
    assert id_of(f" {named}\n") == made.key.id
    assert revoke_key(store, named).state == "revoked"
    assert opens(store, made.text) == Refused("revoked", made.key.shown)
    # What alice has spent, and what she may, is hers and not this key's.
    assert store.catalogue().result().budgets["alice per day"].usd_nano == 5_000_000_000


def test_rotation_keeps_all_but_the_secret(store: MemoryStore, clock: FakeClock) -> None:
    made = make(store, user="alice", budgets=["$5/day"])
    rotated = rotate_key(store, made.key.id, overlap="1h")
    assert rotated.text != made.text
    assert rotated.key.tags == made.key.tags
    assert isinstance(opens(store, made.text), Key)
    assert isinstance(opens(store, rotated.text), Key)
    clock.advance(seconds=3_600)
    assert opens(store, made.text) == Refused("unknown")
    again = rotate_key(store, made.key.id)
    assert opens(store, rotated.text) == Refused("unknown")
    assert isinstance(opens(store, again.text), Key)


@pytest.mark.parametrize("overlap", ["2020-01-01", "now"])
def test_an_overlap_lies_ahead(store: MemoryStore, overlap: str) -> None:
    made = make(store)
    with pytest.raises(ValueError, match="overlap="):
        rotate_key(store, made.key.id, overlap=overlap)
    assert isinstance(opens(store, made.text), Key)


def test_a_delegated_key_is_its_parent_and_one_tag_more(store: MemoryStore) -> None:
    parent = make(store, user="alice", budgets=["$5/day"])
    child = make(store, parent=parent.key.id, tags={"agent": "critic"}, expires="1h", budgets=["$1"])
    root = parent.key.id
    assert dict(child.key.tags) == {"user": "alice", "agent": "critic", "key": root}
    budget = store.catalogue().result().budgets[child.key.budgets[0]]
    # Not the user's account: its own, within hers.
    assert dict(budget.scope) == {"agent": "critic", "key": root}
    assert budget.usd_nano == int(Decimal(1) * 10**9)
    revoke_key(store, root)
    assert opens(store, child.text) == Refused("revoked", child.key.shown)


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"tags": {"agent": "critic"}}, "expires"),
        ({"tags": {"agent": "critic"}, "expires": "31d"}, "expires"),
        ({"expires": "1h"}, "exactly one tag"),
        ({"tags": {"agent": "critic", "run": "1"}, "expires": "1h"}, "exactly one tag"),
        ({"tags": {"user": "bob"}, "expires": "1h"}, "exactly one tag"),
        ({"tags": {"agent": "critic"}, "expires": "1h", "parent": "nobody"}, "'nobody'"),
    ],
)
def test_delegation_never_widens(store: MemoryStore, terms: dict[str, Any], named: str) -> None:
    parent = make(store, user="alice", expires="30d")
    with pytest.raises(ValueError, match=re.escape(named)):
        make(store, **{"parent": parent.key.id, **terms})
    assert len(list_keys(store)) == 1


def test_nothing_is_delegated_from_what_opens_nothing(store: MemoryStore) -> None:
    terms: dict[str, Any] = {"tags": {"agent": "critic"}, "expires": "1h"}
    admin, revoked = make(store, admin=True), make(store)
    revoke_key(store, revoked.key.id)
    for parent, why in ((admin, "an admin key"), (revoked, "revoked")):
        with pytest.raises(ConfigError, match=why):
            make(store, parent=parent.key.id, **terms)


def test_a_line_of_delegations_ends(store: MemoryStore) -> None:
    last = make(store, user="alice")
    for number in range(PARENTS_MAX):
        last = make(store, parent=last.key.id, tags={f"level{number}": "x"}, expires="1h")
    with pytest.raises(ConfigError, match=f"line of {PARENTS_MAX} delegations"):
        make(store, parent=last.key.id, tags={"further": "x"}, expires="1h")
    assert isinstance(opens(store, last.text), Key)


def test_keys_are_listed_oldest_first(store: MemoryStore, clock: FakeClock) -> None:
    random = Random(7)
    made = []
    for _ in range(5):
        made.append(create_key(store, random_hex=lambda length: random.randbytes(length).hex()).key.id)
        clock.advance(seconds=1)
    assert [figures.key.id for figures in list_keys(store)] == made
