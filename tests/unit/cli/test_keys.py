"""``farthing keys``: a key is shown once, its hash is kept, and a list opens nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from farthing.kernel.keys import Key, KeyRing, Refused
from farthing.stores.sqlite import SQLiteStore
from tests.unit.cli.conftest import Run


def ring(path: Path) -> tuple[KeyRing, int]:
    store = SQLiteStore(path)
    found = store.keys().result(), store.now()
    store.close()
    return found


def file_bytes(path: Path) -> bytes:
    """All that the ledger has on disk."""
    return b"".join(file.read_bytes() for file in path.parent.rglob("*") if file.is_file())


def test_a_key_is_made_and_shown_once(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made = run("keys", "create", "--user", "alice", "--budget", "$5/day", "--ledger", path)
    assert made.code == 0
    text = made.out.splitlines()[0]
    assert "only this once" in made.err
    assert "alice per day" in made.out
    keys, now_ms = ring(path)
    assert isinstance(keys.recognise(text, now_ms), Key)
    listed = run("keys", "list", "--ledger", path)
    assert text.rpartition("_")[2] not in listed.out + listed.err
    assert "user=alice" in listed.out
    assert text.rpartition("_")[2].encode() not in file_bytes(path)
    assert b"alice per day" in file_bytes(path)


def test_the_json_of_a_new_key(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    words = ("--user", "alice", "--team", "search", "--tag", "project=x", "--expires", "30d", "--deny-status", 403)
    made = run("keys", "create", *words, "--label", "laptop", "--json", "--ledger", path).json
    assert made["key"].startswith(f"fk_{made['id']}_")
    assert (made["tags"], made["deny_status"], made["label"], made["state"]) == (
        {"user": "alice", "team": "search", "project": "x"},
        403,
        "laptop",
        "active",
    )
    (listed,) = run("keys", "list", "--json", "--ledger", path).json["keys"]
    assert listed == {name: value for name, value in made.items() if name != "key"}


def test_a_key_is_revoked_and_rotated(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = run("keys", "create", "--user", "alice", "--json", "--ledger", path).json
    rotated = run("keys", "rotate", first["id"], "--overlap", "1h", "--ledger", path)
    assert "stays good until" in rotated.out
    second = rotated.out.splitlines()[0]
    keys, now_ms = ring(path)
    assert all(isinstance(keys.recognise(text, now_ms), Key) for text in (first["key"], second))
    revoked = run("keys", "revoke", first["id"], "--ledger", path)
    assert "revoked; it was user=alice" in revoked.out
    keys, now_ms = ring(path)
    assert all(isinstance(keys.recognise(text, now_ms), Refused) for text in (first["key"], second))
    assert "revoked" in run("keys", "list", "--ledger", path).out
    assert run("keys", "rotate", first["id"], "--ledger", path).code == 2


def test_lists_fit_on_a_terminal(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    run("keys", "create", "--admin", "--ledger", path)
    run("keys", "create", "--tag", "run=7", "--budget", "$5/month Europe/Berlin", "--expires", "1h", "--ledger", path)
    listed = run("keys", "list", "--ledger", path).out
    assert max(map(len, listed.splitlines())) <= 80
    assert "admin" in listed


def test_without_keys_it_says_how_to_make_one(run: Run, empty: Path) -> None:
    assert "farthing keys create --user alice --budget '$5/day'" in run("keys", "list", "--ledger", empty).out
    assert run("keys", "list", "--json", "--ledger", empty).json == {"keys": []}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["create", "--budget", "5"], "does not say of what"),
        (["create", "--admin", "--user", "alice"], "an admin key makes no model calls"),
        (["create", "--tag", "user"], "--tag takes TAG=VALUE"),
        (["create", "--expires", "soon"], "expires='soon'"),
        (["create", "--deny-status", "500"], "--deny-status must be one of"),
        (["revoke", "nobody"], "no key has the id 'nobody'"),
        (["rotate", "nobody"], "no key has the id 'nobody'"),
    ],
)
def test_mistakes_are_named_and_change_nothing(run: Run, empty: Path, words: list[str], named: str) -> None:
    ran = run("keys", *words, "--ledger", empty)
    assert ran.code == 2
    assert named in ran.err
    assert "Traceback" not in ran.err
    assert run("keys", "list", "--json", "--ledger", empty).json == {"keys": []}


def test_a_key_is_delegated_from_another(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    parent = run("keys", "create", "--user", "alice", "--json", "--ledger", path).json["id"]
    words = ("--parent", parent, "--tag", "agent=critic", "--expires", "1h")
    child = run("keys", "create", *words, "--json", "--ledger", path).json
    assert (child["parent"], child["tags"]) == (parent, {"user": "alice", "agent": "critic", "key": parent})
    assert f"delegated from {parent}" in run("keys", "list", "--ledger", path).out
