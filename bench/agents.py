"""
Agents: what a borrow costs; and what lending is worth, by a crew under flat caps, the predecessor's rule, and ours.

The crew: four agents with equal caps, all together 1,000,000 tokens, about what the tasks need; 600 tasks, each of one
agent. Stated distributions, seeded: the important agents have most of the work (planner 45 %, researcher 30 %, writer
15 %, critic 10 %); a task is three calls; a call may use 1 to 2,000 tokens (triangular, mode 600) and says so
beforehand, as an output ceiling does; it really uses a third of that or more. Sixteen tasks are in flight at a time,
interleaved by the same seed. A task is completed if all its calls are made.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from farthing import hold
from farthing.agents import BudgetExceededError, BudgetManager
from farthing.calls.lending import place
from farthing.kernel.hold import Outcome
from farthing.kernel.ledger import Placed
from farthing.kernel.plan import Ask, CallFacts, make_plan
from farthing.kernel.usage import Usage
from farthing.runtime.default import use
from farthing.runtime.ledgers import Ledger
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings

from .bars import Figure

SEED = 20_261_122
CAP = 250_000
CREW = {"planner": (4, 45), "researcher": (3, 30), "writer": (2, 15), "critic": (1, 10)}
"""By priority and share of the tasks in per cent."""
CALLS = 3
IN_FLIGHT = 16


@dataclass
class Result:
    """What a crew came to under one rule."""

    completed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CREW, 0))
    tasks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CREW, 0))
    spent: int = 0
    refusals: int = 0
    violations: int = 0
    """How often an agent was found to have lent from its reserve."""


def measure(*, quick: bool) -> list[Figure]:
    """The crew under three rules, then the cost of hold and settle with a borrow."""
    tasks = 200 if quick else 600
    scale = tasks / 600
    flat, predecessor, ours = (rule(_tasks(tasks), round(CAP * scale)) for rule in (_flat, _predecessor, _ours))
    figures = []
    for what, result in (("flat caps", flat), ("predecessor's rule", predecessor), ("ours", ours)):
        done = ", ".join(f"{name} {result.completed[name]}/{result.tasks[name]}" for name in CREW)
        own = what == "ours"
        budget = round(CAP * scale) * len(CREW)
        over, stranded = max(0, result.spent - budget), max(0, budget - result.spent)
        figures += [
            Figure(f"crew, {what}: tasks completed", sum(result.completed.values()), "tasks", None, done),
            Figure(f"crew, {what}: tokens stranded", stranded, "tokens", None, f"{result.refusals} refusals"),
            Figure(f"crew, {what}: tokens overspent", over, "tokens", 0 if own else None),
        ]
        if what != "flat caps":  # where nobody lends
            figures.append(Figure(f"crew, {what}: reserve violations", result.violations, "", 0 if own else None))
    for agents, bar in ((10, 100), (100, None), (1_000, 1_000)):
        pairs = [_borrow(agents, 50 if quick else 200) for _ in range(3 if quick else 7)]
        figures.append(
            Figure(
                f"hold + settle, memory, borrowing from 3 of {agents:,} agents",
                statistics.median(cost for cost, _ in pairs),
                "µs",
                bar,
                f"without a borrow {statistics.median(plain for _, plain in pairs):.0f} µs",
            )
        )
    return figures


def _tasks(number: int) -> list[tuple[str, list[tuple[int, int]]]]:
    """Each task: whose it is, and what its calls may use and really use."""
    chance = random.Random(SEED)
    names, weights = list(CREW), [share for _, share in CREW.values()]
    made = []
    for _ in range(number):
        asked = [round(chance.triangular(1, 2_000, 600)) for _ in range(CALLS)]
        made.append((chance.choices(names, weights)[0], [(most, chance.randint(most // 3, most)) for most in asked]))
    return made


def _interleaved(
    tasks: list[tuple[str, list[tuple[int, int]]]],
    result: Result,
    begin: Callable[[str, int], object],
    end: Callable[[str, object, int], bool],
) -> None:
    """Sixteen tasks at a time: which goes on next is drawn. *begin* gives None for a refusal, *end* False."""
    chance, waiting = random.Random(SEED + 1), list(reversed(tasks))
    flying: list[list[Any]] = []
    while waiting or flying:
        while waiting and len(flying) < IN_FLIGHT:
            name, calls = waiting.pop()
            result.tasks[name] += 1
            flying.append([name, list(calls), None])
        task = flying[chance.randrange(len(flying))]
        name, calls, call = task
        most, used = calls[0]
        if call is None:
            task[2] = begin(name, most)
            refused = task[2] is None
        else:
            refused = not end(name, call, used)
            calls.pop(0)
            task[2] = None
        if refused:
            result.refusals += 1
        elif not calls:
            result.completed[name] += 1
        if refused or not calls:
            flying.remove(task)


def _flat(tasks: list[tuple[str, list[tuple[int, int]]]], cap: int) -> Result:
    """Each agent has its cap, held beforehand; nobody lends."""
    result, left = Result(), dict.fromkeys(CREW, cap)

    def begin(name: str, most: int) -> object:
        if most > left[name]:
            return None
        left[name] -= most
        return most

    def end(name: str, call: object, used: int) -> bool:
        assert isinstance(call, int)
        left[name] += call - used
        result.spent += used
        return True

    _interleaved(tasks, result, begin, end)
    return result


def _predecessor(tasks: list[tuple[str, list[tuple[int, int]]]], cap: int) -> Result:
    """
    Checks after the call: what is short is taken from donors, for good; what they cannot cover is spent, refused, and
    recorded nowhere, and what was taken stays taken.
    """
    result, reserve = Result(), cap // 10
    allocated, consumed = dict.fromkeys(CREW, cap), dict.fromkeys(CREW, 0)

    def end(name: str, call: object, used: int) -> bool:
        result.spent += used
        short = used - (allocated[name] - consumed[name])
        donors = sorted(
            (other for other in CREW if other != name and CREW[other][0] <= CREW[name][0]),
            key=lambda other: (CREW[other][0], consumed[other] - allocated[other]),
        )
        for donor in donors:
            given = min(max(0, allocated[donor] - consumed[donor] - reserve), max(0, short))
            allocated[donor] -= given
            allocated[name] += given
            short -= given
            result.violations += given > 0 and allocated[donor] - consumed[donor] < reserve
        if short > 0:
            return False
        consumed[name] += used
        return True

    _interleaved(tasks, result, lambda name, most: most, end)
    return result


def _ours(tasks: list[tuple[str, list[tuple[int, int]]]], cap: int) -> Result:
    result = Result()
    runtime = Runtime(Settings())
    before = use(runtime)
    manager = BudgetManager(wait_seconds=0)
    for name, (priority, _) in CREW.items():
        manager.register_agent(name, priority, cap)

    def begin(name: str, most: int) -> object:
        call = hold(tokens=most)
        try:
            with manager.agent(name):
                call.__enter__()
        except BudgetExceededError:
            return None
        return call

    def end(name: str, call: object, used: int) -> bool:
        call.settle(tokens=used)  # type: ignore[attr-defined]
        result.spent += used
        detail = manager.report(detail=True)
        result.violations += sum(of["lent"] > cap - of["reserve"] or of["overrun"] > 0 for of in detail.values())
        return True

    try:
        _interleaved(tasks, result, begin, end)
    finally:
        use(before)
        runtime.close()
    return result


def _borrow(agents: int, calls: int) -> tuple[float, float]:
    """Microseconds of a hold and settle that borrows from three donors, and of one that does not need to."""
    runtime = Runtime(Settings())
    before = use(runtime)
    try:
        manager = BudgetManager()
        manager.register_agent("needy", 9, 1_000_000_000, 0)
        manager.register_agent("short", 9, 10, 0)
        for number in range(agents - 2):
            manager.register_agent(f"donor-{number}", 1 + number % 5, 1_000, 0)
        ledger = runtime.memory
        _timed(ledger, manager, "short", 2_500, 5, prefix="warm")  # the pool is prepared once for a catalogue
        return _timed(ledger, manager, "short", 2_500, calls), _timed(ledger, manager, "needy", 2_500, calls)
    finally:
        use(before)
        runtime.close()


def _timed(
    ledger: Ledger, manager: BudgetManager, agent: str, tokens: int, calls: int, *, prefix: str = "call"
) -> float:
    budget, _ = manager.crew.budget(agent)
    # It uses nothing of what it borrows, so that every call finds the same crew.
    outcome = Outcome((5, 0, 1, 0), Usage(input=5), None)
    nothing = Outcome((0, 0, 1, 0), cost_nano=0)
    facts = CallFacts("m", "p", "bench", (), (agent,), tokens, 1)
    started = time.process_time()
    for number in range(calls):
        now_ms = ledger.store.now()
        ask = Ask(f"{prefix}-{agent}-{number}", facts, 0, 0, now_ms + 600_000)
        plan = make_plan(ask, ledger.accounts([budget], {}, now_ms), catalogue_version=ledger.catalogue.version)
        steps = place(ledger, plan, None)
        ticket = next(steps)
        placed = None
        while placed is None:
            try:
                ticket = steps.send(ticket.result())
            except StopIteration as stop:
                placed = stop.value
        if not isinstance(placed, Placed) or len(placed.hold.loans) != (3 if agent == "short" else 0):
            raise AssertionError(f"the bench's agent {agent!r} was answered {placed!r}")
        ledger.store.settle(ask.id, outcome if agent == "needy" else nothing).result()
    return (time.process_time() - started) / calls * 1e6
