"""
The books of one group: what its commands read, and what they have changed so far.

Reads go through: changes of this group, then what is known from earlier groups, then SQL. Knowledge from earlier
groups holds as long as no other connection has written, which SQLite says: ``PRAGMA data_version``, asked inside the
transaction, changes if and only if another connection committed since it was asked before, and nobody can commit while
we hold the write lock. In this process only the writer writes, through one connection.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import StoreUnavailable
from ...kernel.balances import ZERO, Balances
from ...kernel.catalogue import Catalogue
from ...kernel.hold import HELD, Entry, Hold
from ...kernel.keys import KeyRing
from ...kernel.ledger import Change
from ...kernel.plan import Posting
from ...kernel.ratios import Ratios, merged
from ...kernel.window import steady_now
from ..contract import Clock, DenialKey
from . import definitions, rows
from .connection import check_version

_log = logging.getLogger("farthing.stores")

ACCOUNTS_KEPT_MAX = 65_536
SHAPES_KEPT_MAX = 4_096
UNSURE_MAX = 65_536
_OLDER = (
    "less is in the file than was written to it: it was emptied, restored from an older copy, or its log was removed "
    "while it was in use: put it back, or start this process anew with what is there"
)

_SELECT_BALANCES = f"SELECT {', '.join(Balances._fields)} FROM balances WHERE key = ?"
_BALANCES = ("key", *Balances._fields)
_UPSERT_BALANCES = (
    f"INSERT INTO balances ({', '.join(_BALANCES)}) VALUES ({', '.join('?' * len(_BALANCES))}) "
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in Balances._fields)}"
)
_UPDATE_END = "UPDATE balances SET ends_ms = ? WHERE key = ?"
_SELECT_HOLD = f"{rows.SELECT_HOLD} WHERE holds.id = ?"
_SELECT_KNOWN = "SELECT id FROM holds WHERE id IN (SELECT value FROM json_each(?))"
_SELECT_STATE = f"SELECT {', '.join(rows.MUTABLE)} FROM holds WHERE id = ?"
_SELECT_LATEST_ENTRY = f"{rows.SELECT_ENTRY} WHERE entries.seq = (SELECT entry FROM holds WHERE id = ?)"

_LAST_SEEN = "UPDATE meta SET value = ? WHERE key = 'last_seen_ms'"
_NEXT_SEQ = "UPDATE meta SET value = ? WHERE key = 'next_seq'"

_SELECT_ANSWER = "SELECT hold_id FROM answers WHERE id = ?"
_UPSERT_ANSWER = (
    "INSERT INTO answers (id, hold_id) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET hold_id = excluded.hold_id"
)


class _Balances(dict[str, Balances]):
    """Rows as they are known; one that is not is read when it is asked for."""

    connection: sqlite3.Connection

    def __missing__(self, key: str) -> Balances:
        row = self.connection.execute(_SELECT_BALANCES, (key,)).fetchone()
        balances = self[key] = ZERO if row is None else Balances(*row)
        return balances


class Books:
    """
    See the module. Used by the writer's thread only, but for :meth:`now`, :meth:`known`, :meth:`known_balance` and
    ``catalogue``.
    """

    def __init__(self, file: str, clock: Clock) -> None:
        self.catalogue = Catalogue()
        """As it was last read or committed; a new object at each change."""
        self.keys = KeyRing()
        """The same, of the virtual keys."""
        self.ratios: Ratios = {}
        """The same, of the ratios."""
        self._ratios_version = 0
        self._file = file
        self._clock = clock
        self._last_seen_ms = 0
        self._clock_was_said = False
        self._connection: sqlite3.Connection
        self._data_version: int | None = None
        self.seq = 0
        """The number of the latest entry, the group's own included."""
        self._seen_seq = 0
        """The same, as it stood in the file when this process last read or wrote it."""
        self._balances = _Balances()
        self.balance = self._balances.__getitem__
        """``balance(key)``: the rules ask for it several times a call for each account."""
        # get, which reads nothing: asking for one that is missing would use the writer's connection.
        self.known_balance: Callable[[str], Balances | None] = self._balances.get
        """What is known now, the group that is being made included. Any thread may ask."""
        self._dated: set[str] = set()
        """Accounts whose end is in the file."""
        self._shapes: dict[tuple[Posting, ...], int] = {}
        self._own: dict[str, Hold] = {}
        """Held holds that this writer wrote, as they are in the file."""
        self._unsure: dict[str, Hold] = {}
        """The same, since when another connection has written: to be compared with the file before they are used."""
        self._clear_beside()
        self._clear_group()

    def _clear_group(self) -> None:
        self._touched: dict[str, Balances] = {}
        self._ends: dict[str, int] = {}
        self._holds: dict[str, Hold] = {}
        self._absent: set[str] = set()
        """Ids that were looked up and are not in the file: a hold of theirs in a change is new."""
        self._entries: dict[int, Entry] = {}
        self._also: list[tuple[str, list[tuple[Any, ...]]]] = []
        if self._beside:
            self._clear_beside()

    def _clear_beside(self) -> None:
        self._beside = False
        """Whether the group changes any of these, as few do."""
        self._denials: list[tuple[Any, ...]] = []
        self._said: set[str] = set()
        self._catalogue_now = self.catalogue
        self._keys_now = self.keys
        self._ratios_now = self.ratios
        self._answers: dict[str, str] = {}

    # -- what the rules read -----------------------------------------------------------------------------------------

    def hold(self, hold_id: str) -> Hold | None:
        hold = self._holds.get(hold_id) or self._own.get(hold_id)
        if hold is not None or hold_id in self._absent:
            return hold
        if hold_id in self._unsure:
            hold = self._unsure.pop(hold_id)
            row = self._connection.execute(_SELECT_STATE, (hold_id,)).fetchone()
            if row == rows.mutable_row(hold):
                self._own[hold_id] = hold
                return hold
        row = self._connection.execute(_SELECT_HOLD, (hold_id,)).fetchone()
        if row is None:
            self._absent.add(hold_id)
            return None
        return rows.hold_from_row(row)

    def expect(self, hold_ids: list[str]) -> None:
        """These ids will be asked for, and most are new: look for all of them at once."""
        known = self._connection.execute(_SELECT_KNOWN, (json.dumps(hold_ids),)).fetchall()
        self._absent.update(hold_ids)
        self._absent.difference_update([hold_id for (hold_id,) in known])

    def entry(self, hold_id: str) -> Entry | None:
        hold = self._holds.get(hold_id)
        if hold is not None and hold.entry in self._entries:
            return self._entries[hold.entry]
        row = self._connection.execute(_SELECT_LATEST_ENTRY, (hold_id,)).fetchone()
        return None if row is None else rows.entry_from_row(row)

    def answered(self, answer_id: str) -> Hold | None:
        hold_id = self._answers.get(answer_id)
        if hold_id is None:
            row = self._connection.execute(_SELECT_ANSWER, (answer_id,)).fetchone()
            if row is None:
                return None
            hold_id = str(row[0])
        return self.hold(hold_id)

    def select(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Rows of the file, as they were before this group."""
        return self._connection.execute(sql, values).fetchall()

    def now(self) -> int:
        """The ledger's time. Any thread may ask."""
        now_ms = self._clock()
        if now_ms < self._last_seen_ms:
            now_ms = self._now_behind(now_ms, self._last_seen_ms)
        self._last_seen_ms = now_ms
        return now_ms

    def _now_behind(self, clock_ms: int, last_seen_ms: int) -> int:
        """Its time where the clock says one that is before."""
        now_ms = steady_now(clock_ms, last_seen_ms)
        if now_ms < last_seen_ms and not self._clock_was_said:
            self._clock_was_said = True
            _log.error(
                "ledger %s was last written %d s ahead of this machine's clock: one of the clocks is or was wrong; "
                "this machine's is followed",
                self._file,
                (last_seen_ms - now_ms) // 1000,
            )
        return now_ms

    def known(self, hold_id: str) -> Hold | None:
        """A held hold of this writer as last known, without reading. Any thread may ask."""
        return self._own.get(hold_id) or self._unsure.get(hold_id)

    # -- one group ---------------------------------------------------------------------------------------------------

    def begin(self, connection: sqlite3.Connection) -> None:
        """Inside a transaction: make sure that what is known is still so."""
        self._connection = self._balances.connection = connection
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self._data_version:
            return
        self._doubt()
        check_version(connection, self._file)
        self._data_version = version
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        if meta["next_seq"] <= self._seen_seq or meta["catalogue_version"] < self.catalogue.version:
            raise StoreUnavailable(self._file, _OLDER)
        self.seq = self._seen_seq = meta["next_seq"] - 1
        self._last_seen_ms = max(self._last_seen_ms, meta["last_seen_ms"])
        if (at := meta["catalogue_version"]) != self.catalogue.version:
            self.catalogue = self._catalogue_now = definitions.read_catalogue(connection, at)
        if (at := meta["keys_version"]) != self.keys.version:
            self.keys = self._keys_now = definitions.read_keys(connection, at, self.keys)
        if (at := meta["ratios_version"]) != self._ratios_version:
            self.ratios = self._ratios_now = definitions.read_ratios(connection)
            self._ratios_version = at

    def apply(self, change: Change) -> None:
        """Take a command's change into the group."""
        balances, holds, ends, _, entries = change
        self._balances.update(balances)
        self._touched.update(balances)
        self._holds.update(holds)
        if ends:
            self._ends.update(ends)
        if entries:
            self._entries.update(entries)
            self.seq += len(entries)

    def change_catalogue(self, change: Callable[[Catalogue], Catalogue]) -> Catalogue:
        self._catalogue_now = change(self._catalogue_now)
        self._beside = self._beside or self._catalogue_now is not self.catalogue
        return self._catalogue_now

    def change_keys(self, change: Callable[[KeyRing], KeyRing]) -> KeyRing:
        self._keys_now = change(self._keys_now)
        self._beside = self._beside or self._keys_now is not self.keys
        return self._keys_now

    def catalogue_version(self) -> int:
        """The version that this group goes by: that of the file and of the group's own changes."""
        return self._catalogue_now.version

    def add_denials(self, counts: Mapping[DenialKey, int]) -> None:
        if counts:
            self._denials += [rows.denial_row(key, count) for key, count in counts.items()]
            self._beside = True

    def name_answer(self, answer_id: str, hold_id: str) -> None:
        self._answers[answer_id] = hold_id
        self._beside = True

    def add_ratios(self, seen: Ratios) -> Ratios:
        if seen:
            self._ratios_now = merged(self._ratios_now, seen)
            self._beside = True
        return self._ratios_now

    def alert_once(self, key: str, now_ms: int, ends_ms: int | None) -> bool:
        """Whether this is the first to ask for *key*."""
        if key in self._said or self.select("SELECT 1 FROM alerts WHERE key = ?", (key,)):
            return False
        self._said.add(key)
        self._beside = True
        self.also("INSERT INTO alerts (key, at_ms, ends_ms) VALUES (?, ?, ?)", [(key, now_ms, ends_ms)])
        return True

    # -- putting the past away ---------------------------------------------------------------------------------------

    def also(self, sql: str, values: list[tuple[Any, ...]]) -> None:
        """Carry this out with the group, before what its commands have changed is written."""
        if values:
            self._also.append((sql, values))

    def touched(self) -> set[str]:
        """The accounts that the group has changed so far, or its holds may yet change."""
        return {*self._touched, *(posting.key for hold in self._holds.values() for posting in hold.postings)}

    def has_touched(self, hold_id: str) -> bool:
        """Whether the group has changed this hold."""
        return hold_id in self._holds

    def drop_accounts(self, keys: list[str]) -> None:
        """These are not needed any more."""
        for key in keys:
            self._balances[key] = ZERO
        self._dated.difference_update(keys)
        self.also("DELETE FROM balances WHERE key = ?", [(key,) for key in keys])

    def drop_holds(self, hold_ids: list[str]) -> None:
        """Forget these: for the rest of the group too they never were."""
        self._absent.update(hold_ids)
        ids: list[tuple[Any, ...]] = [(hold_id,) for hold_id in hold_ids]
        self.also("DELETE FROM holds WHERE id = ?", ids)
        self.also("DELETE FROM answers WHERE hold_id = ?", ids)

    def write(self) -> None:
        """Write the group's changes, if there are any, inside its transaction."""
        if not (self._touched or self._holds or self._also or self._beside):
            return
        write, set_to = self._connection.executemany, self._connection.execute
        touched, entries = self._touched, self._entries
        for sql, values in self._also:
            write(sql, values)
        write(_UPSERT_BALANCES, [(key, *row) for key, row in touched.items()])
        if self._ends and (new := self._ends.keys() - self._dated):
            write(_UPDATE_END, [(self._ends[key], key) for key in new])
            self._dated |= new
        written: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for hold_id, hold in self._holds.items():
            entry = None if hold.entry is None else entries.get(hold.entry)
            if hold_id in self._absent:
                sql, row = rows.placed_row(hold, entry, self._shape_id(hold.postings))
            else:
                sql, row = rows.changed_row(hold, entry)
            written[sql].append(row)
        for entry in entries.values():
            sql, row = rows.entry_row(entry)
            written[sql].append(row)
        for sql, some in written.items():
            write(sql, some)
        set_to(_LAST_SEEN, (self._last_seen_ms,))
        if entries:
            set_to(_NEXT_SEQ, (self.seq + 1,))
        if self._beside:
            self._write_beside()

    def _write_beside(self) -> None:
        write = self._connection.executemany
        if self._denials:
            write(rows.UPSERT_DENIAL, self._denials)
        if self._answers:
            write(_UPSERT_ANSWER, list(self._answers.items()))
        if self._catalogue_now is not self.catalogue:
            definitions.write_catalogue(self._connection, self.catalogue, self._catalogue_now)
        if self._keys_now is not self.keys:
            definitions.write_keys(self._connection, self.keys, self._keys_now)
        if self._ratios_now is not self.ratios:
            version = self._ratios_version + 1
            definitions.write_ratios(self._connection, self.ratios, self._ratios_now, version=version)

    def committed(self) -> None:
        """The group is in the file."""
        own = self._own
        for hold_id, hold in self._holds.items():
            if hold.state == HELD:
                own[hold_id] = hold
            else:
                own.pop(hold_id, None)
        self._seen_seq = self.seq
        if self._beside:
            self.catalogue = self._catalogue_now
            self.keys = self._keys_now
            if self._ratios_now is not self.ratios:
                self.ratios = self._ratios_now
                self._ratios_version += 1
        self._clear_group()
        if len(self._balances) > ACCOUNTS_KEPT_MAX:
            self._balances.clear()
            self._dated.clear()

    def forget(self) -> None:
        """A group failed, or the connection is another one: nothing of what was known is sure any more."""
        self._data_version = None
        self._shapes.clear()
        self._doubt()

    def _doubt(self) -> None:
        """Another connection has written. (Shapes are never changed or removed.)"""
        self._balances.clear()
        self._dated.clear()
        self._unsure.update(self._own)
        self._own.clear()
        while len(self._unsure) > UNSURE_MAX:
            del self._unsure[next(iter(self._unsure))]
        self._clear_group()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _shape_id(self, shape: tuple[Posting, ...]) -> int:
        known = self._shapes.get(shape)
        if known is not None:
            return known
        text = rows.shape_text(shape)
        self._connection.execute("INSERT INTO shapes (body) VALUES (?) ON CONFLICT DO NOTHING", (text,))
        (number,) = self._connection.execute("SELECT id FROM shapes WHERE body = ?", (text,)).fetchone()
        if len(self._shapes) >= SHAPES_KEPT_MAX:
            self._shapes.clear()
        self._shapes[shape] = number
        return int(number)
