"""The crews of a ledger as somebody who watches them sees them: who has what, and who lent to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..kernel import loans
from ..kernel.hold import LIVE
from ..kernel.money import usd_decimal
from ..kernel.scope import read_account_key
from ..runtime.ledgers import Ledger
from ..stores.contract import Store
from .crew import Crew, Figures


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """One agent in one unit; amounts in the unit's integer (nano-dollars for ``usd``)."""

    name: str
    priority: int
    parent: str | None
    closed: bool
    reserve: int
    figures: Figures

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: USD as decimal text."""
        of = self.figures
        amounts = {
            "allocated": of.allocated,
            "consumed": of.consumed,
            "held": of.held,
            "suspect": of.suspect,
            "remaining": of.remaining,
            "lent": of.lent.total,
            "borrowed": of.borrowed.total,
            "overrun": of.overrun,
            "reserve": self.reserve,
        }
        shown = {name: _json(of.unit, amount) for name, amount in amounts.items()}
        about = {"name": self.name, "priority": self.priority, "parent": self.parent, "closed": self.closed}
        return {**about, "unit": of.unit, **shown}


@dataclass(frozen=True, slots=True)
class LentFigures:
    """What one agent gave another: for good, by calls that have ended, and for calls in flight."""

    donor: str
    taker: str
    unit: str
    used: int
    in_flight: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: USD as decimal text."""
        used, in_flight = _json(self.unit, self.used), _json(self.unit, self.in_flight)
        return {"from": self.donor, "to": self.taker, "unit": self.unit, "used": used, "in_flight": in_flight}


@dataclass(frozen=True, slots=True)
class CrewFigures:
    """One pool."""

    name: str
    agents: tuple[AgentFigures, ...]
    lent: tuple[LentFigures, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "crew": self.name,
            "agents": [agent.to_dict() for agent in self.agents],
            "lent": [lent.to_dict() for lent in self.lent],
        }


def overview(store: Store, name: str | None = None, *, ended: bool = False) -> list[CrewFigures]:
    """
    Every pool of a ledger, or the one called *name*; with *ended*, agents that are closed or expired too.

    Reads the rows of the ledger, for those say who lent to whom.
    """
    ledger = Ledger(store)
    ledger.refresh(store.catalogue().result())
    pools = dict.fromkeys(
        budget.lending.pool for budget in ledger.catalogue.budgets.values() if budget.lending is not None
    )
    lent = _lent(store)
    return [_crew(ledger, pool, lent, ended=ended) for pool in pools if name in (None, pool)]


def _crew(ledger: Ledger, pool: str, lent: dict[tuple[str, str, str], list[int]], *, ended: bool) -> CrewFigures:
    crew = Crew(pool, named=True, ledger=ledger)
    now_ms = ledger.store.now()
    everyone = crew.members(ended=True)
    members = everyone if ended else crew.members()
    agents = tuple(
        AgentFigures(name, lending.priority, lending.parent, lending.ended(now_ms), lending.reserve(unit), figures)
        for name, units in crew.figures(members).items()
        if (lending := members[name].lending) is not None
        for unit, figures in units.items()
    )
    names = {budget.name: agent for agent, budget in everyone.items()}
    rows = (
        LentFigures(names[donor], names[taker], unit, used, in_flight)
        for (donor, taker, unit), (used, in_flight) in lent.items()
        if donor in names and taker in names and (used or in_flight)
    )
    return CrewFigures(pool, agents, tuple(sorted(rows, key=lambda row: -row.used - row.in_flight)))


def _lent(store: Store) -> dict[tuple[str, str, str], list[int]]:
    """By budget names and unit: what was used, and what calls in flight may still use."""
    found: dict[tuple[str, str, str], list[int]] = {}

    def add(of: Any, amount: int, place: int) -> None:
        donor, taker = (read_account_key(account)[0] for account in (of.donor, of.taker))
        found.setdefault((donor, taker, of.unit), [0, 0])[place] += amount

    for entry in store.entries().result():
        for transfer in entry.transfers:
            add(transfer, transfer.amount, 0)
    for hold in store.holds(*LIVE).result():
        for loan in hold.loans:
            add(loan, loans.held_by(loan, hold), 1)
    return found


def _json(unit: str, amount: int) -> int | str:
    return usd_decimal(amount) if unit == "usd" else amount
