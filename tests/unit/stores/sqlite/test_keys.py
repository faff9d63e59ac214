"""Virtual keys on a file that several processes share: what one changes the others learn, and only what changed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from farthing.kernel.keys import Key, Refused, hash_of
from farthing.stores.sqlite import SQLiteStore
from farthing.stores.sqlite import store as store_module
from tests.waiting import SECONDS

TEXT = f"fk_{'a1' * 6}_{'0f' * 32}"
KEY = Key("a1" * 6, hash_of(TEXT), tags=(("key", "a1" * 6), ("user", "alice")))


def test_keys_outlive_the_process(path: Path) -> None:
    first = SQLiteStore(path)
    first.put_key(KEY).result()
    ring = first.revoke_key(KEY.id).result()
    first.close()
    second = SQLiteStore(path)
    assert second.keys().result() == ring
    second.close()


def test_another_process_learns_of_a_revocation_within_a_second(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    store.put_key(KEY).result()
    store.put_key(KEY._replace(id="b2" * 6)).result()
    other.put_key(KEY._replace(id="c3" * 6)).result()
    before = other.keys().result()
    assert before.recognise(TEXT, 0) == KEY
    store.revoke_key(KEY.id).result()
    # As if the file had last been looked at so long ago as it may be: less than the second that is promised.
    assert other._writer is not None
    assert store_module.KEYS_SECONDS < 1
    other._writer.looked_at = time.monotonic() - store_module.KEYS_SECONDS
    assert other.keys().result().recognise(TEXT, 0) == Refused("revoked", KEY.shown)
    # What did not change was not read again.
    assert other.keys().result().keys["b2" * 6] is before.keys["b2" * 6]
    other.close()


def test_a_fresh_look_sees_at_once_what_another_process_made(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "KEYS_SECONDS", 3_600.0)
    other = SQLiteStore(path)
    before = other.put_key(KEY._replace(id="c3" * 6)).result()
    store.put_key(KEY).result()
    assert other.keys().result() is before
    after = other.keys(fresh=True).result()
    assert after.recognise(TEXT, 0) == KEY
    assert other.keys().result() is other.keys(fresh=True).result() is after
    other.close()


def test_what_was_seen_is_as_old_as_when_it_was_read(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a look takes to end: what others changed after it had read is seen a second later, not two."""
    other = SQLiteStore(path, patience_seconds=SECONDS)
    store.put_key(KEY).result()
    writer = other._at_work()
    # Its opening has swept by then. That was a change, under a lock which a change of others would wait for.
    other.balances([]).result()
    committed, revoked_at = writer.books.committed, []

    def late() -> None:
        committed()
        store.revoke_key(KEY.id).result()
        revoked_at.append(time.monotonic())

    monkeypatch.setattr(writer.books, "committed", late)
    other.balances([]).result()
    monkeypatch.undo()
    assert writer.looked_at < revoked_at[0]
    other.close()


def test_asking_for_the_keys_reads_nothing_while_they_are_fresh(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "KEYS_SECONDS", 3_600.0)
    ring = store.put_key(KEY).result()
    assert all(store.keys().result() is ring for _ in range(100))


def test_a_group_that_fails_changes_no_key(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.put_key(KEY).result()
    writer = store._writer
    assert writer is not None

    def full(*args: object) -> int:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer.books, "write", full)
        with pytest.raises(Exception, match="no space left"):
            store.revoke_key(KEY.id).result()
    store.put_key(KEY._replace(id="b2" * 6)).result()
    assert store.keys().result().keys[KEY.id] == before.keys[KEY.id]
