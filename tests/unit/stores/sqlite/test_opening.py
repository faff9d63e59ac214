"""Files that can be a ledger, and clear errors for those that cannot, with nothing half-written."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from farthing.errors import ConfigError, FarthingError, StoreUnavailable
from farthing.kernel.budget import make_budget
from farthing.stores.sqlite import SQLiteStore
from farthing.stores.sqlite.connection import _migrations
from farthing.stores.sqlite.files import NETWORK_TYPES, FileLock, file_system_type

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def refused(path: Path, kind: type[FarthingError]) -> str:
    """The message of the error, after checking that it names the file and that nothing was left behind."""
    before = contents(path)
    with pytest.raises(kind) as caught:
        SQLiteStore(path, patience_seconds=0.2)
    assert str(path) in str(caught.value)
    assert contents(path) == before
    return str(caught.value)


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file): file.read_bytes()
        for file in path.parent.glob(f"{path.name}*")
        if file.is_file() and file.suffix != ".db-lock"
    }


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_missing_directories_are_made_and_everything_is_private(tmp_path: Path) -> None:
    os.umask(previous := os.umask(0))
    path = tmp_path / "a" / "b" / "ledger.db"
    os.umask(0)
    try:
        store = SQLiteStore(path)
        store.put_budget(make_budget("b", tokens=1)).result()
        assert {mode(directory) for directory in (tmp_path / "a" / "b", Path(f"{path}-owners"))} == {0o700}
        files = [path, *path.parent.glob("ledger.db-*[!s]"), *Path(f"{path}-owners").iterdir()]
        assert {file.name: mode(file) for file in files if file.is_file()} == {
            file.name: 0o600 for file in files if file.is_file()
        }
        assert len(files) >= 4
        store.close()
    finally:
        os.umask(previous)


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch(mode=0o640)
    path.chmod(0o640)
    SQLiteStore(path).close()
    assert mode(path) == 0o640


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    budget = make_budget("b", tokens=1)
    first = SQLiteStore(tmp_path / "ledger.db")
    first.put_budget(budget).result()
    first.close()
    second = SQLiteStore(tmp_path / "ledger.db")
    assert dict(second.catalogue().result().budgets) == {"b": budget}
    second.close()


def test_two_names_of_one_file_share_its_lock(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "ledger.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "ledger.db")
    other = SQLiteStore(tmp_path / "link.db")
    assert other.name == store.name
    other.close()
    store.close()
    assert not (tmp_path / "link.db-lock").exists()


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    assert "is a directory" in refused(tmp_path / "ledger.db", ConfigError)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(tmp_path / "file" / "ledger.db", ConfigError)


@pytest.mark.parametrize(("beside", "what"), [("-lock", "Is a directory"), ("-owners", "File exists")])
def test_files_beside_it_that_cannot_be_made(tmp_path: Path, beside: str, what: str) -> None:
    """No room, no right, no file handle left: whatever the system says of it, it is the ledger that is unavailable."""
    SQLiteStore(tmp_path / "ledger.db").close()
    other = tmp_path / f"ledger.db{beside}"
    if beside == "-lock":
        other.unlink()
        other.mkdir()
    else:
        other.rmdir()
        other.touch()
    message = refused(tmp_path / "ledger.db", StoreUnavailable)
    assert f"{other} cannot be made" in message
    assert what in message


def test_an_owners_file_that_cannot_be_removed(tmp_path: Path) -> None:
    """Its file system can only be read by now, say. The lock on it goes all the same, and so does the writer."""
    store = SQLiteStore(tmp_path / "ledger.db")
    kept = tmp_path / "ledger.db-owners" / store.owner
    kept.rename(kept.with_name("moved"))
    kept.mkdir()
    store.close()
    kept.with_name("moved").rename(kept.with_name("again"))
    lock = FileLock(kept.with_name("again"))
    assert lock.try_acquire()
    lock.drop()


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("Dear diary, " * 500)
    assert "not a database" in refused(tmp_path / "ledger.db", StoreUnavailable)


def test_the_database_of_something_else(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("CREATE TABLE photos (name)")
    connection.close()
    assert "not a ledger" in refused(tmp_path / "ledger.db", StoreUnavailable)


def test_a_newer_schema_names_both_versions(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "ledger.db").close()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute("PRAGMA user_version = 1999")
    connection.close()
    message = refused(tmp_path / "ledger.db", StoreUnavailable)
    assert "1999" in message
    assert f"up to {max(_migrations())}" in message


def test_a_ledger_of_the_first_schema_is_brought_forward(tmp_path: Path) -> None:
    from farthing.stores.sqlite import connection

    first = {1: _migrations()[1]}
    path = tmp_path / "ledger.db"
    old = sqlite3.connect(path)
    old.executescript(f"{first[1]}\nPRAGMA application_id = {connection.APPLICATION_ID};\nPRAGMA user_version = 1;")
    old.execute("UPDATE meta SET value = 7 WHERE key = 'next_seq'")
    old.commit()
    old.close()
    store = SQLiteStore(path)
    assert store.keys().result().keys == {}
    store.put_budget(make_budget("b", tokens=1)).result()
    store.close()
    again = sqlite3.connect(path)
    assert again.execute("PRAGMA user_version").fetchone() == (max(_migrations()),)
    assert again.execute("SELECT value FROM meta WHERE key = 'next_seq'").fetchone() == (7,)
    again.close()


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    SQLiteStore(path).close()
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192)
    with pytest.raises(StoreUnavailable, match="malformed"):
        SQLiteStore(path).put_budget(make_budget("b", tokens=1)).result()


@pytest.mark.skipif(AS_ROOT, reason="root may write anything")
def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    SQLiteStore(path).close()
    path.chmod(0o400)
    assert "ermission" in refused(path, StoreUnavailable)


def test_a_failed_migration_leaves_an_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from farthing.stores.sqlite import connection

    broken = {1: connection._migrations()[1] + "\nCREATE TABLE meta (twice);"}
    monkeypatch.setattr(connection, "_migrations", lambda: broken)
    with pytest.raises(StoreUnavailable, match="meta"):
        SQLiteStore(tmp_path / "ledger.db")
    monkeypatch.undo()
    store = SQLiteStore(tmp_path / "ledger.db")
    assert store.catalogue().result().version == 0
    store.close()


@pytest.mark.parametrize("kind", sorted(NETWORK_TYPES))
def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("farthing.stores.sqlite.files.file_system_type", lambda directory: kind)
    assert kind in refused(tmp_path / "ledger.db", ConfigError)


def test_the_type_of_a_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    inner = tmp_path / "with space" / "inner"
    inner.mkdir(parents=True)
    mountinfo = tmp_path / "mountinfo"
    escaped = str(tmp_path / "with space").replace(" ", "\\040")
    mountinfo.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"2 1 0:40 / {escaped} rw,relatime shared:7 master:1 - nfs4 server:/export rw\n"
        f"3 1 0:41 / {escaped}/inner-not rw - tmpfs tmpfs rw\n"
        "garbage\n"
    )
    assert file_system_type(inner, mountinfo) == "nfs4"
    assert file_system_type(tmp_path, mountinfo) == "ext4"
    mountinfo.write_text(mountinfo.read_text() + f"4 2 0:42 / {escaped} rw - tmpfs tmpfs rw\n")
    assert file_system_type(inner, mountinfo) == "tmpfs"
    assert file_system_type(inner, tmp_path / "no such file") is None


@pytest.mark.parametrize(
    ("arguments", "names"),
    [({"durability": "none"}, "durability"), ({"patience_seconds": 0}, "patience_seconds")],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        SQLiteStore(tmp_path / "ledger.db", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_closed_store_says_so_and_closing_again_is_harmless(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "ledger.db")
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.catalogue()
