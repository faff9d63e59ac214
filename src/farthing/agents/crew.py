"""
The agents of one pool, as their ledger has them.

An agent is an account: a budget of its own, with terms for lending. A pool without a name lives in this process's
memory, as an anonymous budget does; a named one is in the ledger where named budgets are, so that other processes that
name it find the same agents.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from ..calls.lending import Work, held_by
from ..errors import ConfigError, UnknownAgent
from ..kernel.balances import ZERO, Balance
from ..kernel.budget import Budget
from ..kernel.catalogue import Catalogue
from ..kernel.hold import Hold
from ..kernel.lending import Donor, Lending, borrowed_key, lent_key
from ..kernel.money import usd_from_nano
from ..runtime import threads
from ..runtime.ambient import Ambient, Binding
from ..runtime.default import runtime
from ..runtime.delegations import give_back
from ..runtime.ledgers import Ledger
from ..runtime.pools import LENT_UNITS, lasting
from ..runtime.runtime import Runtime
from ..scopes import budgets
from .contract import AgentContract, budget_name

Amount = int | Decimal


@dataclass(frozen=True, slots=True)
class Figures:
    """
    How an agent stands in one unit, in its integer (nano-dollars for ``usd``). At any time
    ``allocated = consumed + held + remaining − overrun``.
    """

    unit: str
    limit: int
    own: Balance
    """What counts against its limit: what it used of its own, and what it has lent."""
    borrowed: Balance
    lent: Balance

    @property
    def allocated(self) -> int:
        """Its limit, with what it has borrowed and without what it has lent, calls in flight included."""
        return self.limit + self.borrowed.total - self.lent.total

    @property
    def consumed(self) -> int:
        """What its calls cost; those with an unknown outcome are counted at their hold."""
        return sum(
            sign * (of.settled + of.suspect) for sign, of in ((1, self.own), (1, self.borrowed), (-1, self.lent))
        )

    @property
    def suspect(self) -> int:
        """The part of what is consumed that nobody knows for sure."""
        return self.own.suspect + self.borrowed.suspect - self.lent.suspect

    @property
    def held(self) -> int:
        """What its own calls in flight may still cost."""
        return self.own.held + self.borrowed.held - self.lent.held

    @property
    def remaining(self) -> int:
        """What is left of its own, never below 0."""
        return max(0, self.limit - self.own.total)

    @property
    def overrun(self) -> int:
        """By how much calls cost more than it had."""
        return max(0, self.own.total - self.limit)

    def shown(self, amount: int) -> Amount:
        """An amount as people get it: tokens as they are, money as a Decimal in USD."""
        return usd_from_nano(amount) if self.unit == "usd" else amount


class Crew:
    """One pool. All methods may be called from any thread."""

    def __init__(self, pool: str, *, named: bool, ledger: Ledger | None = None) -> None:
        self.pool = pool
        self.named = named
        self.process = os.getpid()
        self._fixed = ledger
        self._mine: dict[str, Budget] = {}
        """What was registered here, so that it can be named again in another ledger."""

    # -- the ledger ----------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """Where this pool lives: it may change with ``configure(ledger=…)``, and then its agents go along."""
        if self._fixed is not None:
            return self._fixed
        here = runtime()
        return here.main if self.named else here.memory

    def put(self, *put: Budget) -> None:
        """Name these budgets in the ledger. Raises ConfigError if one exists with other terms."""
        ledger = self.ledger
        for budget in put:
            ledger.refresh(ledger.store.put_budget(budget).result())
            self._mine[budget.name] = budget
        if self._fixed is None and ledger.store.durable:
            runtime().housekeeper.start()

    def change(self, agent: str, make: Callable[[Budget, Lending], Budget], *, ended: bool = False) -> None:
        """
        Change an agent's terms from what they are at that instant: of two changes at once neither undoes the other.

        Raises UnknownAgent, also for one that has ended unless *ended*; and what *make* raises.
        """
        self.budget(agent, ended=ended)
        ledger = self.ledger

        def changed(budget: Budget | None) -> Budget:
            lending = None if budget is None else budget.lending
            if budget is None or lending is None or (not ended and lending.ended(ledger.store.now())):
                raise UnknownAgent(agent, known=tuple(self.members()))
            return make(budget, lending)

        name = budget_name(self.pool, agent)
        now = ledger.change(name, changed).now
        if now is not None:
            self._mine[name] = now

    def exchange(self, put: list[Budget], version: int) -> bool:
        """
        Change the terms of all of these in one step; False, and nothing is changed, if the catalogue is not of the
        version any more that their present terms were read from.
        """
        ledger = self.ledger
        after = ledger.store.put_budgets(put, catalogue_version=version).result()
        ledger.refresh(after)
        # These very objects: somebody else may have made the same change, and then ours was not made.
        if any(after.budgets.get(budget.name) is not budget for budget in put):
            return False
        self._mine.update((budget.name, budget) for budget in put)
        return True

    def refresh(self) -> None:
        """Learn what other processes have registered."""
        ledger = self.ledger
        ledger.refresh(ledger.store.catalogue().result())

    # -- the agents ----------------------------------------------------------------------------------------------

    def members(self, *, ended: bool = False, of: Catalogue | None = None) -> dict[str, Budget]:
        """
        The agents by name, in order of registration; with *ended* also those that are closed or expired. *of*: as they
        are in this catalogue, instead of the latest.
        """
        self._settle_in()
        ledger = self.ledger
        now_ms = ledger.store.now()
        found = {}
        for budget in (of or ledger.catalogue).budgets.values():
            lending = budget.lending
            if lending is not None and lending.pool == self.pool and (ended or not lending.ended(now_ms)):
                found[lending.agent] = budget
        return found

    def find(self, agent: str, *, ended: bool = False) -> Budget | None:
        """The budget of an agent, or None."""
        name = budget_name(self.pool, agent)
        budget = self.ledger.catalogue.budgets.get(name)
        if budget is None:
            self._settle_in()
            self.refresh()
            budget = self.ledger.catalogue.budgets.get(name)
        if budget is None or budget.lending is None:
            return None
        return budget if ended or not budget.lending.ended(self.ledger.store.now()) else None

    def budget(self, agent: str, *, ended: bool = False) -> tuple[Budget, Lending]:
        """The budget of an agent and its terms. Raises UnknownAgent."""
        budget = self.find(agent, ended=ended)
        if budget is None or budget.lending is None:
            raise UnknownAgent(agent, known=tuple(self.members()))
        return budget, budget.lending

    def contract(self, agent: str) -> AgentContract:
        """The terms of an agent. Raises UnknownAgent."""
        return AgentContract.of_budget(self.budget(agent)[0])

    def _settle_in(self) -> None:
        """After a change of the ledger: name what was registered here in it, unless it is known there."""
        known = self.ledger.catalogue.budgets
        mine = self._mine.copy()  # other threads may register agents meanwhile
        missing = [budget for name, budget in mine.items() if name not in known]
        if not missing:
            return
        self.refresh()
        known = self.ledger.catalogue.budgets
        if missing := [budget for budget in missing if budget.name not in known]:
            self.put(*missing)

    # -- figures -------------------------------------------------------------------------------------------------

    def figures(self, agents: Mapping[str, Budget]) -> dict[str, dict[str, Figures]]:
        """By agent and unit, all as of one instant."""
        ledger = self.ledger
        if self._fixed is None:
            runtime().housekeeper.catch_up()
        now_ms = ledger.store.now()
        accounts = {agent: ledger.catalogue.account(budget, {}, now_ms) for agent, budget in agents.items()}
        keys = {agent: (of.key, borrowed_key(of.key), lent_key(of.key)) for agent, of in accounts.items()}
        balances = ledger.store.balances([key for of in keys.values() for key in of]).result()
        found: dict[str, dict[str, Figures]] = {}
        for agent, of in keys.items():
            own, borrowed, lent = (balances[key] for key in of)
            found[agent] = {
                unit: Figures(unit, limit, own.of(unit), borrowed.of(unit), lent.of(unit))
                for unit in LENT_UNITS
                if (limit := accounts[agent].ceiling(unit)) is not None
            }
        return found

    def donors(self, agent: str, unit: str, figures: Mapping[str, Mapping[str, Figures]]) -> list[Donor]:
        """Who may lend to an agent, in order of registration, with what each has to spare (below 0: nothing)."""
        members, now_ms = self.members(ended=True), self.ledger.store.now()
        mine, found = members[agent].lending, list[Donor]()
        if mine is not None and not mine.borrows:
            return found
        for name, budget in members.items():
            lending = budget.lending
            if name == agent or lending is None or not lending.lends(now_ms) or unit not in figures.get(name, {}):
                continue
            of = figures[name][unit]
            limit = lasting(self.ledger.catalogue, budget).ceiling(unit) or 0
            found.append(Donor(name, lending.rank, limit - of.own.total - lending.reserve(unit)))
        return found

    def most(self, agent: str, unit: str, *, without: Iterable[Hold]) -> int:
        """What an agent could use of a unit, loans included, if these holds came to nothing."""
        members = self.members(ended=True)
        released = held_by(without)
        now_ms = self.ledger.store.now()
        figures = {}
        for name, units in self.figures(members).items():
            account = self.ledger.catalogue.account(members[name], {}, now_ms)
            given_back = released.get(account.key, ZERO)
            figures[name] = {
                of: replace(found, own=found.own._replace(held=found.own.held - given_back.of(of).held))
                for of, found in units.items()
            }
        mine, lending = figures[agent][unit], members[agent].lending
        priority = 0 if lending is None else lending.priority
        spare = (max(0, donor.spare) for donor in self.donors(agent, unit, figures) if donor.priority <= priority)
        return mine.limit - mine.own.total + sum(spare)

    def figures_of(self, agent: str) -> dict[str, Figures]:
        """Of one agent, by unit. Raises UnknownAgent."""
        budget, _ = self.budget(agent, ended=True)
        return self.figures({agent: budget})[agent]

    # -- scope ---------------------------------------------------------------------------------------------------

    def enter(self, ambient: Ambient, budget: Budget, work: Work | None) -> Ambient:
        """The scope inside an agent's work: the innermost agent of a pool pays, and nobody of it beside."""
        for begin in budgets.entered:
            begin()
        if runtime().settings.follow_threads:
            threads.follow()
        lending = budget.lending
        if lending is None:
            raise ConfigError(f"budget {budget.title!r} is not an agent's", key="agent")
        others = tuple(binding for binding in ambient.bindings if not self.has(binding.budget))
        inside = replace(ambient, bindings=(*others, Binding(budget, self.process, None, work)))
        return inside.with_tags({"agent": lending.agent, "pool": self.pool})

    def has(self, budget: Budget) -> bool:
        """Whether this is the budget of one of its agents."""
        return budget.lending is not None and budget.lending.pool == self.pool

    def forget(self, here: Runtime) -> None:
        """Nobody can ask for these agents any more: their budgets and accounts go. (Memory only.)"""
        ledger = here.memory
        for budget in [ledger.catalogue.budgets.get(name, budget) for name, budget in self._mine.items()]:
            if budget.name in ledger.catalogue.budgets:
                ledger.refresh(ledger.store.remove_budget(budget.name).result())
            if budget.lending is not None and budget.lending.parent is not None and not budget.lending.returned:
                give_back(ledger, budget)
            here.close_unit(budget)
        self._mine.clear()
