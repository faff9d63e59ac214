"""
What calls go by, and what seldom changes: budgets with their grants, virtual keys, learned ratios.

Each is read whole, and of a change only what is different is written. Inside a transaction of the writer's.
"""

from __future__ import annotations

import sqlite3

from ...kernel.catalogue import Catalogue
from ...kernel.keys import KeyRing
from ...kernel.ratios import Ratios
from . import rows

_UPSERT_RATIO = (
    "INSERT INTO ratios (model, dialect, milli, calls, extra) VALUES (?, ?, ?, ?, ?) ON CONFLICT (model, dialect) "
    "DO UPDATE SET milli = excluded.milli, calls = excluded.calls, extra = excluded.extra"
)


def read_catalogue(connection: sqlite3.Connection, version: int) -> Catalogue:
    budgets = connection.execute("SELECT name, terms, frozen FROM budgets ORDER BY no").fetchall()
    grants = connection.execute(
        "SELECT budget, unit, amount, at_ms, until_ms, scope, reason, who FROM grants ORDER BY no"
    ).fetchall()
    return rows.catalogue_from_rows(version, budgets, grants)


def write_catalogue(connection: sqlite3.Connection, before: Catalogue, after: Catalogue) -> None:
    for name in before.budgets.keys() - after.budgets.keys():
        connection.execute("DELETE FROM budgets WHERE name = ?", (name,))
    connection.executemany(
        "INSERT INTO budgets (name, terms, frozen) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET terms = excluded.terms, frozen = excluded.frozen",
        [
            (name, rows.budget_text(budget), int(name in after.frozen))
            for name, budget in after.budgets.items()
            if ((known := before.budgets.get(name)) is not budget and known != budget)
            or (name in before.frozen) != (name in after.frozen)
        ],
    )
    if before.grants != after.grants:
        connection.execute("DELETE FROM grants")
        connection.executemany(
            "INSERT INTO grants (budget, unit, amount, at_ms, until_ms, scope, reason, who) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            map(rows.grant_row, after.grants),
        )
    connection.execute("UPDATE meta SET value = ? WHERE key = 'catalogue_version'", (after.version,))


def read_keys(connection: sqlite3.Connection, version: int, known: KeyRing) -> KeyRing:
    """Only what changed since *known*: keys are never removed, and there may be one for every run of an agent."""
    if known.version >= version:
        known = KeyRing()
    found = connection.execute(f"{rows.SELECT_KEY} WHERE version > ?", (known.version,))
    changed = {key.id: key for key in map(rows.key_from_row, found)}
    return KeyRing(version, {**known.keys, **changed})


def write_keys(connection: sqlite3.Connection, before: KeyRing, after: KeyRing) -> None:
    changed = [key for key in after.keys.values() if before.keys.get(key.id) is not key]
    connection.executemany(rows.UPSERT_KEY, [rows.key_row(key, after.version) for key in changed])
    connection.execute("UPDATE meta SET value = ? WHERE key = 'keys_version'", (after.version,))


def read_ratios(connection: sqlite3.Connection) -> Ratios:
    found = connection.execute("SELECT model, dialect, milli, calls, extra FROM ratios")
    return dict(map(rows.ratio_from_row, found))


def write_ratios(connection: sqlite3.Connection, before: Ratios, after: Ratios, *, version: int) -> None:
    changed = [(*key, *ratio) for key, ratio in after.items() if before.get(key) != ratio]
    connection.executemany(_UPSERT_RATIO, changed)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'ratios_version'", (version,))
