"""
The durable ledger: one SQLite file, shared by the threads and tasks of many processes.

Every verb of :class:`~farthing.stores.contract.Store` hands a command to this process's writer and returns its ticket.
The rules are the kernel's; the writer carries them out. One class, because the verbs of a store are one contract, and
opening and forking decide which writer they reach.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...errors import StoreUnavailable
from ...kernel import ledger
from ...kernel.balances import Balances
from ...kernel.budget import Budget
from ...kernel.catalogue import Catalogue, Grant
from ...kernel.hold import LIVE, Entry, Hold, Outcome
from ...kernel.keys import Key, KeyRing
from ...kernel.ledger import NOTHING, Change, Denied, Placed, Settled, Stale
from ...kernel.plan import Plan
from ...kernel.ratios import Ratios
from ...kernel.sums import Sums, check_keys
from ..contract import (
    DURABILITIES,
    KEEP_A_DAY,
    PATIENCE_SECONDS,
    Asked,
    Clock,
    DenialKey,
    Journal,
    Ready,
    SweepPolicy,
    Tallies,
    wall_clock_ms,
)
from ..contract import Ticket as AnyTicket
from . import queries
from .books import Books
from .connection import open_ledger
from .files import FileLock, prepare_file
from .owners import Owner
from .past import roll_up
from .sweeping import sweep
from .tickets import CHANGE, END, LOOK, PLACE, READ, Ticket
from .writer import Writer

T = TypeVar("T")
_log = logging.getLogger("farthing.stores")

CATALOGUE_SECONDS = 0.5
"""How long what is known of the catalogue is used without a look at the file."""
KEYS_SECONDS = 0.9
"""The same, of the virtual keys: a revocation holds everywhere within a second. (Under load the file is looked at with
every group, so that nobody waits for a look of this kind.)"""
LEFT_BEHIND_MAX = 1_000_000
"""How many holds of the dead are looked for at opening: all that can be."""
_KEEP = SweepPolicy(suspect_policy="keep")


class SQLiteStore:
    """
    A ledger in one file.

    Args:
        path: the file; it is made, private to its user, if it is not there.
        clock: the time in milliseconds since the epoch.
        patience_seconds: how long a locked or silent file is waited for.
        durability: ``full``: a hold is on the disk before its call leaves. ``normal``: it survives the end of the
            process; the last moments may be lost with the power.

    Raises ConfigError for a path that cannot hold a ledger, StoreUnavailable for a file that cannot be used.

    A forked child may use the store: it becomes an owner of its own at its first verb. Tickets are not inherited.
    """

    durable = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock = wall_clock_ms,
        patience_seconds: float = PATIENCE_SECONDS,
        durability: str = "full",
    ) -> None:
        if durability not in DURABILITIES:
            raise ValueError(f"durability={durability!r} is unknown; choose one of {', '.join(DURABILITIES)}")
        if not patience_seconds > 0:
            raise ValueError(f"patience_seconds must be above 0, not {patience_seconds!r}")
        # Links are followed now: two names of one file must share the lock beside it.
        self.name = os.path.realpath(path)
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._full = durability == "full"
        self._opening = threading.RLock()
        self._unusable: str | None = None
        self._paused: Writer | None = None
        self._writer: Writer | None = None
        self._writer = self._open()
        _stores.add(self)

    @property
    def owner(self) -> str:
        """The name under which this process's holds stand."""
        return self._at_work().owner.id

    def now(self) -> int:
        return self._at_work().books.now()

    # -- verbs ---------------------------------------------------------------------------------------------------

    def place(self, plan: Plan, *, replaces: str | None = None) -> Ticket[Placed | Denied | Stale]:
        """
        The hold is on the disk before the ticket answers. One that nobody waits for any more, because patience ended, a
        task was cancelled or a signal came, is voided; so after StoreUnavailable, use a new id.
        """
        writer = self._writer or self._at_work()
        owner = writer.owner.id

        def run(books: Books, now_ms: int) -> tuple[Placed | Denied | Stale, Change]:
            version = books.catalogue_version()
            return ledger.place(books, plan, owner=owner, now_ms=now_ms, catalogue_version=version, replaces=replaces)

        return writer.submit(Ticket(writer, PLACE, run, plan.id))

    def resize(self, hold_id: str, *, x: int) -> Ticket[Hold]:
        return self._ask(CHANGE, lambda books, now_ms: ledger.resize(books, hold_id, x=x, now_ms=now_ms), hold_id)

    def extend(self, hold_id: str, *, deadline_ms: int) -> Ticket[Hold]:
        return self._ask(
            CHANGE,
            lambda books, now_ms: ledger.extend(books, hold_id, deadline_ms=deadline_ms, now_ms=now_ms),
            hold_id,
        )

    def settle(self, hold_id: str, outcome: Outcome) -> Ticket[Settled]:
        return self._ask(END, lambda books, now_ms: ledger.settle(books, hold_id, outcome, now_ms=now_ms), hold_id)

    def void(self, hold_id: str, outcome: Outcome | None = None) -> Ticket[Settled]:
        return self._ask(END, lambda books, now_ms: ledger.void(books, hold_id, outcome, now_ms=now_ms), hold_id)

    def suspect(self, hold_id: str, *, ending: str, note: str | None = None) -> Ticket[Settled]:
        return self._ask(
            END,
            lambda books, now_ms: ledger.suspect(books, hold_id, ending=ending, note=note, now_ms=now_ms),
            hold_id,
        )

    def resolve(self, hold_id: str, policy: str, *, note: str | None = None) -> Ticket[Settled]:
        return self._ask(
            CHANGE, lambda books, now_ms: ledger.resolve(books, hold_id, policy, now_ms=now_ms, note=note), hold_id
        )

    def record(self, plan: Plan, outcome: Outcome, *, lost: bool = False) -> Ticket[Settled]:
        owner = self.owner
        return self._ask(
            END,
            lambda books, now_ms: ledger.record(books, plan, outcome, owner=owner, now_ms=now_ms, lost=lost),
            plan.id,
        )

    def name_answer(self, answer_id: str, hold_id: str) -> Ticket[None]:
        return self._ask(END, lambda books, now_ms: (books.name_answer(answer_id, hold_id), NOTHING))

    def sweep(self, policy: SweepPolicy = KEEP_A_DAY) -> Ticket[tuple[Settled, ...]]:
        owner = self._at_work().owner
        return self._ask(CHANGE, lambda books, now_ms: sweep(books, now_ms, policy, owner))

    # -- reading -------------------------------------------------------------------------------------------------

    def holds(self, *states: str) -> Ticket[tuple[Hold, ...]]:
        wanted = states or LIVE
        return self._ask(READ, lambda connection: queries.holds(connection, wanted))

    def balances(self, keys: Iterable[str] | None = None, *, at_ms: int | None = None) -> Ticket[dict[str, Balances]]:
        if keys is None:
            return self._ask(READ, lambda connection: queries.balances(connection, at_ms))
        names = tuple(keys)
        return self._ask(LOOK, lambda books, now_ms: ({key: books.balance(key) for key in names}, NOTHING))

    def known_balances(self) -> Callable[[str], Balances | None]:
        writer = self._writer
        return dict[str, Balances]().get if writer is None else writer.books.known_balance

    def entries(
        self,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        after_seq: int = 0,
        limit: int | None = None,
    ) -> Ticket[Sequence[Entry]]:
        return self._ask(READ, lambda connection: queries.entries(connection, since_ms, until_ms, after_seq, limit))

    def sums(
        self, by: Collection[str] = (), *, since_ms: int | None = None, until_ms: int | None = None
    ) -> Ticket[Sums]:
        check_keys(by)
        return self._ask(READ, lambda connection: queries.sums(connection, by, since_ms, until_ms))

    def asked(self, *, since_ms: int | None = None, until_ms: int | None = None) -> Ticket[Mapping[str, Asked]]:
        return self._ask(READ, lambda connection: queries.asked(connection, since_ms, until_ms))

    def tally(self, *, after_seq: int = 0) -> Ticket[Tallies]:
        return self._ask(READ, lambda connection: queries.tally(connection, after_seq))

    def find(self, hold_id: str) -> Ticket[Hold | None]:
        return self._ask(LOOK, lambda books, now_ms: (books.hold(hold_id), NOTHING))

    def answered(self, answer_id: str) -> Ticket[Hold | None]:
        return self._ask(LOOK, lambda books, now_ms: (books.answered(answer_id), NOTHING))

    def journal(self) -> Ticket[Journal]:
        return self._ask(READ, queries.journal)

    # -- budgets -------------------------------------------------------------------------------------------------

    def catalogue(self) -> AnyTicket[Catalogue]:
        """Changes made by other processes are seen within ``CATALOGUE_SECONDS``; our own at once."""
        writer = self._at_work()
        if time.monotonic() - writer.looked_at < CATALOGUE_SECONDS:
            return Ready(writer.books.catalogue)
        return self._ask(LOOK, lambda books, now_ms: (books.change_catalogue(_same), NOTHING))

    def put_budget(self, budget: Budget, *, update: bool = False) -> Ticket[Catalogue]:
        return self._change_catalogue(lambda known: known.with_budget(budget, update=update))

    def put_budgets(self, budgets: Sequence[Budget], *, catalogue_version: int) -> Ticket[Catalogue]:
        return self._change_catalogue(lambda known: known.with_budgets(budgets, catalogue_version=catalogue_version))

    def remove_budget(self, name: str, *, defined_by: str | None = None) -> Ticket[Catalogue]:
        return self._change_catalogue(lambda known: known.without_budget(name, defined_by=defined_by))

    def grant(self, grant: Grant) -> Ticket[Catalogue]:
        return self._change_catalogue(lambda known: known.with_grant(grant))

    def freeze(self, name: str, *, frozen: bool) -> Ticket[Catalogue]:
        return self._change_catalogue(lambda known: known.with_frozen(name, frozen))

    def _change_catalogue(self, change: Callable[[Catalogue], Catalogue]) -> Ticket[Catalogue]:
        return self._ask(CHANGE, lambda books, now_ms: (books.change_catalogue(change), NOTHING))

    # -- keys ----------------------------------------------------------------------------------------------------

    def keys(self, *, fresh: bool = False) -> AnyTicket[KeyRing]:
        """Changes made by other processes are seen within ``KEYS_SECONDS``, *fresh* ones at once; our own always."""
        writer = self._writer or self._at_work()
        if not fresh and time.monotonic() - writer.looked_at < KEYS_SECONDS:
            return Ready(writer.books.keys)
        return self._ask(LOOK, lambda books, now_ms: (books.change_keys(_same), NOTHING))

    def put_key(self, key: Key) -> Ticket[KeyRing]:
        return self._change_keys(lambda ring, now_ms: ring.with_key(key))

    def rotate_key(self, key_id: str, text_hash: str, *, overlap_ms: int = 0) -> Ticket[KeyRing]:
        return self._change_keys(
            lambda ring, now_ms: ring.with_secret(key_id, text_hash, now_ms=now_ms, overlap_ms=overlap_ms)
        )

    def revoke_key(self, key_id: str) -> Ticket[KeyRing]:
        return self._change_keys(lambda ring, now_ms: ring.without_key(key_id, now_ms=now_ms))

    def _change_keys(self, change: Callable[[KeyRing, int], KeyRing]) -> Ticket[KeyRing]:
        return self._ask(CHANGE, lambda books, now_ms: (books.change_keys(lambda ring: change(ring, now_ms)), NOTHING))

    # -- denials -------------------------------------------------------------------------------------------------

    def add_denials(self, counts: Mapping[DenialKey, int]) -> Ticket[None]:
        """
        Like the end of a call: what cannot be written now is kept, and nothing is counted twice. Without any, it only
        asks whether the ledger answers, and there is nothing to keep.
        """
        kept = dict(counts)
        return self._ask(END if kept else CHANGE, lambda books, now_ms: (books.add_denials(kept), NOTHING))

    def denials(self, *, since_ms: int | None = None, until_ms: int | None = None) -> Ticket[Mapping[DenialKey, int]]:
        return self._ask(READ, lambda connection: queries.denials(connection, since_ms, until_ms))

    # -- ratios --------------------------------------------------------------------------------------------------

    def ratios(self) -> AnyTicket[Ratios]:
        """As with the catalogue: what other processes saw is known within ``CATALOGUE_SECONDS``."""
        writer = self._at_work()
        if time.monotonic() - writer.looked_at < CATALOGUE_SECONDS:
            return Ready(writer.books.ratios)
        return self._ask(LOOK, lambda books, now_ms: (books.add_ratios({}), NOTHING))

    def add_ratios(self, seen: Ratios) -> Ticket[Ratios]:
        kept = dict(seen)
        return self._ask(CHANGE, lambda books, now_ms: (books.add_ratios(kept), NOTHING))

    # -- alerts, and putting the past away ---------------------------------------------------------------------------

    def alert_once(self, key: str, *, ends_ms: int | None = None) -> Ticket[bool]:
        return self._ask(CHANGE, lambda books, now_ms: (books.alert_once(key, now_ms, ends_ms), NOTHING))

    def roll_up(self, *, keep_ms: int | None = None) -> Ticket[int]:
        return self._ask(CHANGE, lambda books, now_ms: roll_up(books, now_ms, keep_ms))

    # -- opening and closing -------------------------------------------------------------------------------------

    def close(self) -> None:
        _stores.discard(self)
        self._unusable = self._unusable or "closed"
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()

    def _ask(self, kind: int, run: Callable[..., Any], hold_id: str | None = None) -> Ticket[Any]:
        writer = self._writer or self._at_work()
        return writer.submit(Ticket(writer, kind, run, hold_id))

    def _at_work(self) -> Writer:
        """This process's writer. A forked child gets its own here, at its first verb."""
        if self._writer is None:
            if self._unusable is not None:
                raise StoreUnavailable(self.name, self._unusable)
            with self._opening:
                if self._writer is None:
                    self._writer = self._open()
        return self._writer

    def _open(self) -> Writer:
        path = Path(self.name)
        prepare_file(path)
        try:
            lock = FileLock(path.with_name(f"{path.name}-lock"))
            try:
                connection = open_ledger(self.name, lock, patience_seconds=self._patience_seconds)
                try:
                    owner = Owner(path.with_name(f"{path.name}-owners"))
                except BaseException:  # also a signal's: nobody else has it
                    connection.close()
                    raise
            except BaseException:  # as above
                lock.drop()
                raise
        except OSError as error:
            # No room for a file beside it, no handle left to open one with, a folder that may not be written.
            where = error.filename or f"{self.name}-owners"
            raise StoreUnavailable(
                self.name, f"{where} cannot be made beside it ({error.strerror or error})"
            ) from error
        writer = Writer(
            self.name,
            connection,
            lock,
            owner,
            clock=self._clock,
            patience_seconds=self._patience_seconds,
            full=self._full,
        )
        # A store that is dropped without close() still writes what it was given, and ends its threads.
        weakref.finalize(self, writer.stop_soon).atexit = False
        writer.submit(Ticket(writer, CHANGE, lambda books, now_ms: _first_sweep(books, now_ms, owner)))
        return writer

    # -- forks ---------------------------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        writer = self._writer
        if writer is None:
            return
        if writer.before_fork():
            self._paused = writer
        else:
            _log.error("ledger %s is busy; the process forked now cannot use it", self.name)

    def _after_fork_in_parent(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.after_fork_in_parent()

    def _after_fork_in_child(self) -> None:
        writer, self._writer = self._writer, None
        paused, self._paused = self._paused, None
        self._opening = threading.RLock()
        if writer is None:
            return
        writer.after_fork_in_child()
        if paused is None:
            self._unusable = "the process was forked while it was being written; start children with 'spawn'"


def _same(known: T) -> T:
    return known


def _first_sweep(books: Books, now_ms: int, owner: Owner) -> tuple[None, Change]:
    """At opening: what died with its process before is said to be suspect, before anything is admitted."""
    # All in one: another look in this group would find them again, for they are not in the file yet.
    sweep(books, now_ms, _KEEP, owner, most=LEFT_BEHIND_MAX)
    owner.clear_leftovers()
    return None, NOTHING


_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()


def _before_fork() -> None:
    for store in list(_stores):
        store._before_fork()


def _after_fork_in_parent() -> None:
    for store in list(_stores):
        store._after_fork_in_parent()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store._after_fork_in_child()


def _close_all() -> None:
    for store in list(_stores):
        store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_close_all)
