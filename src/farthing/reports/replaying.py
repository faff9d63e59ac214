"""
What would other budgets have done? A ledger's own history, made again under them.

Each call is placed when it began and settled when it ended, on a ledger in memory whose clock is the history's: the
rules are those of the kernel, and of what failing budgets do (:mod:`.exceeding`). A call that was denied in reality
left no trace to make again. Grants and freezes are not repeated: the budgets are taken as they are written.
"""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..calls.asking import find_rates
from ..calls.exceeding import Downgrade, Wait, next_step
from ..kernel.budget import Budget
from ..kernel.decision import resets_ms, room_for_output
from ..kernel.hold import Outcome
from ..kernel.ledger import Denied, Placed
from ..kernel.plan import Ask, CallFacts, LineResult, Plan, make_plan
from ..kernel.sums import DAY_MS
from ..kernel.usage import Usage
from ..prices import PriceBook, Rates
from ..runtime.in_force import without_usd
from ..runtime.ledgers import Ledger
from ..runtime.settings import Settings
from ..stores.memory import MemoryStore
from .past import Past

PROGRESS_EVERY = 1_000
_END, _GIVE_UP, _RETRY = 0, 1, 2
"""What happens at one instant, in this order: what comes back, comes back first."""
UNPRICED = "no known price"
"""Stands for a budget's name, where a call is refused because its cost is unknown."""


@dataclass(slots=True)
class Sums:
    """Of some calls: how many, and what would have become of them. ``first_ms`` is when the first was denied."""

    calls: int = 0
    denied: int = 0
    downgraded: int = 0
    clamped: int = 0
    """Answers that a lower output ceiling would have cut off."""
    waited: int = 0
    """Calls that would have waited, and passed then."""
    warned: int = 0
    """Calls that a budget with on_exceed="warn" would have let pass, and said so."""
    spent_nano: int = 0
    """What they cost in reality."""
    would_nano: int = 0
    """What they would have cost."""
    first_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay found. ``tags`` has one row for each value of each tag that was asked for."""

    whole: Sums
    budgets: Mapping[str, Sums]
    tags: Mapping[tuple[str, str | None], Sums]
    starts_ms: int | None
    ends_ms: int | None
    unheld: int
    """Calls that nothing was held for: what they used stands for what they asked."""


class _Waiting(NamedTuple):
    past: Past
    until_ms: int


class _Verdict(NamedTuple):
    """How one attempt went: admitted, waiting, or denied by this budget."""

    admitted: bool = False
    denied_by: str | None = None


@dataclass(slots=True)
class _Replay:
    """One run. Events are kept in a heap; calls come in the order in which they began."""

    budgets: Sequence[Budget]
    settings: Settings
    prices: PriceBook
    tag_names: Sequence[str]
    now_ms: int = 0
    whole: Sums = field(default_factory=Sums)
    by_budget: dict[str, Sums] = field(default_factory=dict)
    by_tag: dict[tuple[str, str | None], Sums] = field(default_factory=dict)
    events: list[tuple[int, int, int, str]] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    waiting: dict[str, _Waiting] = field(default_factory=dict)
    rates: dict[tuple[str, str | None, int], Rates | None] = field(default_factory=dict)
    ledger: Ledger = field(init=False)
    numbers: int = 0

    def __post_init__(self) -> None:
        store = MemoryStore(clock=lambda: self.now_ms, entries_max=PROGRESS_EVERY)
        for budget in self.budgets:
            store.put_budget(replace(budget, standing=True)).result()
            self.by_budget[budget.title] = Sums()
        self.ledger = Ledger(store)
        self.ledger.refresh(store.catalogue().result())

    def run(self, calls: Iterable[Past], progress: Callable[[int], object]) -> None:
        for done, past in enumerate(calls):
            self._until(past.started_ms)
            self.now_ms = past.started_ms
            verdict = self._try(past)
            if not verdict.admitted and past.id not in self.waiting:
                self._deny(past, verdict.denied_by)
            if not done % PROGRESS_EVERY:
                progress(done)
        self._until(None)

    # -- time ----------------------------------------------------------------------------------------------------

    def _at(self, at_ms: int, what: int, call_id: str) -> None:
        self.numbers += 1
        heapq.heappush(self.events, (at_ms, what, self.numbers, call_id))

    def _until(self, at_ms: int | None) -> None:
        """All that happens up to an instant; None: all there is."""
        while self.events and (at_ms is None or self.events[0][0] <= at_ms):
            self.now_ms, what, _, call_id = heapq.heappop(self.events)
            if what == _END:
                self.ledger.store.settle(call_id, self.outcomes.pop(call_id)).result()
            if what == _GIVE_UP:
                waiting = self.waiting.pop(call_id, None)
                if waiting is not None:
                    self._deny(waiting.past, None)
            elif self.waiting:
                self._let_in()

    def _let_in(self) -> None:
        """Something came back: those who wait try again, in their order."""
        for call_id, waiting in list(self.waiting.items()):
            if self._try(waiting.past).admitted:
                del self.waiting[call_id]
                self._note(waiting.past, "waited")

    # -- one call ------------------------------------------------------------------------------------------------

    def _try(self, past: Past) -> _Verdict:
        facts, tried = past.facts, set[str]()
        downgraded_by: list[str] = []
        while True:
            tags = {**dict(facts.tags), "model": facts.model or "", "provider": facts.provider or ""}
            budgets = self.ledger.standing(tags)
            if not budgets:
                return self._admit(past, facts, None, past.x_want, downgraded_by)
            counts_usd = any(budget.usd_nano is not None for budget in budgets)
            if facts.price is None and counts_usd and self.settings.unpriced == "reject":
                return _Verdict(denied_by=UNPRICED)
            floor = max([past.x_floor, *(budget.min_output_tokens for budget in budgets if budget.hard)])
            ask = Ask(past.id, facts, past.x_want, min(past.x_want, floor), past.ended_ms + DAY_MS)
            accounts = self.ledger.accounts(budgets, tags, self.ledger.store.now())
            if facts.price is None:
                accounts = without_usd(accounts)
            plan = make_plan(ask, accounts, catalogue_version=self.ledger.catalogue.version)
            placed = self.ledger.store.place(plan).result()
            if isinstance(placed, Placed):
                for result in placed.advisory:
                    self._note(past, "warned", result.line.budget.title)
                return self._admit(past, facts, plan, placed.hold.x, downgraded_by)
            if not isinstance(placed, Denied):
                raise AssertionError("a plan of this instant cannot be stale")
            tried.add(facts.model or "")
            match next_step(placed.failed, model=facts.model or "", tried=tried, now_ms=self.now_ms):
                case Downgrade(cheaper, by):
                    downgraded_by.append(by.title)
                    facts = self._as(past, facts, cheaper)
                case Wait(_, seconds):
                    self._wait(past, placed.failed, seconds)
                    return _Verdict(denied_by=_binding(placed.failed))
                case _:
                    return _Verdict(denied_by=_binding(placed.failed))

    def _admit(self, past: Past, facts: CallFacts, plan: Plan | None, x: int, downgraded_by: list[str]) -> _Verdict:
        usage, cost_nano = past.usage, past.cost_nano
        for title in downgraded_by:
            self._note(past, "downgraded", title)
        if downgraded_by:
            rates = self._rates(facts)
            cost_nano = None if rates is None else rates.cost_nano(usage)
        if plan is not None and x < past.output_per_choice:
            self._note(past, "clamped", self._clamped_by(plan, x))
            usage, cost_nano = _cut(past, facts, x, cost_nano)
        for sums in self._rows(past):
            sums.calls += 1
            sums.spent_nano += past.cost_nano or 0
            sums.would_nano += cost_nano or 0
        if plan is None:
            return _Verdict(admitted=True)
        for title in dict.fromkeys(line.budget.title for line in plan.lines):
            sums = self.by_budget[title]
            sums.calls += 1
            sums.spent_nano += past.cost_nano or 0
            sums.would_nano += cost_nano or 0
        amounts = (usage.total_tokens, cost_nano or 0, 1, 0)
        self.outcomes[past.id] = Outcome(amounts, usage, cost_nano, ending=past.ending)
        self._at(self.now_ms + past.ended_ms - past.started_ms, _END, past.id)
        return _Verdict(admitted=True)

    def _wait(self, past: Past, failed: tuple[LineResult, ...], seconds: float) -> None:
        if past.id in self.waiting:
            return
        until_ms = self.now_ms + round(seconds * 1000)
        self.waiting[past.id] = _Waiting(past, until_ms)
        self._at(until_ms, _GIVE_UP, past.id)
        for result in failed:
            opens_ms = resets_ms(result, self.now_ms)
            if opens_ms is not None and opens_ms < until_ms:
                self._at(opens_ms, _RETRY, past.id)

    def _deny(self, past: Past, title: str | None) -> None:
        if title is None:
            # It waited in vain: who would deny it now is asked once more.
            verdict = self._try(past)
            self.waiting.pop(past.id, None)
            if verdict.admitted:
                self._note(past, "waited")
                return
            title = verdict.denied_by
        rows = self._rows(past)
        if title is not None:
            rows.append(self.by_budget.setdefault(title, Sums()))
        for sums in rows:
            sums.calls += 1
            sums.denied += 1
            sums.spent_nano += past.cost_nano or 0
            sums.first_ms = self.now_ms if sums.first_ms is None else sums.first_ms

    # -- sums ----------------------------------------------------------------------------------------------------

    def _rows(self, past: Past) -> list[Sums]:
        tags = dict(past.facts.tags)
        tags.update(model=past.facts.model or "", provider=past.facts.provider or "")
        rows = [self.by_tag.setdefault((name, tags.get(name)), Sums()) for name in self.tag_names]
        return [self.whole, *rows]

    def _note(self, past: Past, what: str, title: str | None = None) -> None:
        rows = self._rows(past)
        if title is not None:
            rows.append(self.by_budget[title])
        for sums in rows:
            setattr(sums, what, getattr(sums, what) + 1)

    def _clamped_by(self, plan: Plan, x: int) -> str:
        """The budget that left the least room: what this call holds itself is not in its own way."""
        narrow: list[tuple[int, str]] = []
        for line in plan.lines:
            formula = plan.facts.formula(line.unit)
            if line.elastic and formula is not None and formula.slope:
                counted = self.ledger.store.balances(line.keys).result()
                room = line.ceiling - sum(row.of(line.unit).total for row in counted.values()) + formula.at(x)
                narrow.append(((room * formula.den - formula.base) // formula.slope, line.budget.title))
        return min(narrow)[1]

    # -- prices --------------------------------------------------------------------------------------------------

    def _as(self, past: Past, facts: CallFacts, model: str) -> CallFacts:
        """The same call to another model, at that model's price of the day."""
        other = facts._replace(model=model, asked_model=past.facts.model)
        rates = self._rates(other)
        if rates is None:
            return other._replace(price=None)
        return other._replace(price=rates.bound(input_tokens=facts.input_tokens, choices=facts.choices))

    def _rates(self, facts: CallFacts) -> Rates | None:
        key = (facts.model or "", facts.provider, self.now_ms - self.now_ms % DAY_MS)
        if key not in self.rates:
            model, provider, at_ms = key
            self.rates[key] = find_rates(self.prices, self.settings, model=model, provider=provider, at_ms=at_ms)
        return self.rates[key]


def replay(
    calls: Sequence[Past],
    budgets: Sequence[Budget],
    *,
    settings: Settings,
    prices: PriceBook,
    tag_names: Sequence[str] = (),
    progress: Callable[[int], object] = lambda done: None,
) -> Replayed:
    """
    Make these calls again under these budgets, each binding every call that its scope matches.

    Args:
        calls: in the order in which they began (see :func:`.past.read_past`).
        settings: whose policy for calls without a known price is followed.
        prices: for models that calls are downgraded to.
        tag_names: tags, ``model`` or ``provider``, to sum by.
        progress: is told now and then how many calls are done.
    """
    run = _Replay(budgets, settings, prices, tag_names)
    # The history stays as it is while it is replayed: the garbage collector need not walk over it again and again.
    gc.freeze()
    try:
        run.run(calls, progress)
    finally:
        gc.unfreeze()
    return Replayed(
        whole=run.whole,
        budgets=run.by_budget,
        tags=run.by_tag,
        starts_ms=calls[0].started_ms if calls else None,
        ends_ms=max((past.ended_ms for past in calls), default=None),
        unheld=sum(not past.facts.budgets for past in calls),
    )


def _binding(failed: tuple[LineResult, ...]) -> str:
    return min(failed, key=room_for_output).line.budget.title


def _cut(past: Past, facts: CallFacts, x: int, cost_nano: int | None) -> tuple[Usage, int | None]:
    """What the call would have come to with an answer of at most x tokens a choice."""
    usage = past.usage
    output = min(usage.output, x * facts.choices)
    if cost_nano is not None and facts.price is not None:
        # The price of output by x is that of all choices together.
        saved = (usage.output - output) * facts.price.slope // (facts.price.den * max(1, facts.choices))
        cost_nano = max(0, cost_nano - saved)
    return usage._replace(output=output, reasoning=min(usage.reasoning, output)), cost_nano
