"""
Mutants of lending: see :mod:`.mutants`. Each must be caught by the worlds of agents.
"""

from __future__ import annotations

from typing import Any

from farthing.calls import lending
from farthing.kernel import ledger, loans
from farthing.kernel.balances import Balances
from farthing.kernel.ledger import NOTHING, Change, Denied, Stale
from farthing.kernel.lending import Lending, Loan, account_of, downhill, lent_key
from farthing.runtime.pools import Pool

from .mutants import Mutant, Patch

MUTANTS: list[Mutant] = []


def mutant(apply: Any) -> Any:
    MUTANTS.append(Mutant(apply.__name__, apply))
    return apply


@mutant
def uphill_lending(patch: Patch) -> None:
    """Whoever is short takes from anybody."""
    below, lend = Pool.below, lending._lend
    highest = 9

    def from_anybody(priority: int, shortfall: int, donors: Any) -> Any:
        return downhill(highest, shortfall, donors)

    patch.setattr(Pool, "below", lambda pool, unit, priority: below(pool, unit, highest))
    patch.setattr(lending, "_lend", lambda *given: lend(*given[:-1], from_anybody))


@mutant
def reserve_ignored(patch: Patch) -> None:
    """A lender gives its last token."""
    patch.setattr(Lending, "reserve", lambda terms, unit: 0)


@mutant
def lenders_not_looked_at_again(patch: Patch) -> None:
    """What a lender had when it was read is taken for what it has when the hold is placed."""
    patch.setattr(loans, "outlent", lambda lent, read: False)


@mutant
def own_room_not_looked_at_again(patch: Patch) -> None:
    """A hold is made smaller at the expense of its loans, whatever its taker has used meanwhile."""
    patch.setattr(ledger, "_shrunk", lambda plan, x: False)


@mutant
def failed_borrow_keeps_its_transfer(patch: Patch) -> None:
    """The loans are posted first, and stay when the hold is refused."""
    place = ledger.place

    def placed(books: Any, plan: Any, **given: Any) -> Any:
        answer, change = place(books, plan, **given)
        if not plan.loans or not isinstance(answer, (Denied, Stale)) or change is not NOTHING:
            return answer, change
        balances: dict[str, Any] = {}
        loans.lend(balances, books.balance, plan.loans[:1], plan.facts.amounts(plan.x_want))
        # Its taker's own counter is as it was: a hold would have made up for it.
        balances = {key: balance for key, balance in balances.items() if min(balance) >= 0}
        return answer, Change(balances, {})

    patch.setattr(ledger, "place", placed)


@mutant
def loan_not_given_back(patch: Patch) -> None:
    """At a hold's end its taker is right, and the lender's part stays held."""
    unwind = loans.unwind

    def unwound(balances: Any, read: Any, *given: Any, **named: Any) -> None:
        before = dict(balances)
        unwind(balances, read, *given, **named)
        for key, row in balances.items():
            own = account_of(key)
            if key == lent_key(own):
                was = before.get(key) or read(key)
                kept = [has - left for has, left in zip(was[4:8], row[4:8], strict=True)]
                balances[key] = row.plus(Balances(0, 0, 0, 0, *kept))
                balances[own] = balances[own].plus(Balances(0, 0, 0, 0, *kept))

    patch.setattr(loans, "unwind", unwound)


@mutant
def lender_pays_first(patch: Patch) -> None:
    """What was borrowed is spent before what its taker has, so that the lender gets back too little."""
    patch.setattr(Loan, "part", lambda loan, total: min(loan.amount, total))
