"""
Worlds of agents: calls that borrow before they are made, while everything goes wrong that can.

Everything is as in the other worlds, but the budgets are those of agents of one pool, of different priorities, with
reserves (and sometimes an ordinary budget on top, with a window that ends). The oracle follows each loan through the
hold that it is a part of, on its own arithmetic; and after every step I7 is looked at on the store's own figures:

- the sum of all allocations is the sum of the limits: what one has lent another has borrowed;
- no loan takes a lender below its reserve, and none flows to a lower priority;
- a borrow that fails has changed nothing (no balance moves that no call explains);
- when all calls have ended, the lenders have back what was not used, and the entries say who used the rest.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter as Tally
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from farthing.agents.contract import AgentContract
from farthing.errors import FarthingError
from farthing.kernel.balances import Balance
from farthing.kernel.budget import Budget
from farthing.kernel.ledger import Denied, Placed, Stale
from farthing.kernel.lending import borrowed_key, lent_key
from farthing.kernel.plan import CallFacts
from farthing.stores.memory import MemoryStore

from .oracle import Asked, Counter, Failed, Oracle, Row, amount, counters_of, figures_of
from .scheduler import Simulation
from .world import MEMORY, Request, World, changed, draw_budget, draw_grant

if TYPE_CHECKING:
    from .faults import Command, SlowStore

POOL = "crew"
UNITS = ("tokens", "usd")
Figures = list[int]
"""Settled, held, suspect."""


@dataclasses.dataclass(frozen=True)
class Lent:
    """One loan of one hold, as the oracle sees it: of what the call takes of this unit, what is above ``above``."""

    taker: Counter
    donor: Counter
    above: int
    amount: int

    def part(self, total: int) -> int:
        return min(self.amount, max(0, total - self.above))

    def sides(self) -> tuple[tuple[Counter, int], ...]:
        """What is borrowed counts on its lender, not on its taker."""
        lent = self.donor._replace(unit=f"{self.donor.unit}.lent")
        borrowed = self.taker._replace(unit=f"{self.taker.unit}.borrowed")
        return (self.taker, -1), (self.donor, 1), (lent, 1), (borrowed, 1)


class CrewOracle(Oracle):
    """The oracle of a ledger with agents."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.loans: dict[str, tuple[Lent, ...]] = {}
        """By hold."""
        self._planned: Tally[Counter] = Tally()
        """By taker, what the plan that is looked at borrows."""

    # -- what a store did ----------------------------------------------------------------------------------------

    def _saw_place(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        plan = command.args[0]
        loans = tuple(
            Lent(_counter(of.taker, of.unit), _counter(of.donor, of.unit), of.above, of.amount) for of in plan.loans
        )
        known = plan.id in self.rows
        short = [] if known else self._short_lenders(loans)
        if isinstance(answer, Stale) and short:
            self._seen["lent to another meanwhile"] += 1
            return None
        if isinstance(answer, Stale) and loans and answer.catalogue_version == plan.catalogue_version:
            self._seen["used by another meanwhile"] += 1
            self._has_less_room(command, loans, now_ms)
            return None
        self._planned = planned(loans)
        expected = super()._saw_place(command, answer, store, now_ms)
        self._planned = Tally()
        if isinstance(answer, Denied) and loans:
            self._seen["borrow failed"] += 1
        if isinstance(answer, Placed) and not known and loans:
            self._seen["borrowed"] += 1
            self._seen["borrowed from several"] += len({loan.donor for loan in loans}) > 1
            self.loans[plan.id] = loans
            for what in short:
                self._violate(f"I7: {command} takes {what}")
            self._flows_downhill(command, loans)
        return expected

    def _below_ceilings(
        self, command: Command, budgets: list[Budget], facts: CallFacts, asked: Asked, catalogue: Any, now_ms: int
    ) -> None:
        # By now the borrowed part stands on its lenders: every limit is what it is.
        self._planned = Tally()
        super()._below_ceilings(command, budgets, facts, asked, catalogue, now_ms)

    def _short_lenders(self, loans: tuple[Lent, ...]) -> list[str]:
        """The lenders that these loans would take below their reserve, in words."""
        if not loans:
            return []
        catalogue = self.inner.catalogue().result()
        standing = self._expected()
        found = []
        for loan in loans:
            lender = catalogue.budgets[loan.donor.budget]
            total = sum(standing.get(loan.donor, [0])) + loan.amount
            limit = self.limit(lender, loan.donor.unit, catalogue)
            if total > limit - reserve(lender, loan.donor.unit):
                found.append(f"{lender.name} to {total:,} of {limit:,} {loan.donor.unit}, into its reserve")
        return found

    def _has_less_room(self, command: Command, loans: tuple[Lent, ...], now_ms: int) -> None:
        """Such a plan is made again only if something really does not fit any more as it was planned."""
        plan = command.args[0]
        asked = self._asked(plan.id)
        assert asked is not None
        catalogue = self.inner.catalogue().result()
        over = plan.valid_until_ms is not None and now_ms >= plan.valid_until_ms
        self._planned = planned(loans)
        budgets = self._in_force(asked, plan.facts, catalogue)
        x, failed, _ = self._admit(budgets, plan, asked, catalogue, now_ms)
        self._planned = Tally()
        if not over and not failed and x == plan.x_most:
            self._violate(f"{command} is stale, but it fits as it was planned")

    def _flows_downhill(self, command: Command, loans: tuple[Lent, ...]) -> None:
        known = self.inner.catalogue().result().budgets
        for loan in loans:
            lender, taker = known[loan.donor.budget].lending, known[loan.taker.budget].lending
            priority = 0 if lender.closed else lender.priority
            if priority > taker.priority or loan.donor == loan.taker or loan.amount <= 0:
                self._violate(
                    f"I7: {command} flows uphill: {taker.agent} ({taker.priority}) takes {loan} of {priority}"
                )

    def _admit(
        self, budgets: list[Budget], plan: Any, asked: Asked, catalogue: Any, now_ms: int
    ) -> tuple[int, list[Failed], list[Failed]]:
        # An agent that has ended spends nothing any more, as if it were frozen.
        ended = {budget.name for budget in budgets if budget.lending is not None and budget.lending.closed}
        frozen = catalogue._replace(frozen=catalogue.frozen | ended)
        return super()._admit(budgets, plan, asked, frozen, now_ms)

    def _becomes_suspect(self, row: Row, now_ms: int) -> None:
        super()._becomes_suspect(row, now_ms)
        self._seen["lent and suspect"] += row.id in self.loans

    def _saw_settle(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        row = self.rows.get(command.hold_id)
        late = row is not None and (row.state == "suspect" or row.automatic)
        self._seen["lent, and a late word"] += late and command.hold_id in self.loans
        return super()._saw_settle(command, answer, store, now_ms)

    # -- figures -------------------------------------------------------------------------------------------------

    def limit(self, budget: Budget, unit: str, catalogue: Any) -> int:
        """An agent's own limit as a lender: what was granted to it for a time is not lent on."""
        mine = [of.amount for of in catalogue.grants if (of.budget, of.unit, of.until_ms) == (budget.name, unit, None)]
        return (budget.limit(unit) or 0) + sum(mine)

    def loaned(self) -> dict[Counter, Figures]:
        """By counter, what the loans of all holds add."""
        found: dict[Counter, Figures] = {}
        for hold_id, loans in self.loans.items():
            row = self.rows[hold_id]
            for loan in loans:
                unit = loan.taker.unit
                carried = loan.part(amount(row.facts, unit, row.x))
                where = {"held": 1, "suspect": 2}.get(row.state, 0)
                if where == 0:
                    carried = min(carried, loan.part(row.settled.get(unit, 0)))
                for counter, sign in loan.sides():
                    found.setdefault(counter, [0, 0, 0])[where] += sign * carried
        return found

    def _expected(self) -> dict[Counter, Figures]:
        expected = super()._expected()
        for counter, figures in self.loaned().items():
            before = expected.get(counter, [0, 0, 0])
            expected[counter] = [a + b for a, b in zip(before, figures, strict=True)]
        return expected

    def _used(self, budget: Budget, facts: CallFacts, asked: Asked, unit: str, now_ms: int) -> tuple[int, int, int]:
        settled, held, suspect = super()._used(budget, facts, asked, unit, now_ms)
        if budget.lending is None:
            return settled, held, suspect
        own = self.loaned().get(Counter(budget.name, self._scope(budget, facts, asked), None, unit), (0, 0, 0))
        return settled + own[0], held + own[1], suspect + own[2]

    def _ceiling(
        self, budget: Budget, unit: str, facts: CallFacts, asked: Asked, catalogue: Any, now_ms: int
    ) -> int | None:
        limit = super()._ceiling(budget, unit, facts, asked, catalogue, now_ms)
        if limit is None or not self._planned:
            return limit
        return limit + self._planned[Counter(budget.name, self._scope(budget, facts, asked), None, unit)]

    # -- I7 ------------------------------------------------------------------------------------------------------

    def compare(self, now_ms: int) -> None:
        super().compare(now_ms)
        self.check_lending(self._balances)

    def look(self) -> None:
        """I7 on the figures of this instant, whether or not a command was seen."""
        self.check_lending(figures_of(self.inner.balances().result()))

    def check_lending(self, balances: dict[Counter, Balance]) -> None:
        """The sum of all allocations is the sum of the limits, on the store's own figures."""
        for unit in UNITS:
            lent, borrowed = (
                [sum(figures) for figures in zip((0, 0, 0), *of, strict=True)]
                for of in (
                    [balance for counter, balance in balances.items() if counter.unit == f"{unit}.{how}"]
                    for how in ("lent", "borrowed")
                )
            )
            if lent != borrowed:
                self._violate(f"I7: agents have lent {lent} {unit}, and borrowed {borrowed}")

    def check_given_back(self) -> None:
        """All calls have ended: what is lent is what the entries say that another one used."""
        used: Tally[Counter] = Tally()
        for entry in self.inner.entries().result():
            for transfer in entry.transfers:
                used[_counter(lent_key(transfer.donor), transfer.unit)] += transfer.amount
                used[_counter(borrowed_key(transfer.taker), transfer.unit)] += transfer.amount
        for counter, balance in figures_of(self.inner.balances().result()).items():
            if counter.unit.endswith((".lent", ".borrowed")) and balance != Balance(used[counter]):
                self._violate(f"I7: {counter} is {tuple(balance)} after the last call; {used[counter]} were used")


def _counter(key: str, unit: str) -> Counter:
    """The counter of this unit in a store's row."""
    return next(counter for counter in counters_of(key) if counter.unit.partition(".")[0] == unit)


def planned(loans: tuple[Lent, ...]) -> Tally[Counter]:
    """By taker, what these loans come to."""
    found: Tally[Counter] = Tally()
    for loan in loans:
        found[loan.taker] += loan.amount
    return found


def reserve(budget: Budget, unit: str) -> int:
    """What an agent does not lend. A closed one keeps nothing for itself."""
    lending = budget.lending
    assert lending is not None
    if lending.closed:
        return 0
    return lending.reserve_tokens if unit == "tokens" else lending.reserve_usd_nano


class CrewWorld(World):
    """A pool of agents, and their calls."""

    oracle_type = CrewOracle
    has_proxies = False

    def __init__(self, seed: int, **given: Any) -> None:
        super().__init__(seed, **given)
        self.to_make = self.rng.randint(3, 12 if self.backend == MEMORY else 6)

    def draw_budgets(self) -> list[Budget]:
        rng = self.rng
        agents = [_agent(rng, name) for name in "abcde"[: rng.randint(2, 5)]]
        plain = [draw_budget(rng, 0)] if rng.random() < 0.3 else []
        return agents + [dataclasses.replace(budget, standing=False) for budget in plain if not budget.anonymous]

    def new_request(self) -> Request:
        request = super().new_request()
        agents = [budget.lending.agent for budget in self.named if budget.lending is not None]
        agent = self.rng.choice(agents)
        names = [f"{POOL}/{agent}", *(name for name in request.ambient_names if not name.startswith(f"{POOL}/"))]
        tags = {**request.tags, "agent": agent, "pool": POOL}
        body = json.loads(request.body)
        if self.rng.random() < 0.4:
            # Our own ceiling may shrink: such a call borrows for what it is expected to say.
            body = {name: value for name, value in body.items() if not name.startswith("max_")}
        request = dataclasses.replace(request, body=json.dumps(body).encode(), ambient_names=tuple(names), tags=tags)
        self.requests[request.id] = request
        return request

    def administer(self) -> str:
        """Somebody changes the terms of an agent, or ends it."""
        rng = self.rng
        store = rng.choice([process for process in self.processes if process.alive]).main.inner
        known = store.catalogue().result().budgets
        budget: Budget = known[rng.choice(sorted(known))]
        what = rng.choice(("update", "update", "grant", "freeze", "unfreeze", "close"))
        if budget.lending is None or what in ("freeze", "unfreeze"):
            store.freeze(budget.name, frozen=what == "freeze").result()
        elif what == "update":
            store.put_budget(_other_terms(budget, rng), update=True).result()
        elif what == "grant":
            store.grant(draw_grant(budget, rng, self.clock())).result()
        else:
            lending = dataclasses.replace(budget.lending, closed=True)
            store.put_budget(dataclasses.replace(budget, lending=lending), update=True).result()
        self.seen[what] += 1
        return f"{what} {budget.name}"


class CrewSimulation(Simulation):
    """Runs a world of agents; I7 is looked at after every step."""

    world_type = CrewWorld

    def _stop_if_violated(self) -> None:
        # A file is read after each command that was given to it; memory costs nothing to look at after every step.
        for store in self._stores():
            if isinstance(store.inner, MemoryStore):
                cast("CrewOracle", store.oracle).look()
        super()._stop_if_violated()

    def _sweep_all(self) -> str:
        said = super()._sweep_all()
        for store in self._stores():
            cast("CrewOracle", store.oracle).check_given_back()
        return said


def _agent(rng: random.Random, name: str) -> Budget:
    tokens = rng.choice((None, rng.randint(20, 300), rng.randint(100, 1500)))
    usd = Decimal(rng.randint(1, 120)) / 10_000 if tokens is None or rng.random() < 0.3 else None
    percents = [rng.choice((0, 10, 50, 100)) for _ in UNITS]
    contract = AgentContract(
        name,
        rng.randint(1, 3),
        tokens,
        None if tokens is None else tokens * percents[0] // 100,
        max_usd=usd,
        min_reserve_usd=None if usd is None else usd * percents[1] / 100,
    )
    return contract.to_budget(POOL, anonymous=False)


def _other_terms(budget: Budget, rng: random.Random) -> Budget:
    """The same agent with other limits, another priority, another reserve."""
    other = changed(budget, rng)
    assert budget.lending is not None
    lending = dataclasses.replace(
        budget.lending,
        priority=rng.randint(1, 3),
        reserve_tokens=(other.tokens or 0) * rng.choice((0, 1, 5)) // 10,
        reserve_usd_nano=(other.usd_nano or 0) * rng.choice((0, 1, 5)) // 10,
    )
    return dataclasses.replace(other, lending=lending)
