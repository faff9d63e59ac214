"""Virtual keys in the ledger: kept as they were made, rotated, revoked; never the text that opens them."""

from __future__ import annotations

import pytest

from farthing.errors import ConfigError
from farthing.kernel.keys import Key, KeyRing, Refused, hash_of
from farthing.stores.contract import Store
from farthing.testing import FakeClock

from .conftest import Ask
from .test_holds import put

FIRST, SECOND = (f"fk_{'0' * 11}{number}_{str(number) * 64}" for number in (1, 2))
RICH = Key(
    "000000000001",
    hash_of(FIRST),
    tags=(("key", "000000000001"), ("team", "search \N{SNOWMAN}"), ("user", "alice")),
    deny_status=402,
    label='the "laptop"',
    budgets=("user=alice day",),
    created_ms=5,
    expires_ms=4_000_000_000_000,
)
PLAIN = Key("000000000002", hash_of(SECOND), admin=True, parent=None)


def test_a_ledger_begins_without_keys(store: Store, ask: Ask) -> None:
    assert ask(store.keys()) == KeyRing()


def test_keys_are_kept_as_they_were_made(store: Store, ask: Ask) -> None:
    assert ask(store.put_key(RICH)) == KeyRing(1, {RICH.id: RICH})
    after = ask(store.put_key(PLAIN))
    assert after == KeyRing(2, {RICH.id: RICH, PLAIN.id: PLAIN})
    assert ask(store.keys()) == after
    assert ask(store.keys()).keys[PLAIN.id].admin is True


def test_a_fresh_look_sees_what_was_made(store: Store, ask: Ask) -> None:
    assert ask(store.keys(fresh=True)) == KeyRing()
    after = ask(store.put_key(RICH))
    assert ask(store.keys(fresh=True)) == after == ask(store.keys())


def test_an_id_is_given_once(store: Store, ask: Ask) -> None:
    before = ask(store.put_key(RICH))
    with pytest.raises(ConfigError, match="exists"):
        ask(store.put_key(RICH._replace(hash=PLAIN.hash)))
    assert ask(store.keys()) == before


def test_a_key_opens_until_it_is_revoked(store: Store, ask: Ask, clock: FakeClock) -> None:
    ask(store.put_key(RICH))
    assert ask(store.keys()).recognise(FIRST, store.now()) == RICH
    assert ask(store.keys()).recognise(SECOND, store.now()) == Refused("unknown")
    clock.advance(seconds=1)
    after = ask(store.revoke_key(RICH.id))
    assert after.keys[RICH.id].revoked_ms == store.now()
    assert ask(store.keys()).recognise(FIRST, store.now()) == Refused("revoked", RICH.shown)


def test_revoking_twice_changes_nothing(store: Store, ask: Ask, clock: FakeClock) -> None:
    ask(store.put_key(RICH))
    first = ask(store.revoke_key(RICH.id))
    clock.advance(seconds=1)
    assert ask(store.revoke_key(RICH.id)) == first


def test_unknown_keys_are_named(store: Store, ask: Ask) -> None:
    with pytest.raises(ConfigError, match="'nobody'"):
        ask(store.revoke_key("nobody"))
    with pytest.raises(ConfigError, match="'nobody'"):
        ask(store.rotate_key("nobody", PLAIN.hash))
    assert ask(store.keys()) == KeyRing()


def test_a_rotated_key_opens_with_both_secrets_while_they_overlap(store: Store, ask: Ask, clock: FakeClock) -> None:
    ask(store.put_key(RICH))
    new = f"fk_{RICH.id}_{'a' * 64}"
    ask(store.rotate_key(RICH.id, hash_of(new), overlap_ms=60_000))
    assert isinstance(ask(store.keys()).recognise(new, store.now()), Key)
    assert isinstance(ask(store.keys()).recognise(FIRST, store.now()), Key)
    clock.advance(seconds=60)
    assert isinstance(ask(store.keys()).recognise(new, store.now()), Key)
    assert ask(store.keys()).recognise(FIRST, store.now()) == Refused("unknown")


def test_a_key_rotated_without_overlap_opens_with_the_new_secret_only(store: Store, ask: Ask) -> None:
    ask(store.put_key(RICH))
    new = f"fk_{RICH.id}_{'a' * 64}"
    ask(store.rotate_key(RICH.id, hash_of(new), overlap_ms=0))
    assert isinstance(ask(store.keys()).recognise(new, store.now()), Key)
    assert ask(store.keys()).recognise(FIRST, store.now()) == Refused("unknown")


def test_a_revoked_key_is_not_rotated_back_to_life(store: Store, ask: Ask) -> None:
    ask(store.put_key(RICH))
    ask(store.revoke_key(RICH.id))
    with pytest.raises(ConfigError, match="revoked"):
        ask(store.rotate_key(RICH.id, PLAIN.hash))


def test_keys_and_budgets_do_not_disturb_each_other(store: Store, ask: Ask) -> None:
    put(store, ask, tokens=100)
    ring = ask(store.put_key(RICH))
    assert ask(store.catalogue()).version == 1
    put(store, ask, "other", tokens=100)
    assert ask(store.keys()) == ring
