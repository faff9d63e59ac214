"""
The rules of the ledger, as a pure state machine: books and a command in, an answer and a change out.

A store reads through :class:`Books`, and applies the :class:`Change` it is given all or nothing. It decides nothing.
Every rule of what a hold may become lives here, once, for every store:

- a hold touches all its accounts or none, and resolves exactly once;
- repeating a command with the same id returns the first answer; the same id with another body is a HoldConflict;
- after an automatic end of a suspect hold, exactly one late truth from its call is still accepted;
- a balance is never negative.

One file, because these rules only make sense beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import add, sub
from typing import Any, NamedTuple, NoReturn, Protocol

from ..errors import HoldConflict, HoldNotFound, InvariantError
from . import loans
from .balances import NONE, UNITS, ZERO, Amounts, Balances, bare, change, minus
from .hold import (
    DELEGATION,
    ENTRY_KINDS,
    HELD,
    LIVE,
    MOVE,
    SETTLED,
    SUSPECT,
    VOIDED,
    Entry,
    Hold,
    Outcome,
    correction,
)
from .money import COUNTER_MAX
from .plan import LineResult, Plan, ends_of, evaluate

SUSPECT_POLICIES = ("keep", "settle_at_hold", "release")


class Books(Protocol):
    """What a command may read."""

    @property
    def seq(self) -> int:
        """The number of the latest entry."""
        ...

    def balance(self, key: str) -> Balances: ...
    def hold(self, hold_id: str) -> Hold | None: ...
    def entry(self, hold_id: str) -> Entry | None:
        """The latest entry of this hold, or None."""
        ...


class Change(NamedTuple):
    """What a command does to the books: new values, to be applied together."""

    balances: dict[str, Balances]
    holds: dict[str, Hold]
    ends: Sequence[tuple[str, int]] = ()
    """Accounts that came with this change and have a window end (milliseconds)."""
    over: tuple[str, ...] = ()
    """Holds that it ends, so that nothing is counted for them any more but what was settled."""
    entries: Mapping[int, Entry] = {}
    """The row that it adds, by number; none or one."""


class Placed(NamedTuple):
    """Admitted. ``advisory`` names what ``warn`` budgets would have refused."""

    hold: Hold
    advisory: tuple[LineResult, ...] = ()


class Denied(NamedTuple):
    """Refused, with every line that failed. Nothing was changed, and nothing is remembered."""

    failed: tuple[LineResult, ...]


class Stale(NamedTuple):
    """The plan was made from an older catalogue, for a window that is over, or on loans that cannot be had: again."""

    catalogue_version: int


class Settled(NamedTuple):
    """The hold as it is now, and the row that says so (None: voided before anything was sent)."""

    hold: Hold
    entry: Entry | None


NOTHING = Change({}, {})
_NO_ENTRIES = NOTHING.entries


def place(
    books: Books, plan: Plan, *, owner: str, now_ms: int, catalogue_version: int, replaces: str | None = None
) -> tuple[Placed | Denied | Stale, Change]:
    """
    Admit a plan or refuse it. *replaces* gives back another hold in the same step (it is voided without an entry).
    """
    hold_id, facts, want, floor, due_ms, _, postings, valid_until_ms, _, made_from, _, lent = plan
    known = books.hold(hold_id)
    if known is not None:
        if not _same_plan(known, plan):
            raise HoldConflict(f"hold {hold_id!r} was placed before with another plan", hold_id=hold_id)
        return Placed(known), NOTHING
    if made_from != catalogue_version or (valid_until_ms is not None and now_ms >= valid_until_ms):
        return Stale(catalogue_version), NOTHING
    balances: dict[str, Balances] = {}
    holds: dict[str, Hold] = {}
    over: tuple[str, ...] = ()
    read: Callable[[str], Balances] = books.balance
    if replaces is not None:
        old = _live(books, replaces)
        _move(books, balances, old, NONE, to_suspect=False)
        holds[replaces], over = old._replace(state=VOIDED, changed_ms=now_ms), (replaces,)
        read = _over(dict(balances), read)
    x, failed, advisory, amounts = evaluate(plan, read)
    if failed:
        return Denied(failed), NOTHING
    if lent and (_shrunk(plan, x) or loans.outlent(lent, read)):
        return Stale(catalogue_version), NOTHING
    held = change(NONE, amounts)
    for key, units, _ in postings:
        row = balances[key] = bare(Balances, map(add, read(key), held if units is None else held.only(units)))
        if sum(row) > COUNTER_MAX:
            _check_most(row, key)
    if lent:
        loans.lend(balances, read, lent, amounts)
    hold = holds[hold_id] = bare(
        Hold,
        (
            hold_id,
            owner,
            facts,
            postings,
            lent,
            want,
            floor,
            now_ms,
            x,
            amounts,
            due_ms,
            now_ms,
            HELD,
            False,
            None,
            None,
        ),
    )
    made = bare(Change, (balances, holds, ends_of(postings), over, _NO_ENTRIES))
    return bare(Placed, (hold, advisory)), made


def _check_most(row: Balances, key: str) -> None:
    if any(row.of(unit).total > COUNTER_MAX for unit in UNITS):
        raise InvariantError(f"account {key} would pass {COUNTER_MAX}, where stores stop being exact")


def _shrunk(plan: Plan, x: int) -> bool:
    """
    Whether a plan with loans fits only with less output than it was made for. Its taker has used something meanwhile:
    loans begin where its own room ended, so a smaller hold would take from that room more than is left of it.
    """
    return plan.x_most is not None and x < plan.x_most


def resize(books: Books, hold_id: str, *, x: int, now_ms: int) -> tuple[Hold, Change]:
    """Shrink a hold to fewer output tokens. Growing one would need a new admission, so a larger x is a ValueError."""
    hold = books.hold(hold_id) or _missing(hold_id)
    if hold.state != HELD:
        raise HoldConflict(f"hold {hold_id!r} is {hold.state}; only an open hold can be resized", hold_id=hold_id)
    if type(x) is not int or not 0 <= x <= hold.x:
        raise ValueError(f"x={x!r}: a hold of x={hold.x} can only shrink")
    smaller = hold.shrunk(x)._replace(changed_ms=now_ms)
    balances: dict[str, Balances] = {}
    if hold.loans:
        loans.shrink(balances, books.balance, hold, smaller)
    _post(books, balances, hold, change(held=minus(hold.amounts)).plus(change(held=smaller.amounts)))
    return smaller, Change(balances, {hold_id: smaller})


def extend(books: Books, hold_id: str, *, deadline_ms: int, now_ms: int) -> tuple[Hold, Change]:
    """Move a hold's deadline out: its call is alive. A hold that is no longer open stays as it is."""
    hold = books.hold(hold_id) or _missing(hold_id)
    if hold.state != HELD or deadline_ms <= hold.deadline_ms:
        return hold, NOTHING
    later = hold._replace(deadline_ms=deadline_ms, changed_ms=now_ms)
    return later, Change({}, {hold_id: later})


def settle(books: Books, hold_id: str, outcome: Outcome, *, now_ms: int) -> tuple[Settled, Change]:
    """Replace a hold by the real cost; the rest goes back. What exceeds the hold is an itemised overrun."""
    return _finish(books, hold_id, outcome, state=SETTLED, now_ms=now_ms)


def void(books: Books, hold_id: str, outcome: Outcome | None, *, now_ms: int) -> tuple[Settled, Change]:
    """Release a hold whose call certainly cost nothing. No *outcome*: it was never tried, and leaves no entry."""
    return _finish(books, hold_id, outcome, state=VOIDED, now_ms=now_ms)


def suspect(books: Books, hold_id: str, *, ending: str, note: str | None, now_ms: int) -> tuple[Settled, Change]:
    """The call may have been billed, nobody knows: its amounts stay counted, calls in flight are released."""
    hold = books.hold(hold_id) or _missing(hold_id)
    if hold.state != HELD:
        return Settled(hold, books.entry(hold_id)), NOTHING
    balances: dict[str, Balances] = {}
    _move(books, balances, hold, NONE, to_suspect=True)
    now_suspect = hold._replace(state=SUSPECT, changed_ms=now_ms, entry=books.seq + 1)
    assumed = hold.estimate()._replace(amounts=NONE, ending=ending, note=note)
    return _settled(now_suspect, assumed, balances, (), now_ms, suspect=True)


def resolve(books: Books, hold_id: str, policy: str, *, now_ms: int, note: str | None) -> tuple[Settled, Change]:
    """End a suspect hold without its call's word: ``settle_at_hold`` or ``release``. Its call may still correct it."""
    if policy not in ("settle_at_hold", "release"):
        raise ValueError(f"policy={policy!r} is unknown; choose settle_at_hold or release")
    hold = books.hold(hold_id) or _missing(hold_id)
    if hold.state != SUSPECT:
        raise HoldConflict(f"hold {hold_id!r} is {hold.state}, not suspect", hold_id=hold_id)
    outcome = hold.estimate()._replace(ending=policy, note=note)
    if policy == "release":
        outcome = Outcome(cost_nano=None if outcome.cost_nano is None else 0, ending=policy, note=note)
    return _late(books, hold, outcome, SETTLED if policy == "settle_at_hold" else VOIDED, now_ms, automatic=True)


def sweep(
    books: Books,
    holds: Iterable[Hold],
    *,
    now_ms: int,
    dead_owners: frozenset[str],
    suspect_after_ms: int,
    suspect_policy: str,
) -> list[tuple[Settled, Change]]:
    """
    What time does to holds: those of dead owners or past their deadline become suspect, and suspects that have waited
    long enough are resolved as the policy says. Give a bounded batch; the changes are to be applied in order.
    """
    if suspect_policy not in SUSPECT_POLICIES:
        raise ValueError(f"suspect_policy={suspect_policy!r} is unknown; choose one of {', '.join(SUSPECT_POLICIES)}")
    results: list[tuple[Settled, Change]] = []
    overlay = _Overlay(books)
    for hold in holds:
        if not due(
            hold,
            now_ms=now_ms,
            dead_owners=dead_owners,
            suspect_after_ms=suspect_after_ms,
            suspect_policy=suspect_policy,
        ):
            continue
        if hold.facts.dialect == MOVE:
            # No call, so nothing can have been billed; and whether the move was made, its limits say.
            result = void(overlay, hold.id, None, now_ms=now_ms)
        elif hold.state == HELD:
            died = hold.owner in dead_owners
            ending, note = ("owner_died", f"process {hold.owner} is gone") if died else ("expired", None)
            result = suspect(overlay, hold.id, ending=ending, note=note, now_ms=now_ms)
        else:
            result = resolve(overlay, hold.id, suspect_policy, now_ms=now_ms, note="suspect_after")
        overlay.apply(result[1])
        results.append(result)
    return results


def due(hold: Hold, *, now_ms: int, dead_owners: frozenset[str], suspect_after_ms: int, suspect_policy: str) -> bool:
    """Whether :func:`sweep` has something to do for this hold. A store bounds its batch after asking, not before."""
    if hold.state == HELD:
        return hold.facts.dialect != DELEGATION and (hold.owner in dead_owners or now_ms >= hold.deadline_ms)
    return hold.state == SUSPECT and suspect_policy != "keep" and now_ms - hold.changed_ms >= suspect_after_ms


class _Overlay:
    """Books with changes on top, so that several commands can follow each other before any is applied."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._balances: dict[str, Balances] = {}
        self._holds: dict[str, Hold] = {}
        self.seq = books.seq

    def apply(self, change: Change) -> None:
        self._balances.update(change.balances)
        self._holds.update(change.holds)
        self.seq += len(change.entries)

    def balance(self, key: str) -> Balances:
        return self._balances.get(key) or self._books.balance(key)

    def hold(self, hold_id: str) -> Hold | None:
        return self._holds.get(hold_id) or self._books.hold(hold_id)

    def entry(self, hold_id: str) -> Entry | None:
        return self._books.entry(hold_id)


def _finish(books: Books, hold_id: str, outcome: Outcome | None, *, state: str, now_ms: int) -> tuple[Settled, Change]:
    """The call's own word about its hold."""
    hold = books.hold(hold_id) or _missing(hold_id)
    if hold.state == HELD:
        balances: dict[str, Balances] = {}
        used = NONE if outcome is None else _used(outcome)
        _move(books, balances, hold, used, to_suspect=False)
        if outcome is None:
            ended = hold.ended(state, None, now_ms, None)
            return Settled(ended, None), Change(balances, {hold_id: ended}, over=(hold_id,))
        ended = hold.ended(state, outcome, now_ms, books.seq + 1)
        return _settled(ended, outcome, balances, (hold_id,), now_ms)
    if outcome is None and (hold.state == SUSPECT or hold.automatic or hold.outcome is not None):
        # Never tried, but counted as suspect meanwhile: there is a row already, which only another row can correct.
        outcome = Outcome(cost_nano=None if hold.facts.price is None else 0, ending="voided")
    if hold.outcome is None and outcome is not None and (hold.state == SUSPECT or hold.automatic):
        return _late(books, hold, outcome, state, now_ms, automatic=False)
    if hold.outcome == outcome and hold.state == state:
        return Settled(hold, books.entry(hold_id)), NOTHING
    raise HoldConflict(f"hold {hold_id!r} is {hold.state} already, with another outcome", hold_id=hold_id)


def _late(
    books: Books, hold: Hold, outcome: Outcome, state: str, now_ms: int, *, automatic: bool
) -> tuple[Settled, Change]:
    """A truth about a suspect hold, or about one that was resolved without its call: one linked correction row."""
    balances: dict[str, Balances] = {}
    used = _used(outcome)
    counted = Outcome() if hold.state == VOIDED else hold.estimate()
    before = counted.amounts if hold.state == SETTLED else NONE
    tokens, usd, requests, _ = map(sub, used, before)
    posted = tokens, usd, requests, 0
    if hold.state == SUSPECT:
        _move(books, balances, hold, used, to_suspect=False)
    else:
        if hold.loans:
            loans.correct(balances, books.balance, hold, now=used, before=before)
        _post(books, balances, hold, change(settled=posted))
    told = None if automatic else outcome
    ended = hold._replace(state=state, outcome=told, automatic=automatic, changed_ms=now_ms, entry=books.seq + 1)
    return _settled(
        ended,
        outcome,
        balances,
        (hold.id,),
        now_ms,
        kind="correction",
        said=correction(outcome, counted, posted),
        resolves_suspect=hold.state == SUSPECT,
        transfers=loans.transfers(hold, used, before),
    )


def _used(outcome: Outcome) -> Amounts:
    """What to settle. Settled amounts only grow, so a figure that would shrink or blur them is refused."""
    used, cost_nano = outcome.amounts, outcome.cost_nano
    tokens, usd, requests, in_flight = used
    if not (type(tokens) is type(usd) is type(requests) is int) or tokens < 0 or usd < 0 or requests < 0 or in_flight:
        _complain(used)
    if cost_nano is not None and (type(cost_nano) is not int or cost_nano < 0):
        raise ValueError(f"outcome: cost_nano must be an integer of at least 0, not {cost_nano!r}")
    return used


def _complain(used: Amounts) -> None:
    for unit, amount in zip(UNITS, used, strict=True):
        if type(amount) is not int or amount < 0:
            raise ValueError(f"outcome: {unit} must be an integer of at least 0, not {amount!r}")
    raise ValueError("outcome: no call is in flight any more, so its concurrency is 0")


def _move(books: Books, balances: dict[str, Balances], hold: Hold, used: Amounts, *, to_suspect: bool) -> None:
    """Take what a live hold holds off its accounts, and put what was used, or what it held as suspect, on."""
    tokens, usd, requests, in_flight = hold.amounts
    if hold.state == SUSPECT:
        # Calls in flight were released already.
        difference = change(used, NONE, (-tokens, -usd, -requests, 0))
    else:
        lost = (tokens, usd, requests, 0) if to_suspect else NONE
        difference = change(used, (-tokens, -usd, -requests, -in_flight), lost)
    if hold.loans:
        loans.unwind(balances, books.balance, hold, used, to_suspect=to_suspect)
    _post(books, balances, hold, difference)


def _post(books: Books, balances: dict[str, Balances], hold: Hold, difference: Balances) -> None:
    """Change all accounts of a hold alike, on top of what loans have changed."""
    read: Callable[[str], Balances] = _over(balances, books.balance) if balances else books.balance
    for key, units, _ in hold.postings:
        by = difference if units is None else difference.only(units)
        row = balances[key] = bare(Balances, map(add, read(key), by))
        if min(row) < 0:
            below = ", ".join(f"{name} {amount}" for name, amount in row._asdict().items() if amount < 0)
            raise InvariantError(f"account {key} would become negative ({below}) by a change of hold {hold.id!r}")


def _over(changed: dict[str, Balances], read: Callable[[str], Balances]) -> Callable[[str], Balances]:
    """Reads what is changed already, and the rest as it was."""
    return lambda key: changed[key] if key in changed else read(key)


def _settled(
    hold: Hold,
    outcome: Outcome,
    balances: dict[str, Balances],
    over: tuple[str, ...],
    now_ms: int,
    **differs: Any,
) -> tuple[Settled, Change]:
    """
    The answer of a command that adds a row, and its change. *differs*: what this row has otherwise than that of a call
    that ends as its hold was placed.
    """
    hold_id, facts, held, used = hold.id, hold.facts, hold.amounts, outcome.amounts
    beyond = used[0] > held[0] or used[1] > held[1] or used[2] > held[2]
    seq = hold.entry
    fields = (
        seq,
        hold_id,
        hold_id,
        ENTRY_KINDS.get(facts.dialect, "call"),
        now_ms,
        hold.placed_ms,
        facts,
        hold.postings,
        outcome,
        _overrun(hold, used) if beyond else (),
        False,
        False,
        loans.transfers(hold, used) if hold.loans else (),
    )
    entry = bare(Entry, fields)
    if differs:
        entry = entry._replace(**differs)
    answer = bare(Settled, (hold, entry))
    return answer, bare(Change, (balances, {hold_id: hold}, (), over, {seq: entry}))


def _overrun(hold: Hold, used: Amounts) -> tuple[tuple[str, int], ...]:
    """What the provider reported beyond the hold, by unit."""
    posted = {unit for posting in hold.postings for unit in posting.units or UNITS}
    if hold.facts.price is None:
        # Nothing could be held in money, so nothing is beyond it.
        posted.discard("usd")
    over = zip(UNITS, map(sub, used, hold.amounts), strict=True)
    return tuple([(unit, beyond) for unit, beyond in over if beyond > 0 and unit in posted])


def _missing(hold_id: str) -> NoReturn:
    raise HoldNotFound(f"no hold has the id {hold_id!r}", hold_id=hold_id)


def _live(books: Books, hold_id: str) -> Hold:
    hold = books.hold(hold_id) or _missing(hold_id)
    if hold.state != HELD:
        raise HoldConflict(f"hold {hold_id!r} is {hold.state} and cannot be replaced", hold_id=hold_id)
    return hold


def _same_plan(hold: Hold, plan: Plan) -> bool:
    return (hold.postings, hold.x_want, hold.x_floor, hold.facts) == (
        plan.postings,
        plan.x_want,
        plan.x_floor,
        plan.facts,
    )


def record(
    books: Books, plan: Plan, outcome: Outcome, *, owner: str, now_ms: int, lost: bool = False
) -> tuple[Settled, Change]:
    """
    Write a call that is over, without asking: its postings are settled in one step, whatever the ceilings say.

    For calls that no budget matched, and for usage that was paid elsewhere. *lost*: what it cost is not known yet; all
    that the plan says is suspect until its call, or time, ends it; and who knows nothing contradicts nothing that is
    known under its id already.
    """
    if lost and books.hold(plan.id) is not None:
        return suspect(books, plan.id, ending=outcome.ending, note=outcome.note, now_ms=now_ms)
    placed, opened = place(
        books,
        plan._replace(lines=(), valid_until_ms=None),
        owner=owner,
        now_ms=now_ms,
        catalogue_version=plan.catalogue_version,
    )
    if not isinstance(placed, Placed):
        raise InvariantError(f"a plan without lines was refused: {placed!r}")
    overlay = _Overlay(books)
    overlay.apply(opened)
    if lost:
        settled, ended = suspect(overlay, plan.id, ending=outcome.ending, note=outcome.note, now_ms=now_ms)
    else:
        settled, ended = settle(overlay, plan.id, outcome, now_ms=now_ms)
    return settled, ended._replace(
        balances={**opened.balances, **ended.balances}, holds={**opened.holds, **ended.holds}, ends=opened.ends
    )


def replay(
    settled_before: Mapping[str, Amounts], entries: Iterable[Entry], holds: Iterable[Hold]
) -> dict[str, Balances]:
    """
    The balances that a journal says: a snapshot of settled amounts, the rows after it, and the holds still open.

    Balances are its projection: a store's own must be equal, bit for bit.
    """
    balances = {key: change(settled=amounts) for key, amounts in settled_before.items()}
    changes = [
        *(made for entry in entries for made in entry.changes()),
        *(counted for hold in holds if hold.state in LIVE for counted in loans.counted(hold)),
    ]
    for key, made in changes:
        balances[key] = balances.get(key, ZERO).plus(made)
    return {key: row for key, row in balances.items() if row != ZERO}
