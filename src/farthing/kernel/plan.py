"""
Plans: a call and its budgets, turned into a flat list of lines to check and postings to make.

::

    line      Σ balances of one unit + amount(unit, x)  ≤  ceiling
    posting   add what the call asks of each unit, for x, to this account's balances

``x`` is the number of output tokens per choice. The store grants the largest ``x`` between ``x_floor`` and ``x_want``
that satisfies every *elastic* line while every other line holds at what was asked, all or nothing. It never learns
what a month, a team or a price is: that is decided here, before.

What a call asks of a unit (:class:`CallFacts`) does not depend on its budgets, and what its budgets look at
(:class:`Frame`) does not depend on the call: a frame is made once for a set of accounts, and a plan only puts both
beside each other. Amounts are integers of their unit; rates that are not whole nano-dollars stay exact in ``base``,
``slope`` and ``den`` of a formula, and are rounded up once.

One file: what a line says is only right beside how it is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from .balances import AT, COUNTED, NONE, SPENT, UNITS, Amounts, Balance, Balances, bare
from .budget import Budget
from .lending import Loan
from .money import COUNTER_MAX
from .scope import Tags, account_key, account_keys, concrete
from .window import ROLLING_BUCKETS

LINES_MAX = 512
"""A limit on everything: more budgets than this on one call is a mistake, and is said."""


class Formula(NamedTuple):
    """What an amount is for ``x`` output tokens per choice: ``ceil((base + slope·x) / den)``."""

    base: int
    slope: int = 0
    den: int = 1

    def at(self, x: int) -> int:
        return -(-(self.base + self.slope * x) // self.den)


ONE = Formula(1)
ZERO_FORMULA = Formula(0)


@dataclass(frozen=True, slots=True)
class Line:
    """A condition, and the evidence to name when it fails."""

    budget: Budget
    scope: tuple[tuple[str, str | None], ...]
    unit: str
    keys: tuple[str, ...]
    """The accounts whose balances are summed; none for the check of one call alone."""
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
    room: int = field(init=False, repr=False, compare=False)
    """What fits into it while nothing is on its accounts: nothing at all, not even 0, where it is frozen."""
    counted: Callable[[Balances], tuple[int, ...]] = field(init=False, repr=False, compare=False)
    """What of a row takes from that room."""
    at: int = field(init=False, repr=False, compare=False)
    """Where in a call's amounts stands what must fit."""

    def __post_init__(self) -> None:
        # Where only what is spent counts, one more must be free, of whatever: as much as every call asks of requests.
        counted, of = (SPENT, "requests") if self.spent_only else (COUNTED, self.unit)
        object.__setattr__(self, "room", -1 if self.frozen else self.ceiling)
        object.__setattr__(self, "counted", counted[self.unit])
        object.__setattr__(self, "at", AT[of])


class Posting(NamedTuple):
    """An account to hold the call's amounts on."""

    key: str
    units: tuple[str, ...] | None = None
    """The units that are held on it; None: all, so that it can be shown in each."""
    ends_ms: int | None = None
    """Until when the account is kept at least: see :attr:`Account.kept_until_ms`."""


FRAMES_KEPT = 512


@lru_cache(maxsize=FRAMES_KEPT)
def ends_of(postings: tuple[Posting, ...]) -> tuple[tuple[str, int], ...]:
    """The accounts that are kept until a certain time, with it."""
    return tuple((posting.key, posting.ends_ms) for posting in postings if posting.ends_ms is not None)


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
    ceiling_ours: bool = False
    """The ceiling on its output is ours, not the caller's: every line may shrink it."""

    def formula(self, unit: str) -> Formula | None:
        """What the call can use of a unit at most, by x; None for money where the price is not known."""
        if unit == "tokens":
            return Formula(self.input_tokens, self.choices)
        return self.price if unit == "usd" else ONE

    def amounts(self, x: int) -> Amounts:
        """What to hold for ``x`` output tokens per choice; no money where the price is not known."""
        tokens = self.input_tokens + self.choices * x
        if self.price is None:
            return tokens, 0, 1, 1
        base, slope, den = self.price
        return tokens, -(-(base + slope * x) // den), 1, 1


class Ask(NamedTuple):
    """What a call asks of its budgets, before they are looked at."""

    id: str
    facts: CallFacts
    x_want: int
    x_floor: int
    """At most ``x_want``."""
    deadline_ms: int


class Frame(NamedTuple):
    """What the budgets of a call look at, and where it is held: the same for all calls on the same accounts."""

    lines: tuple[Line, ...]
    postings: tuple[Posting, ...]
    valid_until_ms: int | None
    """The end of the earliest window."""
    counts_usd: str | None
    """The title of a budget that limits money, if there is one."""


class Plan(NamedTuple):
    """
    One call's lines and postings: an ask, and a frame beside it. ``id`` names the hold, its entry and every repetition
    of either.
    """

    id: str
    facts: CallFacts
    x_want: int
    x_floor: int
    deadline_ms: int
    lines: tuple[Line, ...] = ()
    postings: tuple[Posting, ...] = ()
    valid_until_ms: int | None = None
    """After it the plan is stale, and is made again."""
    counts_usd: str | None = None
    catalogue_version: int = 0
    x_most: int | None = None
    """Grant no more than this (another ledger granted it first); lines are still checked at what was asked."""
    loans: tuple[Loan, ...] = ()
    """The parts of it that other agents' budgets carry; the ceilings of the taker's lines are higher by as much."""


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """One budget for one concrete scope and window start. Two of them are equal if they are the same object."""

    budget: Budget
    scope: tuple[tuple[str, str | None], ...]
    key: str
    rolling: tuple[str, ...]
    """The keys of all live buckets of a rolling window, the current one last; empty otherwise."""
    starts_ms: int | None
    ends_ms: int | None
    valid_until_ms: int | None
    limits: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    """For each unit that is limited: its ceiling of this instant, live grants included, and :attr:`keys`."""
    kept: bool = True
    """Calls are posted to it. Not for the check of one call alone."""
    frozen: bool = False
    valid_from_ms: int | None = None
    """Since when these are its keys and ceilings: a clock that is set back behind it leads to others."""
    keys: tuple[str, ...] = field(init=False)
    """The rows whose sum is what this account has."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", self.rolling or (self.key,))

    @property
    def kept_until_ms(self) -> int | None:
        """
        When it may be put away: as long again after its end as its window is long. A clock that ran ahead for hours and
        is put right leads back into that window, which must not begin anew.
        """
        return None if self.starts_ms is None or self.ends_ms is None else 2 * self.ends_ms - self.starts_ms

    def ceiling(self, unit: str) -> int | None:
        """The limit of this instant, live grants included; None where the unit is not limited."""
        return next((ceiling for of, ceiling, _ in self.limits if of == unit), None)

    def raised(self, granted: tuple[tuple[str, int], ...], until_ms: int | None) -> Account:
        """The same account with live grants on top of its limits, good until the first of them ends."""
        limits = tuple(
            (unit, min(COUNTER_MAX, ceiling + sum(amount for of, amount in granted if of == unit)), keys)
            for unit, ceiling, keys in self.limits
        )
        return replace(self, limits=limits, valid_until_ms=until_ms)


def open_account(budget: Budget, tags: Tags, now_ms: int, *, frozen: bool = False) -> Account:
    """The account of a budget that a call with these tags falls into at this instant."""
    scope = concrete(dict(budget.scope), budget.each, tags)
    starts_ms, ends_ms = budget.window.span(now_ms)
    window = str(budget.window)
    key = account_key(budget.name, scope, starts_ms, window)
    rolling: tuple[str, ...] = ()
    valid_from_ms, valid_until_ms = starts_ms, ends_ms
    if budget.window.kind == "rolling" and starts_ms is not None:
        bucket_ms = budget.window.bucket_ms
        starts = range(starts_ms - ROLLING_BUCKETS * bucket_ms, starts_ms + 1, bucket_ms)
        rolling = account_keys(budget.name, scope, starts, window)
        starts_ms, ends_ms = starts.start, starts_ms + (ROLLING_BUCKETS + 1) * bucket_ms
    lending = budget.lending
    if lending is not None:
        frozen = frozen or lending.ended(now_ms)
        if lending.expires_ms is not None and now_ms >= lending.expires_ms:
            valid_from_ms = lending.expires_ms
        valid_until_ms = valid_until_ms if frozen or lending.expires_ms is None else lending.expires_ms
    kept = budget.window.kind != "request"
    summed = (rolling or (key,)) if kept else ()
    limits = tuple((unit, limit, summed) for unit in UNITS if (limit := budget.limit(unit)) is not None)
    return Account(
        budget=budget,
        scope=tuple(scope.items()),
        key=key,
        rolling=rolling,
        starts_ms=starts_ms,
        ends_ms=ends_ms,
        valid_until_ms=valid_until_ms,
        limits=limits,
        kept=kept,
        frozen=frozen,
        valid_from_ms=valid_from_ms,
    )


@lru_cache(maxsize=FRAMES_KEPT)
def make_frame(accounts: tuple[Account, ...], ours: bool) -> Frame:
    """
    The lines and postings of calls on these accounts.

    Every account is posted in all units, so that it can be shown in each; lines exist for those that it limits. *ours*:
    the calls' ceiling on the output is ours, so every line may shrink it.
    """
    lines: list[Line] = []
    postings: list[Posting] = []
    posted: set[str] = set()
    valid_until_ms: int | None = None
    counts_usd: str | None = None
    for account in accounts:
        budget, until = account.budget, account.valid_until_ms
        elastic_if_ours, otherwise, advisory, spent_only = _MANNERS.get(budget.on_exceed, _HARD)
        for unit, ceiling, keys in account.limits:
            if unit == "usd":
                counts_usd = budget.title
            lines.append(
                Line(
                    budget,
                    account.scope,
                    unit,
                    keys,
                    ceiling,
                    elastic=elastic_if_ours if ours else otherwise,
                    advisory=advisory,
                    spent_only=spent_only,
                    starts_ms=account.starts_ms,
                    ends_ms=account.ends_ms,
                    frozen=account.frozen,
                )
            )
        if until is not None and (valid_until_ms is None or until < valid_until_ms):
            valid_until_ms = until
        if account.key in posted:
            # Two terms for one account (a budget inside itself): both are checked, but it is held on once.
            continue
        posted.add(account.key)
        if account.kept:
            postings.append(Posting(account.key, None, account.kept_until_ms))
    if len(lines) > LINES_MAX:
        raise ValueError(f"{len(lines)} budget lines match one call; at most {LINES_MAX} are supported")
    return Frame(tuple(lines), tuple(postings), valid_until_ms, counts_usd)


def make_plan(ask: Ask, accounts: Iterable[Account], *, catalogue_version: int = 0, x_most: int | None = None) -> Plan:
    """
    The lines and postings of a call on these accounts. *x_most*: what another ledger granted it.

    Raises ValueError where a budget limits money and the price is unknown: the caller decides that (policy
    ``unpriced``) before it plans.
    """
    facts = ask.facts
    frame = make_frame(tuple(accounts), facts.ceiling_ours)
    if frame.counts_usd is not None and facts.price is None:
        raise ValueError(f"budget {frame.counts_usd!r} limits USD, but the call has no price")
    return bare(Plan, ask + frame + (catalogue_version, x_most, ()))


def empty_plan(hold_id: str, facts: CallFacts, deadline_ms: int, *, x: int = 0, catalogue_version: int = 0) -> Plan:
    """The plan of a call that no budget is looked at for: it holds on no account."""
    return Plan(hold_id, facts, x, x, deadline_ms, catalogue_version=catalogue_version)


def spent_line(account: Account, unit: str, ceiling: int, keys: tuple[str, ...]) -> Line:
    """A line that only looks at what is spent on an account, and asks for nothing."""
    return Line(
        account.budget,
        account.scope,
        unit,
        keys,
        ceiling,
        spent_only=True,
        starts_ms=account.starts_ms,
        ends_ms=account.ends_ms,
    )


_HARD = (True, False, False, False)
_MANNERS = {
    "clamp": (True, True, False, False),
    "break": (True, True, False, False),
    "warn": (False, False, True, False),
    "raise": (False, False, False, True),
}
"""How a mode looks at its lines: elastic under a ceiling of ours, and under the caller's; advisory; spent only."""


class LineResult(NamedTuple):
    """A line that failed (or, advisory, would have): the balance it saw and the amount that was asked."""

    line: Line
    balances: tuple[Balance, ...]
    """One per key of the line, in its order."""
    asked: int
    formula: Formula
    """What was asked, by x."""
    lendable: int = 0
    """What other agents could have lent towards it."""

    @property
    def needed(self) -> int:
        """What the line wants to be free: one more, where only what is spent counts, else all that is asked."""
        return 1 if self.line.spent_only else self.asked

    @property
    def balance(self) -> Balance:
        """The sum over the line's keys."""
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
    amounts: Amounts = NONE
    """What to hold for it."""


def evaluate(plan: Plan, read: Callable[[str], Balances]) -> Verdict:
    """
    The largest x that every elastic line allows while the others hold at what was asked; or all lines that fail.

    The one rule of admission, for every store. Exactly at the ceiling is allowed.
    """
    want, facts = plan.x_want, plan.facts
    x = want if plan.x_most is None else plan.x_most
    asked = facts.amounts(want)
    short: list[Line] = []
    for line in plan.lines:
        room, counted = line.room, line.counted
        for key in line.keys:
            room -= sum(counted(read(key)))
        if asked[line.at] <= room:
            continue
        if line.elastic and not line.frozen:
            base, slope, den = facts.formula(line.unit) or ZERO_FORMULA
            if slope:
                most = (room * den - base) // slope
                if most >= plan.x_floor:
                    x = min(x, most)
                    continue
        short.append(line)
    if short:
        return _explained(plan, read, x, short)
    return bare(Verdict, (x, (), (), asked if x == want else facts.amounts(x)))


def _explained(plan: Plan, read: Callable[[str], Balances], x: int, short: list[Line]) -> Verdict:
    """The verdict with what the lines saw that it does not fit into."""
    want, floor, facts = plan.x_want, plan.x_floor, plan.facts
    return Verdict(
        x,
        tuple(line_result(line, facts, read, floor if line.elastic else want) for line in short if not line.advisory),
        tuple(line_result(line, facts, read, want) for line in short if line.advisory),
        facts.amounts(x),
    )


def line_result(line: Line, facts: CallFacts, read: Callable[[str], Balances], x: int) -> LineResult:
    """A line with the balances it sees, and what ``x`` output tokens per choice ask of it."""
    formula = facts.formula(line.unit) or ZERO_FORMULA
    return LineResult(line, tuple(read(key).of(line.unit) for key in line.keys), formula.at(x), formula)
