"""
Holds, entries, budgets and grants as rows, and back: what is read is equal to what was written.

Text that many rows share is encoded once: the counters a hold is posted on are a *shape*, a row of its own; tags and
titles come from a small cache. Lists of integers are written with ``repr``, which is JSON for them and several times as
fast.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from operator import attrgetter
from typing import Any

from ...kernel.budget import Budget
from ...kernel.catalogue import Catalogue, Grant
from ...kernel.hold import Entry, Hold, Outcome
from ...kernel.keys import Key
from ...kernel.lending import Loan, Transfer
from ...kernel.plan import CallFacts, Formula, Posting
from ...kernel.ratios import Ratio, RatioKey
from ...kernel.usage import KINDS, Usage
from ..contract import DenialKey

FACTS = (
    "model, provider, dialect, tags, budgets, input_tokens, choices, price, price_version, bound, asked_model".split(
        ", "
    )
)
MUTABLE = ("state", "x", "deadline_ms", "changed_ms", "automatic", "outcome")
"""What becomes of a hold after it was placed; all else in its row stays."""
_HOLD = ("id", "owner", "placed_ms", "x_want", "x_floor", *MUTABLE, "entry", "shape", *FACTS, "loans")
_ENTRY = (
    *("seq", "id", "hold_id", "kind", "at_ms", "started_ms", "cost_nano", "ending", "usage_source", "suspect"),
    *("resolves_suspect", "model", "note", "overrun", "posted", "transfers", *KINDS),
)

INSERT_HOLD = f"INSERT INTO holds ({', '.join(_HOLD)}) VALUES ({', '.join('?' * len(_HOLD))})"
UPDATE_HOLD = (
    f"UPDATE holds SET {', '.join(f'{name} = ?' for name in MUTABLE)}, entry = coalesce(?, entry) WHERE id = ?"
)
INSERT_ENTRY = f"INSERT INTO entries ({', '.join(_ENTRY)}) VALUES ({', '.join('?' * len(_ENTRY))})"
UPSERT_DENIAL = (
    "INSERT INTO denials (hour_ms, budget, unit, model, provider, tags, shadow, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET count = count + excluded.count"
)
SELECT_HOLD = (
    f"SELECT {', '.join(f'holds.{name}' for name in _HOLD if name not in ('entry', 'shape'))}, shapes.body "
    "FROM holds JOIN shapes ON shapes.id = holds.shape"
)
SELECT_ENTRY = (
    f"SELECT {', '.join(f'entries.{name}' for name in _ENTRY)}, shapes.body, "
    f"{', '.join(f'holds.{name}' for name in FACTS)} "
    "FROM entries JOIN holds ON holds.id = entries.hold_id JOIN shapes ON shapes.id = holds.shape"
)

SELECT_KEY = f"SELECT {', '.join(Key._fields)} FROM keys"
UPSERT_KEY = (
    f"INSERT INTO keys ({', '.join(Key._fields)}, version) VALUES ({', '.join('?' * (len(Key._fields) + 1))}) "
    f"ON CONFLICT (id) DO UPDATE SET version = excluded.version, "
    f"{', '.join(f'{name} = excluded.{name}' for name in Key._fields[1:])}"
)

_usage_kinds = attrgetter(*KINDS)


# -- holds ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def shape_text(postings: tuple[Posting, ...]) -> str:
    """The body of a shape: ``[[key, unit, release, ends_ms], …]``."""
    return _dump(postings)


def hold_row(hold: Hold, entry_seq: int | None, shape: int) -> tuple[Any, ...]:
    """For ``INSERT_HOLD``."""
    facts = hold.facts
    return (
        hold.id,
        hold.owner,
        hold.placed_ms,
        hold.x_want,
        hold.x_floor,
        *mutable_row(hold),
        entry_seq,
        shape,
        facts.model,
        facts.provider,
        facts.dialect,
        text(facts.tags),
        text(facts.budgets),
        facts.input_tokens,
        facts.choices,
        None if facts.price is None else repr([*facts.price]),
        facts.price_version,
        facts.bound,
        facts.asked_model,
        _dump(hold.loans) if hold.loans else None,
    )


def mutable_row(hold: Hold) -> tuple[Any, ...]:
    """The values of ``MUTABLE``; with the number of a new entry (or None) and the id they are for ``UPDATE_HOLD``."""
    outcome = None if hold.outcome is None else outcome_text(hold.outcome)
    return (hold.state, hold.x, hold.deadline_ms, hold.changed_ms, int(hold.automatic), outcome)


def hold_from_row(row: Sequence[Any]) -> Hold:
    """Of ``SELECT_HOLD``."""
    hold_id, owner, placed_ms, x_want, x_floor, state, x, deadline_ms, changed_ms, automatic, outcome = row[:11]
    return Hold(
        hold_id,
        owner,
        state,
        _facts(row[11:-2]),
        _shape(row[-1]),
        x,
        x_want,
        x_floor,
        placed_ms,
        deadline_ms,
        changed_ms,
        bool(automatic),
        None if outcome is None else outcome_from_text(outcome),
        () if row[-2] is None else tuple(Loan(*loan) for loan in json.loads(row[-2])),
    )


def outcome_text(outcome: Outcome) -> str:
    """``[amounts, usage by kind, cost, ending, source, model, note]``."""
    cost = "null" if outcome.cost_nano is None else outcome.cost_nano
    model = "null" if outcome.model is None else _quote(outcome.model)
    note = "null" if outcome.note is None else _quote(outcome.note)
    usage = [*_usage_kinds(outcome.usage)]
    amounts, ending, source = _amounts_text(outcome.amounts), _quote(outcome.ending), _quote(outcome.usage_source)
    return f"[{amounts},{usage!r},{cost},{ending},{source},{model},{note}]"


def _amounts_text(amounts: tuple[tuple[str, int], ...]) -> str:
    """``[[unit, amount], …]``."""
    return f"[{','.join([f'[{_quote(unit)},{amount}]' for unit, amount in amounts])}]"


def outcome_from_text(text: str) -> Outcome:
    amounts, kinds, cost_nano, ending, usage_source, model, note = json.loads(text)
    posted = tuple((unit, amount) for unit, amount in amounts)
    return Outcome(posted, Usage(*kinds), cost_nano, ending, usage_source, model, note)


# -- entries -------------------------------------------------------------------------------------------------------


def entry_row(entry: Entry) -> tuple[Any, ...]:
    """For ``INSERT_ENTRY``."""
    usage = dict(entry.usage)
    return (
        entry.seq,
        None if entry.id == entry.hold_id else entry.id,
        entry.hold_id,
        entry.kind,
        entry.at_ms,
        entry.started_ms,
        entry.cost_nano,
        entry.ending,
        entry.usage_source,
        int(entry.suspect),
        int(entry.resolves_suspect),
        entry.model,
        entry.note,
        _dump(entry.overrun) if entry.overrun else None,
        _amounts_text(entry.posted),
        _dump(entry.transfers) if entry.transfers else None,
        *[usage.get(kind, 0) for kind in KINDS],
    )


def entry_from_row(row: Sequence[Any]) -> Entry:
    """Of ``SELECT_ENTRY``."""
    seq, entry_id, hold_id, kind, at_ms, started_ms, cost_nano, ending, source = row[:9]
    suspect, resolves_suspect, model, note, overrun, posted, transfers = row[9:16]
    counts = row[16 : 16 + len(KINDS)]
    return Entry(
        seq,
        hold_id if entry_id is None else entry_id,
        hold_id,
        kind,
        at_ms,
        started_ms,
        _facts(row[17 + len(KINDS) :]),
        tuple((name, count) for name, count in zip(KINDS, counts, strict=True) if count),
        cost_nano,
        ending,
        source,
        bool(suspect),
        () if overrun is None else tuple((unit, amount) for unit, amount in json.loads(overrun)),
        _shape(row[16 + len(KINDS)]),
        tuple((unit, amount) for unit, amount in json.loads(posted)),
        model,
        note,
        bool(resolves_suspect),
        () if transfers is None else tuple(Transfer(*transfer) for transfer in json.loads(transfers)),
    )


# -- budgets, denials, keys -------------------------------------------------------------------------------------------


def catalogue_from_rows(version: int, budgets: Sequence[Sequence[Any]], grants: Sequence[Sequence[Any]]) -> Catalogue:
    """From rows of ``name, terms, frozen`` and of ``budget … who``, in the order they were written."""
    return Catalogue(
        version,
        {name: Budget.from_dict(json.loads(terms)) for name, terms, _ in budgets},
        tuple(
            Grant(budget, unit, amount, at_ms, until_ms, pairs(scope), reason, who)
            for budget, unit, amount, at_ms, until_ms, scope, reason, who in grants
        ),
        frozenset(name for name, _, frozen in budgets if frozen),
    )


def budget_text(budget: Budget) -> str:
    return _dump(budget.to_dict())


def grant_row(grant: Grant) -> tuple[Any, ...]:
    return (*grant[:5], _dump(grant.scope), grant.reason, grant.who)


def denial_row(key: DenialKey, count: int) -> tuple[Any, ...]:
    return (*key[:5], text(key.tags), int(key.shadow), count)


def denial_from_row(row: Sequence[Any]) -> tuple[DenialKey, int]:
    hour_ms, budget, unit, model, provider, tags, shadow, count = row
    return DenialKey(hour_ms, budget, unit, model, provider, pairs(tags), bool(shadow)), count


def key_row(key: Key, version: int) -> tuple[Any, ...]:
    """For ``UPSERT_KEY``: the key as it is since this version of the ring."""
    kept = {**key._asdict(), "tags": _dump(key.tags), "budgets": _dump(key.budgets), "admin": int(key.admin)}
    return (*kept.values(), version)


def key_from_row(row: Sequence[Any]) -> Key:
    """Of ``SELECT_KEY``."""
    values = dict(zip(Key._fields, row, strict=True))
    lists = {"tags": pairs(values["tags"]), "budgets": names(values["budgets"])}
    return Key(**{**values, **lists, "admin": bool(values["admin"])})


def ratio_from_row(row: Sequence[Any]) -> tuple[RatioKey, Ratio]:
    model, dialect, milli, calls, extra = row
    return RatioKey(model, dialect), Ratio(milli, calls, extra)


# -- text ----------------------------------------------------------------------------------------------------------


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


text = lru_cache(maxsize=4096)(_dump)
"""Tags and titles, as they are kept."""


@lru_cache(maxsize=4096)
def _shape(text: str) -> tuple[Posting, ...]:
    return tuple(Posting(*posting) for posting in json.loads(text))


@lru_cache(maxsize=4096)
def pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text))


@lru_cache(maxsize=4096)
def names(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _facts(row: Sequence[Any]) -> CallFacts:
    model, provider, dialect, tags, budgets, input_tokens, choices, price, price_version, bound, asked_model = row
    return CallFacts(
        model,
        provider,
        dialect,
        pairs(tags),
        names(budgets),
        input_tokens,
        choices,
        None if price is None else Formula(*json.loads(price)),
        price_version,
        bound,
        asked_model,
    )
