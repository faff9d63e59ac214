"""
Borrowing before a call: what an agent's budget is short of, others of its pool lend, in the same atomic hold.

Balances are read, the kernel's policy says who lends what, and the plan goes to the store with the loans in it. The
store looks at each lender once more; if one has less by then, everything is read again. An agent that cannot be helped
is denied, and nothing has moved.

A function that an agent is governed by holds an estimate before anybody can know what it will call. The first measured
call inside takes that hold's place in one step, so that the two are never counted side by side.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import BudgetExceeded, BudgetExceededError, HoldConflict, HoldNotFound, StoreUnavailable
from ..kernel import loans
from ..kernel.balances import COUNTED, ZERO, Balances, bare
from ..kernel.decision import Decision
from ..kernel.hold import Hold
from ..kernel.ledger import Denied, Placed, Stale
from ..kernel.lending import Donor, Loan, Policy, downhill
from ..kernel.money import COUNTER_MAX, format_usd, usd_from_nano
from ..kernel.plan import ZERO_FORMULA, Formula, Line, LineResult, Plan, evaluate
from ..runtime.pools import LENT_UNITS
from ..stores.contract import Store, Ticket

if TYPE_CHECKING:
    from ..runtime.ambient import Ambient
    from ..runtime.ledgers import Ledger
    from ..runtime.pools import Pools, Rank
    from ..runtime.runtime import Runtime

log = logging.getLogger("farthing")

ATTEMPTS_MAX = 200
"""How often the balances of lenders may change under a call. Each time somebody else got what it wanted."""
EXPECTED_OUTPUT = 1_024
"""What a call without a ceiling of its own is expected to say, until its agent has a past."""


@dataclass(slots=True, eq=False)
class Work:
    """
    One piece of an agent's work: what it expects to use, and the estimate that is held for it until a measured call
    inside takes its place. Threads and tasks of one piece share it.
    """

    expected_output: int = EXPECTED_OUTPUT
    estimates: dict[int, Hold] = field(default_factory=dict)
    """By ledger (``id``): the hold that stands for calls not made yet."""
    measured: bool = False
    """A call inside was held, or recorded, by itself: nothing has to be estimated."""
    refused: BudgetExceeded | None = None
    """What refused a call inside."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> dict[int, Hold]:
        """It ends: what is still held for it, which no call can take from now on."""
        with self._lock:
            estimates, self.estimates = self.estimates, {}
        return estimates

    def take(self, ledger: Ledger) -> Hold | None:
        """The estimate on this ledger, for one call to put its own hold in its place; None: another call has it."""
        with self._lock:
            return self.estimates.pop(id(ledger), None)

    def put_back(self, ledger: Ledger, estimate: Hold) -> None:
        """The call was refused: the estimate still stands."""
        with self._lock:
            self.estimates[id(ledger)] = estimate


def place(
    ledger: Ledger, plan: Plan, work: Work | None, policy: Policy = downhill
) -> Generator[Ticket[Any], Any, Placed | Denied | Stale]:
    """Place a plan on a ledger with agents: in exchange for its work's estimate, borrowing what it is short of."""
    takers = [line for line in plan.lines if line.budget.lending is not None]
    estimate = None if work is None else work.take(ledger)
    answer: Placed | Denied | Stale | None = None
    try:
        answer = yield from _place(ledger, plan, takers, estimate, work, policy)
    except HoldConflict:
        if estimate is None:
            raise
        # The estimate is past its deadline, or was taken: it is not this call's to give back.
        estimate = None
        answer = yield from _place(ledger, plan, takers, None, work, policy)
    finally:
        if work is not None and estimate is not None and not isinstance(answer, Placed):
            work.put_back(ledger, estimate)
    return answer


def exchange(ledger: Ledger, plan: Plan, offered: Hold) -> Generator[Ticket[Any], Any, Placed | Denied | Stale]:
    """The same in place of a hold that another process offers for this call. Raises what the store says of that one."""
    takers = [line for line in plan.lines if line.budget.lending is not None]
    return (yield from _place(ledger, plan, takers, offered, None, downhill))


def _place(
    ledger: Ledger, plan: Plan, takers: list[Line], estimate: Hold | None, work: Work | None, policy: Policy
) -> Generator[Ticket[Any], Any, Placed | Denied | Stale]:
    store, replaces = ledger.store, None if estimate is None else estimate.id
    placed: Placed | Denied | Stale
    if not takers:
        placed = yield store.place(plan, replaces=replaces)
        return placed
    expected = EXPECTED_OUTPUT if work is None else work.expected_output
    most = plan.x_want if plan.x_most is None else min(plan.x_want, plan.x_most)
    # Where our own ceiling may shrink the call, it borrows for what it can be expected to say, and no more.
    least = max(plan.x_floor, min(most, expected)) if takers[0].elastic else plan.x_floor
    # Who had to borrow the last time looks at its lenders at once.
    short, taker = ledger.short, takers[0].keys[0]
    tried: Plan | None = None
    if taker not in short:
        tried = plan if least == plan.x_floor else plan._replace(x_floor=least)
    for _ in range(ATTEMPTS_MAX):
        if tried is not None:
            placed = yield store.place(tried, replaces=replaces)
            if not isinstance(placed, Denied) and not (isinstance(placed, Stale) and _lost(placed, plan, ledger)):
                (short.add if tried.loans else short.discard)(taker)
                return placed
        pools = ledger.pools
        balances = yield from _read(store, pools, plan, takers, estimate)
        if ledger.pools is not pools or pools.catalogue.version != plan.catalogue_version:
            # Another call has learned of other agents meanwhile, whose balances were not read.
            return Stale(ledger.pools.catalogue.version)
        covered = _cover(pools, plan, takers, balances, least, most, policy, now_ms=store.now())
        if isinstance(covered, Denied):
            return covered
        tried = covered
    raise StoreUnavailable(store.name, f"its agents' balances changed {ATTEMPTS_MAX} times while one call was planned")


def _lost(stale: Stale, plan: Plan, ledger: Ledger) -> bool:
    """Whether only a lender's balance changed: the catalogue is as it was, and no window is over."""
    if stale.catalogue_version != plan.catalogue_version:
        return False
    return plan.valid_until_ms is None or ledger.store.now() < plan.valid_until_ms


def _read(
    store: Store, pools: Pools, plan: Plan, takers: list[Line], estimate: Hold | None
) -> Generator[Ticket[Any], Any, Mapping[str, Balances]]:
    """Everything that decides: the plan's own accounts and the lenders', without the estimate that is exchanged."""
    keys = [key for line in plan.lines for key in line.keys]
    for line in takers:
        for rank in _lenders(pools, line):
            keys += rank.accounts
    balances: dict[str, Balances] = yield store.balances(keys)
    if estimate is not None:
        for key, counted in held_by([estimate]).items():
            if key in balances:
                row = balances[key]
                # Below 0: the estimate is past its deadline, and not held any more.
                balances[key] = bare(Balances, [max(0, has - taken) for has, taken in zip(row, counted, strict=True)])
    return balances


def held_by(holds: Iterable[Hold]) -> dict[str, Balances]:
    """By account, what these holds, as they were placed, have on it, loans included."""
    held: dict[str, Balances] = {}
    for hold in holds:
        for key, counted in loans.counted(hold):
            held[key] = held.get(key, ZERO).plus(counted)
    return held


def _lenders(pools: Pools, line: Line) -> tuple[Rank, ...]:
    lending = line.budget.lending
    if lending is None or not lending.borrows or line.unit not in LENT_UNITS or line.frozen:
        return ()
    return pools.of(lending.pool).below(line.unit, lending.priority)


def _cover(
    pools: Pools,
    plan: Plan,
    takers: list[Line],
    balances: Mapping[str, Balances],
    least: int,
    most: int,
    policy: Policy,
    *,
    now_ms: int,
) -> Plan | Denied:
    """The plan with the loans that make it fit; or every line that fails although others lend what they can."""
    read = balances.__getitem__
    x, failed = most, list[LineResult]()
    if len(takers) < len(plan.lines):
        others = tuple(line for line in plan.lines if line.budget.lending is None)
        verdict = evaluate(plan._replace(lines=others), read)
        x, failed = min(most, verdict.x), list(verdict.failed)
    own = x
    shorts: list[tuple[Line, Formula, int, list[Donor]]] = []
    for line in takers:
        room = line.ceiling - sum([read(key).of(line.unit).total for key in line.keys])
        formula = plan.facts.formula(line.unit) or ZERO_FORMULA
        missing = formula.at(least if line.elastic else plan.x_want) - room
        donors, lendable = _spare(pools, line, balances, now_ms, missing)
        shorts.append((line, formula, room, donors))
        if not line.elastic or not formula.slope:
            if line.frozen or room < 0 or formula.at(plan.x_want) > room + lendable:
                failed.append(_failing(pools, line, balances, now_ms, plan.x_want, formula))
            continue
        own = min(own, (room * formula.den - formula.base) // formula.slope)
        x = min(x, ((room + lendable) * formula.den - formula.base) // formula.slope)
        if line.frozen or room < 0 or x < plan.x_floor:
            failed.append(_failing(pools, line, balances, now_ms, plan.x_floor, formula))
    if failed:
        return Denied(tuple(failed))
    x = max(own, min(x, least))
    made: list[Loan] = []
    lines = list(plan.lines)
    for line, formula, room, donors in shorts:
        shortfall = formula.at(x if line.elastic else plan.x_want) - room
        lent = _lend(pools, line, room, shortfall, donors, policy)
        if lent:
            made += lent
            lines[lines.index(line)] = replace(line, ceiling=line.ceiling + shortfall)
    return plan._replace(lines=tuple(lines), loans=tuple(made), x_most=x)


def _spare(
    pools: Pools, line: Line, balances: Mapping[str, Balances], now_ms: int, enough: int = COUNTER_MAX
) -> tuple[list[Donor], int]:
    """What lenders have beyond their reserves, and its sum: of the lowest ranks that have *enough*, no others."""
    donors: list[Donor] = []
    taker, lendable = line.keys[0], 0
    counted = COUNTED[line.unit]
    for rank, members, accounts in _lenders(pools, line):
        if lendable >= enough:
            break
        for member, row in zip(members, map(balances.__getitem__, accounts), strict=True):
            account, _, most, child = member
            spare = most - sum(counted(row))
            if spare > 0 and account != taker and (child is None or child.lends(now_ms)):
                donors.append(bare(Donor, (account, rank, spare)))
                lendable += spare
    return donors, lendable


def _lend(pools: Pools, line: Line, room: int, shortfall: int, donors: list[Donor], policy: Policy) -> list[Loan]:
    lending = line.budget.lending
    if lending is None or shortfall <= 0:
        return []
    most = pools.of(lending.pool).most[line.unit]
    taker = line.keys[0]
    short = format_usd(shortfall) if line.unit == "usd" else f"{shortfall} tokens"
    why = f"{lending.agent} was {short} short"
    above, made = room, []
    for donor, amount in policy(lending.priority, shortfall, donors):
        name = donor.name
        made.append(bare(Loan, (line.unit, taker, name, above, amount, most[name], why)))
        above += amount
    return made


def _failing(
    pools: Pools, line: Line, balances: Mapping[str, Balances], now_ms: int, x: int, formula: Formula
) -> LineResult:
    """The evidence: everything that others could lend is part of it."""
    _, lendable = _spare(pools, line, balances, now_ms)
    seen = tuple(balances[key].of(line.unit) for key in line.keys)
    return LineResult(line, seen, formula.at(x), formula, lendable)


def measured(runtime: Runtime, work: Work) -> None:
    """A call was held, or recorded, by itself: whatever is still held for its work's estimate goes back."""
    work.measured = True
    if work.estimates:
        give_back(work, runtime)


def give_back(work: Work, runtime: Runtime) -> None:
    """Void what is still held for calls that were not made."""
    for ledger in (runtime.memory, runtime.durable):
        estimate = None if ledger is None else work.take(ledger)
        if ledger is None or estimate is None:
            continue
        try:
            ledger.store.void(estimate.id)
        except (HoldNotFound, StoreUnavailable) as error:
            log.warning("estimate %s was not given back: %s; it is counted until its deadline", estimate.id, error)


def exceeded(
    decision: Decision,
    failed: tuple[LineResult, ...],
    ambient: Ambient,
    *,
    truncates: frozenset[str] = frozenset(),
) -> BudgetExceeded:
    """The error for a denial: an agent's own, where it is an agent that has too little."""
    error = _exceeded(decision, failed, truncates)
    work: Work | None = ambient.work
    if work is not None:
        work.refused = error
    return error


def _exceeded(decision: Decision, failed: tuple[LineResult, ...], truncates: frozenset[str]) -> BudgetExceeded:
    for result in failed:
        lending = result.line.budget.lending
        if lending is None or result.line.budget.title != decision.budget:
            continue
        available = max(0, result.line.ceiling - result.balance.total) + result.lendable
        usd = result.line.unit == "usd"
        return BudgetExceededError(
            lending.agent,
            usd_from_nano(result.asked) if usd else result.asked,
            usd_from_nano(available) if usd else available,
            decision=decision,
            truncates=truncates,
            ended=result.line.frozen,
        )
    return BudgetExceeded(decision, truncates=truncates)
