"""
A month of calls, from a stated distribution and a seed: what reports and replays are measured on.

30 days from 2026-10-01. The hour of a call follows a working day (four fifths of the calls between 8 and 18 UTC, a
third as many at weekends). Forty users in five teams, user and feature by Zipf's law (weight 1/rank); six models by
weight; input tokens log-normal around 900, output around 250, a tenth of the input cached. One call in a hundred is
refused by its provider, one in two hundred ends unknown (suspect), one in five hundred has no known price. Every call
has the tags ``team user feature``, asks for about twice the output that it uses, and is held on ``company``, and on the
budgets of its team and of its user.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, groupby
from typing import Any, NamedTuple

from farthing.kernel.budget import make_budget
from farthing.kernel.hold import Outcome
from farthing.kernel.plan import Ask, CallFacts, Formula, make_plan
from farthing.kernel.usage import Usage
from farthing.stores.contract import Store, Ticket

START_MS = 1_790_812_800_000
"""2026-10-01 00:00 UTC."""
DAYS = 30
DAY_MS = 86_400_000
CEILING_STEP = 256
"""Programs ask for round numbers of tokens."""
STEP_MS = 600_000
"""Calls are written in steps of ten minutes: all of one step at once."""
TEAMS = ("search", "support", "research", "growth", "platform")
FEATURES = ("answer", "summarise", "classify", "rerank", "draft", "translate", "extract", "moderate")
MODELS = (  # name, provider, weight, nano-dollars per input token and per output token
    ("gpt-4o-mini", "openai", 40, 150, 600),
    ("gpt-4o", "openai", 20, 2_500, 10_000),
    ("claude-sonnet-4-5", "anthropic", 16, 3_000, 15_000),
    ("claude-haiku-4-5", "anthropic", 12, 1_000, 5_000),
    ("gemini-2.5-flash", "google", 9, 300, 2_500),
    ("text-embedding-3-small", "openai", 3, 20, 0),
)
USERS = 40


class Past(NamedTuple):
    """One call of the month."""

    at_ms: int
    facts: CallFacts
    outcome: Outcome


class Clock:
    """The store's clock while the month is written."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


def calls(number: int, *, seed: int = 20_261_122) -> list[Past]:
    """The calls of the month, in order."""
    rng = random.Random(seed)
    instants = sorted(_instant(rng) for _ in range(number))
    return [_call(rng, at_ms) for at_ms in instants]


def write(store: Store, clock: Clock, number: int, *, progress: Callable[[int], Any] = lambda done: None) -> None:
    """Write the month into a store that goes by *clock*. Held and settled at once, through the store's own verbs."""
    for budget in (
        make_budget("company", usd=1_000_000, per="month", standing=True),
        make_budget("each-team", usd=500_000, per="month", each=["team"], standing=True),
        make_budget("each-user", tokens=10**12, per="day", each=["user"], standing=True),
    ):
        store.put_budget(budget).result()
    catalogue = store.catalogue().result()
    done = 0
    for at_ms, step in groupby(calls(number), key=lambda past: past.at_ms - past.at_ms % STEP_MS):
        clock.now_ms = at_ms
        tickets: list[Ticket[Any]] = []
        for past in step:
            tags = dict(past.facts.tags)
            accounts = [catalogue.account(budget, tags, at_ms) for budget in catalogue.budgets.values()]
            if past.facts.price is None:  # as unpriced="tokens_only" does
                accounts = [replace(account, limits=()) for account in accounts]
            call_id = f"call-{done:07}"
            want = CEILING_STEP * (1 + 2 * past.outcome.usage.output // CEILING_STEP)
            ask = Ask(call_id, past.facts, want, 1, at_ms + 60_000)
            plan = make_plan(ask, accounts, catalogue_version=catalogue.version)
            if past.outcome.ending == "timeout":
                tickets.append(store.place(plan))
                tickets.append(store.suspect(call_id, ending="timeout"))
            else:
                tickets.append(store.record(plan, past.outcome))
            done += 1
        for ticket in tickets:
            ticket.result()
        progress(done)
    clock.now_ms = START_MS + DAYS * DAY_MS


def _instant(rng: random.Random) -> int:
    while True:
        day = rng.randrange(DAYS)
        weekend = (day + 3) % 7 in (5, 6)  # 2026-10-01 is a Thursday
        if weekend and rng.random() > 1 / 3:
            continue
        hour = rng.randrange(8, 18) if rng.random() < 0.8 else rng.randrange(24)
        return START_MS + day * DAY_MS + hour * 3_600_000 + rng.randrange(3_600_000)


def _call(rng: random.Random, at_ms: int) -> Past:
    user = _zipf(rng, USERS)
    name, provider, _, input_rate, output_rate = rng.choices(MODELS, weights=[of[2] for of in MODELS])[0]
    tags = (("team", TEAMS[user % 5]), ("user", f"user-{user:03}"), ("feature", FEATURES[_zipf(rng, 8)]))
    fresh = max(1, round(rng.lognormvariate(6.8, 0.9)))
    output = 0 if not output_rate else max(1, round(rng.lognormvariate(5.5, 0.8)))
    cached = fresh // 10 if rng.random() < 0.5 else 0
    usage = Usage(input=fresh - cached, cached=cached, output=output)
    cost = fresh * input_rate + output * output_rate
    price: Formula | None = Formula(fresh * input_rate, output_rate)
    fate = rng.random()
    outcome = Outcome((usage.total_tokens, cost, 1, 0), usage, cost)
    if fate < 0.01:
        outcome = Outcome((0, 0, 1, 0), cost_nano=0, ending="http_429")
    elif fate < 0.015:
        outcome = outcome._replace(ending="timeout")
    elif fate < 0.017:
        name, price = "our-own-model", None
        outcome = Outcome((usage.total_tokens, 0, 1, 0), usage, None)
    facts = CallFacts(
        model=name,
        provider=provider,
        dialect="openai.chat",
        tags=tags,
        budgets=("company", "each-team", "each-user"),
        input_tokens=usage.input_tokens,
        price=price,
        price_version="bench",
    )
    return Past(at_ms, facts, outcome)


_WEIGHTS: dict[int, list[float]] = {}


def _zipf(rng: random.Random, number: int) -> int:
    weights = _WEIGHTS.setdefault(number, [*accumulate(1 / rank for rank in range(1, number + 1))])
    return rng.choices(range(number), cum_weights=weights)[0]
