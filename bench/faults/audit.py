"""
Afterwards: every call's answer, its provider's bill and its entry on the ledger, held against each other and against
what its kind allows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from farthing.kernel.balances import UNITS, ZERO
from farthing.kernel.hold import HELD, SUSPECT, Entry
from farthing.kernel.ledger import replay
from farthing.reports.accounts import list_accounts
from farthing.stores import open_store
from farthing.stores.contract import Store

from ..proxy.load import COMPLETION_TOKEN_NANO, PROMPT_TOKEN_NANO
from .mix import COUNTED, EXACT, NONE, NOTHING, UNKNOWN, UNSENT, VOID, Call, Kind

_ROWS = 5_000


class Books(NamedTuple):
    """What the ledger says when all is over."""

    entries: dict[str, list[Entry]]
    """By the call's name."""
    nameless: int
    """Entries of no call of ours."""
    held: int
    """Holds of calls that are over."""
    amounts_held: int
    """What is held on accounts, whatever the unit."""
    suspects: int
    """Suspect holds."""
    denials: int
    off: int
    """Counters that are not what the journal adds up to."""
    over: int
    """Accounts with more than their limit."""


class Found(NamedTuple):
    """One kind of call, and how it went."""

    kind: Kind
    calls: int
    answers: Counter[str]
    entries: Counter[str]
    wrong: list[str]


class Sums(NamedTuple):
    """Over all calls."""

    heard: int
    exact: int
    unknown: int
    misfortunes: int
    """Calls of any kind that met a kept connection as it was ended: unknown, or not sent."""


def read_books(ledger: str) -> Books:
    """From the file, whoever else has it open."""
    with closing(open_store(ledger)) as store:
        entries: dict[str, list[Entry]] = defaultdict(list)
        nameless = 0
        for entry in _entries(store):
            name = dict(entry.facts.tags).get("call")
            if name is None:
                nameless += 1
            else:
                entries[name].append(entry)
        balances = store.balances().result()
        before, rows, holds = store.journal().result()
        should = replay(dict(before), rows, holds)
        off = sum(should.get(key, ZERO) != balances.get(key, ZERO) for key in {*should, *balances})
        states = Counter(hold.state for hold in holds)
        return Books(
            dict(entries),
            nameless,
            states[HELD],
            sum(row.of(unit).held for row in balances.values() for unit in UNITS),
            states[SUSPECT],
            sum(store.denials().result().values()),
            off,
            sum(unit.overrun > 0 for of in list_accounts(store) for account in of.accounts for unit in account.units),
        )


def _entries(store: Store) -> Iterator[Entry]:
    seq = 0
    while rows := store.entries(after_seq=seq, limit=_ROWS).result():
        yield from rows
        seq = rows[-1].seq


def entry_of(rows: Sequence[Entry]) -> str:
    """What the ledger says of a call, in the words of :mod:`.mix`."""
    if not rows:
        return NONE
    entry = rows[0]
    if entry.suspect:
        return UNKNOWN
    if not entry.cost_nano and not entry.tokens("input", "output"):
        return VOID if any(entry.said.amounts) else UNSENT
    return EXACT if entry.usage_source == "provider" else COUNTED


def billed_nano(call: Call) -> int:
    return call.billed_prompt * PROMPT_TOKEN_NANO + call.billed_output * COMPLETION_TOKEN_NANO


def audit(calls: Iterable[Call], books: Books) -> tuple[list[Found], Sums]:
    """Each call by itself; the kinds in the order in which they came."""
    found: dict[str, Found] = {}
    heard = exact = unknown = misfortunes = 0
    for call in calls:
        rows = books.entries.get(call.name, [])
        said = entry_of(rows)
        of = found.get(call.kind.name)
        if of is None:
            of = found[call.kind.name] = Found(call.kind, 0, Counter(), Counter(), [])
        of.answers[call.answer] += 1
        of.entries[said] += 1
        heard += call.heard
        exact += said == EXACT
        unknown += said == UNKNOWN
        unlucky = _met_an_end(call, said, rows)
        misfortunes += unlucky
        of.wrong.extend(f"{call.name}: {what}" for what in _wrong(call, said, rows, unlucky=unlucky))
    counted = [of._replace(calls=of.answers.total()) for of in found.values()]
    return counted, Sums(heard, exact, unknown, misfortunes)


def _met_an_end(call: Call, said: str, rows: Sequence[Entry]) -> bool:
    """
    Whether it was written to a kept connection that the provider was just ending: the provider never had it in hand,
    and where its system had taken some of it, nobody on this side can know that.
    """
    if call.kind.free:
        # The ledger has no row of it: that its provider never had it in hand is all there is to go by.
        return not call.heard and call.answer == "502" and call.answer not in call.kind.answers
    if call.heard or said not in (UNKNOWN, UNSENT) or (said == UNSENT and said in call.kind.entries):
        return False
    return rows[0].ending in ("connection_lost", "connect_error", "client_gone") and call.answer in ("502", NOTHING)


def _wrong(call: Call, said: str, rows: Sequence[Entry], *, unlucky: bool) -> Iterator[str]:
    if call.wrong:
        yield call.wrong
    if call.heard > 1:
        yield f"the provider had it {call.heard} times"
    if len(rows) > 1 or (call.heard and not rows and not call.kind.free):
        yield f"{len(rows)} entries"
    if unlucky:
        return
    why = f"{rows[0].ending}: {rows[0].note}" if rows else "no row"
    if call.answer not in call.kind.answers:
        yield f"answered {call.answer!r} ({why})"
    if said not in call.kind.entries:
        yield f"the ledger says {said!r} ({why})"
    billed = billed_nano(call)
    if not rows:
        return
    cost = rows[0].cost_nano or 0
    if said == EXACT and cost != billed:
        yield f"costs {cost}, billed {billed}"
    if cost < billed:
        yield f"costs {cost}, less than the {billed} that were billed"
    if rows[0].overrun:
        yield f"overrun {rows[0].overrun}"
