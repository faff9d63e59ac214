"""
The ledger in memory: the reference that every other store is tested against, and the default in-process.

All state is a few dicts behind one lock. A change is computed first and applied by a single call into C, so that an
exception from a signal handler between any two lines leaves either all of it or nothing. A finaliser that runs inside
the lock (the garbage collector may run anywhere) cannot wait for it: its command is put off until the lock's holder is
done. Who holds the lock is asked of the lock itself: a note of ours beside it would stay behind after an exception.

Kept for ever: balances of live windows. Bounded: entries (older ones fold into a snapshot of settled amounts) and the
ids of ended holds.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from operator import call
from typing import Any, TypeVar

from ..errors import StoreUnavailable
from ..kernel import ledger
from ..kernel.budget import Budget
from ..kernel.catalogue import Catalogue, Grant
from ..kernel.hold import HELD, LIVE, SUSPECT, Entry, Hold, Outcome
from ..kernel.keys import Key, KeyRing
from ..kernel.ledger import NOTHING, Change, Denied, Placed, Settled, Stale
from ..kernel.plan import ZERO, Balance, Plan, bare
from ..kernel.ratios import Ratios, merged
from ..kernel.sums import DAY_MS, KEYS, Figures, Sums, check_keys, coarser, figures_of, key_of, sum_entries
from ..kernel.tallies import Tally, TallyKey, tally_entries
from ..kernel.window import steady_now
from .contract import (
    COUNTER_GRACE_MS,
    KEEP_A_DAY,
    ROLL_UP_BATCH,
    SWEEP_BATCH,
    Clock,
    DenialKey,
    Journal,
    Ready,
    SweepPolicy,
    Tallies,
    wall_clock_ms,
)

T = TypeVar("T")
_log = logging.getLogger("farthing.stores")

ENTRIES_MAX = 100_000
ENDED_HOLDS_MAX = 4_096
ALERTS_MAX = 65_536


class _Balances(dict[str, Balance]):
    """Counters by key. Asking for one that is not there is asking for zero, and is a single call into C."""

    def __missing__(self, key: str) -> Balance:
        return ZERO


class MemoryStore:
    """One ledger in this process; see :class:`~farthing.stores.contract.Store` for the verbs."""

    durable = False

    def __init__(
        self, *, clock: Clock = wall_clock_ms, owner: str = "here", entries_max: int | None = ENTRIES_MAX
    ) -> None:
        if entries_max is not None and entries_max < 0:
            raise ValueError(f"entries_max must not be negative, got {entries_max}")
        self.name = "memory"
        self.owner = owner
        self.entries_max = entries_max
        self._clock = clock
        self._start()
        _stores.add(self)

    def _start(self) -> None:
        """Empty books and a free lock: at birth, and again in a forked child, which has none of its parent's holds."""
        self._last_seen_ms = 0
        self._lock = threading.RLock()
        # Whether this thread holds it. Not in the lock's public interface, but what threading.Condition relies on.
        self._is_inside: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]
        self._put_off: deque[Callable[[], object]] = deque()
        self._balances = _Balances()
        self.balance = self._balances.__getitem__
        self._ends: dict[str, int] = {}
        self._holds: dict[str, Hold] = {}
        self._ended: deque[str] = deque()
        self._correctable: set[str] = set()
        """Ended holds that their calls may still correct."""
        self._entries: dict[int, Entry] = {}
        self._entry_of: dict[str, int] = {}
        self._counts = {"seq": 0, "rolled": 0, "tallied": 0}
        self._settled_before: dict[str, int] = {}
        self._catalogue = Catalogue()
        self._keys = KeyRing()
        self._denials: dict[DenialKey, int] = {}
        self._ratios: Ratios = {}
        self._answers: OrderedDict[str, str] = OrderedDict()
        self._alerts: dict[str, int | None] = {}
        self._tallied: dict[TallyKey, Tally] = {}
        """The tallies of what was rolled up, which went up to number ``_counts["tallied"]``."""
        self._rolled: Sums = {}
        """By day, what was rolled up."""

    @property
    def dropped(self) -> int:
        """Entries that were folded away, so that no row of them is left to report."""
        return self._counts["seq"] - len(self._entries) - self._counts["rolled"]

    # -- Books: what the rules read ------------------------------------------------------------------------------

    balance: Callable[[str], Balance]
    """The balance of a counter; zero for one that was never posted to."""

    def hold(self, hold_id: str) -> Hold | None:
        return self._holds.get(hold_id)

    def entry(self, hold_id: str) -> Entry | None:
        seq = self._entry_of.get(hold_id)
        return None if seq is None else self._entries.get(seq)

    def now(self) -> int:
        now_ms = self._clock()
        if now_ms < self._last_seen_ms:
            now_ms = steady_now(now_ms, self._last_seen_ms)
        self._last_seen_ms = now_ms
        return now_ms

    # -- verbs ---------------------------------------------------------------------------------------------------

    def place(self, plan: Plan, *, replaces: str | None = None) -> Ready[Placed | Denied | Stale]:
        return self._apply(
            lambda: ledger.place(
                self,
                plan,
                owner=self.owner,
                now_ms=self.now(),
                catalogue_version=self._catalogue.version,
                replaces=replaces,
            )
        )

    def resize(self, hold_id: str, *, x: int) -> Ready[Hold]:
        return self._apply(lambda: ledger.resize(self, hold_id, x=x, now_ms=self.now()))

    def extend(self, hold_id: str, *, deadline_ms: int) -> Ready[Hold]:
        return self._apply(lambda: ledger.extend(self, hold_id, deadline_ms=deadline_ms, now_ms=self.now()))

    def settle(self, hold_id: str, outcome: Outcome) -> Ready[Settled]:
        return self._end(hold_id, lambda: ledger.settle(self, hold_id, outcome, now_ms=self.now()))

    def void(self, hold_id: str, outcome: Outcome | None = None) -> Ready[Settled]:
        return self._end(hold_id, lambda: ledger.void(self, hold_id, outcome, now_ms=self.now()))

    def suspect(self, hold_id: str, *, ending: str, note: str | None = None) -> Ready[Settled]:
        return self._end(hold_id, lambda: ledger.suspect(self, hold_id, ending=ending, note=note, now_ms=self.now()))

    def resolve(self, hold_id: str, policy: str, *, note: str | None = None) -> Ready[Settled]:
        return self._apply(lambda: ledger.resolve(self, hold_id, policy, now_ms=self.now(), note=note))

    def record(self, plan: Plan, outcome: Outcome, *, lost: bool = False) -> Ready[Settled]:
        return self._apply(lambda: ledger.record(self, plan, outcome, owner=self.owner, now_ms=self.now(), lost=lost))

    def name_answer(self, answer_id: str, hold_id: str) -> Ready[None]:
        # No lock: each step is one call into C, and a finaliser may come here from inside of the lock.
        self._answers[answer_id] = hold_id
        if len(self._answers) > ENDED_HOLDS_MAX:
            self._answers.popitem(last=False)
        return Ready(None)

    def answered(self, answer_id: str) -> Ready[Hold | None]:
        hold_id = self._answers.get(answer_id)
        return Ready(None) if hold_id is None else self.find(hold_id)

    def sweep(self, policy: SweepPolicy = KEEP_A_DAY) -> Ready[tuple[Settled, ...]]:
        def run() -> tuple[Settled, ...]:
            now_ms = self.now()
            terms = {"now_ms": now_ms, "dead_owners": frozenset[str](), **policy._asdict()}
            due = (hold for hold in self._holds.values() if ledger.due(hold, **terms))
            results = ledger.sweep(self, list(islice(due, SWEEP_BATCH)), **terms)
            answers = tuple(self._answer(settled, self._commit(change)) for settled, change in results)
            self._put_counters_away(now_ms)
            return answers

        return Ready(self._locked(run))

    def holds(self, *states: str) -> Ready[tuple[Hold, ...]]:
        wanted = states or LIVE
        return Ready(self._locked(lambda: tuple(hold for hold in self._holds.values() if hold.state in wanted)))

    def balances(self, keys: Iterable[str] | None = None) -> Ready[dict[str, Balance]]:
        names = None if keys is None else tuple(keys)
        if names is None:
            return Ready(self._locked(lambda: dict(self._balances)))
        return Ready(self._locked(lambda: dict(zip(names, map(self.balance, names), strict=True))))

    def known_balances(self, keys: Iterable[str]) -> Mapping[str, Balance]:
        return {key: self.balance(key) for key in keys}

    def entries(
        self,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        after_seq: int = 0,
        limit: int | None = None,
    ) -> Ready[Sequence[Entry]]:
        rows = self._locked(lambda: list(self._entries.values()))
        found = (entry for entry in rows if entry.seq > after_seq and _within(entry.at_ms, since_ms, until_ms))
        return Ready(list(islice(found, limit)))

    def sums(
        self, by: Collection[str] = (), *, since_ms: int | None = None, until_ms: int | None = None
    ) -> Ready[Sums]:
        check_keys(by)
        rows, rolled = self._locked(lambda: (list(self._entries.values()), dict(self._rolled)))
        sums = sum_entries((entry for entry in rows if _within(entry.started_ms, since_ms, until_ms)), by)
        day_ms = None if since_ms is None else since_ms - since_ms % DAY_MS
        for key, figures in rolled.items():
            if _within(key.start_ms or 0, day_ms, until_ms):
                within = coarser(key, by)
                sums[within] = sums.get(within, Figures()).plus(figures)
        return Ready(sums)

    def asked(
        self, *, since_ms: int | None = None, until_ms: int | None = None
    ) -> Ready[Mapping[str, tuple[int, int]]]:
        def run() -> dict[str, tuple[int, int]]:
            rows = [row for row in self._entries.values() if _within(row.at_ms, since_ms, until_ms)]
            holds = [hold for row in rows if (hold := self.hold(row.hold_id)) is not None]
            return {hold.id: (hold.x_want, hold.x_floor) for hold in holds}

        return Ready(self._locked(run))

    def tally(self, *, after_seq: int = 0) -> Ready[Tallies]:
        def rows() -> tuple[int, bool, list[Entry], dict[TallyKey, Tally]]:
            seq = self._counts["seq"]
            whole = after_seq < max(1, self._counts["tallied"])
            # The oldest may be gone.
            first = 1 if whole else after_seq + 1
            entries = [self._entries[number] for number in range(first, seq + 1) if number in self._entries]
            return seq, whole, entries, self._tallied if whole else {}

        seq, whole, entries, before = self._locked(rows)
        return Ready(Tallies(max(seq, after_seq), tally_entries(entries, before), whole))

    def find(self, hold_id: str) -> Ready[Hold | None]:
        return Ready(self._locked(lambda: self.hold(hold_id)))

    def journal(self) -> Ready[Journal]:
        return Ready(
            self._locked(
                lambda: Journal(dict(self._settled_before), list(self._entries.values()), list(self._holds.values()))
            )
        )

    # -- budgets -------------------------------------------------------------------------------------------------

    def catalogue(self) -> Ready[Catalogue]:
        return Ready(self._catalogue)

    def put_budget(self, budget: Budget, *, update: bool = False) -> Ready[Catalogue]:
        return self._change_catalogue(lambda known: known.with_budget(budget, update=update))

    def put_budgets(self, budgets: Sequence[Budget], *, catalogue_version: int) -> Ready[Catalogue]:
        return self._change_catalogue(lambda known: known.with_budgets(budgets, catalogue_version=catalogue_version))

    def remove_budget(self, name: str, *, defined_by: str | None = None) -> Ready[Catalogue]:
        return self._change_catalogue(lambda known: known.without_budget(name, defined_by=defined_by))

    def grant(self, grant: Grant) -> Ready[Catalogue]:
        return self._change_catalogue(lambda known: known.with_grant(grant))

    def freeze(self, name: str, *, frozen: bool) -> Ready[Catalogue]:
        return self._change_catalogue(lambda known: known.with_frozen(name, frozen))

    # -- keys ----------------------------------------------------------------------------------------------------

    def keys(self, *, fresh: bool = False) -> Ready[KeyRing]:
        return Ready(self._keys)

    def put_key(self, key: Key) -> Ready[KeyRing]:
        return self._change_keys(lambda ring: ring.with_key(key))

    def rotate_key(self, key_id: str, text_hash: str, *, overlap_ms: int = 0) -> Ready[KeyRing]:
        return self._change_keys(
            lambda ring: ring.with_secret(key_id, text_hash, now_ms=self.now(), overlap_ms=overlap_ms)
        )

    def revoke_key(self, key_id: str) -> Ready[KeyRing]:
        return self._change_keys(lambda ring: ring.without_key(key_id, now_ms=self.now()))

    # -- denials -------------------------------------------------------------------------------------------------

    def add_denials(self, counts: Mapping[DenialKey, int]) -> Ready[None]:
        def run() -> None:
            self._denials.update({key: self._denials.get(key, 0) + count for key, count in counts.items()})
            if self.entries_max is not None:
                while len(self._denials) > self.entries_max:
                    del self._denials[next(iter(self._denials))]

        return Ready(self._locked(run))

    def denials(self, *, since_ms: int | None = None, until_ms: int | None = None) -> Ready[Mapping[DenialKey, int]]:
        rows = self._locked(lambda: dict(self._denials))
        return Ready({key: count for key, count in rows.items() if _within(key.hour_ms, since_ms, until_ms)})

    # -- ratios --------------------------------------------------------------------------------------------------

    def ratios(self) -> Ready[Ratios]:
        return Ready(self._ratios)

    def add_ratios(self, seen: Ratios) -> Ready[Ratios]:
        def run() -> Ratios:
            self._ratios = merged(self._ratios, seen)
            return self._ratios

        return Ready(self._locked(run))

    # -- alerts, and putting the past away -----------------------------------------------------------------------

    def alert_once(self, key: str, *, ends_ms: int | None = None) -> Ready[bool]:
        def run() -> bool:
            if key in self._alerts:
                return False
            self._alerts[key] = ends_ms
            while len(self._alerts) > ALERTS_MAX:
                del self._alerts[next(iter(self._alerts))]
            return True

        return Ready(self._locked(run))

    def roll_up(self, *, keep_ms: int | None = None) -> Ready[int]:
        def run() -> int:
            now_ms = self.now()
            counters = len(self._balances)
            self._put_counters_away(now_ms)
            over = [key for key, ends_ms in self._alerts.items() if ends_ms is not None and ends_ms <= now_ms]
            for key in over:
                del self._alerts[key]
            rolled = 0
            if keep_ms is not None:
                rolled = self._roll_entries(now_ms - keep_ms) + self._roll_denials(now_ms - keep_ms)
            return counters - len(self._balances) + len(over) + rolled

        return Ready(self._locked(run))

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
            self._fold(entry.counters(), (self._entries.pop, entry.seq), (self._rolled.update, {key: figures}))
            self._counts["rolled"] += 1
            if self._entry_of.get(entry.hold_id) == entry.seq:
                self._entry_of.pop(entry.hold_id)
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

    def forget(self, keys: Iterable[str]) -> bool:
        """
        Put away the counters of a unit of work that nobody can ask about any more (memory only).

        False, and nothing is put away, while a hold or a suspect call still counts on one of them, or a call that was
        resolved without its word may still correct it.
        """
        names = tuple(keys)

        def run() -> bool:
            known = [key for key in names if key in self._balances]
            if any(self._balances[key].held or self._balances[key].suspect for key in known):
                return False
            if self._correctable and not self._needed().isdisjoint(known):
                return False
            for key in known:
                self._drop_counter(key)
            return True

        return self._locked(run)

    def close(self) -> None:
        """Nothing to write; what was kept stays readable."""

    # -- one change at a time ------------------------------------------------------------------------------------

    def _apply(self, command: Callable[[], tuple[T, Change]]) -> Ready[T]:
        return Ready(self._locked(self._run, command))

    def _end(self, hold_id: str, command: Callable[[], tuple[Settled, Change]]) -> Ready[Settled]:
        """A command that ends a hold: it must happen even if a finaliser gives it from inside the lock."""
        if not self._is_inside():
            return self._apply(command)
        self._put_off.append(lambda: self._run(command))
        hold = self.hold(hold_id)
        if hold is None:
            raise StoreUnavailable(self.name, f"hold {hold_id!r} is being placed by the code that was interrupted")
        return Ready(Settled(hold, None))

    def _run(self, command: Callable[[], tuple[T, Change]]) -> T:
        answer, change = command()
        if change is NOTHING:
            return answer
        entries = self._commit(change)
        return self._answer(answer, entries) if entries else answer

    def _answer(self, answer: T, entries: tuple[Entry, ...]) -> T:
        """The answer with its entry as it was numbered, so that a repetition gets the same."""
        if entries and isinstance(answer, Settled):
            return Settled(answer.hold, entries[-1])  # type: ignore[return-value]
        return answer

    def _locked(self, run: Callable[..., T], *arguments: Any) -> T:
        if self._is_inside():
            # A finaliser or signal handler interrupted this very thread inside the lock. Going on would read and write
            # half a change.
            raise StoreUnavailable(self.name, "asked from inside itself, by a finaliser or a signal handler")
        with self._lock:
            try:
                if self._put_off:
                    self._catch_up()
                return run(*arguments)
            finally:
                if self._put_off:
                    self._catch_up()

    def _catch_up(self) -> None:
        """Run what was put off. Taken off the list only afterwards: commands are idempotent, so twice is harmless."""
        while self._put_off:
            try:
                self._put_off[0]()
            except Exception:  # noqa: BLE001 - whatever it is; see below
                # Nobody waits for this answer any more: raising it here would blame an innocent call, and leaving it
                # on the list would blame every later one.
                _log.exception("a command that a finaliser gave could not be carried out")
            self._put_off.popleft()

    def _commit(self, change: Change) -> tuple[Entry, ...]:
        """
        Apply a change, and return its entries with their numbers. Every container is updated in one call into C: no
        exception can come between them.
        """
        balances, holds, rows, ends = change
        apply: list[Callable[[Any], object]] = [self._balances.update, self._holds.update]
        what: list[Any] = [balances, holds]
        if ends:
            apply.append(self._ends.update)
            what.append(ends)
        for hold in holds.values():
            state = hold.state
            if state == HELD:
                continue
            if state != SUSPECT:
                apply.append(self._ended.append)
                what.append(hold.id)
            if hold.automatic:
                apply.append(self._correctable.add)
                what.append(hold.id)
            elif self._correctable:
                apply.append(self._correctable.discard)
                what.append(hold.id)
        if not rows:
            _at_once(apply, what)
            return ()
        entries: dict[int, Entry] = {}
        latest: dict[str, int] = {}
        seq = self._counts["seq"]
        for entry in rows:
            seq += 1
            entries[seq] = bare(Entry, (seq, *entry[1:]))
            latest[entry[2]] = seq
        apply += (self._entries.update, self._entry_of.update, self._counts.update)
        what += (entries, latest, {"seq": seq})
        _at_once(apply, what)
        if len(self._ended) > ENDED_HOLDS_MAX or (
            self.entries_max is not None and len(self._entries) > self.entries_max
        ):
            self._bound()
        return tuple(entries.values())

    def _bound(self) -> None:
        while len(self._ended) > ENDED_HOLDS_MAX:
            hold_id = self._ended[0]
            hold = self._holds.get(hold_id)
            if hold is not None and hold.state not in LIVE:
                self._entry_of.pop(hold_id, None)
                self._correctable.discard(hold_id)
                self._holds.pop(hold_id, None)
            self._ended.popleft()
        if self.entries_max is None:
            return
        while len(self._entries) > self.entries_max:
            # Rows are numbered without gaps, unless some were rolled up. (Asking the dict for its first key would walk
            # over all that have gone.)
            oldest = self._counts["seq"] - len(self._entries) + 1
            if self._counts["rolled"]:
                oldest = next(iter(self._entries))
            self._fold(self._entries[oldest].counters(), (self._entries.pop, oldest))

    def _fold(self, posted: Iterable[tuple[str, int]], *gone: tuple[Callable[[Any], object], Any]) -> None:
        """Take amounts into the snapshot together with what makes them leave the journal's tail, or the balances."""
        before = self._settled_before
        changed: dict[str, int] = {}
        for key, amount in posted:
            changed[key] = changed.get(key, before.get(key, 0)) + amount
        _at_once([before.update, *[away for away, _ in gone]], [changed, *[what for _, what in gone]])
        for key, amount in changed.items():
            if not amount:
                before.pop(key, None)

    def _drop_counter(self, key: str) -> None:
        # The rows that made up its settled amount may still be in the journal: the snapshot takes the opposite on.
        balance = self._balances.get(key)
        if balance is not None:
            self._fold([(key, -balance.settled)], (self._balances.pop, key))
        self._ends.pop(key, None)

    def _needed(self) -> set[str]:
        """The counters that some hold may still change: live ones, and by a difference to what was settled others."""
        holds = [hold for hold in self._holds.values() if hold.state in LIVE or hold.id in self._correctable]
        return {posting.key for hold in holds for posting in hold.postings}

    def _put_counters_away(self, now_ms: int) -> None:
        over = [key for key, ends_ms in self._ends.items() if ends_ms + COUNTER_GRACE_MS <= now_ms]
        if not over:
            return
        needed = self._needed()
        for key in over:
            if key not in needed:
                self._drop_counter(key)

    def _change_catalogue(self, change: Callable[[Catalogue], Catalogue]) -> Ready[Catalogue]:
        def run() -> Catalogue:
            self._catalogue = change(self._catalogue)
            return self._catalogue

        return Ready(self._locked(run))

    def _change_keys(self, change: Callable[[KeyRing], KeyRing]) -> Ready[KeyRing]:
        def run() -> KeyRing:
            self._keys = change(self._keys)
            return self._keys

        return Ready(self._locked(run))


def _at_once(methods: Sequence[Callable[[Any], object]], arguments: Sequence[Any]) -> None:
    """
    Call these methods of built-in containers, each with its argument, without running a line of Python in between: a
    signal handler, and so an exception of its, comes before all of them or after.
    """
    deque(map(call, methods, arguments), maxlen=0)


def _within(at_ms: int, since_ms: int | None, until_ms: int | None) -> bool:
    return (since_ms is None or at_ms >= since_ms) and (until_ms is None or at_ms < until_ms)


_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


def _start_child() -> None:
    for store in list(_stores):
        store._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_child)
