"""
A store whose answers come when the scheduler says, and sometimes do not come at all.

:class:`SlowStore` wraps a real store. A verb returns a :class:`Pending` ticket at once; its command waits in line until
the scheduler applies it, so that other calls run between a call's question and its answer. Commands of one process
are applied in the order in which they were given, whether anybody waits for them or not, as SQLite's writer does it.

What can go wrong with a command is said when it is applied:

- ``before``: the store is unavailable, nothing was done;
- ``after``: it was done, but the answer is StoreUnavailable (the hold stays until its deadline);
- ``patience``: its caller stops waiting first. A hold that is then admitted is given back, as the contract says; any
  other command is still carried out.

Every command that reaches the real store passes the oracle, which knows what its answer must be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from farthing.errors import FarthingError, StoreUnavailable
from farthing.kernel import ledger
from farthing.kernel.ledger import Placed
from farthing.stores.contract import KEEP_A_DAY, SWEEP_BATCH, Ready, SweepPolicy
from farthing.stores.memory import MemoryStore

if TYPE_CHECKING:
    from .oracle import Oracle

ENDS = ("settle", "void", "suspect", "record")


@dataclass
class Command:
    """One verb and what it was given."""

    verb: str
    args: tuple[Any, ...]
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def hold_id(self) -> str:
        """The hold that it is about, if any."""
        if self.verb in ("place", "record"):
            return str(self.args[0].id)
        return self.args[0] if self.args and isinstance(self.args[0], str) else ""

    def __str__(self) -> str:
        return f"{self.verb} {self.hold_id}".strip()


class Pending:
    """A ticket of a :class:`SlowStore`."""

    def __init__(self, store: SlowStore, command: Command) -> None:
        self._store = store
        self.command = command
        self.done = False
        self.applied = False
        self.abandoned = False
        self.answer: Any = None
        self.error: BaseException | None = None

    def result(self) -> Any:
        """A caller that cannot do without the answer: the line is worked off up to here."""
        while not self.done:
            self._store.apply_next()
        if self.error is not None:
            raise self.error
        return self.answer

    def __await__(self) -> Generator[Any, None, Any]:
        while not self.done:
            yield self
        return self.result()

    def give_up(self) -> None:
        """Nobody waits any more. A hold that is, or will be, admitted by this is given back."""
        self.abandoned = True
        if self.applied and isinstance(self.answer, Placed):
            self._store.give_back(self.command.hold_id)


class SharedMemory(MemoryStore):
    """A memory ledger that outlives its processes: what the simulation needs of a durable store, and nothing more."""

    durable = True

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.dead: set[str] = set()

    def sweep(self, policy: SweepPolicy = KEEP_A_DAY) -> Ready[Any]:
        now_ms = self.now()
        terms = {"now_ms": now_ms, "dead_owners": frozenset(self.dead), **policy._asdict()}
        due = [hold for hold in self._holds.values() if ledger.due(hold, **terms)][:SWEEP_BATCH]
        results = ledger.sweep(self, due, **terms)
        for _, change in results:
            self._commit(change)
        self._put_accounts_away(now_ms)
        return Ready(tuple(settled for settled, _ in results))


class SlowStore:
    """
    One process's way to a store. Verbs as in :class:`~farthing.stores.contract.Store`.

    *queued*: answers come when the scheduler applies them; else at once, as the memory ledger's do.
    """

    def __init__(self, inner: Any, oracle: Oracle, *, queued: bool, process: str, owner: str) -> None:
        self.inner = inner
        self.oracle = oracle
        self.queued = queued
        self.process = process
        self.owner = owner
        self.name: str = inner.name
        self.durable: bool = inner.durable
        self.line: deque[Pending] = deque()
        self.dead = False
        self.unanswered: set[str] = set()
        """Holds that were admitted, and their call was told that the store is unavailable."""
        self.unwritten: set[str] = set()
        """Calls whose end the store refused: they stay held until they are swept."""
        self.given_back: set[str] = set()
        """Holds that were admitted for a caller who had gone: voided, unless the process dies before."""
        self.done: list[Command] = []
        """What was carried out, for repetitions."""

    def now(self) -> int:
        return int(self.inner.now())

    # -- verbs ---------------------------------------------------------------------------------------------------

    def place(self, plan: Any, *, replaces: str | None = None) -> Any:
        return self._ask(Command("place", (plan,), {} if replaces is None else {"replaces": replaces}))

    def find(self, hold_id: str) -> Any:
        return self._ask(Command("find", (hold_id,)))

    def resize(self, hold_id: str, *, x: int) -> Any:
        return self._ask(Command("resize", (hold_id,), {"x": x}))

    def extend(self, hold_id: str, *, deadline_ms: int) -> Any:
        return self._ask(Command("extend", (hold_id,), {"deadline_ms": deadline_ms}))

    def settle(self, hold_id: str, outcome: Any) -> Any:
        return self._ask(Command("settle", (hold_id, outcome)))

    def void(self, hold_id: str, outcome: Any = None) -> Any:
        return self._ask(Command("void", (hold_id, outcome)))

    def suspect(self, hold_id: str, *, ending: str, note: str | None = None) -> Any:
        return self._ask(Command("suspect", (hold_id,), {"ending": ending, "note": note}))

    def resolve(self, hold_id: str, policy: str, *, note: str | None = None) -> Any:
        return self._ask(Command("resolve", (hold_id, policy), {"note": note}))

    def record(self, plan: Any, outcome: Any, *, lost: bool = False) -> Any:
        return self._ask(Command("record", (plan, outcome), {"lost": lost}))

    def sweep(self, policy: SweepPolicy = KEEP_A_DAY) -> Any:
        return self._ask(Command("sweep", (policy,)))

    def balances(self, keys: Iterable[str] | None = None) -> Any:
        return self._ask(Command("balances", (None if keys is None else tuple(keys),)))

    def holds(self, *states: str) -> Any:
        return self._ask(Command("holds", states))

    def catalogue(self) -> Any:
        return self._ask(Command("catalogue", ()))

    def add_denials(self, counts: Mapping[Any, int]) -> Any:
        return self._ask(Command("add_denials", (dict(counts),)))

    def ratios(self) -> Any:
        return self._ask(Command("ratios", ()))

    def add_ratios(self, seen: Mapping[Any, Any]) -> Any:
        return self._ask(Command("add_ratios", (dict(seen),)))

    def roll_up(self, *, keep_ms: int | None = None) -> Any:
        return self._ask(Command("roll_up", (), {"keep_ms": keep_ms}))

    def put_budget(self, budget: Any, *, update: bool = False) -> Any:
        return self._ask(Command("put_budget", (budget,), {"update": update}))

    def close(self) -> None:
        """The world closes what it opened."""

    def forget(self, keys: Iterable[str]) -> bool:
        names = tuple(keys)
        forgot = bool(self.inner.forget(names))
        if forgot:
            self.oracle.forgot(names)
        return forgot

    # -- the line ------------------------------------------------------------------------------------------------

    def _ask(self, command: Command) -> Any:
        if self.dead:
            return Ready(None)
        if not self.queued:
            return Ready(self.carry_out(command))
        pending = Pending(self, command)
        self.line.append(pending)
        return pending

    def carry_out(self, command: Command) -> Any:
        """On the real store, now, under the oracle's eyes. Raises what the store raises."""
        if isinstance(self.inner, MemoryStore):
            self.inner.owner = self.owner
        try:
            answer = getattr(self.inner, command.verb)(*command.args, **command.given).result()
        except FarthingError as error:
            self.oracle.saw(self, command, None, error)
            raise
        self.oracle.saw(self, command, answer, None)
        if isinstance(answer, Placed) or command.verb in ("settle", "void", "suspect"):
            self.done.append(command)
        return answer

    def apply_next(self, fault: str | None = None) -> str:
        """Apply the first command in line, or let it fail. Returns what happened, for the trace."""
        pending = self.line.popleft()
        command = pending.command
        pending.done = True
        if pending.abandoned and command.verb not in ENDS:
            return f"{command}: nobody waits, dropped"
        if fault == "before":
            pending.error = StoreUnavailable(self.name, "simulated: not done")
            if command.verb in ENDS:
                self.unwritten.add(command.hold_id)
            return f"{command}: fails before"
        pending.applied = True
        try:
            pending.answer = self.carry_out(command)
        except FarthingError as error:
            pending.error = error
            return f"{command}: {type(error).__name__}"
        said = f"{command}: {type(pending.answer).__name__}"
        if fault is None:
            return said
        pending.error = StoreUnavailable(self.name, f"simulated: done, but not said ({fault})")
        if fault == "patience":
            pending.give_up()
        elif isinstance(pending.answer, Placed):
            self.unanswered.add(command.hold_id)
        return f"{said}, {fault}"

    def give_back(self, hold_id: str) -> None:
        """A hold was admitted for a caller who had gone."""
        self.given_back.add(hold_id)
        if not self.dead:
            self.line.append(Pending(self, Command("void", (hold_id,))))

    def die(self) -> None:
        """The process is killed: what waits in line never happened."""
        self.dead = True
        self.line.clear()
