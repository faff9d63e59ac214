"""Ledgers of earlier schemas: opened, they say the same, and what was in flight ends as if nothing had happened."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from farthing.errors import HoldConflict
from farthing.kernel import ledger
from farthing.kernel.balances import ZERO, Balances, change
from farthing.kernel.hold import Outcome
from farthing.kernel.lending import borrowed_key, lent_key
from farthing.kernel.usage import KINDS, Usage
from farthing.stores.sqlite import SQLiteStore
from farthing.stores.sqlite.connection import APPLICATION_ID, _migrations

NEEDY, RICH = '["needy|usd",[["user","a|tokens"]],""]', '["rich",[],""]'
"""Names that look like units: a counter's name ended with one."""
DAY_ENDS_MS = 1_800_000_000_000
SHAPE = [
    [f"{NEEDY}|tokens", "tokens", False, None],
    [f"{NEEDY}|usd", "usd", False, None],
    [f"{NEEDY}|requests", "requests", False, None],
    [f"{NEEDY}|concurrency", "concurrency", True, None],
    [f"{RICH}|tokens", "tokens", False, DAY_ENDS_MS],
    [f"{RICH}|requests", "requests", False, DAY_ENDS_MS],
]
LOAN = ["tokens", NEEDY, RICH, 100, 20, 900, "short"]
COUNTERS = {
    # settled, held, suspect
    f"{NEEDY}|tokens": (70 + 5, 130 - 20, 130),
    f"{NEEDY}|tokens.borrowed": (0, 20, 0),
    f"{NEEDY}|usd": (700 + 50, 40, 40),
    f"{NEEDY}|requests": (1 + 1, 1, 1),
    f"{NEEDY}|concurrency": (0, 1, 0),
    f"{RICH}|tokens": (70, 130 + 20, 130),
    f"{RICH}|tokens.lent": (0, 20, 0),
    f"{RICH}|requests": (1, 1, 1),
}
SNAPSHOT = {f"{NEEDY}|tokens": 5, f"{NEEDY}|usd": 50, f"{NEEDY}|requests": 1}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A ledger of the sixth schema, as its program wrote it: a call that is in flight, a suspect one, a settled one."""
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    for number in range(1, 7):
        connection.executescript(_migrations()[number])
    connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 6;")
    connection.executemany(
        "INSERT INTO counters VALUES (?, ?, ?, ?, ?)",
        [(key, *figures, DAY_ENDS_MS if key.startswith(RICH) else None) for key, figures in COUNTERS.items()],
    )
    connection.executemany("INSERT INTO snapshot VALUES (?, ?)", SNAPSHOT.items())
    swapped = [*SHAPE[4:], *SHAPE[:4]]
    for number, shape in enumerate((SHAPE, swapped), 1):
        connection.execute("INSERT INTO shapes VALUES (?, ?)", (number, json.dumps(shape)))
    for no, (call, state, entry, shape) in enumerate(
        (("open", "held", None, 1), ("lost", "suspect", 2, 2), ("done", "settled", 1, 1)), 1
    ):
        connection.execute(
            f"INSERT INTO holds VALUES ({', '.join('?' * 26)})",
            (
                *(no, call, "gone", state, 30, 30, 16, 1, 2**52, 1, 0, None, entry, shape),
                *("gpt-4o", "openai", "openai.chat", "[]", '["needy"]', 100, 1, "[10, 1, 1]", "v", "proven", None),
                json.dumps([LOAN]) if call == "open" else None,
            ),
        )
    for seq, call, posted, suspect in (
        (1, "done", [["tokens", 70], ["usd", 700], ["requests", 1]], 0),
        (2, "lost", [], 1),
    ):
        connection.execute(
            f"INSERT INTO entries (seq, hold_id, kind, at_ms, started_ms, cost_nano, ending, usage_source, suspect, "
            f"resolves_suspect, posted, {', '.join(KINDS)}) VALUES ({', '.join('?' * (11 + len(KINDS)))})",
            (seq, call, "call", 2, 1, 700, "ok", "provider", suspect, 0, json.dumps(posted), *[0] * len(KINDS)),
        )
    connection.execute("UPDATE meta SET value = 3 WHERE key = 'next_seq'")
    connection.commit()
    connection.close()
    return path


def check_books(store: SQLiteStore) -> dict[str, Balances]:
    balances = {key: row for key, row in store.balances().result().items() if row != ZERO}
    journal = store.journal().result()
    assert ledger.replay(journal.settled_before, journal.entries, journal.holds) == balances
    return balances


def test_counters_become_one_row_for_an_account(old: Path) -> None:
    store = SQLiteStore(old)
    suspect, lent = (130, 40, 1, 0), change(held=(20, 0, 0, 0))
    # The opening's sweep may have found the owner dead: a hold of his is suspect then, and still counted.
    assert check_books(store) in (
        {
            NEEDY: change((75, 750, 2, 0), (110, 40, 1, 1), suspect),
            borrowed_key(NEEDY): lent,
            RICH: change((70, 0, 1, 0), (150, 0, 1, 0), (130, 0, 1, 0)),
            lent_key(RICH): lent,
        },
        {
            NEEDY: change((75, 750, 2, 0), suspect=(240, 80, 2, 0)),
            borrowed_key(NEEDY): change(suspect=(20, 0, 0, 0)),
            RICH: change((70, 0, 1, 0), suspect=(280, 0, 2, 0)),
            lent_key(RICH): change(suspect=(20, 0, 0, 0)),
        },
    )
    store.close()


def test_what_was_in_flight_ends_as_if_nothing_had_happened(old: Path) -> None:
    store = SQLiteStore(old)
    outcome = Outcome((110, 30, 1, 0), Usage(input=100, output=10), 30)
    for call in ("open", "lost"):
        assert store.settle(call, outcome).result().hold.state == "settled"
    with pytest.raises(HoldConflict):
        store.void("done").result()
    assert check_books(store) == {
        # Ten of the first call's tokens were borrowed.
        NEEDY: change((75 + 220 - 10, 810, 4, 0)),
        borrowed_key(NEEDY): change((10, 0, 0, 0)),
        RICH: change((70 + 220 + 10, 0, 3, 0)),
        lent_key(RICH): change((10, 0, 0, 0)),
    }
    store.close()
    connection = sqlite3.connect(old)
    ends = dict(connection.execute("SELECT key, ends_ms FROM balances"))
    assert {ends[RICH], ends[lent_key(RICH)], ends[NEEDY]} == {DAY_ENDS_MS, None}
    connection.close()


def test_a_ceiling_that_was_lowered_was_ours(old: Path) -> None:
    connection = sqlite3.connect(old)
    connection.execute("UPDATE holds SET x = 29 WHERE id = 'done'")
    connection.commit()
    connection.close()
    store = SQLiteStore(old)
    ours = {row.hold_id: row.facts.ceiling_ours for row in store.entries().result()}
    assert (ours["done"], ours["lost"]) == (True, False)
    store.close()
