"""
What loans do to the balances of the ledger, at each thing that may become of their hold. Pure.

Called by :mod:`.ledger` for holds that have loans, and for no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import InvariantError
from .balances import AT, COUNTED, NONE, Amounts, Balances, bare, change, change_of
from .hold import SUSPECT, Hold
from .lending import Loan, Transfer, sides
from .plan import CallFacts

Read = Callable[[str], Balances]
Changed = dict[str, Balances]


def outlent(loans: tuple[Loan, ...], read: Read) -> bool:
    """Whether a donor has less to spare by now than was counted on."""
    return any(sum(COUNTED[loan.unit](read(loan.donor))) + loan.amount > loan.most for loan in loans)


def lend(balances: Changed, read: Read, loans: tuple[Loan, ...], facts: CallFacts, x: int) -> None:
    """A hold with loans was placed; its postings are on the taker's account already."""
    for loan in loans:
        _add(balances, read, loan, held=loan.part(_total(facts, loan.unit, x)))


def shrink(balances: Changed, read: Read, before: Hold, after: Hold) -> None:
    """The hold was resized: the last borrowed is returned first. Before its postings change."""
    for loan in before.loans:
        smaller = loan.part(_total(after.facts, loan.unit, after.x))
        _add(balances, read, loan, held=smaller - held_by(loan, before))


def unwind(balances: Changed, read: Read, hold: Hold, amounts: Amounts, *, to_suspect: bool) -> None:
    """
    The hold ends, or becomes suspect: what the call did not use goes back to the donors. *amounts* is what it used.
    Before its postings change.
    """
    was_suspect = hold.state == SUSPECT
    for loan in hold.loans:
        held = held_by(loan, hold)
        used = min(held, loan.part(amounts[AT[loan.unit]]))
        if was_suspect:
            _add(balances, read, loan, used, 0, -held)
        else:
            _add(balances, read, loan, used, -held, held if to_suspect else 0)


def correct(balances: Changed, read: Read, hold: Hold, *, now: Amounts, before: Amounts) -> None:
    """A late truth about an ended hold: *now* replaces *before*. Before its postings change."""
    for loan in hold.loans:
        _add(balances, read, loan, settled=_used(loan, hold, now) - _used(loan, hold, before))


def transfers(hold: Hold, amounts: Amounts, before: Amounts = NONE) -> tuple[Transfer, ...]:
    """What the loans of a hold came to: for the entry of its call, or the difference for a correction."""
    made = []
    for loan in hold.loans:
        amount = _used(loan, hold, amounts) - _used(loan, hold, before)
        if amount:
            made.append(Transfer(loan.unit, loan.donor, loan.taker, amount, loan.why))
    return tuple(made)


def held_by(loan: Loan, hold: Hold) -> int:
    """What this loan carries of its hold."""
    return loan.part(_total(hold.facts, loan.unit, hold.x))


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


def _used(loan: Loan, hold: Hold, amounts: Amounts) -> int:
    """What a cost takes of a loan: never more than it held, for what exceeds a hold is its taker's overrun."""
    return min(held_by(loan, hold), loan.part(amounts[AT[loan.unit]]))


def _total(facts: CallFacts, unit: str, x: int) -> int:
    if unit == "tokens":
        return facts.input_tokens + facts.choices * x
    if facts.price is None:
        raise InvariantError("a loan in USD for a call without a price")
    return facts.price.at(x)


def _add(balances: Changed, read: Read, loan: Loan, settled: int = 0, held: int = 0, suspect: int = 0) -> None:
    """
    Negative amounts on the taker's own account are made up by the postings, which follow and are checked. Only the
    places that change are touched: a call that borrows from three does this to 24 rows.
    """
    unit, at = loan.unit, AT[loan.unit]
    for key, sign in sides(loan):
        row = [*(balances[key] if key in balances else read(key))]
        row[at] += sign * settled
        row[at + 4] += sign * held
        row[at + 8] += sign * suspect
        if sign > 0 and (row[at] < 0 or row[at + 4] < 0 or row[at + 8] < 0):
            raise InvariantError(f"account {key} would become negative in {unit} by a loan")
        balances[key] = bare(Balances, row)
