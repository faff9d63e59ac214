"""
Holds, entries, budgets and grants as rows, and back: what is read is equal to what was written.

What rows share is written once: the accounts a hold is posted on are a *shape*, a row of its own; what a call said at
its end stands in its entry, and in its hold only where a correction followed. Tags and titles come from a small cache.
Lists of integers are written with ``repr``, which is JSON for them and several times as fast.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from typing import Any

from ...kernel.balances import Amounts, bare
from ...kernel.budget import Budget
from ...kernel.catalogue import Catalogue, Grant
from ...kernel.hold import Entry, Hold, Outcome
from ...kernel.keys import Key
from ...kernel.lending import Loan, Transfer
from ...kernel.plan import CallFacts, Formula, Posting
from ...kernel.ratios import Ratio, RatioKey
from ...kernel.tallies import Tally, TallyKey
from ...kernel.usage import KINDS, Usage
from ..contract import DenialKey

BUDGETS_KEPT = 65_536
"""A catalogue is read whole at every change of it, and may have a budget for every user."""

FACTS = (
    *("model", "provider", "dialect", "tags", "budgets", "input_tokens", "choices", "price", "price_version", "bound"),
    *("asked_model", "ceiling_ours"),
)
MUTABLE = ("state", "x", "deadline_ms", "changed_ms", "automatic", "outcome", "entry")
"""What becomes of a hold after it was placed; all else in its row stays."""
_HOLD = ("id", "owner", "placed_ms", "x_want", "x_floor", *MUTABLE, "shape", *FACTS, "loans")
_ENTRY = (
    *("seq", "id", "hold_id", "kind", "at_ms", "started_ms", "cost_nano", "ending", "usage_source", "suspect"),
    *("resolves_suspect", "model", "note", "overrun", "posted", "transfers", *KINDS),
)
_DENIAL = (*DenialKey._fields, "count")
TALLIED = (*TallyKey._fields, *Tally._fields[:-1], *KINDS)
"""The columns of a tally."""

Written = tuple[str, tuple[Any, ...]]
"""A statement, and the values of one row for it."""


def _insert(table: str, columns: Iterable[str]) -> str:
    names = list(columns)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


_SELDOM_OF_HOLD = ("outcome", "entry", "asked_model", "loans")
_SELDOM_OF_ENTRY = ("id", "model", "note", "overrun", "transfers")
"""Columns that are mostly empty, and left out then: ``sqlite3`` takes longer over a NULL than over four numbers."""
_PLAIN_HOLD = [name for name in _HOLD if name not in _SELDOM_OF_HOLD]
_PLAIN_ENTRY = [name for name in _ENTRY if name not in _SELDOM_OF_ENTRY]
_INSERT_PLAIN_HOLD = _insert("holds", _PLAIN_HOLD)
_INSERT_HOLD = _insert("holds", (*_PLAIN_HOLD, *_SELDOM_OF_HOLD))
_INSERT_PLAIN_ENTRY = _insert("entries", _PLAIN_ENTRY)
_INSERT_ENTRY = _insert("entries", (*_PLAIN_ENTRY, *_SELDOM_OF_ENTRY))
_UPDATE_HOLD = f"UPDATE holds SET {', '.join(f'{name} = ?' for name in MUTABLE)} WHERE id = ?"
SELECT_DENIAL = f"SELECT {', '.join(_DENIAL)} FROM denials"
UPSERT_DENIAL = (
    f"INSERT INTO denials ({', '.join(_DENIAL)}) VALUES ({', '.join('?' * len(_DENIAL))}) "
    "ON CONFLICT DO UPDATE SET count = count + excluded.count"
)
_SAID = ("posted", "cost_nano", "ending", "usage_source", "model", "note", *KINDS)
"""The columns of an entry that are its call's own word."""
SELECT_HOLD = (
    f"SELECT {', '.join(f'holds.{name}' for name in _HOLD if name != 'shape')}, shapes.body, "
    f"{', '.join(f'said.{name}' for name in _SAID)} FROM holds JOIN shapes ON shapes.id = holds.shape "
    "LEFT JOIN entries AS said ON said.seq = holds.entry AND holds.outcome IS NULL AND NOT holds.automatic "
    "AND holds.state IN ('settled', 'voided')"
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


# -- holds ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def shape_text(postings: tuple[Posting, ...]) -> str:
    """The body of a shape: ``[[key, units, ends_ms], …]``."""
    return _dump(postings)


def placed_row(hold: Hold, entry: Entry | None, shape: int) -> Written:
    """A hold that is not in the file yet."""
    hold_id, owner, facts, _, loans, want, floor, placed, x, _, due, changed, state, automatic, outcome, seq = hold
    model, provider, dialect, tags, budgets, input_tokens, choices, price, version, bound, asked, ours = facts
    plain = (
        hold_id,
        owner,
        placed,
        want,
        floor,
        state,
        x,
        due,
        changed,
        int(automatic),
        shape,
        model,
        provider,
        dialect,
        text(tags),
        text(budgets),
        input_tokens,
        choices,
        None if price is None else repr([*price]),
        version,
        bound,
        int(ours),
    )
    if outcome is None and entry is None and asked is None and not loans:
        return _INSERT_PLAIN_HOLD, plain
    said = None if outcome is None else _said(outcome, entry)
    return _INSERT_HOLD, (*plain, said, seq, asked, _dump(loans) if loans else None)


def changed_row(hold: Hold, entry: Entry | None) -> Written:
    """The hold as it is now, and the entry that says so, if there is a new one."""
    return _UPDATE_HOLD, (*mutable_row(hold, entry), hold.id)


def mutable_row(hold: Hold, entry: Entry | None = None) -> tuple[Any, ...]:
    """The values of ``MUTABLE``."""
    said = None if hold.outcome is None else _said(hold.outcome, entry)
    return (hold.state, hold.x, hold.deadline_ms, hold.changed_ms, int(hold.automatic), said, hold.entry)


def _said(outcome: Outcome, entry: Entry | None) -> str | None:
    """The outcome of a hold. It is left to its new entry where that says the same."""
    return None if entry is not None and entry.kind != "correction" else outcome_text(outcome)


def hold_from_row(row: Sequence[Any]) -> Hold:
    """Of ``SELECT_HOLD``."""
    hold_id, owner, placed_ms, x_want, x_floor, state, x, deadline_ms, changed_ms, automatic, outcome, seq = row[:12]
    *of_call, loans, shape = row[12 : -len(_SAID)]
    facts = _facts(of_call)
    return Hold(
        hold_id,
        owner,
        facts,
        _shape(shape),
        () if loans is None else tuple(Loan(*loan) for loan in json.loads(loans)),
        x_want,
        x_floor,
        placed_ms,
        x,
        facts.amounts(x),
        deadline_ms,
        changed_ms,
        state,
        bool(automatic),
        _outcome_from_entry(row[-len(_SAID) :]) if outcome is None else outcome_from_text(outcome),
        seq,
    )


def outcome_text(outcome: Outcome) -> str:
    """``[amounts, usage by kind, cost, ending, source, model, note]``."""
    cost = "null" if outcome.cost_nano is None else outcome.cost_nano
    model = "null" if outcome.model is None else _quote(outcome.model)
    note = "null" if outcome.note is None else _quote(outcome.note)
    usage = [*outcome.usage]
    amounts, ending, source = _amounts_text(outcome.amounts), _quote(outcome.ending), _quote(outcome.usage_source)
    return f"[{amounts},{usage!r},{cost},{ending},{source},{model},{note}]"


def _amounts_text(amounts: Amounts) -> str:
    """What is settled, as ``[[unit, amount], …]``."""
    tokens, usd, requests, _ = amounts
    return f'[["tokens",{tokens}],["usd",{usd}],["requests",{requests}]]'


def _amounts(pairs: list[list[Any]]) -> Amounts:
    """The inverse; a unit that is missing is 0."""
    by_unit: dict[str, int] = dict(map(tuple, pairs))
    return by_unit.get("tokens", 0), by_unit.get("usd", 0), by_unit.get("requests", 0), 0


def outcome_from_text(text: str) -> Outcome:
    amounts, kinds, *rest = json.loads(text)
    return _outcome(amounts, kinds, *rest)


def _outcome_from_entry(said: Sequence[Any]) -> Outcome | None:
    """Of ``_SAID``; None where there is no such entry."""
    posted, cost_nano, ending, usage_source, model, note, *kinds = said
    if posted is None:
        return None
    return _outcome(json.loads(posted), kinds, cost_nano, ending, usage_source, model, note)


def _outcome(amounts: list[list[Any]], kinds: Sequence[int], *rest: Any) -> Outcome:
    # Not checked again: those of a correction are differences.
    return Outcome(_amounts(amounts), bare(Usage, kinds), *rest)


# -- entries -------------------------------------------------------------------------------------------------------


def entry_row(entry: Entry) -> Written:
    seq, entry_id, hold_id, kind, at_ms, started_ms, _, _, said, overrun, suspect, resolves_suspect, transfers = entry
    posted, usage, cost_nano, ending, source, model, note = said
    plain = (
        seq,
        hold_id,
        kind,
        at_ms,
        started_ms,
        cost_nano,
        ending,
        source,
        int(suspect),
        int(resolves_suspect),
        _amounts_text(posted),
        *usage,
    )
    own_id = None if entry_id == hold_id else entry_id
    if own_id is None and model is None and note is None and not overrun and not transfers:
        return _INSERT_PLAIN_ENTRY, plain
    beyond = _dump(overrun) if overrun else None
    return _INSERT_ENTRY, (*plain, own_id, model, note, beyond, _dump(transfers) if transfers else None)


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
        _shape(row[16 + len(KINDS)]),
        _outcome(json.loads(posted), counts, cost_nano, ending, source, model, note),
        () if overrun is None else tuple((unit, amount) for unit, amount in json.loads(overrun)),
        bool(suspect),
        bool(resolves_suspect),
        () if transfers is None else tuple(Transfer(*transfer) for transfer in json.loads(transfers)),
    )


# -- budgets, denials, keys -------------------------------------------------------------------------------------------


def catalogue_from_rows(version: int, budgets: Sequence[Sequence[Any]], grants: Sequence[Sequence[Any]]) -> Catalogue:
    """From rows of ``name, terms, frozen`` and of ``budget … who``, in the order they were written."""
    return Catalogue(
        version,
        {name: _budget(terms) for name, terms, _ in budgets},
        tuple(
            Grant(budget, unit, amount, at_ms, until_ms, pairs(scope), reason, who)
            for budget, unit, amount, at_ms, until_ms, scope, reason, who in grants
        ),
        frozenset(name for name, _, frozen in budgets if frozen),
    )


@lru_cache(maxsize=BUDGETS_KEPT)
def _budget(text: str) -> Budget:
    """One that others have not changed is the one that is known."""
    return Budget.from_dict(json.loads(text))


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
    return tuple(
        Posting(key, None if units is None else tuple(units), ends_ms) for key, units, ends_ms in json.loads(text)
    )


@lru_cache(maxsize=4096)
def pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text))


@lru_cache(maxsize=4096)
def names(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _facts(row: Sequence[Any]) -> CallFacts:
    model, provider, dialect, tags, budgets, input_tokens, choices, price, version, bound, asked, ours = row
    return CallFacts(
        model,
        provider,
        dialect,
        pairs(tags),
        names(budgets),
        input_tokens,
        choices,
        None if price is None else Formula(*json.loads(price)),
        version,
        bound,
        asked,
        bool(ours),
    )
