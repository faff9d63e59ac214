"""
An independent model of a ledger: what the budgets mean, written the slow and obvious way.

It knows nothing of lines, formulas, postings or changes. Holds are rows in a list; every balance is computed by going
through all of them; the largest number of output tokens is found by trying each. It shares no code with the kernel
but the records that go in and come out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
ROLLING_MS = 60_000
BUCKET_MS = 5_000
GRACE_MS = HOUR_MS

Key = tuple[str, tuple[tuple[str, str | None], ...], str, str]
"""Budget, scope, start of the window (or of the rolling window's bucket), unit."""


@dataclass
class Terms:
    """A budget. ``per``: lifetime, minute, day, rolling 60s or request."""

    name: str
    limits: dict[str, int]
    per: str
    each: tuple[str, ...]
    mode: str
    frozen: bool = False
    grants: list[Raise] = field(default_factory=list)

    def scope(self, tags: dict[str, str]) -> tuple[tuple[str, str | None], ...]:
        return tuple((name, tags.get(name)) for name in self.each)

    def start(self, now: int) -> int | None:
        """Of the window that a call now is posted to."""
        step = {"minute": MINUTE_MS, "day": DAY_MS, "rolling 60s": BUCKET_MS}.get(self.per)
        return None if step is None else now - now % step

    def window(self, start: int | None) -> str:
        """How an account of it names the window that begins at *start*: other windows may begin there too."""
        return "" if start is None else f"{start} {self.per}"

    def end(self, start: int | None) -> int | None:
        """When the window that begins at *start* no longer counts."""
        step = {"minute": MINUTE_MS, "day": DAY_MS, "rolling 60s": ROLLING_MS + BUCKET_MS}.get(self.per)
        return None if step is None or start is None else start + step

    def changes_at(self, now: int, tags: dict[str, str] | None = None) -> int | None:
        """When a plan made now is no longer good: of a call with these tags, if they are given, or of any."""
        step = {"minute": MINUTE_MS, "day": DAY_MS, "rolling 60s": BUCKET_MS}.get(self.per)
        ends = [] if step is None else [now - now % step + step]
        if tags is None or any(self.applies(grant, tags, now) for grant in self.grants):
            ends += [grant.until for grant in self.grants if grant.until is not None and grant.until > now]
        return min(ends, default=None)

    def applies(self, grant: Raise, tags: dict[str, str], now: int) -> bool:
        """Whether a grant raises the limit of the account that a call with these tags falls into now."""
        start = self.start(now) if self.per != "rolling 60s" else 0
        return (
            (grant.until is None or now < grant.until)
            and grant.at >= (start or 0)
            and all(tags.get(name) == value for name, value in grant.scope)
        )

    def ceiling(self, unit: str, tags: dict[str, str], now: int) -> int:
        return self.limits[unit] + sum(
            grant.amount for grant in self.grants if grant.unit == unit and self.applies(grant, tags, now)
        )


@dataclass
class Raise:
    """A grant."""

    unit: str
    amount: int
    at: int
    until: int | None
    scope: tuple[tuple[str, str], ...]


@dataclass
class Call:
    """What a call asks."""

    id: str
    tags: dict[str, str]
    budgets: tuple[str, ...]
    input_tokens: int
    choices: int
    price: tuple[int, int, int] | None
    """(base + slope·x) / den nano-dollars."""
    want: int
    floor: int
    ours: bool

    def amount(self, unit: str, x: int) -> int:
        if unit == "tokens":
            return self.input_tokens + self.choices * x
        if unit == "usd":
            assert self.price is not None
            base, slope, den = self.price
            return ceil(Fraction(base + slope * x, den))
        return 1

    def units(self) -> tuple[str, ...]:
        return ("tokens", "requests") if self.price is None else ("tokens", "usd", "requests")


@dataclass
class Row:
    """A hold, and what became of it."""

    call: Call
    x: int
    placed: int
    deadline: int
    changed: int
    keys: dict[Key, str]
    """Every counter it was posted to, with its unit."""
    ends: dict[Key, int]
    """Of those counters that have one: the end of their window."""
    state: str = "held"
    automatic: bool = False
    said: dict[str, int] | None = None
    """What its call said that it cost, by unit; a void that was never tried says nothing."""
    verb: str | None = None
    """The call's own verb: settle or void."""
    settled: dict[str, int] = field(default_factory=dict)
    """What is settled for it now, by unit."""
    rows: int = 0
    """Ledger rows that it must have."""
    usage: dict[str, int] = field(default_factory=dict)
    """What all its rows must add up to: input, output."""
    cost: int | None = 0

    def held(self, unit: str) -> int:
        return self.call.amount(unit, self.x)

    @property
    def live(self) -> bool:
        return self.state in ("held", "suspect")


@dataclass
class Failed:
    """A limit that a call would pass."""

    budget: str
    unit: str
    limit: int
    settled: int
    held: int
    suspect: int
    asked: int


class Model:
    """All budgets and all holds."""

    def __init__(self) -> None:
        self.budgets: dict[str, Terms] = {}
        self.rows: dict[str, Row] = {}

    # -- balances ------------------------------------------------------------------------------------------------

    def balance(self, key: Key) -> tuple[int, int, int]:
        """Settled, held, suspect."""
        settled = held = suspect = 0
        for row in self.rows.values():
            unit = row.keys.get(key)
            if unit is None:
                continue
            if unit != "concurrency":
                settled += row.settled.get(unit, 0)
            if row.state == "held":
                held += row.held(unit)
            elif row.state == "suspect" and unit != "concurrency":
                suspect += row.held(unit)
        return settled, held, suspect

    def balances(self) -> dict[Key, tuple[int, int, int]]:
        keys = {key for row in self.rows.values() for key in row.keys}
        return {key: self.balance(key) for key in keys}

    def may_be_gone(self, key: Key, now: int) -> bool:
        """A counter that a store may have put away: its window is long over, and nothing can change it any more."""
        users = [row for row in self.rows.values() if key in row.keys]
        return all(
            key in row.ends and row.ends[key] + GRACE_MS <= now and not row.live and not row.automatic for row in users
        )

    # -- admission -----------------------------------------------------------------------------------------------

    def keys(self, call: Call, now: int) -> tuple[dict[Key, str], dict[Key, int]]:
        """The counters that a call now is posted to."""
        keys: dict[Key, str] = {}
        ends: dict[Key, int] = {}
        for name in call.budgets:
            terms = self.budgets[name]
            if terms.per == "request":
                continue
            for unit in (*call.units(), "concurrency"):
                key = (name, terms.scope(call.tags), terms.window(terms.start(now)), unit)
                keys[key] = unit
                end = terms.end(terms.start(now))
                if end is not None:
                    ends[key] = end
        return keys, ends

    def used(self, terms: Terms, unit: str, tags: dict[str, str], now: int) -> tuple[int, int, int]:
        """What counts against a limit now."""
        if terms.per == "request":
            return 0, 0, 0
        start = terms.start(now)
        starts: list[int | None] = [start]
        if terms.per == "rolling 60s" and start is not None:
            starts = [start - back * BUCKET_MS for back in range(13)]
        found = [self.balance((terms.name, terms.scope(tags), terms.window(at), unit)) for at in starts]
        return sum(b[0] for b in found), sum(b[1] for b in found), sum(b[2] for b in found)

    def admit(self, call: Call, now: int) -> tuple[int | None, list[Failed], list[Failed]]:
        """The largest x that may be granted (None: refused), what refuses it, and what only would have."""
        failed: list[Failed] = []
        shadow: list[Failed] = []
        shrinking: list[tuple[str, int]] = []
        for name in call.budgets:
            terms = self.budgets[name]
            for unit in terms.limits:
                limit = terms.ceiling(unit, call.tags, now)
                settled, held, suspect = self.used(terms, unit, call.tags, now)
                if terms.mode == "raise":
                    # It looks at what is spent; what the call would come to is only said.
                    asked = call.amount(unit, call.want)
                    passes = settled + suspect < limit
                else:
                    elastic = terms.mode == "clamp" or (call.ours and terms.mode == "block")
                    asked = call.amount(unit, call.floor if elastic else call.want)
                    passes = settled + held + suspect + asked <= limit
                    if elastic:
                        shrinking.append((unit, limit - settled - held - suspect))
                if terms.frozen:
                    passes = False
                if not passes:
                    evidence = Failed(name, unit, limit, settled, held, suspect, asked)
                    (shadow if terms.mode == "warn" else failed).append(evidence)
        if failed:
            return None, failed, shadow
        for x in range(call.want, call.floor - 1, -1):
            if all(call.amount(unit, x) <= room for unit, room in shrinking):
                return x, [], shadow
        raise AssertionError("every limit lets the least through, so some x does")

    def placed_within(self, name: str, unit: str, tags: dict[str, str], now: int) -> int:
        """What calls placed within the last 60 seconds, to the millisecond, count for on a rolling budget."""
        terms, total = self.budgets[name], 0
        for row in self.rows.values():
            for key, of in row.keys.items():
                mine = key[0] == name and key[1] == terms.scope(tags) and of == unit
                if mine and now - ROLLING_MS < row.placed <= now:
                    total += row.settled.get(unit, 0) + (row.held(unit) if row.live else 0)
        return total

    # -- endings -------------------------------------------------------------------------------------------------

    def end(self, row: Row, *, state: str, verb: str | None, said: dict[str, int] | None, now: int) -> None:
        """The call's own word, or (no verb) a policy's."""
        first_word = row.state == "held"
        row.state, row.changed = state, now
        row.automatic = verb is None
        row.verb, row.said = verb, said
        amounts = said or {}
        row.settled = {unit: amounts.get(unit, 0) for unit in row.call.units()}
        if not first_word or said is not None:
            row.rows += 1
            row.usage = {"input": amounts.get("input", 0), "output": amounts.get("output", 0)}
            row.cost = amounts.get("usd", 0) if row.call.price is not None else None

    def assume(self, row: Row) -> dict[str, int]:
        """A call whose outcome is unknown counts as all that was held."""
        assumed = {unit: row.held(unit) for unit in row.call.units()}
        return {**assumed, "input": row.call.input_tokens, "output": row.call.choices * row.x}

    def lose(self, row: Row, now: int) -> None:
        assumed = self.assume(row)
        row.state, row.changed = "suspect", now
        row.rows += 1
        row.usage = {"input": assumed["input"], "output": assumed["output"]}
        row.cost = assumed.get("usd") if row.call.price is not None else None
