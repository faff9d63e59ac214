"""
The oracle: what a ledger must hold and answer, worked out again from what its users meant.

One oracle stands beside each real store and sees every command that reaches it. It keeps its own rows (a call, its x,
its state) and computes every balance from all of them, in exact fractions, with windows, ceilings and the largest x of
its own. It knows nothing of lines, formulas, postings or changes. After each command it compares:

====  ==============================================================================================================
I1    an admission never takes a hard budget past its ceiling of that instant; what exceeds a hold is itemised
I2    every counter of every matching budget moved, or none (all balances are compared, after every command)
I3    one ending; repetitions get the first answer; another body is a HoldConflict; one late truth
I4    replaying the journal gives the balances
I5    nothing negative; a hold settles into the window it was placed in
I6    a denial names exactly the budgets that refuse, with the figures of that instant; what would have fit is admitted
I9    an unknown price is None, never zero
====  ==============================================================================================================
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.calls.call import OFFERED
from farthing.errors import FarthingError, HoldConflict, HoldNotFound
from farthing.kernel.balances import UNITS, Balance, Balances
from farthing.kernel.budget import Budget
from farthing.kernel.ledger import Denied, Placed, Settled, Stale, replay
from farthing.kernel.plan import CallFacts

from .provider import PRICES

if TYPE_CHECKING:
    from .faults import Command, SlowStore

HARD = ("block", "clamp", "break", "downgrade")
STEP_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
GRACE_MS = 3_600_000
ROLLING_BUCKETS = 12


class Counter(NamedTuple):
    """One figure of one budget for one scope and one window start (a rolling window: its bucket's)."""

    budget: str
    scope: tuple[tuple[str, str | None], ...]
    start: int | None
    unit: str


@lru_cache(maxsize=20_000)
def counters_of(key: str) -> tuple[Counter, ...]:
    """What a store's key means, by unit. What is lent and borrowed has rows, and so units, of its own."""
    account, bracket, what = key.rpartition("]")
    name, scope, start = json.loads(account + bracket)
    starts_ms = int(start.partition(" ")[0]) if start else None
    tags = tuple((tag, value) for tag, value in scope)
    return tuple(Counter(name, tags, starts_ms, unit + what.replace("|", ".")) for unit in UNITS)


def figures_of(rows: dict[str, Balances]) -> dict[Counter, Balance]:
    """A store's rows, by unit."""
    return {
        counter: row.of(unit)
        for key, row in rows.items()
        for counter, unit in zip(counters_of(key), UNITS, strict=True)
    }


@dataclass
class Row:
    """One hold, and what became of it."""

    id: str
    owner: str
    facts: CallFacts
    x: int
    state: str
    counters: tuple[Counter, ...]
    deadline_ms: int
    changed_ms: int
    settled: dict[str, int] = field(default_factory=dict)
    said: tuple[str, Any] | None = None
    """The call's own word: the verb's state and its outcome."""
    automatic: bool = False
    entries: int = 0

    def held(self, unit: str, x: int | None = None) -> int:
        return amount(self.facts, unit, self.x if x is None else x)


def amount(facts: CallFacts, unit: str, x: int) -> int:
    """What a call asks in a unit if it may write x tokens a choice: exact, rounded up once."""
    if unit == "tokens":
        return facts.input_tokens + facts.choices * x
    if unit == "usd":
        fresh, out, _ = priced(facts)
        return ceil(facts.input_tokens * fresh + facts.choices * x * out)
    return 1


def priced(facts: CallFacts) -> tuple[Fraction, Fraction, Fraction]:
    """The prices that a call is held at: its model's, or (policy) those of another that stands in for it."""
    model = str(facts.model)
    if model in PRICES:
        return PRICES[model]
    assert facts.price_version is not None
    return PRICES["gpt-4o"]


class Asked(NamedTuple):
    """What the world knows about the call behind a plan: the oracle does not believe the plan."""

    bound: tuple[str, ...]
    """Names of the budgets that it was entered with."""
    tags: dict[str, str]
    uncapped: bool
    """The request names no ceiling."""


def stands_for_nothing(plan: Any) -> bool:
    """Whether it is the empty hold of a call that nothing is held for: what its sender has to say at its end."""
    return bool(plan.id.startswith(OFFERED) and plan.x_want == plan.facts.input_tokens == 0 and not plan.postings)


class Failed(NamedTuple):
    budget: str
    unit: str
    ceiling: int
    used: tuple[int, int, int]


class Oracle:
    """Stands beside one real store. *asked* tells of a hold's id what its call asked for."""

    def __init__(
        self,
        inner: Any,
        *,
        asked: Callable[[str], Asked | None],
        violate: Callable[[str], None],
        seen: dict[str, int],
    ) -> None:
        self.inner = inner
        self.rows: dict[str, Row] = {}
        self.units: dict[str, Budget] = {}
        """Anonymous budgets: they stand in no catalogue."""
        self.dead: set[str] = set()
        self.gone: set[Counter] = set()
        """Counters that were put away."""
        self._balances: dict[Counter, Balance] = {}
        """The store's own, after the command that is looked at."""
        self.journal_every = 1
        self._compared = 0
        self._seen = seen
        self._asked = asked
        self._violate = violate

    # -- what a store did ----------------------------------------------------------------------------------------

    def saw(self, store: SlowStore, command: Command, answer: Any, error: FarthingError | None) -> None:
        """A command was carried out just now, with this answer or error."""
        handler = getattr(self, f"_saw_{command.verb}", None)
        if handler is None:
            return
        self.inner = store.inner
        # Asked afterwards: only now has this process seen what time another one had written. The clock stood still.
        now_ms = store.now()
        self._balances = figures_of(self.inner.balances().result())
        expected: type[FarthingError] | None = handler(command, answer, store, now_ms)
        if (type(error) if error else None) is not expected:
            self._violate(f"{command} raised {error!r}, expected {expected and expected.__name__}")
        self.compare(now_ms)

    def _saw_place(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        plan = command.args[0]
        known = self.rows.get(plan.id)
        if known is not None and stands_for_nothing(plan) and known.facts != plan.facts:
            return HoldConflict
        if known is not None:
            self._seen["repeated place"] += 1
            if not isinstance(answer, Placed) or answer.hold.id != plan.id or answer.hold.x != known.x:
                self._violate(f"I3: {command} again answered {answer!r}")
            return None
        catalogue = self.inner.catalogue().result()
        if isinstance(answer, Stale):
            self._seen["stale"] += 1
            over = plan.valid_until_ms is not None and now_ms >= plan.valid_until_ms
            if plan.catalogue_version == catalogue.version and not over:
                self._violate(f"{command} is stale, but nothing has changed")
            return None
        asked = self._asked(plan.id)
        if asked is None:
            self._violate(f"{command}: no call has this id")
            return None
        offered = command.given.get("replaces")
        if offered is not None and (offered not in self.rows or self.rows[offered].state != "held"):
            return HoldConflict if offered in self.rows else HoldNotFound
        if offered is not None:
            # While it is judged, and for good if it is admitted: in the same step its amounts go back.
            self.rows[offered].state = "gone"
        budgets = [] if stands_for_nothing(plan) else self._in_force(asked, plan.facts, catalogue)
        x, failed, shadow = self._admit(budgets, plan, asked, catalogue, now_ms)
        if offered is not None:
            self._taken_over(self.rows[offered], now_ms, taken=isinstance(answer, Placed))
        self._seen["shadow"] += bool(shadow)
        if isinstance(answer, Denied):
            self._seen["denied"] += 1
            if not failed:
                self._violate(f"{command} was refused, but x={x} fits: {answer.failed[0]}")
            self._same_lines(command, answer.failed, failed)
            return None
        if failed:
            self._violate(f"I1: {command} was admitted past {failed}")
        self._seen["clamped"] += x < plan.x_want
        self._seen["downgraded"] += plan.facts.asked_model is not None
        self._seen["placed"] += 1
        if answer.hold.x != x:
            self._violate(f"{command} was granted x={answer.hold.x}, expected {x}")
        self._same_lines(command, answer.advisory, shadow)
        counters = tuple(counter for budget in budgets for counter in self._posts(budget, plan.facts, asked, now_ms))
        self.rows[plan.id] = Row(
            plan.id, store.owner, plan.facts, answer.hold.x, "held", counters, plan.deadline_ms, now_ms
        )
        self._below_ceilings(command, budgets, plan.facts, asked, catalogue, now_ms)
        return None

    def _taken_over(self, row: Row, now_ms: int, *, taken: bool) -> None:
        if not taken:
            row.state = "held"
            return
        self._seen["taken over"] += 1
        row.state, row.said, row.changed_ms = "voided", ("voided", None), now_ms

    def _saw_resize(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        row = self.rows.get(command.hold_id)
        if row is None:
            return HoldNotFound
        if row.state != "held":
            return HoldConflict
        self._seen["resized"] += 1
        row.x, row.changed_ms = command.given["x"], now_ms
        return None

    def _saw_extend(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        row = self.rows.get(command.hold_id)
        if row is None:
            return HoldNotFound
        if row.state == "held" and command.given["deadline_ms"] > row.deadline_ms:
            self._seen["extended"] += 1
            row.deadline_ms, row.changed_ms = command.given["deadline_ms"], now_ms
        return None

    def _saw_settle(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        return self._word(command, "settled", answer, now_ms)

    def _saw_void(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        return self._word(command, "voided", answer, now_ms)

    def _word(self, command: Command, state: str, answer: Any, now_ms: int) -> type[FarthingError] | None:
        """A call says how it ended."""
        row, outcome = self.rows.get(command.hold_id), command.args[1] if len(command.args) > 1 else None
        if row is None:
            return HoldNotFound
        if row.said is not None:
            # A void that was never tried has no body of its own; a row that stood already turned it into one.
            self._seen["repeated end"] += 1
            same = row.said == (state, outcome) or (outcome is None and row.said[0] == state == "voided")
            return None if same else HoldConflict
        late = row.state == "suspect" or row.automatic
        self._seen["late word of a suspect"] += row.state == "suspect"
        self._seen["late word after a resolution"] += row.automatic
        row.said, row.state, row.automatic, row.changed_ms = (state, outcome), state, False, now_ms
        row.settled = {} if outcome is None else dict(zip(UNITS, outcome.amounts, strict=True))
        if outcome is not None or late:
            row.entries += 1
            self._entry_is_honest(command, row, answer)
        return None

    def _saw_suspect(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        row = self.rows.get(command.hold_id)
        if row is None:
            return HoldNotFound
        if row.state == "held":
            self._becomes_suspect(row, now_ms)
        return None

    def _becomes_suspect(self, row: Row, now_ms: int) -> None:
        self._seen["suspect"] += 1
        row.state, row.changed_ms = "suspect", now_ms
        row.entries += 1

    def _saw_resolve(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        row = self.rows.get(command.hold_id)
        if row is None:
            return HoldNotFound
        if row.state != "suspect":
            return HoldConflict
        self._resolved(row, command.args[1], now_ms)
        return None

    def _resolved(self, row: Row, policy: str, now_ms: int) -> None:
        self._seen[f"resolved: {policy}"] += 1
        row.automatic, row.changed_ms = True, now_ms
        row.state = "settled" if policy == "settle_at_hold" else "voided"
        row.settled = {}
        if policy == "settle_at_hold":
            row.settled = {unit: row.held(unit) for unit in ("tokens", "requests")}
            if row.facts.price is not None:
                row.settled["usd"] = row.held("usd")
        row.entries += 1

    def _saw_record(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        plan, outcome = command.args
        lost = command.given["lost"]
        known = self.rows.get(plan.id)
        if known is not None and lost:
            # Who knows nothing contradicts nothing.
            if known.state == "held":
                self._becomes_suspect(known, now_ms)
            return None
        if (
            known is not None
            and known.state in ("held", "suspect")
            and known.counters == ()
            and known.facts == plan.facts
        ):
            # A proxy has claimed it, and never heard that it had.
            known.state, known.said, known.settled = (
                "settled",
                ("settled", outcome),
                dict(zip(UNITS, outcome.amounts, strict=True)),
            )
            known.entries += 1
            return None
        if known is not None:
            return None if known.said == ("settled", outcome) and known.x == 0 else HoldConflict
        priced = plan.facts.price is not None
        found = (counter for posting in plan.postings for counter in counters_of(posting.key))
        counters = tuple(counter for counter in found if priced or counter.unit != "usd")
        self._counts_where_it_was_not_held(command, plan, store, counters)
        if lost:
            row = Row(plan.id, store.owner, plan.facts, plan.x_want, "held", counters, plan.deadline_ms, now_ms)
            self._becomes_suspect(row, now_ms)
            self._seen["suspect, not held"] += 1
        else:
            row = Row(plan.id, store.owner, plan.facts, 0, "settled", counters, plan.deadline_ms, now_ms)
            row.said, row.settled, row.entries = ("settled", outcome), dict(zip(UNITS, outcome.amounts, strict=True)), 1
        self.rows[plan.id] = row
        self._seen["recorded"] += 1
        return None

    def _counts_where_it_was_not_held(
        self, command: Command, plan: Any, store: SlowStore, counters: tuple[Counter, ...]
    ) -> None:
        """What ``on_store_failure="allow"`` let through counts on every budget of the ledger that failed; no other."""
        asked = self._asked(plan.id)
        expected: list[Counter] = []
        if plan.id.endswith("m") and store.durable and asked is not None:
            self._seen["counted, not held"] += 1
            budgets = self._in_force(asked, plan.facts, self.inner.catalogue().result())
            expected = [counter for budget in budgets for counter in self._posts(budget, plan.facts, asked, 0)]
        # Its windows are those of when it was sent.
        if {counter._replace(start=None) for counter in counters} != {c._replace(start=None) for c in expected}:
            self._violate(f"{command} counts on {counters}, expected {expected}")

    def _saw_sweep(self, command: Command, answer: Any, store: SlowStore, now_ms: int) -> type[FarthingError] | None:
        if answer is None:
            return None  # it raised, and never may
        swept = {settled.hold.id for settled in answer}
        due = set(self.swept(command.args[0], now_ms))
        if swept != due:
            self._violate(f"sweep changed {sorted(swept)}, due were {sorted(due)}")
        return None

    def swept(self, policy: Any, now_ms: int) -> list[str]:
        """Do what time does to holds; returns which it changed."""
        due = []
        for row in self.rows.values():
            if row.state == "held" and (row.owner in self.dead or now_ms >= row.deadline_ms):
                self._becomes_suspect(row, now_ms)
                due.append(row.id)
            elif row.state == "suspect" and now_ms - row.changed_ms >= policy.suspect_after_ms:
                if policy.suspect_policy == "keep":
                    continue
                self._resolved(row, policy.suspect_policy, now_ms)
                due.append(row.id)
        return due

    def forgot(self, keys: Iterable[str]) -> None:
        """A unit of work is over, and its counters were put away."""
        self.gone.update(counter for key in keys for counter in counters_of(key))

    # -- who pays, and how much it may be ------------------------------------------------------------------------

    def _in_force(self, asked: Asked, facts: CallFacts, catalogue: Any) -> list[Budget]:
        tags = {**asked.tags, "model": facts.model, "provider": facts.provider}
        names = dict.fromkeys(asked.bound)
        names.update(dict.fromkeys(name for name, budget in catalogue.budgets.items() if budget.standing))
        found = [self.units.get(name) or catalogue.budgets.get(name) for name in names]
        return [b for b in found if b is not None and all(tags.get(tag) == value for tag, value in b.scope)]

    def _scope(self, budget: Budget, facts: CallFacts, asked: Asked) -> tuple[tuple[str, str | None], ...]:
        tags = {**asked.tags, "model": str(facts.model), "provider": str(facts.provider)}
        return tuple(sorted({**dict(budget.scope), **{tag: tags.get(tag) for tag in budget.each}}.items()))

    def _starts(self, budget: Budget, now_ms: int) -> list[int | None]:
        """Where the windows that count now begin, the current one last; a check of one call has none."""
        window = budget.window
        if window.kind == "request":
            return []
        if window.kind == "rolling":
            bucket = ceil(window.length_ms / ROLLING_BUCKETS)
            last = now_ms // bucket
            return [number * bucket for number in range(last - ROLLING_BUCKETS, last + 1)]
        step = STEP_MS.get(window.kind)
        return [None if step is None else now_ms // step * step]

    def _posts(self, budget: Budget, facts: CallFacts, asked: Asked, now_ms: int) -> list[Counter]:
        starts = self._starts(budget, now_ms)
        units = ["tokens", "requests", "concurrency"]
        if facts.price is not None:
            units.append("usd")
        scope = self._scope(budget, facts, asked)
        return [Counter(budget.name, scope, start, unit) for start in starts[-1:] for unit in units]

    def _used(self, budget: Budget, facts: CallFacts, asked: Asked, unit: str, now_ms: int) -> tuple[int, int, int]:
        scope = self._scope(budget, facts, asked)
        starts = set(self._starts(budget, now_ms))
        settled = held = suspect = 0
        for row in self.rows.values():
            for name, of, start, counted in row.counters:
                if name == budget.name and counted == unit and of == scope and start in starts:
                    if Counter(name, of, start, counted) in self.gone:
                        continue
                    if row.state == "held":
                        held += row.held(unit)
                    elif row.state == "suspect":
                        suspect += row.held(unit) if unit != "concurrency" else 0
                    elif unit != "concurrency":
                        settled += row.settled.get(unit, 0)
        return settled, held, suspect

    def _ceiling(
        self, budget: Budget, unit: str, facts: CallFacts, asked: Asked, catalogue: Any, now_ms: int
    ) -> int | None:
        limit = budget.limit(unit)
        if limit is None:
            return None
        scope = dict(self._scope(budget, facts, asked))
        starts = self._starts(budget, now_ms)
        start = starts[-1] if starts and budget.window.kind != "rolling" else None
        for grant in catalogue.grants:
            live = grant.until_ms is None or now_ms < grant.until_ms
            mine = grant.budget == budget.name and grant.unit == unit and all(scope.get(t) == v for t, v in grant.scope)
            if live and mine and (start is None or grant.at_ms >= start):
                limit += grant.amount
        return limit

    def _admit(
        self, budgets: list[Budget], plan: Any, asked: Asked, catalogue: Any, now_ms: int
    ) -> tuple[int, list[Failed], list[Failed]]:
        """The largest x that may be granted, what refuses the call, and what only would have."""
        facts = plan.facts
        x = plan.x_want if plan.x_most is None else plan.x_most
        failed: list[Failed] = []
        shadow: list[Failed] = []
        for budget in budgets:
            mode = budget.on_exceed
            # A ceiling of ours may shrink under every budget that refuses; the caller's own only where it says so.
            elastic = mode in ("clamp", "break") or (asked.uncapped and mode in HARD)
            for unit in ("tokens", "usd", "requests", "concurrency"):
                limit = self._ceiling(budget, unit, facts, asked, catalogue, now_ms)
                if limit is None or (unit == "usd" and facts.price is None):
                    continue
                used = self._used(budget, facts, asked, unit, now_ms)
                if mode == "raise":
                    fits = used[0] + used[2] < limit
                elif elastic and unit in ("tokens", "usd"):
                    room, of = limit - sum(used), unit
                    # How many of 0, 1 … x fit: amounts grow with x.
                    most = bisect_right(range(x + 1), room, key=lambda at: amount(facts, of, at)) - 1
                    fits = most >= plan.x_floor
                    x = most if fits else x
                else:
                    fits = sum(used) + amount(facts, unit, plan.x_want) <= limit
                if not fits or budget.name in catalogue.frozen:
                    (shadow if mode == "warn" else failed).append(Failed(budget.name, unit, limit, used))
        return x, failed, shadow

    # -- comparisons ---------------------------------------------------------------------------------------------

    def _same_lines(self, command: Command, said: tuple[Any, ...], expected: list[Failed]) -> None:
        """I6: the lines that are named are those that refuse, with their figures."""
        shown = [
            Failed(result.line.budget.name, result.line.unit, result.line.ceiling, tuple(result.balance))
            for result in said
        ]
        if sorted(shown) != sorted(expected):
            self._violate(f"I6: {command} names {shown}, true was {expected}")

    def _below_ceilings(
        self, command: Command, budgets: list[Budget], facts: CallFacts, asked: Asked, catalogue: Any, now_ms: int
    ) -> None:
        """I1, on the store's own figures: after an admission no hard budget is past its ceiling of this instant."""
        balances = self._balances
        for budget in budgets:
            for unit in ("tokens", "usd", "requests", "concurrency"):
                limit = self._ceiling(budget, unit, facts, asked, catalogue, now_ms)
                if limit is None or budget.on_exceed not in HARD or (unit == "usd" and facts.price is None):
                    continue
                scope = self._scope(budget, facts, asked)
                counters = [Counter(budget.name, scope, start, unit) for start in self._starts(budget, now_ms)]
                total = sum(sum(balances.get(counter, Balance())) for counter in counters)
                if total > limit:
                    self._violate(f"I1: {command} took {budget.name} to {total:,} of {limit:,} {unit}")

    def _entry_is_honest(self, command: Command, row: Row, answer: Any) -> None:
        """The row that a call's end left: its excess is itemised, and an unknown price is no price."""
        if not isinstance(answer, Settled) or answer.entry is None:
            self._violate(f"I8: {command} left no entry")
            return
        units = {counter.unit for counter in row.counters}
        beyond = {unit: row.settled.get(unit, 0) - row.held(unit) for unit in units if unit != "concurrency"}
        self._seen["overrun"] += any(excess > 0 for excess in beyond.values())
        over = {unit: excess for unit, excess in beyond.items() if excess > 0}
        if dict(answer.entry.overrun) != over:
            self._violate(f"I1: {command} itemises an overrun of {dict(answer.entry.overrun)}, it was {over}")
        used = row.settled.get("tokens", 0)
        if row.facts.price is None and used and answer.entry.cost_nano is not None:
            self._violate(f"I9: {command} says that an unpriced call cost {answer.entry.cost_nano}")

    def _expected(self) -> dict[Counter, list[int]]:
        """By counter, what the rows add up to: settled, held, suspect."""
        expected: dict[Counter, list[int]] = {}
        for row in self.rows.values():
            for counter in row.counters:
                figures = expected.setdefault(counter, [0, 0, 0])
                unit = counter.unit
                if row.state == "held":
                    figures[1] += row.held(unit)
                elif unit == "concurrency":
                    continue
                elif row.state == "suspect":
                    figures[2] += row.held(unit)
                else:
                    figures[0] += row.settled.get(unit, 0)
        return expected

    def compare(self, now_ms: int) -> None:
        """Every balance of the store with the one that the rows add up to; and the journal with both."""
        expected = self._expected()
        actual = self._balances
        for counter, figures in expected.items():
            found = actual.get(counter)
            if found is None and any(figures) and not self._may_be_gone(counter, figures, now_ms):
                self._violate(f"I5: {counter} is gone; it was {figures}")
            elif found is not None and counter not in self.gone and list(found) != figures:
                self._violate(f"{counter} is {tuple(found)}, its calls add up to {tuple(figures)}")
        for counter, found in actual.items():
            if min(found) < 0 or (counter not in expected and any(found)):
                self._violate(f"{counter} is {tuple(found)}, and no call explains it")
        self._compared += 1
        if self._compared % self.journal_every == 0:
            self.check_journal()

    def check_journal(self) -> None:
        """I4."""
        journal = self.inner.journal().result()
        replayed = replay(dict(journal.settled_before), journal.entries, journal.holds)
        kept = {key: balance for key, balance in self.inner.balances().result().items() if any(balance)}
        if replayed != kept:
            differing = {key for key in {*replayed, *kept} if replayed.get(key) != kept.get(key)}
            self._violate(f"I4: the journal says otherwise about {sorted(differing)}")

    def _may_be_gone(self, counter: Counter, figures: list[int], now_ms: int) -> bool:
        """Whether a store may have put a counter away: asked for by its owner, or its window is long over."""
        if counter in self.gone:
            return True
        budget = self.inner.catalogue().result().budgets.get(counter.budget)
        if budget is None or counter.start is None or figures[1] or figures[2]:
            return False
        window = budget.window
        bucket = ceil(window.length_ms / ROLLING_BUCKETS) if window.kind == "rolling" else 0
        end = counter.start + (STEP_MS.get(window.kind) or (ROLLING_BUCKETS + 1) * bucket)
        if end + GRACE_MS > now_ms:
            return False
        self.gone.add(counter)
        self._seen["counter put away"] += 1
        return True
