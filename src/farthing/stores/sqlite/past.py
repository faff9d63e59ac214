"""
Putting the past away, in bounded steps that each fit between two groups of holds.

Rows that are older than they are kept become daily sums; accounts whose window is long over go. What either takes out
of the journal goes into its snapshot, so that replaying it still gives the balances. A step reads the file as it was
before its group, so it leaves alone what the group's earlier commands have touched.
"""

from __future__ import annotations

import json
from typing import Any

from ...kernel.balances import NONE, ZERO, Balances, change, minus
from ...kernel.hold import Entry
from ...kernel.ledger import NOTHING, Change
from ...kernel.sums import DAY_MS, KEYS, Figures, Sums, figures_of, key_of
from ...kernel.tallies import TallyKey, tally_entries
from ...kernel.window import Looks
from ..contract import ACCOUNT_GRACE_MS, ROLL_UP_BATCH
from . import rows
from .books import Books

_LOOKED = ("looked_before_ms", "looked_ms")
_LOOKS = "SELECT key, value FROM meta WHERE key IN ('looked_before_ms', 'looked_ms')"
_LOOK = "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
LOOKED_AT_MAX = 4_096
"""Accounts that cannot go yet are looked at again and again, so there is room for others behind them."""
_OVER_ACCOUNTS = f"SELECT key, {', '.join(Balances._fields)} FROM balances WHERE ends_ms <= ? LIMIT ?"
_NEEDED = (
    "SELECT body FROM shapes WHERE id IN (SELECT shape FROM holds WHERE state = 'held' "
    "UNION SELECT shape FROM holds WHERE state = 'suspect' UNION SELECT shape FROM holds WHERE automatic = 1)"
)
_OLD_ENTRIES = (
    f"{rows.SELECT_ENTRY} WHERE entries.at_ms < ? AND holds.state NOT IN ('held', 'suspect') "
    "ORDER BY entries.at_ms LIMIT ?"
)
_LATEST = "SELECT id, no, entry FROM holds WHERE id IN (SELECT value FROM json_each(?))"
_NEVER_TRIED = (
    "SELECT id FROM holds WHERE no <= ? AND entry IS NULL AND state NOT IN ('held', 'suspect') AND changed_ms < ? "
    "LIMIT ?"
)
_DENIED_DAY = "SELECT min(hour_ms) FROM denials WHERE hour_ms < ? AND hour_ms % 86400000 != 0"
_ADD_SUM = (
    f"INSERT INTO sums (day_ms, model, provider, tags, budgets, {', '.join(Figures._fields)}) "
    f"VALUES ({', '.join('?' * (5 + len(Figures._fields)))}) ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in Figures._fields)
)
_ADD_TALLY = (
    f"INSERT INTO tallies ({', '.join(rows.TALLIED)}) VALUES ({', '.join('?' * len(rows.TALLIED))}) "
    "ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in rows.TALLIED[len(TallyKey._fields) :])
)
_ADD_SNAPSHOT = (
    "INSERT INTO snapshot (key, tokens, usd, requests) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "tokens = tokens + excluded.tokens, usd = usd + excluded.usd, requests = requests + excluded.requests"
)
_DROP_EMPTY = "DELETE FROM snapshot WHERE key = ? AND tokens = 0 AND usd = 0 AND requests = 0"


def roll_up(books: Books, now_ms: int, keep_ms: int | None) -> tuple[int, Change]:
    """One step; see :meth:`farthing.stores.contract.Store.roll_up`."""
    now_ms = _certain_ms(books, now_ms)
    done = _put_accounts_away(books, now_ms) + _forget_alerts(books, now_ms)
    if keep_ms is not None:
        done += _roll_entries(books, now_ms - keep_ms) + _roll_denials(books, now_ms - keep_ms)
    return done, NOTHING


def _certain_ms(books: Books, now_ms: int) -> int:
    """How far time has come for certain: by the looks of all processes, kept in the file."""
    known = dict(books.select(_LOOKS, ()))
    before = Looks(*(known.get(name, 0) for name in _LOOKED))
    looks = before.at(now_ms)
    if looks != before:
        books.also(_LOOK, list(zip(_LOOKED, looks, strict=True)))
    return looks.certain_ms(now_ms)


def _put_accounts_away(books: Books, now_ms: int) -> int:
    over = books.select(_OVER_ACCOUNTS, (now_ms - ACCOUNT_GRACE_MS, LOOKED_AT_MAX))
    if not over:
        return 0
    needed = books.touched()
    for (body,) in books.select(_NEEDED, ()):
        needed.update(posting[0] for posting in json.loads(body))
    gone = [(key, row) for key, *row in over if key not in needed and not any(row[len(NONE) :])]
    del gone[ROLL_UP_BATCH:]
    books.drop_accounts([key for key, _ in gone])
    _snapshot(books, {key: change(minus(Balances(*row).settled)) for key, row in gone})
    return len(gone)


def _forget_alerts(books: Books, now_ms: int) -> int:
    # As long as its account stays, for a call that ends late would have it said once more.
    over = books.select("SELECT key FROM alerts WHERE ends_ms <= ? LIMIT ?", (now_ms - ACCOUNT_GRACE_MS, ROLL_UP_BATCH))
    books.also("DELETE FROM alerts WHERE key = ?", over)
    return len(over)


def _roll_entries(books: Books, before_ms: int) -> int:
    found = [rows.entry_from_row(row) for row in books.select(_OLD_ENTRIES, (before_ms, ROLL_UP_BATCH))]
    old = [entry for entry in found if not books.has_touched(entry.hold_id)]
    if not old:
        return 0
    sums: Sums = {}
    posted: dict[str, Balances] = {}
    for entry in old:
        key = key_of(entry, ("day", *KEYS))
        sums[key] = sums.get(key, Figures()).plus(figures_of(entry))
        for account, made in entry.changes():
            posted[account] = posted.get(account, ZERO).plus(made)
    books.also(
        _ADD_SUM,
        [
            (key.start_ms, key.model or "", key.provider or "", rows.text(key.tags), rows.text(key.budgets), *figures)
            for key, figures in sums.items()
        ],
    )
    tallies = tally_entries(old)
    books.also(_ADD_TALLY, [(*key, *tally[:-1], *tally.usage) for key, tally in tallies.items()])
    books.also("UPDATE meta SET value = max(value, ?) WHERE key = 'tallied_seq'", [(max(entry.seq for entry in old),)])
    books.also("DELETE FROM entries WHERE seq = ?", [(entry.seq,) for entry in old])
    _snapshot(books, posted)
    _forget_holds(books, old, before_ms)
    return len(old)


def _forget_holds(books: Books, old: list[Entry], before_ms: int) -> None:
    """Holds whose latest row goes; and those before them that were given back before they were ever tried."""
    going = {entry.seq for entry in old}
    found = books.select(_LATEST, (json.dumps(sorted({entry.hold_id for entry in old})),))
    ended = [(hold_id, no) for hold_id, no, latest in found if latest in going]
    untried = books.select(_NEVER_TRIED, (max((no for _, no in ended), default=0), before_ms, ROLL_UP_BATCH))
    books.drop_holds([hold_id for hold_id, _ in ended])
    books.drop_holds([hold_id for (hold_id,) in untried if not books.has_touched(hold_id)])


def _roll_denials(books: Books, before_ms: int) -> int:
    """The hours of one old day become that day."""
    ((oldest_ms,),) = books.select(_DENIED_DAY, (before_ms - DAY_MS,))
    if oldest_ms is None:
        return 0
    day_ms = oldest_ms - oldest_ms % DAY_MS
    hours = books.select(f"{rows.SELECT_DENIAL} WHERE hour_ms > ? AND hour_ms < ?", (day_ms, day_ms + DAY_MS))
    books.also("DELETE FROM denials WHERE hour_ms > ? AND hour_ms < ?", [(day_ms, day_ms + DAY_MS)])
    books.also(rows.UPSERT_DENIAL, [(day_ms, *row[1:]) for row in hours])
    return len(hours)


def _snapshot(books: Books, changes: dict[str, Balances]) -> None:
    changed: list[tuple[Any, ...]] = [(key, *made.settled[:3]) for key, made in changes.items() if made != ZERO]
    books.also(_ADD_SNAPSHOT, changed)
    books.also(_DROP_EMPTY, [(key,) for key, *_ in changed])
