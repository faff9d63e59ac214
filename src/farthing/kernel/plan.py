"""
Plans: a call and its budgets, turned into a flat list of lines to check and postings to make.

::

    line      Σ counters + ceil((base + slope·x) / den)  ≤  ceiling
    posting   add ceil((base + slope·x) / den) to this counter

``x`` is the number of output tokens per choice. The store grants the largest ``x`` between ``x_floor`` and ``x_want``
that satisfies every *elastic* line while every other line holds at what was asked, all or nothing. It never learns
what a month, a team or a price is: that is decided here, before.

Amounts are integers of the line's unit; rates that are not whole nano-dollars stay exact in ``base``, ``slope`` and
``den`` and are rounded up once, when the posting is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .budget import UNITS, Budget
from .money import COUNTER_MAX
from .scope import Tags, account_key, concrete
from .window import ROLLING_BUCKETS

LINES_MAX = 512
"""A limit on everything: more budgets than this on one call is a mistake, and is said."""


class Balance(NamedTuple):
    """One counter. ``settled`` only grows (corrections aside); none is ever negative."""

    settled: int = 0
    held: int = 0
    suspect: int = 0

    @property
    def total(self) -> int:
        return self.settled + self.held + self.suspect


ZERO = Balance()


class Formula(NamedTuple):
    """What an amount is for ``x`` output tokens per choice: ``ceil((base + slope·x) / den)``."""

    base: int
    slope: int = 0
    den: int = 1

    def at(self, x: int) -> int:
        return -(-(self.base + self.slope * x) // self.den)


ONE = Formula(1)

bare = tuple.__new__
"""``bare(Kind, fields)`` makes a named tuple in half the time of ``Kind(*fields)``, for the paths of every call."""


class Line(NamedTuple):
    """A condition, and the evidence to name when it fails."""

    budget: Budget
    scope: tuple[tuple[str, str | None], ...]
    unit: str
    keys: tuple[str, ...]
    """The counters that are summed; none for the check of one call alone."""
    formula: Formula
    ceiling: int
    elastic: bool = False
    """May shrink x. The others are checked at what was asked."""
    advisory: bool = False
    """Never refuses: what it would have refused is counted (``warn``)."""
    spent_only: bool = False
    """``raise``: looks at what is settled or suspect, and passes while that is below the ceiling."""
    starts_ms: int | None = None
    ends_ms: int | None = None
    frozen: bool = False


class Posting(NamedTuple):
    """An amount to hold on one counter, and what becomes of it if nobody settles it."""

    key: str
    unit: str
    formula: Formula
    release: bool = False
    """At the deadline the amount is released (calls in flight), not suspect (tokens, money, requests)."""
    ends_ms: int | None = None
    """When the counter's window is over, after which it may be rolled up."""


class CallFacts(NamedTuple):
    """What the ledger keeps of a call, whatever becomes of it. Opaque to the stores."""

    model: str | None = None
    provider: str | None = None
    dialect: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    budgets: tuple[str, ...] = ()
    """The titles of the budgets it was held on."""
    input_tokens: int = 0
    """The most input that it can be billed for."""
    choices: int = 1
    price: Formula | None = None
    """The dearest it can cost in nano-dollars, by x; None where the price is not known."""
    price_version: str | None = None
    bound: str = "proven"
    """``open`` where the call may cost more than was held."""
    asked_model: str | None = None
    """The model that the caller named, if the call was downgraded from it."""


class Plan(NamedTuple):
    """One call's lines and postings. ``id`` names the hold, its entry and every repetition of either."""

    id: str
    facts: CallFacts
    lines: tuple[Line, ...]
    postings: tuple[Posting, ...]
    x_want: int
    x_floor: int
    deadline_ms: int
    catalogue_version: int = 0
    valid_until_ms: int | None = None
    """The end of the earliest window: after it the plan is stale, and is made again."""
    x_most: int | None = None
    """Grant no more than this (another ledger granted it first); lines are still checked at what was asked."""


class Ask(NamedTuple):
    """What a call asks of its budgets, before they are looked at."""

    id: str
    facts: CallFacts
    x_want: int
    x_floor: int
    ours: bool
    """The ceiling on x is ours, not the caller's: every line may shrink it."""
    deadline_ms: int


class Account(NamedTuple):
    """One budget for one concrete scope and window start."""

    budget: Budget
    scope: tuple[tuple[str, str | None], ...]
    key: str
    rolling: tuple[str, ...]
    """The keys of all live buckets of a rolling window, the current one last; empty otherwise."""
    starts_ms: int | None
    ends_ms: int | None
    valid_until_ms: int | None
    limits: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    """For each unit that is limited: its ceiling of this instant, live grants included, and the counters to sum."""
    posts: tuple[tuple[str, str], ...] = ()
    """For each unit that is counted: the counter to post to."""
    frozen: bool = False

    def counters(self, unit: str) -> tuple[str, ...]:
        """The counters whose sum is this account's balance in a unit."""
        keys = self.rolling or (self.key,)
        return tuple(counter_key(key, unit) for key in keys)

    def ceiling(self, unit: str) -> int | None:
        """The limit of this instant, live grants included; None where the unit is not limited."""
        return next((ceiling for of, ceiling, _ in self.limits if of == unit), None)

    def raised(self, granted: tuple[tuple[str, int], ...], until_ms: int | None) -> Account:
        """The same account with live grants on top of its limits, good until the first of them ends."""
        limits = tuple(
            (unit, min(COUNTER_MAX, ceiling + sum(amount for of, amount in granted if of == unit)), keys)
            for unit, ceiling, keys in self.limits
        )
        return self._replace(limits=limits, valid_until_ms=until_ms)


def counter_key(account: str, unit: str) -> str:
    """The name of one counter of an account."""
    return f"{account}|{unit}"


def open_account(budget: Budget, tags: Tags, now_ms: int, *, frozen: bool = False) -> Account:
    """The account of a budget that a call with these tags falls into at this instant."""
    scope = concrete(dict(budget.scope), budget.each, tags)
    starts_ms, ends_ms = budget.window.span(now_ms)
    window = str(budget.window)
    key = account_key(budget.name, scope, starts_ms, window)
    rolling: tuple[str, ...] = ()
    valid_until_ms = ends_ms
    if budget.window.kind == "rolling" and starts_ms is not None:
        bucket_ms = budget.window.bucket_ms
        starts = range(starts_ms - ROLLING_BUCKETS * bucket_ms, starts_ms + 1, bucket_ms)
        rolling = tuple(account_key(budget.name, scope, start, window) for start in starts)
        starts_ms, ends_ms = starts.start, starts_ms + (ROLLING_BUCKETS + 1) * bucket_ms
    kept = budget.window.kind != "request"
    summed = (rolling or (key,)) if kept else ()
    limits = tuple(
        (unit, limit, tuple(counter_key(of, unit) for of in summed))
        for unit in UNITS
        if (limit := budget.limit(unit)) is not None
    )
    counted = tuple(unit for unit in UNITS if unit != "concurrency" or budget.concurrency is not None)
    return Account(
        budget=budget,
        scope=tuple(scope.items()),
        key=key,
        rolling=rolling,
        starts_ms=starts_ms,
        ends_ms=ends_ms,
        valid_until_ms=valid_until_ms,
        limits=limits,
        posts=tuple((unit, counter_key(key, unit)) for unit in counted) if kept else (),
        frozen=frozen,
    )


def make_plan(ask: Ask, accounts: Iterable[Account], *, catalogue_version: int = 0) -> Plan:
    """
    The lines and postings of a call on these accounts.

    Every account is posted in tokens, money (where the price is known) and requests, so that it can be shown in each;
    lines exist for the units that it limits. Raises ValueError where a budget limits money and the price is unknown:
    the caller decides that (policy ``unpriced``) before it plans.
    """
    facts = ask.facts
    formulas = {
        "tokens": Formula(facts.input_tokens, facts.choices),
        "usd": facts.price,
        "requests": ONE,
        "concurrency": ONE,
    }
    lines: list[Line] = []
    postings: list[Posting] = []
    posted: set[str] = set()
    valid_until_ms: int | None = None
    for account in accounts:
        budget, scope, key, _, starts_ms, ends_ms, until, limits, posts, frozen = account
        ours, otherwise, advisory, spent_only = _MANNERS.get(budget.on_exceed, _HARD)
        elastic = ours if ask.ours else otherwise
        for unit, ceiling, keys in limits:
            formula = formulas[unit]
            if formula is None:
                raise ValueError(f"budget {budget.title!r} limits USD, but the call has no price")
            if spent_only:
                formula = ONE
            fields = (
                budget,
                scope,
                unit,
                keys,
                formula,
                ceiling,
                elastic,
                advisory,
                spent_only,
                starts_ms,
                ends_ms,
                frozen,
            )
            lines.append(bare(Line, fields))
        if until is not None and (valid_until_ms is None or until < valid_until_ms):
            valid_until_ms = until
        if key in posted:
            # Two terms for one account (a budget inside itself): both are checked, but it is held on once.
            continue
        posted.add(key)
        for unit, counter in posts:
            formula = formulas[unit]
            if formula is not None:
                postings.append(bare(Posting, (counter, unit, formula, unit == "concurrency", ends_ms)))
    if len(lines) > LINES_MAX:
        raise ValueError(f"{len(lines)} budget lines match one call; at most {LINES_MAX} are supported")
    return Plan(
        id=ask.id,
        facts=facts,
        lines=tuple(lines),
        postings=tuple(postings),
        x_want=ask.x_want,
        x_floor=min(ask.x_floor, ask.x_want),
        deadline_ms=ask.deadline_ms,
        catalogue_version=catalogue_version,
        valid_until_ms=valid_until_ms,
    )


_HARD = (True, False, False, False)
_MANNERS = {
    "clamp": (True, True, False, False),
    "warn": (False, False, True, False),
    "raise": (False, False, False, True),
}
"""How a mode looks at its lines: elastic under a ceiling of ours, and under the caller's; advisory; spent only."""


class LineResult(NamedTuple):
    """A line that failed (or, advisory, would have): the balance it saw and the amount that was asked."""

    line: Line
    balances: tuple[Balance, ...]
    """One per counter of the line, in its order."""
    asked: int

    @property
    def balance(self) -> Balance:
        """The sum over the line's counters."""
        settled = held = suspect = 0
        for balance in self.balances:
            settled += balance.settled
            held += balance.held
            suspect += balance.suspect
        return Balance(settled, held, suspect)


class Verdict(NamedTuple):
    """What evaluating a plan says: the granted x, or every line that failed; and what only would have."""

    x: int
    failed: tuple[LineResult, ...] = ()
    advisory: tuple[LineResult, ...] = ()


def evaluate(plan: Plan, read: Callable[[str], Balance]) -> Verdict:
    """
    The largest x that every elastic line allows while the others hold at what was asked; or all lines that fail.

    The one rule of admission, for every store. Exactly at the ceiling is allowed.
    """
    want = plan.x_want
    x = want if plan.x_most is None else plan.x_most
    floor = plan.x_floor
    failed: list[Line] | None = None
    advisory: list[Line] | None = None
    for line in plan.lines:
        used = 0
        for key in line.keys:
            settled, held, suspect = read(key)
            used += settled + suspect
            if not line.spent_only:
                used += held
        room = line.ceiling - used
        base, slope, den = line.formula
        if line.frozen:
            fits = False
        elif line.elastic and slope:
            most = (room * den - base) // slope
            fits = most >= floor
            if fits and most < x:
                x = most
        else:
            fits = -(-(base + slope * want) // den) <= room
        if not fits:
            if line.advisory:
                advisory = [*(advisory or ()), line]
            else:
                failed = [*(failed or ()), line]
    if not failed and not advisory:
        return Verdict(x)
    return Verdict(
        x,
        failed=tuple(_result(line, read, floor if line.elastic else want) for line in failed or ()),
        advisory=tuple(_result(line, read, want) for line in advisory or ()),
    )


def _result(line: Line, read: Callable[[str], Balance], x: int) -> LineResult:
    return LineResult(line, tuple(read(key) for key in line.keys), line.formula.at(x))
