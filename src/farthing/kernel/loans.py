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
Moved = tuple[int, int, int]
"""What is added to a row in one unit: settled, held, suspect."""


def outlent(loans: tuple[Loan, ...], read: Read) -> bool:
    """Whether a donor has less to spare by now than was counted on."""
    return any(sum(COUNTED[loan.unit](read(loan.donor))) + loan.amount > loan.most for loan in loans)


def lend(balances: Changed, read: Read, loans: tuple[Loan, ...], held: Amounts) -> None:
    """A hold of these amounts was placed with loans; its postings are on the taker's account already."""
    _count(balances, read, [(loan, (0, loan.part(held[AT[loan.unit]]), 0)) for loan in loans])


def shrink(balances: Changed, read: Read, before: Hold, after: Hold) -> None:
    """The hold was resized: the last borrowed is returned first. Before its postings change."""
    _count(balances, read, [(loan, (0, held_by(loan, after) - held_by(loan, before), 0)) for loan in before.loans])


def unwind(balances: Changed, read: Read, hold: Hold, held: Amounts, used: Amounts, *, to_suspect: bool) -> None:
    """The hold ends, or becomes suspect: what was not used goes back to the donors. Before its postings change."""
    parts: list[tuple[Loan, Moved]] = []
    for loan in hold.loans:
        lent = loan.part(held[AT[loan.unit]])
        spent = _spent(loan, held, used)
        if hold.state == SUSPECT:
            parts.append((loan, (spent, 0, -lent)))
        else:
            parts.append((loan, (spent, -lent, lent if to_suspect else 0)))
    _count(balances, read, parts)


def correct(balances: Changed, read: Read, hold: Hold, *, now: Amounts, before: Amounts) -> None:
    """A late truth about an ended hold: *now* replaces *before*. Before its postings change."""
    held = hold.amounts
    _count(
        balances, read, [(loan, (_spent(loan, held, now) - _spent(loan, held, before), 0, 0)) for loan in hold.loans]
    )


def transfers(loans: tuple[Loan, ...], held: Amounts, used: Amounts, before: Amounts = NONE) -> tuple[Transfer, ...]:
    """What the loans of a hold came to: for the entry of its call, or the difference for a correction."""
    made = []
    for loan in loans:
        at = AT[loan.unit]
        if not used[at] and not before[at]:
            continue
        amount = _spent(loan, held, used) - _spent(loan, held, before)
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


def _spent(loan: Loan, held: Amounts, used: Amounts) -> int:
    """What a cost takes of a loan: never more than it held, for what exceeds a hold is its taker's overrun."""
    at = AT[loan.unit]
    return loan.part(min(held[at], used[at]))


def _count(balances: Changed, read: Read, parts: Iterable[tuple[Loan, Moved]]) -> None:
    """
    Put these parts on their donors, and take them off their takers, where one change stands for all that they borrow.

    Only the places that change are touched: a call that borrows from three does this to 16 rows.
    """
    rows: list[tuple[str, str, Moved, bool]] = []
    borrowed: dict[tuple[str, str, str], Moved] = {}
    for loan, moved in parts:
        unit = loan.unit
        (taker, _), (taken, _), (donor, _), (lent, _) = sides(loan)
        rows += (donor, unit, moved, False), (lent, unit, moved, False)
        of = (taker, taken, unit)
        borrowed[of] = _plus(borrowed[of], moved) if of in borrowed else moved
    for (taker, taken, unit), moved in borrowed.items():
        settled, held, suspect = moved
        # Negative amounts on a taker's own account are made up by the postings, which follow and are checked.
        rows += (taken, unit, moved, False), (taker, unit, (-settled, -held, -suspect), True)
    for key, unit, moved, below_zero in rows:
        row = [*(balances[key] if key in balances else read(key))]
        at = AT[unit]
        for amount in moved:
            if amount:
                row[at] += amount
                if row[at] < 0 and not below_zero:
                    raise InvariantError(f"account {key} would become negative in {unit} by a loan")
            at += len(UNITS)
        balances[key] = bare(Balances, row)


def _plus(one: Moved, other: Moved) -> Moved:
    (settled, held, suspect), (more_settled, more_held, more_suspect) = one, other
    return settled + more_settled, held + more_held, suspect + more_suspect
