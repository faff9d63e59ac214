"""
The contract of every store: verbs, and the tickets they answer with.

A verb takes a command of :mod:`farthing.kernel.ledger`, applies it all or nothing and returns a :class:`Ticket`:
``.result()`` waits for the answer, ``await`` does the same in a task. All verbs are idempotent by id. A store that is
locked, silent or full for ``PATIENCE_SECONDS`` raises StoreUnavailable from the ticket; it never waits for ever and
never guesses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ..kernel.balances import Amounts, Balances
from ..kernel.budget import Budget
from ..kernel.catalogue import Catalogue, Grant
from ..kernel.hold import Entry, Hold, Outcome
from ..kernel.keys import Key, KeyRing
from ..kernel.ledger import Denied, Placed, Settled, Stale
from ..kernel.plan import Plan
from ..kernel.ratios import Ratios
from ..kernel.sums import Sums
from ..kernel.tallies import Tally, TallyKey

PATIENCE_SECONDS = 5.0
SWEEP_SECONDS = 5.0
SWEEP_BATCH = 256
SUSPECT_AFTER_MS = 24 * 3_600_000
ACCOUNT_GRACE_MS = 3_600_000
"""How long an account, or an alert, is kept beyond its time, for calls that settle late."""
ROLL_UP_BATCH = 256

DURABILITIES = ("full", "normal")
"""How much of a durable ledger survives the loss of power: all of it, or all but the last moments."""

Clock = Callable[[], int]
"""Milliseconds since the epoch."""


def wall_clock_ms() -> int:
    """The machine's clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Ticket(Protocol[T_co]):
    """An answer that may still be on its way."""

    def result(self) -> T_co:
        """Wait for the answer; raises what the verb raised, or StoreUnavailable when patience ends."""
        ...

    def __await__(self) -> Generator[Any, None, T_co]: ...


class Ready(NamedTuple, Generic[T]):
    """A ticket whose answer is there."""

    value: T

    def result(self) -> T:
        return self.value

    def __await__(self) -> Generator[Any, None, T]:
        return self.value
        yield  # pragma: no cover - makes this a generator


class DenialKey(NamedTuple):
    """What denied calls are counted by: they leave no other row."""

    hour_ms: int
    """Start of the hour, UTC."""
    budget: str
    unit: str
    model: str
    provider: str
    tags: tuple[tuple[str, str], ...]
    shadow: bool
    """A ``warn`` budget would have denied it; the call went out."""


class Tallies(NamedTuple):
    """The sums over the rows up to, and including, number ``seq``."""

    seq: int
    sums: Mapping[TallyKey, Tally]
    whole: bool
    """Over all rows there ever were, those that were rolled up too; else over those after the number that was asked."""


class Asked(NamedTuple):
    """Output tokens per choice, as one hold knows them."""

    x_want: int
    x_floor: int


class SweepPolicy(NamedTuple):
    """What becomes of suspect holds, and when: ``keep``, ``settle_at_hold`` or ``release`` after this long."""

    suspect_after_ms: int = SUSPECT_AFTER_MS
    suspect_policy: str = "settle_at_hold"


KEEP_A_DAY = SweepPolicy()


class Journal(NamedTuple):
    """Everything that the balances are a projection of: see :func:`farthing.kernel.ledger.replay`."""

    settled_before: Mapping[str, Amounts]
    entries: Sequence[Entry]
    holds: Sequence[Hold]


class Store(Protocol):
    """One ledger. Verbs may be called from any thread; a ticket may be awaited in any event loop."""

    name: str
    """What messages call it: ``memory``, or the file's path."""
    durable: bool

    def now(self) -> int:
        """The ledger's time in milliseconds: never before its last-seen time."""
        ...

    def place(self, plan: Plan, *, replaces: str | None = None) -> Ticket[Placed | Denied | Stale]: ...
    def resize(self, hold_id: str, *, x: int) -> Ticket[Hold]: ...
    def extend(self, hold_id: str, *, deadline_ms: int) -> Ticket[Hold]: ...
    def settle(self, hold_id: str, outcome: Outcome) -> Ticket[Settled]: ...
    def void(self, hold_id: str, outcome: Outcome | None = None) -> Ticket[Settled]: ...
    def suspect(self, hold_id: str, *, ending: str, note: str | None = None) -> Ticket[Settled]: ...
    def resolve(self, hold_id: str, policy: str, *, note: str | None = None) -> Ticket[Settled]: ...
    def record(self, plan: Plan, outcome: Outcome, *, lost: bool = False) -> Ticket[Settled]:
        """
        Write a call that is over, without asking: its postings are settled whatever the ceilings say. *lost*: it is
        suspect.
        """
        ...

    def name_answer(self, answer_id: str, hold_id: str) -> Ticket[None]:
        """The provider keeps this call's answer under this id: a later request may name it."""
        ...

    def answered(self, answer_id: str) -> Ticket[Hold | None]:
        """The hold of the call whose answer has this id; None if it is not known here, or was forgotten."""
        ...

    def sweep(self, policy: SweepPolicy = KEEP_A_DAY) -> Ticket[tuple[Settled, ...]]:
        """
        One bounded pass: holds of dead owners and past their deadline become suspect, old suspects are resolved, and
        accounts whose window is long over are put away.
        """
        ...

    def holds(self, *states: str) -> Ticket[tuple[Hold, ...]]:
        """Live holds in these states (all live ones if none is named), oldest first."""
        ...

    def balances(self, keys: Iterable[str] | None = None, *, at_ms: int | None = None) -> Ticket[dict[str, Balances]]:
        """
        The balances of these accounts; one that was never posted to has zero. Without *keys* of every one; with *at_ms*
        without those that no window of that instant looks at any more, of which there may be a hundred times as many.
        """
        ...

    def known_balances(self) -> Callable[[str], Balances | None]:
        """
        Looks up an account as this process last knew it, without waiting: for showing, never for deciding. None: it is
        not known now.
        """
        ...

    def entries(
        self,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        after_seq: int = 0,
        limit: int | None = None,
    ) -> Ticket[Sequence[Entry]]:
        """
        Rows with ``since <= at < until``, in order. A ledger may have more than can be read in one go: give *limit*,
        and go on after the last row's ``seq``.
        """
        ...

    def sums(
        self, by: Collection[str] = (), *, since_ms: int | None = None, until_ms: int | None = None
    ) -> Ticket[Sums]:
        """
        The sums of all calls that were placed in ``since <= at < until``, told apart by these of ``model provider tags
        budgets`` and ``day`` or ``hour`` (:mod:`farthing.kernel.sums`). Of what was rolled up, days count as a whole.
        """
        ...

    def asked(self, *, since_ms: int | None = None, until_ms: int | None = None) -> Ticket[Mapping[str, Asked]]:
        """
        What the holds of these rows asked for, by id. Zeros where nothing was held; of a row whose hold was forgotten
        it has nothing.
        """
        ...

    def tally(self, *, after_seq: int = 0) -> Ticket[Tallies]:
        """
        Sums over the rows after this number: what metrics add up, a scrape at a time. Over all rows, where none is
        named, or rows after it have been rolled up meanwhile.
        """
        ...

    def find(self, hold_id: str) -> Ticket[Hold | None]:
        """The hold of one call, whatever became of it; None if its id is unknown, or was forgotten."""
        ...

    def journal(self) -> Ticket[Journal]: ...

    def catalogue(self) -> Ticket[Catalogue]: ...
    def put_budget(self, budget: Budget, *, update: bool = False) -> Ticket[Catalogue]: ...
    def put_budgets(self, budgets: Sequence[Budget], *, catalogue_version: int) -> Ticket[Catalogue]:
        """
        Change all of these in one step: what one loses another may gain. If the catalogue is of another version by
        now, nothing is changed.
        """
        ...

    def remove_budget(self, name: str, *, defined_by: str | None = None) -> Ticket[Catalogue]: ...
    def grant(self, grant: Grant) -> Ticket[Catalogue]: ...
    def freeze(self, name: str, *, frozen: bool) -> Ticket[Catalogue]: ...

    def keys(self, *, fresh: bool = False) -> Ticket[KeyRing]:
        """
        Every virtual key, revoked ones too. What another process changed is seen within a second; *fresh*: at once, for
        the price of a look at the ledger.
        """
        ...

    def put_key(self, key: Key) -> Ticket[KeyRing]:
        """A new key. ConfigError if there is one with its id."""
        ...

    def rotate_key(self, key_id: str, text_hash: str, *, overlap_ms: int = 0) -> Ticket[KeyRing]:
        """Another secret for a key; the one before stays good for *overlap_ms*. ConfigError if unknown or ended."""
        ...

    def revoke_key(self, key_id: str) -> Ticket[KeyRing]:
        """End a key for good. ConfigError if it is unknown."""
        ...

    def add_denials(self, counts: Mapping[DenialKey, int]) -> Ticket[None]: ...
    def denials(
        self, *, since_ms: int | None = None, until_ms: int | None = None
    ) -> Ticket[Mapping[DenialKey, int]]: ...

    def ratios(self) -> Ticket[Ratios]:
        """The largest ratios of billed to counted tokens. What another process saw is known within a second."""
        ...

    def add_ratios(self, seen: Ratios) -> Ticket[Ratios]:
        """What was seen since: of ratios the larger is kept, calls are added. Answers with all that is known now."""
        ...

    def alert_once(self, key: str, *, ends_ms: int | None = None) -> Ticket[bool]:
        """
        Whether nobody asked this before: true for exactly one who asks, over all processes. What was asked may be
        forgotten after *ends_ms* (None: never).
        """
        ...

    def roll_up(self, *, keep_ms: int | None = None) -> Ticket[int]:
        """
        One bounded step of putting the past away; returns how much it did, so 0 when all is done.

        Accounts whose window is long over go, unless a live hold, or one that was resolved without its call's word, may
        still change them. With *keep_ms*: rows older than that become daily sums, and the ids of their holds are
        forgotten. The journal's snapshot takes over what goes, so that it still gives the balances.
        """
        ...

    def close(self) -> None:
        """A clean stop: what is queued is written, this owner's lock is released. Idempotent."""
        ...
