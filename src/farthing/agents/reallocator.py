"""Moving allocations by hand: for good, and outside of any call. Calls borrow by themselves, before they are sent."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from dataclasses import replace

from ..errors import UnknownAgent
from ..kernel.budget import Budget
from ..kernel.hold import MOVE, Outcome
from ..kernel.ledger import Placed, Stale
from ..kernel.lending import Donor, downhill
from ..kernel.plan import CallFacts, Line, Plan, Posting
from ..runtime.pools import FOREVER_MS
from .contract import AgentContract
from .ledger import AgentLedger

ATTEMPTS_MAX = 200
_numbers = itertools.count(1)


class Reallocator:
    """
    Who could lend, and moving tokens from whoever can to an agent that is short.

    Args:
        contracts: terms by agent; their priorities and reserves are what counts.
        ledger: where the agents have their tokens.
    """

    def __init__(self, contracts: Mapping[str, AgentContract], ledger: AgentLedger) -> None:
        self.contracts = contracts
        self.ledger = ledger

    def find_donors(self, exclude: str | None = None) -> list[str]:
        """Who has more left than its reserve: lowest priority first, then most left, then first registered."""
        remaining = {name: of["remaining"] for name, of in self.ledger.snapshot().items()}
        spare = {
            name: int(remaining[name])
            for name, contract in self.contracts.items()
            if name != exclude
            and contract.max_tokens is not None
            and contract.parent is None
            and name in remaining
            and remaining[name] > (contract.min_reserve or 0)
        }
        return sorted(spare, key=lambda name: (self.contracts[name].priority, -spare[name]))

    def reallocate(self, needy: str, shortfall: int) -> int:
        """
        Move up to *shortfall* tokens to an agent, from donors of its priority or a lower one; as much as can be had.

        Returns how many were moved. No donor falls below its reserve, and the sum of all allocations stays what it is,
        whatever happens at the same time. What a delegated agent has is its parent's: it takes no part. Raises KeyError
        for an unknown agent.
        """
        if needy not in self.contracts:
            raise UnknownAgent(needy, known=tuple(self.contracts))
        if type(shortfall) is not int:
            raise ValueError(f"shortfall must be an integer, not {shortfall!r}")
        if shortfall <= 0:
            return 0
        for _ in range(ATTEMPTS_MAX):
            moved = self._move(needy, shortfall)
            if moved is not None:
                return moved
        return 0

    def _move(self, needy: str, shortfall: int) -> int | None:
        """One attempt; None where balances changed meanwhile."""
        crew = self.ledger.crew
        # Terms and version from one catalogue: another thread may be changing it.
        catalogue = crew.ledger.catalogue
        members = crew.members(of=catalogue)
        taker = members.get(needy)
        if taker is None:
            raise UnknownAgent(needy, known=tuple(members))
        if taker.tokens is None or self.contracts[needy].parent is not None:
            return 0
        figures = crew.figures({name: members[name] for name in self.contracts if name in members})
        donors = [
            Donor(
                name, self.contracts[name].priority, units["tokens"].remaining - (self.contracts[name].min_reserve or 0)
            )
            for name, units in figures.items()
            if name != needy and "tokens" in units and self.contracts[name].parent is None
        ]
        priority = self.contracts[needy].priority
        able = sum(donor.spare for donor in donors if donor.spare > 0 and donor.priority <= priority)
        shares = downhill(priority, min(shortfall, able), donors)
        if not shares:
            return 0
        return self._carry_out(taker, [(members[donor.name], amount) for donor, amount in shares], catalogue.version)

    def _carry_out(self, taker: Budget, shares: list[tuple[Budget, int]], version: int) -> int | None:
        """Hold each share on its donor, change all limits in one step, and let go; None where others were faster."""
        crew = self.ledger.crew
        ledger = crew.ledger
        held: list[str] = []
        try:
            for donor, amount in shares:
                plan = self._share(donor, amount, version)
                placed = ledger.store.place(plan).result()
                if not isinstance(placed, Placed):
                    if isinstance(placed, Stale):
                        crew.refresh()
                    return None
                held.append(plan.id)
            moved = sum(amount for _, amount in shares)
            changed = [replace(donor, tokens=(donor.tokens or 0) - amount) for donor, amount in shares]
            gained = replace(taker, tokens=(taker.tokens or 0) + moved)
            return moved if crew.exchange([*changed, gained], version) else None
        finally:
            taken = taker.lending.agent if taker.lending else taker.title
            for hold_id, (donor, amount) in zip(held, shares, strict=False):
                given = donor.lending.agent if donor.lending else donor.title
                note = f"{given} → {taken}: {amount} tokens, by hand"
                ledger.store.void(hold_id, Outcome(cost_nano=0, ending="moved", note=note)).result()

    def _share(self, donor: Budget, amount: int, version: int) -> Plan:
        """A plan that holds this much on a donor, if that leaves it its reserve."""
        ledger = self.ledger.crew.ledger
        now_ms = ledger.store.now()
        account = ledger.catalogue.account(donor, {}, now_ms)
        agent = donor.lending.agent if donor.lending else donor.title
        most = (account.ceiling("tokens") or 0) - (self.contracts[agent].min_reserve or 0)
        return Plan(
            id=f"move-{next(_numbers)}-{secrets.token_hex(6)}",
            facts=CallFacts(dialect=MOVE, tags=(("agent", agent),), budgets=(donor.title,), input_tokens=amount),
            lines=(Line(donor, account.scope, "tokens", account.keys, most),),
            postings=(Posting(account.key, ("tokens",)),),
            x_want=0,
            x_floor=0,
            deadline_ms=FOREVER_MS,
            catalogue_version=version,
        )
