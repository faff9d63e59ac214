"""
The ledger in memory: the reference that every other store is tested against, and the default in-process.

Here are its verbs, each of them a rule of the kernel applied to the books; :mod:`.books` says how that is made safe.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from ...kernel import ledger
from ...kernel.balances import NONE, Balances
from ...kernel.budget import Budget
from ...kernel.catalogue import Catalogue, Grant
from ...kernel.hold import LIVE, Entry, Hold, Outcome
from ...kernel.keys import Key, KeyRing
from ...kernel.ledger import NOTHING, Change, Denied, Placed, Settled, Stale
from ...kernel.plan import Plan
from ...kernel.ratios import Ratios, merged
from ...kernel.sums import DAY_MS, Figures, Sums, check_keys, coarser, sum_entries
from ...kernel.tallies import Tally, TallyKey, tally_entries
from ..contract import (
    ACCOUNT_GRACE_MS,
    KEEP_A_DAY,
    SWEEP_BATCH,
    Asked,
    Clock,
    DenialKey,
    Journal,
    Ready,
    SweepPolicy,
    Tallies,
    wall_clock_ms,
)
from .books import Books

T = TypeVar("T")

ENTRIES_MAX = 100_000
ANSWERS_MAX = 4_096
ALERTS_MAX = 65_536


class MemoryStore(Books):
    """One ledger in this process; see :class:`~farthing.stores.contract.Store` for the verbs."""

    durable = False

    def __init__(
        self, *, clock: Clock = wall_clock_ms, owner: str = "here", entries_max: int | None = ENTRIES_MAX
    ) -> None:
        if entries_max is not None and entries_max < 0:
            raise ValueError(f"entries_max must be at least 0, not {entries_max}")
        self.owner = owner
        super().__init__(clock, entries_max)

    @property
    def dropped(self) -> int:
        """Entries that were folded away, so that no row of them is left to report."""
        return self._counts["folded"]

    # -- verbs ---------------------------------------------------------------------------------------------------

    def place(self, plan: Plan, *, replaces: str | None = None) -> Ready[Placed | Denied | Stale]:
        return self._run(
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
        return self._run(lambda: ledger.resize(self, hold_id, x=x, now_ms=self.now()))

    def extend(self, hold_id: str, *, deadline_ms: int) -> Ready[Hold]:
        return self._run(lambda: ledger.extend(self, hold_id, deadline_ms=deadline_ms, now_ms=self.now()))

    def settle(self, hold_id: str, outcome: Outcome) -> Ready[Settled]:
        return self._run(lambda: ledger.settle(self, hold_id, outcome, now_ms=self.now()), hold_id)

    def void(self, hold_id: str, outcome: Outcome | None = None) -> Ready[Settled]:
        return self._run(lambda: ledger.void(self, hold_id, outcome, now_ms=self.now()), hold_id)

    def suspect(self, hold_id: str, *, ending: str, note: str | None = None) -> Ready[Settled]:
        return self._run(lambda: ledger.suspect(self, hold_id, ending=ending, note=note, now_ms=self.now()), hold_id)

    def resolve(self, hold_id: str, policy: str, *, note: str | None = None) -> Ready[Settled]:
        def run() -> tuple[Settled, Change]:
            resolved = ledger.resolve(self, hold_id, policy, now_ms=self.now(), note=note)
            self._correctable.add(hold_id)
            return resolved

        return self._run(run)

    def record(self, plan: Plan, outcome: Outcome, *, lost: bool = False) -> Ready[Settled]:
        return self._run(lambda: ledger.record(self, plan, outcome, owner=self.owner, now_ms=self.now(), lost=lost))

    def name_answer(self, answer_id: str, hold_id: str) -> Ready[None]:
        # No lock: each step is one call into C, and a finaliser may come here from inside of the lock.
        self._answers[answer_id] = hold_id
        if len(self._answers) > ANSWERS_MAX:
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
            for _, change in results:
                self._correctable.update(change.over)
                self._commit(change)
            self._put_accounts_away(self._certain_ms(now_ms))
            return tuple([settled for settled, _ in results])

        return self._alone(run)

    def holds(self, *states: str) -> Ready[tuple[Hold, ...]]:
        wanted = states or LIVE
        return self._alone(lambda: tuple(hold for hold in self._holds.values() if hold.state in wanted))

    def balances(self, keys: Iterable[str] | None = None, *, at_ms: int | None = None) -> Ready[dict[str, Balances]]:
        names = None if keys is None else tuple(keys)
        if names is None and at_ms is not None:
            ends = self._ends
            return self._alone(
                lambda: {key: row for key, row in self._balances.items() if key not in ends or ends[key] > at_ms}
            )
        if names is None:
            return self._alone(lambda: dict(self._balances))
        return self._alone(lambda: dict(zip(names, map(self.balance, names), strict=True)))

    def known_balances(self) -> Callable[[str], Balances | None]:
        return self.balance

    def entries(
        self,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        after_seq: int = 0,
        limit: int | None = None,
    ) -> Ready[Sequence[Entry]]:
        rows = self._alone(lambda: list(self._entries.values())).result()
        found = (entry for entry in rows if entry.seq > after_seq and _within(entry.at_ms, since_ms, until_ms))
        return Ready(list(islice(found, limit)))

    def sums(
        self, by: Collection[str] = (), *, since_ms: int | None = None, until_ms: int | None = None
    ) -> Ready[Sums]:
        check_keys(by)
        rows, rolled, dropped = self._alone(
            lambda: (list(self._entries.values()), dict(self._rolled), self.dropped and not self._rolled)
        ).result()
        if dropped:
            # A correction is a difference to its call's row: without that it says nothing, and may be below zero.
            calls = {entry.hold_id for entry in rows if entry.kind == "call"}
            rows = [entry for entry in rows if entry.kind != "correction" or entry.hold_id in calls]
        sums = sum_entries((entry for entry in rows if _within(entry.started_ms, since_ms, until_ms)), by)
        day_ms = None if since_ms is None else since_ms - since_ms % DAY_MS
        for key, figures in rolled.items():
            if _within(key.start_ms or 0, day_ms, until_ms):
                within = coarser(key, by)
                sums[within] = sums.get(within, Figures()).plus(figures)
        return Ready(sums)

    def asked(self, *, since_ms: int | None = None, until_ms: int | None = None) -> Ready[Mapping[str, Asked]]:
        def run() -> dict[str, Asked]:
            rows = [row for row in self._entries.values() if _within(row.at_ms, since_ms, until_ms)]
            holds = [hold for row in rows if (hold := self.hold(row.hold_id)) is not None]
            return {hold.id: Asked(hold.x_want, hold.x_floor) for hold in holds}

        return self._alone(run)

    def tally(self, *, after_seq: int = 0) -> Ready[Tallies]:
        def rows() -> tuple[int, bool, list[Entry], dict[TallyKey, Tally]]:
            seq = self.seq
            whole = after_seq < max(1, self._counts["tallied"])
            # The oldest may be gone.
            first = 1 if whole else after_seq + 1
            entries = [self._entries[number] for number in range(first, seq + 1) if number in self._entries]
            return seq, whole, entries, self._tallied if whole else {}

        seq, whole, entries, before = self._alone(rows).result()
        return Ready(Tallies(max(seq, after_seq), tally_entries(entries, before), whole))

    def find(self, hold_id: str) -> Ready[Hold | None]:
        return self._alone(lambda: self.hold(hold_id))

    def journal(self) -> Ready[Journal]:
        return self._alone(
            lambda: Journal(dict(self._settled_before), list(self._entries.values()), list(self._holds.values()))
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

        return self._alone(run)

    def denials(self, *, since_ms: int | None = None, until_ms: int | None = None) -> Ready[Mapping[DenialKey, int]]:
        rows = self._alone(lambda: dict(self._denials)).result()
        return Ready({key: count for key, count in rows.items() if _within(key.hour_ms, since_ms, until_ms)})

    # -- ratios --------------------------------------------------------------------------------------------------

    def ratios(self) -> Ready[Ratios]:
        return Ready(self._ratios)

    def add_ratios(self, seen: Ratios) -> Ready[Ratios]:
        def run() -> Ratios:
            self._ratios = merged(self._ratios, seen)
            return self._ratios

        return self._alone(run)

    # -- alerts, and putting the past away -----------------------------------------------------------------------

    def alert_once(self, key: str, *, ends_ms: int | None = None) -> Ready[bool]:
        def run() -> bool:
            if key in self._alerts:
                return False
            self._alerts[key] = ends_ms
            while len(self._alerts) > ALERTS_MAX:
                del self._alerts[next(iter(self._alerts))]
            return True

        return self._alone(run)

    def roll_up(self, *, keep_ms: int | None = None) -> Ready[int]:
        def run() -> int:
            now_ms = self._certain_ms(self.now())
            accounts = len(self._balances)
            self._put_accounts_away(now_ms)
            over_ms = now_ms - ACCOUNT_GRACE_MS
            over = [key for key, ends_ms in self._alerts.items() if ends_ms is not None and ends_ms <= over_ms]
            for key in over:
                del self._alerts[key]
            rolled = 0
            if keep_ms is not None:
                rolled = self._roll_entries(now_ms - keep_ms) + self._roll_denials(now_ms - keep_ms)
            return accounts - len(self._balances) + len(over) + rolled

        return self._alone(run)

    def forget(self, keys: Iterable[str]) -> bool:
        """
        Put away the accounts of a unit of work that nobody can ask about any more (memory only).

        False, and nothing is put away, while a hold or a suspect call still counts on one of them, or a call that was
        resolved without its word may still correct it.
        """
        names = tuple(keys)

        def run() -> bool:
            known = [key for key in names if key in self._balances]
            if any(any(self._balances[key][len(NONE) :]) for key in known):
                return False
            if self._correctable and not self._needed().isdisjoint(known):
                return False
            for key in known:
                self._drop_account(key)
            return True

        return self._alone(run).result()

    def close(self) -> None:
        """Nothing to write; what was kept stays readable."""

    # -- how a verb is carried out -------------------------------------------------------------------------------

    def _alone(self, do: Callable[[], T]) -> Ready[T]:
        """What needs the books for itself: it reads them, or changes what no rule of the kernel's is about."""
        return self._run(lambda: (do(), NOTHING))

    def _change_catalogue(self, change: Callable[[Catalogue], Catalogue]) -> Ready[Catalogue]:
        def run() -> Catalogue:
            self._catalogue = change(self._catalogue)
            return self._catalogue

        return self._alone(run)

    def _change_keys(self, change: Callable[[KeyRing], KeyRing]) -> Ready[KeyRing]:
        def run() -> KeyRing:
            self._keys = change(self._keys)
            return self._keys

        return self._alone(run)


def _within(at_ms: int, since_ms: int | None, until_ms: int | None) -> bool:
    return (since_ms is None or at_ms >= since_ms) and (until_ms is None or at_ms < until_ms)
