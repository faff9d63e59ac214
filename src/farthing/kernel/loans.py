"""
What loans do to the balances of the ledger, at each thing that may become of their hold. Pure.

Called by :mod:`.ledger` for holds that have loans, and for no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..errors import InvariantError
from .balances import AT, COUNTED, NONE, UNITS, Amounts, Balances, bare, change, change_of
from .hold import SUSPECT, Hold
from .lending import Loan, Transfer, sides

Read = Callable[[str], Balances]
Changed = dict[str, Balances]
Moved = list[tuple[int, int]]
"""What a loan changes: places in the rows, and by how much."""
_HELD, _SUSPECT = len(UNITS), 2 * len(UNITS)
"""Where what is held begins in a row, and what is suspect."""


def outlent(loans: tuple[Loan, ...], read: Read) -> bool:
    """Whether a donor has less to spare by now than was counted on."""
    return any(sum(COUNTED[loan.unit](read(loan.donor))) + loan.amount > loan.most for loan in loans)


def lend(balances: Changed, read: Read, loans: tuple[Loan, ...], held: Amounts) -> None:
    """A hold of these amounts was placed with loans; its postings are on the taker's account already."""
    parts: list[tuple[Loan, Moved]] = []
    for loan in loans:
        at = AT[loan.unit]
        parts.append((loan, [(at + _HELD, loan.part(held[at]))]))
    _count(balances, read, parts)


def shrink(balances: Changed, read: Read, before: Hold, after: Hold) -> None:
    """The hold was resized: the last borrowed is returned first. Before its postings change."""
    less = [held_by(loan, after) - held_by(loan, before) for loan in before.loans]
    _count(balances, read, [(loan, [(AT[loan.unit] + _HELD, by)]) for loan, by in zip(before.loans, less, strict=True)])


def unwind(balances: Changed, read: Read, hold: Hold, used: Amounts, *, to_suspect: bool) -> None:
    """The hold ends, or becomes suspect: what was not used goes back to the donors. Before its postings change."""
    counted_at = _SUSPECT if hold.state == SUSPECT else _HELD
    parts: list[tuple[Loan, Moved]] = []
    for loan in hold.loans:
        at = AT[loan.unit]
        lent = held_by(loan, hold)
        moved = [(at + counted_at, -lent)]
        if used[at]:
            moved.append((at, _spent(loan, hold, used)))
        if to_suspect:
            moved.append((at + _SUSPECT, lent))
        parts.append((loan, moved))
    _count(balances, read, parts)


def correct(balances: Changed, read: Read, hold: Hold, *, now: Amounts, before: Amounts) -> None:
    """A late truth about an ended hold: *now* replaces *before*. Before its postings change."""
    more = [_spent(loan, hold, now) - _spent(loan, hold, before) for loan in hold.loans]
    _count(balances, read, [(loan, [(AT[loan.unit], by)]) for loan, by in zip(hold.loans, more, strict=True)])


def transfers(hold: Hold, used: Amounts, before: Amounts = NONE) -> tuple[Transfer, ...]:
    """What the loans of a hold came to: for the entry of its call, or the difference for a correction."""
    made = []
    for loan in hold.loans:
        at = AT[loan.unit]
        if not used[at] and not before[at]:
            continue
        amount = _spent(loan, hold, used) - _spent(loan, hold, before)
        if amount:
            made.append(Transfer(loan.unit, loan.donor, loan.taker, amount, loan.why))
    return tuple(made)


def held_by(loan: Loan, hold: Hold) -> int:
    """What this loan carries of its hold."""
    return loan.part(hold.amounts[AT[loan.unit]])


def counted(hold: Hold) -> Iterator[tuple[str, Balances]]:
    """By row, what a live hold is counted as, loans included. Of a suspect one, calls in flight are released."""
    tokens, usd, requests, in_flight = hold.amounts
    suspect = hold.state == SUSPECT
    own = change(suspect=(tokens, usd, requests, 0)) if suspect else change(held=(tokens, usd, requests, in_flight))
    for posting in hold.postings:
        yield posting.key, own if posting.units is None else own.only(posting.units)
    for loan in hold.loans:
        amount = held_by(loan, hold)
        for key, sign in sides(loan):
            if suspect:
                yield key, change_of(loan.unit, suspect=sign * amount)
            else:
                yield key, change_of(loan.unit, held=sign * amount)


def _spent(loan: Loan, hold: Hold, used: Amounts) -> int:
    """What a cost takes of a loan: never more than it held, for what exceeds a hold is its taker's overrun."""
    at = AT[loan.unit]
    return loan.part(min(hold.amounts[at], used[at]))


def _count(balances: Changed, read: Read, parts: Iterable[tuple[Loan, Moved]]) -> None:
    """
    Put these parts on their donors, and take them off their takers, where one change stands for all that they borrow.

    Only the places that change are touched: a call that borrows from three does this to 16 rows.
    """
    rows: list[tuple[str, Iterable[tuple[int, int]], bool]] = []
    borrowed: dict[tuple[str, str], dict[int, int]] = {}
    for loan, moved in parts:
        (taker, _), (taken, _), (donor, _), (lent, _) = sides(loan)
        rows += (donor, moved, False), (lent, moved, False)
        sums = borrowed.setdefault((taker, taken), {})
        for place, amount in moved:
            sums[place] = sums.get(place, 0) + amount
    for (taker, taken), sums in borrowed.items():
        # Negative amounts on a taker's own account are made up by the postings, which follow and are checked.
        rows += (taken, sums.items(), False), (taker, [(place, -amount) for place, amount in sums.items()], True)
    for key, changes, below_zero in rows:
        row = [*(balances[key] if key in balances else read(key))]
        for place, amount in changes:
            row[place] += amount
            if row[place] < 0 and not below_zero:
                raise InvariantError(f"account {key} would become negative in {UNITS[place % len(UNITS)]} by a loan")
        balances[key] = bare(Balances, row)
