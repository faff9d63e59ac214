"""
The runtime: everything of farthing that lives as long as the process. One default instance serves every door.

Two ledgers: *memory* always (units of work, and what this process did), and *durable* if one is configured. Named
budgets live in the durable one if there is one, else in memory.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable

from .. import forks
from ..errors import FarthingError
from ..kernel.budget import Budget
from ..kernel.hold import Outcome
from ..kernel.lending import borrowed_key, lent_key
from ..kernel.plan import CallFacts, empty_plan, open_account
from ..kernel.scope import matches
from ..kernel.sums import HOUR_MS
from ..kernel.window import CALENDAR
from ..prices import PriceBook, default_book
from ..stores.contract import Clock, DenialKey, Store, wall_clock_ms
from ..stores.memory import MemoryStore
from . import threads
from .alerts import Alerts
from .ambient import Ambient
from .events import Events
from .frames import frames_to_user
from .housekeeping import Housekeeper
from .ids import new_id as make_id
from .in_force import budgets_of
from .learning import Learner
from .ledgers import Ledger
from .settings import Settings, from_environment
from .waiting import Line

log = logging.getLogger("farthing")
WARNED_MAX = 10_000
CLOSE_SECONDS = 5.0
"""How long the end of a process waits for each subscriber."""


class UnpricedModelWarning(UserWarning):
    """A model has no known price: its tokens are counted, its cost is unknown, which is not zero."""


class StalePricesWarning(UserWarning):
    """Money is held by prices that were last checked long ago: a limit in USD is only as right as they are."""


StalePriceTableWarning = StalePricesWarning
"""The name that the predecessor's programs know."""


class UnmeteredCallWarning(UserWarning):
    """A call went to an endpoint that nothing here can measure; no hard budget was in force, so it was not refused."""


class Runtime:
    """
    Settings, ledgers, prices and the housekeeper of one process.

    Args:
        settings: see :class:`Settings`.
        clock: milliseconds since the epoch.
        new_id: makes the id of a call; must never repeat.
        monotonic: seconds that only grow: how long a waiting call has waited.
        random: from 0 to 1, so that waiting processes do not look again in step.
        warns: say what is loud as a Python warning too; False in a server, whose log is where people look.
        reports: keep a row of every call in memory, for this process's own report; False in a server, whose reports are
            made from its ledger. (Without a durable ledger memory is the ledger, and keeps them in any case.)
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: Clock = wall_clock_ms,
        new_id: Callable[[], str] = make_id,
        prices: PriceBook = default_book,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        warns: bool = True,
        reports: bool = True,
    ) -> None:
        self.settings = settings or from_environment()
        self.clock = clock
        self.new_id = new_id
        self.prices = prices
        self.monotonic = monotonic
        self.random = random
        self.line = Line()
        self.learner = Learner()
        self.memory_store = MemoryStore(clock=clock, entries_max=self.settings.max_records)
        self.memory = Ledger(self.memory_store)
        self.memory.refresh(self.memory_store.catalogue().result())
        self._durable: Ledger | None = None
        self._unopened = self.settings.ledger
        """The ledger to open when somebody asks for it; None where it is open, or there is none."""
        self._opening = threading.Lock()
        self._warns = warns
        self._reports = reports
        self._warned: set[str] = set()
        self.left_behind: tuple[Budget, ...] = ()
        """The standing budgets in the memory of the process that this one was forked from."""
        self._closed_units: deque[tuple[str, tuple[str, ...]]] = deque()
        self.prices_due_ms = 0
        """When the age of the prices is to be looked at next."""
        self.events = Events()
        self.alerts = Alerts(self)
        self.housekeeper = Housekeeper(self)

    # -- ledgers -------------------------------------------------------------------------------------------------

    @property
    def durable(self) -> Ledger | None:
        """The durable ledger, opened on first use; None if none is configured."""
        if self._unopened is not None:
            with self._opening:
                if self._unopened is not None:
                    self._durable = self._open(self._unopened)
                    self._unopened = None
        return self._durable

    @property
    def main(self) -> Ledger:
        """Where named budgets live."""
        return self.durable or self.memory

    def _open(self, url: str) -> Ledger | None:
        with forks.loading():
            from ..stores import open_store

        store: Store = open_store(url, clock=self.clock, durability=self.settings.durability)
        if not store.durable:
            return None
        ledger = Ledger(store)
        ledger.refresh(store.catalogue().result())
        self.memory_store.follow(store.now())
        self.learner.refresh(store.ratios().result())
        self.housekeeper.watch_exit()
        self.housekeeper.start()
        return ledger

    # -- who pays ------------------------------------------------------------------------------------------------

    def budgets(self, ambient: Ambient, tags: dict[str, str]) -> tuple[list[Budget], list[Budget]]:
        """The budgets that bind a call with these tags: those in memory, and those on the durable ledger."""
        return budgets_of(self.memory, self.durable, ambient, tags)

    def hard_budget(self, ambient: Ambient, tags: dict[str, str]) -> Budget | None:
        """A budget in force that may refuse calls, or None."""
        here, there = self.budgets(ambient, tags)
        hard = next((budget for budget in (*here, *there) if budget.hard), None)
        if hard is None and self.left_behind:
            return self.inherited(ambient, tags)
        return hard

    def inherited(self, ambient: Ambient, tags: dict[str, str]) -> Budget | None:
        """
        A budget that binds a call with these tags, and whose account is in the memory of the process that this one was
        forked from; or None.
        """
        here = os.getpid()
        for binding in ambient.bindings:
            if binding.process != here and (binding.budget.anonymous or self.durable is None):
                return binding.budget
        if self.left_behind and self.durable is None:
            known = self.memory.catalogue.budgets
            for budget in self.left_behind:
                # Unless this process has named it anew, as its own. One that only warns lets everything pass anyway.
                if budget.name not in known and budget.on_exceed != "warn" and matches(dict(budget.scope), tags):
                    return budget
        return None

    def in_child(self) -> None:
        """After a fork: what the parent has in memory stays there, and so do its threads, with what they held."""
        self.left_behind += self.memory.in_child()
        if self._durable is not None:
            self._durable.in_child()
        self._opening = threading.Lock()
        self.line = Line()
        self.learner.in_child()
        self.alerts.forget()

    def put_budget(self, budget: Budget, *, update: bool = False) -> Budget:
        """Name a budget in the ledger where named budgets live. Raises ConfigError on other terms."""
        ledger = self.main
        if ledger.catalogue.budgets.get(budget.name) == budget:
            return ledger.catalogue.budgets[budget.name]
        ledger.refresh(ledger.store.put_budget(budget, update=update).result())
        self.housekeeper.start()
        if ledger is self.memory and budget.window.kind in CALENDAR and "forgetful" not in self._warned:
            # In the log alone: a test that goes through a month in memory does nothing wrong.
            self._warned.add("forgetful")
            log.warning(
                "budget %r counts per %s, but in memory: in this process alone, and from 0 again when it is started "
                "again. configure(ledger=…) keeps it.",
                budget.name,
                budget.window,
            )
        return ledger.catalogue.budgets[budget.name]

    def close_unit(self, unit: Budget) -> None:
        """Nobody can ask for this unit of work's figures any more. Only appends: safe in a finaliser."""
        account = open_account(unit, {}, 0)
        keys = [account.key]
        if unit.lending is not None:
            keys += [lent_key(account.key), borrowed_key(account.key)]
        self._closed_units.append((unit.name, tuple(keys)))

    def put_units_away(self, most: int = 8) -> None:
        """Forget the accounts of closed units that no call in flight still needs."""
        for _ in range(min(most, len(self._closed_units))):
            try:
                name, keys = self._closed_units.popleft()
            except IndexError:
                return
            if self.memory_store.forget(keys):
                self.memory.put_away(name)
            else:
                self._closed_units.append((name, keys))

    # -- what leaves no row of its own ---------------------------------------------------------------------------

    def count_denial(
        self, *, budget: str, unit: str, model: str, provider: str, tags: dict[str, str], shadow: bool
    ) -> None:
        """A denied call writes nothing on its own path: it is counted here and flushed within a second."""
        now_ms = self.memory_store.now()
        key = DenialKey(now_ms - now_ms % HOUR_MS, budget, unit, model, provider, tuple(sorted(tags.items())), shadow)
        self.memory_store.add_denials({key: 1})
        self.housekeeper.count_denial(key)

    def record(self, facts: CallFacts, outcome: Outcome, *, call_id: str, started_ms: int) -> None:
        """Write a call that nothing was held for, in every ledger. Does not wait for durability."""
        plan = empty_plan(call_id, facts, started_ms)
        for store in self.stores:
            store.record(plan, outcome)

    @property
    def stores(self) -> tuple[Store, ...]:
        """Where every call leaves a row, memory first."""
        durable = self.durable
        if durable is None:
            return (self.memory_store,)
        return (self.memory_store, durable.store) if self._reports else (durable.store,)

    def warn_once(self, key: str, category: type[Warning], message: str) -> None:
        """A loud notice, once per key and process."""
        if key in self._warned:
            return
        if len(self._warned) >= WARNED_MAX:
            # Whoever calls through a proxy chooses names of models, and memory must not grow by them.
            self._warned.clear()
        self._warned.add(key)
        if not self._warns or log.hasHandlers():
            # Where nobody set logging up, the warning is what is seen, and once is enough.
            log.warning(message)
        if self._warns:
            warnings.warn(message, category, stacklevel=frames_to_user())

    def check_prices(self, budgets: Iterable[Budget], now_ms: int) -> None:
        """Say once that prices are old, where a budget counts money by them. Looked at once an hour."""
        after_days = self.settings.stale_prices_after_days
        self.prices_due_ms = now_ms + HOUR_MS
        if after_days is None or all(budget.usd_nano is None for budget in budgets):
            return
        age_days = self.prices.age_days(now_ms)
        if age_days is not None and age_days > after_days:
            message = (
                f"the price table was last checked {age_days} days ago: what calls cost may have changed since. "
                "Update genai-prices, or name prices with farthing.prices.register(…)."
            )
            self.warn_once("stale prices", StalePricesWarning, message)

    # -- life ----------------------------------------------------------------------------------------------------

    def reconfigure(self, settings: Settings) -> None:
        """Take other settings over. A changed ledger is opened at once, so that a wrong one is said here."""
        with self._opening:
            # In one step: a call that comes between would open the ledger again that is being closed.
            changed = (settings.ledger, settings.durability) != (self.settings.ledger, self.settings.durability)
            before, self.settings = self.settings, settings
            ledger = self._durable if changed else None
            if changed:
                # In this order: whoever asks meanwhile waits until it is open.
                self._unopened = settings.ledger
                self._durable = None
        if ledger is not None:
            self._close(ledger)
        if changed:
            self.alerts.forget()
        self.memory_store.entries_max = settings.max_records
        if not settings.follow_threads:
            threads.follow(False)
        if changed and before.ledger is None:
            self.housekeeper.forget_denials()
        if changed and settings.ledger is not None:
            try:
                self.durable  # noqa: B018 - opens it
            except FarthingError:
                self.settings, self._unopened = before, before.ledger
                raise

    def close(self) -> None:
        """A clean stop: abandoned calls are settled, what is queued is written, owner locks are released."""
        self.housekeeper.stop()
        with self._opening:
            # As in reconfigure(). A call may still be on its way, and opens the ledger again for its end.
            self._unopened = self.settings.ledger
            ledger, self._durable = self._durable, None
        if ledger is not None:
            self._close(ledger)
        self.events.close(CLOSE_SECONDS)

    def _close(self, durable: Ledger) -> None:
        self.housekeeper.flush_denials(durable.store)
        self.learner.tell(durable.store)
        self.alerts.look()
        durable.store.close()
