"""
The books of a ledger in memory: a few dicts behind one lock.

A change is computed first and applied by a single call into C, so that an exception from a signal handler between any
two lines leaves either all of it or nothing. A finaliser that runs inside the lock (the garbage collector may run
anywhere) cannot wait for it: its command is put off until the lock's holder is done. Who holds the lock is asked of the
lock itself: a note of ours beside it would stay behind after an exception.

Kept for ever: balances of live windows. Bounded: entries (older ones fold into a snapshot of settled amounts) and the
ids of ended holds.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from operator import call
from typing import Any, TypeVar

from ...errors import StoreUnavailable
from ...kernel.balances import NONE, ZERO, Amounts, Balances, bare, change, minus
from ...kernel.catalogue import Catalogue
from ...kernel.hold import LIVE, Entry, Hold
from ...kernel.keys import KeyRing
from ...kernel.ledger import NOTHING, Change, Settled
from ...kernel.lending import sides
from ...kernel.ratios import Ratios
from ...kernel.sums import DAY_MS, KEYS, Figures, Sums, figures_of, key_of
from ...kernel.tallies import Tally, TallyKey, tally_entries
from ...kernel.window import Looks, steady_now
from ..contract import ACCOUNT_GRACE_MS, ROLL_UP_BATCH, Clock, DenialKey, Ready

T = TypeVar("T")
_log = logging.getLogger("farthing.stores")

ENDED_HOLDS_MAX = 4_096


class _Balances(dict[str, Balances]):
    """Rows by account. Asking for one that is not there is asking for zero, and is a single call into C."""

    def __missing__(self, key: str) -> Balances:
        return ZERO


class Books:
    """All state of one ledger, how it is changed, and what of it is kept. The verbs are :class:`MemoryStore`'s."""

    name = "memory"

    def __init__(self, clock: Clock, entries_max: int | None) -> None:
        self.entries_max = entries_max
        self._clock = clock
        self._catalogue = Catalogue(version=-1)
        self._start()
        _all.add(self)

    def _start(self) -> None:
        """Empty books and a free lock: at birth, and again in a forked child, which has none of its parent's holds."""
        self._last_seen_ms = 0
        self._looks = Looks()
        self._lock = threading.RLock()
        # Whether this thread holds it. Not in the lock's public interface, but what threading.Condition relies on.
        self._is_inside: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]
        self._put_off: deque[Callable[[], tuple[Any, Change]]] = deque()
        self._balances = _Balances()
        self.balance = self._balances.__getitem__
        self._ends: dict[str, int] = {}
        self._holds: dict[str, Hold] = {}
        self.hold = self._holds.get
        self._ended: deque[str] = deque()
        self._correctable: set[str] = set()
        """Ended holds that their calls may still correct, and some that were corrected."""
        self._entries: dict[int, Entry] = {}
        self._counts = {"gone": 0, "folded": 0, "tallied": 0}
        """Rows that are not here any more; those of them that were folded; see ``_tallied``."""
        self._settled_before: dict[str, Amounts] = {}
        # Newer than the parent's: who knows that one asks for this one.
        self._catalogue = Catalogue(version=self._catalogue.version + 1)
        self._tables: tuple[Callable[[Any], object], ...] = (
            *(self._balances.update, self._holds.update, self._ends.update, self._ended.extend),
            self._entries.update,
        )
        """By field of a change, what takes it."""
        self._keys = KeyRing()
        self._denials: dict[DenialKey, int] = {}
        self._ratios: Ratios = {}
        self._answers: OrderedDict[str, str] = OrderedDict()
        self._alerts: dict[str, int | None] = {}
        self._tallied: dict[TallyKey, Tally] = {}
        """The tallies of what was rolled up, which went up to number ``_counts["tallied"]``."""
        self._rolled: Sums = {}
        """By day, what was rolled up."""

    # -- what the rules read -------------------------------------------------------------------------------------

    balance: Callable[[str], Balances]
    """The row of an account; zero for one that was never posted to."""

    hold: Callable[[str], Hold | None]

    @property
    def seq(self) -> int:
        """Rows are numbered without gaps, from 1."""
        return len(self._entries) + self._counts["gone"]

    def entry(self, hold_id: str) -> Entry | None:
        hold = self.hold(hold_id)
        return None if hold is None or hold.entry is None else self._entries.get(hold.entry)

    def now(self) -> int:
        now_ms = self._clock()
        if now_ms < self._last_seen_ms:
            now_ms = steady_now(now_ms, self._last_seen_ms)
        self._last_seen_ms = now_ms
        return now_ms

    def follow(self, now_ms: int) -> None:
        """Another ledger that its calls are held on has come to this time: they have one deadline on both."""
        self._last_seen_ms = max(self._last_seen_ms, now_ms)

    # -- one change at a time ------------------------------------------------------------------------------------

    def _run(self, command: Callable[[], tuple[T, Change]], ending: str | None = None) -> Ready[T]:
        """Carry out a command, alone. *ending*: it ends this hold, and must happen even if a finaliser gives it."""
        if self._is_inside():
            return self._run_later(command, ending)
        with self._lock:
            try:
                if self._put_off:
                    self._catch_up()
                answer, change = command()
                if change is not NOTHING:
                    self._commit(change)
                return bare(Ready, (answer,))
            finally:
                if self._put_off:
                    self._catch_up()

    def _run_later(self, command: Callable[[], tuple[T, Change]], ending: str | None) -> Ready[T]:
        """
        A finaliser or signal handler interrupted this very thread inside the lock. Going on would read and write half a
        change.
        """
        if ending is None:
            raise StoreUnavailable(self.name, "asked from inside itself, by a finaliser or a signal handler")
        hold = self.hold(ending)
        if hold is None:
            # Or it never will be: what placed it was refused, for it was asked from inside as well.
            self._put_off.append(lambda: command() if self.hold(ending) is not None else (None, NOTHING))
            raise StoreUnavailable(self.name, f"hold {ending!r} is being placed by the code that was interrupted")
        self._put_off.append(command)
        return Ready(Settled(hold, None))  # type: ignore[arg-type]  # what every command that ends a hold answers

    def _catch_up(self) -> None:
        """Run what was put off. Taken off the list only afterwards: commands are idempotent, so twice is harmless."""
        while self._put_off:
            try:
                _, change = self._put_off[0]()
                self._commit(change)
            except Exception:  # noqa: BLE001 - whatever it is; see below
                # Nobody waits for this answer any more: raising it here would blame an innocent call, and leaving it
                # on the list would blame every later one.
                _log.exception("a command that a finaliser gave could not be carried out")
            self._put_off.popleft()

    def _commit(self, change: Change) -> None:
        """Apply a change, in one call into C: no exception can come between its parts."""
        # Through all of them, as none answers anything.
        any(map(call, self._tables, change))
        if (change.over or change.entries) and (
            len(self._ended) > ENDED_HOLDS_MAX
            or (self.entries_max is not None and len(self._entries) > self.entries_max)
        ):
            self._bound()

    # -- what is kept --------------------------------------------------------------------------------------------

    def _bound(self) -> None:
        while len(self._ended) > ENDED_HOLDS_MAX:
            hold_id = self._ended[0]
            hold = self._holds.get(hold_id)
            if hold is not None and hold.state not in LIVE:
                self._correctable.discard(hold_id)
                self._holds.pop(hold_id, None)
            self._ended.popleft()
        if self.entries_max is None:
            return
        while len(self._entries) > self.entries_max:
            # Unless some were rolled up, that is the first number. (Asking the dict for its first key would walk over
            # all that have gone.)
            gone, folded = self._counts["gone"] + 1, self._counts["folded"] + 1
            oldest = gone if gone == folded else next(iter(self._entries))
            counted = (self._counts.update, {"gone": gone, "folded": folded})
            self._fold(self._entries[oldest].changes(), (self._entries.pop, oldest), counted)

    def _fold(self, posted: Iterable[tuple[str, Balances]], *gone: tuple[Callable[[Any], object], Any]) -> None:
        """Take amounts into the snapshot together with what makes them leave the journal's tail, or the balances."""
        before = self._settled_before
        changed: dict[str, Amounts] = {}
        for key, made in posted:
            tokens, usd, requests, _ = changed.get(key) or before.get(key, NONE)
            changed[key] = tokens + made.settled_tokens, usd + made.settled_usd, requests + made.settled_requests, 0
        _at_once(map(call, [before.update, *[away for away, _ in gone]], [changed, *[what for _, what in gone]]))
        for key, amounts in changed.items():
            if amounts == NONE:
                before.pop(key, None)

    def _drop_account(self, key: str) -> None:
        # The rows that made up its settled amounts may still be in the journal: the snapshot takes the opposite on.
        row = self._balances.get(key)
        if row is not None:
            self._fold([(key, change(minus(row.settled)))], (self._balances.pop, key))
        self._ends.pop(key, None)

    def _needed(self) -> set[str]:
        """The accounts that some hold may still change: live ones, and by a difference to what was settled others."""
        holds = [hold for hold in self._holds.values() if hold.state in LIVE or hold.automatic]
        keys = {posting.key for hold in holds for posting in hold.postings}
        return keys.union(key for hold in holds for loan in hold.loans for key, _ in sides(loan))

    def _certain_ms(self, now_ms: int) -> int:
        self._looks = self._looks.at(now_ms)
        return self._looks.certain_ms(now_ms)

    def _put_accounts_away(self, now_ms: int) -> None:
        over = [key for key, ends_ms in self._ends.items() if ends_ms + ACCOUNT_GRACE_MS <= now_ms]
        if not over:
            return
        needed = self._needed()
        for key in over:
            if key not in needed:
                self._drop_account(key)

    def _roll_entries(self, before_ms: int) -> int:
        """A batch of rows that are older than this, into the sums of their days."""

        def over(entry: Entry) -> bool:
            hold = self._holds.get(entry.hold_id)
            return entry.at_ms < before_ms and (hold is None or hold.state not in LIVE)

        old = list(islice(filter(over, self._entries.values()), ROLL_UP_BATCH))
        self._tallied = tally_entries(old, self._tallied)
        self._counts["tallied"] = max(self._counts["tallied"], *(entry.seq for entry in old), 0)
        for entry in old:
            key = key_of(entry, ("day", *KEYS))
            figures = self._rolled.get(key, Figures()).plus(figures_of(entry))
            counted = (
                (self._rolled.update, {key: figures}),
                (self._counts.update, {"gone": self._counts["gone"] + 1}),
            )
            self._fold(entry.changes(), (self._entries.pop, entry.seq), *counted)
            hold = self._holds.get(entry.hold_id)
            if hold is not None and hold.entry == entry.seq:
                self._correctable.discard(entry.hold_id)
                self._holds.pop(entry.hold_id, None)
        while self.entries_max is not None and len(self._rolled) > self.entries_max:
            del self._rolled[next(iter(self._rolled))]
        return len(old)

    def _roll_denials(self, before_ms: int) -> int:
        """The hours of old days become those days."""
        hours = [key for key in self._denials if key.hour_ms % DAY_MS and key.hour_ms < before_ms - DAY_MS]
        for key in hours:
            day = key._replace(hour_ms=key.hour_ms - key.hour_ms % DAY_MS)
            self._denials[day] = self._denials.get(day, 0) + self._denials.pop(key)
        return len(hours)


_at_once: Callable[[Iterable[object]], object] = partial(deque, maxlen=0)
"""
For a ``map(call, …)`` of methods of built-in containers, each with its argument: calls them without running a line of
Python in between, so that a signal handler, and an exception of its, comes before all of them or after.
"""


_all: weakref.WeakSet[Books] = weakref.WeakSet()


def _start_child() -> None:
    for books in list(_all):
        books._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_child)
