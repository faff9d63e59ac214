"""
The world of one seed: budgets, processes with their ledgers, calls to be made, a clock.

Everything is drawn from ``random.Random(seed)``; nothing reads the machine's clock, and ids are numbers. Two worlds of
one seed and backend are the same to the last byte (SQLite's owner ids apart, which steer nothing).
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from farthing.calls.call import OFFERED
from farthing.kernel.budget import Budget, make_budget, unit_of_work
from farthing.kernel.catalogue import Grant
from farthing.prices import PriceBook
from farthing.runtime.ambient import Ambient, Binding
from farthing.runtime.ledgers import Ledger
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores.contract import Store, SweepPolicy
from farthing.stores.memory import MemoryStore
from farthing.stores.sqlite import SQLiteStore

from .faults import SharedMemory, SlowStore
from .oracle import Asked, Oracle
from .provider import PRICES, UNPRICED, WORD

START_MS = 1_780_000_000_000
MEMORY, SQLITE = "memory", "sqlite"
KEEP = SweepPolicy(suspect_policy="keep")


class Violation(AssertionError):
    """An invariant does not hold."""


class Clock:
    """Stands still until the scheduler moves it. Jumps back, but never an hour behind the latest time."""

    def __init__(self) -> None:
        self.ms = self.latest_ms = START_MS

    def __call__(self) -> int:
        return self.ms

    def move(self, by_ms: int) -> None:
        self.ms = max(self.ms + by_ms, self.latest_ms - 3_500_000)
        self.latest_ms = max(self.ms, self.latest_ms)


def _price_book() -> PriceBook:
    book = PriceBook()
    for model, prices in PRICES.items():
        fresh, out, cached = (Decimal(price.numerator) / price.denominator / 1000 for price in prices)
        book.register(model, input=fresh, output=out, cached=cached)
    return book


BOOK = _price_book()


@dataclasses.dataclass(frozen=True)
class Request:
    """One call that the world will make."""

    id: str
    body: bytes
    ambient_names: tuple[str, ...]
    tags: dict[str, str]
    inherited: bool
    """Its budgets were entered by another process, before a fork."""
    timeout_seconds: float
    proxied: bool = False
    """It is made to a proxy on the same durable ledger (see :mod:`.handover`)."""


class Process:
    """A process of the world: a runtime on its own memory ledger, and on the shared durable one if there is one."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.world = world
        self.alive = True
        self.runtime = Runtime(world.settings, clock=world.clock, new_id=world.new_id, prices=BOOK)
        # The scheduler is the only one who decides when something happens.
        self.runtime.housekeeper.start = lambda: None  # type: ignore[method-assign]
        inner = MemoryStore(clock=world.clock, owner=name)
        oracle = world.oracle_type(inner, asked=world.asked, violate=world.violate, seen=world.seen)
        self.memory = SlowStore(inner, oracle, queued=world.slow_memory, process=name, owner=name)
        self.runtime.memory_store = self.memory  # type: ignore[assignment]
        self.runtime.memory = Ledger(cast("Store", self.memory))
        self.runtime.memory.refresh(inner.catalogue().result())
        self.durable: SlowStore | None = None
        if world.shared is not None:
            shared = world.open_shared(name)
            self.durable = SlowStore(shared, world.shared, queued=True, process=name, owner=shared.owner)
            self.durable.unanswered, self.durable.unwritten = world.unanswered, world.unwritten
            self.durable.given_back = world.given_back
            ledger = Ledger(cast("Store", self.durable))
            ledger.refresh(shared.catalogue().result())
            self.runtime._durable = ledger
        self.units = {
            budget.name: unit_of_work(budget, unit_id=f"{budget.name}-{name}", label=budget.name)
            for budget in world.anonymous
        }
        oracle.units = {unit.name: unit for unit in self.units.values()}
        for budget in world.named:
            if budget.name not in self.runtime.main.catalogue.budgets:
                self.runtime.put_budget(budget)

    @property
    def stores(self) -> tuple[SlowStore, ...]:
        return (self.memory,) if self.durable is None else (self.memory, self.durable)

    @property
    def main(self) -> SlowStore:
        """Where named budgets live."""
        return self.durable or self.memory

    def ambient(self, request: Request) -> Ambient:
        entered_by = os.getpid() + 1 if request.inherited else os.getpid()
        named = {budget.name: budget for budget in self.world.named}
        budgets = [self.units.get(name) or named[name] for name in request.ambient_names]
        return Ambient(tuple(Binding(budget, entered_by) for budget in budgets), tuple(request.tags.items()))

    def die(self) -> None:
        self.alive = False
        for store in self.stores:
            store.die()
        if self.durable is not None and self.world.shared is not None:
            self.world.shared.dead.add(self.durable.owner)
            if isinstance(self.durable.inner, SQLiteStore):
                # Everything that was applied is committed, and a retired owner is a dead one: as after kill -9.
                self.durable.inner.close()


class World:
    """See the module. *directory* is where the SQLite backend keeps its file."""

    oracle_type: type[Oracle] = Oracle
    has_proxies = True

    def __init__(self, seed: int, *, backend: str, directory: Path) -> None:
        self.seed = seed
        self.backend = backend
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.violations: list[str] = []
        self.seen: collections.Counter[str] = collections.Counter()
        """What has happened: a simulation that never meets a crash says nothing about crashes."""
        self.requests: dict[str, Request] = {}
        self.process_of: dict[str, Process] = {}
        """By call: where it was made."""
        self.unanswered: set[str] = set()
        self.unwritten: set[str] = set()
        self.given_back: set[str] = set()
        """What faults have done to the durable ledger, whichever process met them: see :class:`SlowStore`."""
        self._ids = 0
        self._file = directory / f"ledger-{seed}.db"
        rng = self.rng
        self.storm = rng.choice((0.0, 1.0, 1.0, 2.5))
        """How often things go wrong."""
        self.store_faults = rng.random() < 0.5
        self.slow_memory = rng.random() < 0.4
        self.settings = Settings(
            unpriced=rng.choice(("reject", "tokens_only", "price_as:gpt-4o")),
            on_store_failure=rng.choice(("deny", "deny", "allow")),
            suspect_policy=rng.choice(("keep", "settle_at_hold", "settle_at_hold", "release")),
            suspect_after_hours=rng.choice((0.0, 1.0, 24.0)),
        )
        budgets = self.draw_budgets()
        self.named = [budget for budget in budgets if not budget.anonymous]
        self.anonymous = [dataclasses.replace(b, name=f"u{i}") for i, b in enumerate(budgets) if b.anonymous]
        self._memory_shared: SharedMemory | None = None
        self.shared: Oracle | None = None
        if backend == SQLITE or rng.random() < 0.6:
            inner: Any = None
            if backend == MEMORY:
                inner = self._memory_shared = SharedMemory(clock=self.clock)
            self.shared = self.oracle_type(inner, asked=self.asked, violate=self.violate, seen=self.seen)
            if backend == SQLITE:
                self.shared.journal_every = 16
        two = self.shared is not None and rng.random() < 0.3
        self.born = 0
        self.processes = [self.start_process() for _ in range(2 if two else 1)]
        self.to_make = rng.randint(3, 30) if backend == MEMORY else rng.randint(3, 16)
        self.proxied = rng.random() < 0.5 if self.shared is not None and self.has_proxies else False
        """Some calls of this world go through a proxy."""

    def draw_budgets(self) -> list[Budget]:
        """The budgets of this world."""
        return [draw_budget(self.rng, number) for number in range(self.rng.randint(1, 4))]

    # -- processes and their ledgers -----------------------------------------------------------------------------

    def start_process(self) -> Process:
        self.born += 1
        return Process(self, f"p{self.born}")

    def open_shared(self, owner: str) -> Any:
        """One more process opens the durable ledger."""
        assert self.shared is not None
        if self._memory_shared is not None:
            self._memory_shared.dead = self.shared.dead
            self._memory_shared.owner = owner
            return self._memory_shared
        store = SQLiteStore(self._file, clock=self.clock, durability="normal")
        self.shared.inner = store
        store.holds().result()  # opening has swept by now
        self.shared.swept(KEEP, store.now())
        return store

    def close(self) -> None:
        for process in self.processes:
            for store in process.stores:
                store.die()
            if process.durable is not None and isinstance(process.durable.inner, SQLiteStore):
                process.durable.inner.close()

    # -- calls ---------------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        self._ids += 1
        return f"c{self._ids:04}"

    def new_request(self) -> Request:
        rng = self.rng
        body: dict[str, Any] = {
            "model": rng.choice(("gpt-4o", "gpt-4o", "gpt-4o-mini", "o3-mini", "house-model", UNPRICED)),
            "messages": [{"role": "user", "content": WORD * rng.randint(1, 60)}],
        }
        if rng.random() < 0.75:
            ceiling = rng.choice((rng.randint(1, 40), rng.randint(16, 400), rng.randint(100, 3000)))
            body[rng.choice(("max_tokens", "max_completion_tokens"))] = ceiling
        if rng.random() < 0.2:
            body["n"] = rng.randint(2, 3)
        if rng.random() < 0.5:
            body["stream"] = True
            if rng.random() < 0.3:
                body["stream_options"] = {"include_usage": True}
        names = [budget.name for budget in (*self.named, *self.anonymous)]
        bound = tuple(name for name in names if rng.random() < 0.75)
        tags = {}
        if rng.random() < 0.7:
            tags["user"] = rng.choice(("ada", "bob"))
        if rng.random() < 0.7:
            tags["team"] = rng.choice(("red", "blue"))
        request = Request(
            self.new_id(),
            json.dumps(body).encode(),
            bound,
            tags,
            inherited=rng.random() < 0.03,
            timeout_seconds=rng.choice((5.0, 60.0, 600.0)),
            proxied=self.proxied and rng.random() < 0.6,
        )
        self.requests[request.id] = request
        return request

    def asked(self, hold_id: str) -> Asked | None:
        """What the call behind a hold asked for."""
        request = self.requests.get(call_of(hold_id))
        if request is None:
            return None
        body = json.loads(request.body)
        uncapped = "max_tokens" not in body and "max_completion_tokens" not in body
        units = {name: unit.name for name, unit in self.process_of[request.id].units.items()}
        bound = tuple(units.get(name, name) for name in request.ambient_names)
        return Asked(bound, request.tags, uncapped)

    # -- the people around it ------------------------------------------------------------------------------------

    def administer(self) -> str:
        """Somebody freezes, raises or changes a named budget, in a process of its own."""
        rng = self.rng
        store = rng.choice([process for process in self.processes if process.alive]).main.inner
        known = store.catalogue().result().budgets
        if not known:
            return "nothing to administer"
        budget: Budget = known[rng.choice(sorted(known))]
        what = rng.choice(("freeze", "unfreeze", "grant", "update"))
        if what == "update":
            store.put_budget(changed(budget, rng), update=True).result()
        elif what == "grant":
            store.grant(draw_grant(budget, rng, self.clock())).result()
        else:
            store.freeze(budget.name, frozen=what == "freeze").result()
        return f"{what} {budget.name}"

    # -- what is found -------------------------------------------------------------------------------------------

    def violate(self, what: str) -> None:
        """Say that an invariant does not hold. The scheduler stops after the step."""
        self.violations.append(what)


def call_of(hold_id: str) -> str:
    """The call that a hold was placed for: an id gets a number at each new plan."""
    return hold_id.removeprefix(OFFERED).partition(".")[0][:5]


def draw_budget(rng: random.Random, number: int) -> Budget:
    anonymous = rng.random() < 0.3
    mode = rng.choice(("block", "block", "block", "clamp", "break", "downgrade", "downgrade", "raise", "warn"))
    per = "lifetime"
    if rng.random() < 0.5:
        per = "request" if anonymous else rng.choice(("minute", "hour", "day", "rolling 60s", "rolling 10s", "request"))
    if per == "request" and mode == "raise":
        per = "lifetime"
    units = {"tokens", "usd", "requests"}
    if per == "lifetime" and mode != "raise":
        units.add("concurrency")
    chosen = set(rng.sample(sorted(units), rng.randint(1, 2)))
    if mode in ("clamp", "break"):
        chosen.add(rng.choice(("tokens", "usd")))
    limits: dict[str, Any] = {
        "tokens": rng.randint(60, 4000),
        "usd": Decimal(rng.randint(2, 300)) / 10_000,
        "requests": rng.randint(1, 12),
        "concurrency": rng.randint(1, 4),
    }
    scope = {} if anonymous else rng.choice(({}, {}, {"team": "red"}, {"model": "gpt-4o"}))
    return make_budget(
        None if anonymous else f"b{number}",
        **{unit: limits[unit] for unit in sorted(chosen)},
        per=per,
        on_exceed=mode,
        downgrade={"gpt-4o": "gpt-4o-mini"} if mode == "downgrade" else None,
        scope=scope,
        each=() if anonymous else rng.choice(((), (), ("user",), ("user", "team"))),
        min_output_tokens=rng.choice((1, 16, 16)),
        default_output_tokens=rng.choice((None, None, 50, 300)),
        uncapped=rng.choice(("inject", "inject", "watch", "reject")),
        standing=not anonymous and rng.random() < 0.4,
    )


def changed(budget: Budget, rng: random.Random) -> Budget:
    """The same budget with other limits."""
    changes: dict[str, Callable[[int], int]] = {
        "tokens": lambda limit: max(0, limit + rng.randint(-800, 1500)),
        "usd_nano": lambda limit: max(0, limit + rng.randint(-5_000_000, 9_000_000)),
        "requests": lambda limit: max(0, limit + rng.randint(-2, 3)),
        "concurrency": lambda limit: max(1, limit + rng.randint(-1, 1)),
    }
    limits: dict[str, Any] = {
        name: change(getattr(budget, name)) for name, change in changes.items() if getattr(budget, name) is not None
    }
    return dataclasses.replace(budget, **limits)


def draw_grant(budget: Budget, rng: random.Random, now_ms: int) -> Grant:
    unit = rng.choice([unit for unit in ("tokens", "usd", "requests", "concurrency") if budget.limit(unit) is not None])
    amount = {"tokens": rng.randint(1, 2000), "usd": rng.randint(1, 10_000_000)}.get(unit, rng.randint(1, 3))
    scope = (("user", "ada"),) if "user" in budget.each and rng.random() < 0.5 else ()
    until = now_ms + rng.choice((5_000, 120_000, 7_200_000)) if rng.random() < 0.6 else None
    return Grant(budget.name, unit, amount, now_ms, until, scope)
