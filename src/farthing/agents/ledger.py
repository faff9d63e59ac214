"""The agents' ledger: what each was given and what it used, exactly where a provider says what a call used."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from ..calls.manual import HOLD_MS
from ..calls.steps import Finished, Life, advance
from ..errors import BudgetExceeded
from ..kernel.budget import Budget
from ..kernel.hold import Entry, Outcome
from ..kernel.lending import Lending
from ..kernel.money import count_of
from ..kernel.plan import Ask, CallFacts, make_plan
from ..kernel.usage import Usage
from ..runtime.ambient import current
from ..runtime.default import runtime
from ..runtime.ledgers import Ledger as StoreLedger
from ..stores.memory import MemoryStore
from .charging import charge
from .contract import AgentContract
from .crew import Amount, Crew, Figures

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One call, or one amount that was recorded. ``timestamp`` is in seconds since the epoch."""

    agent_name: str
    tokens: int
    timestamp: float
    note: str = ""


class AgentLedger:
    """
    What agents have and used. A manager's is ``manager.ledger``; made by itself, it keeps agents of its own in memory.

    Figures are tokens; of an agent that is limited in money alone, Decimals in USD.
    """

    def __init__(self, crew: Crew | None = None) -> None:
        self._alone = crew is None
        self._crew = _crew_of_its_own() if crew is None else crew

    @property
    def crew(self) -> Crew:
        """Its agents."""
        return self._crew

    # -- agents --------------------------------------------------------------------------------------------------

    def register(self, agent_name: str, allocated: int) -> None:
        """Give an agent so many tokens. One that is known keeps what it has used, and has this allocation from now."""
        known = self._crew.find(agent_name)
        if known is None:
            contract = AgentContract(agent_name, max_tokens=allocated, min_reserve=0)
            self._crew.put(contract.to_budget(self._crew.pool, anonymous=not self._crew.named))
            return
        count_of(allocated, field="allocated")

        def given(budget: Budget, _: Lending) -> Budget:
            figures = self._crew.figures({agent_name: budget})[agent_name]["tokens"]
            return _limited(budget, figures.limit + allocated - figures.allocated)

        self._crew.change(agent_name, given)

    def adjust_allocation(self, agent_name: str, delta: int) -> None:
        """
        Give an agent more tokens, or (*delta* below 0) take some away: from or to nobody else.

        Raises KeyError for an unknown agent, ValueError if it has less than that.
        """
        if type(delta) is not int:
            raise ValueError(f"delta must be an integer, not {delta!r}")

        def adjusted(budget: Budget, _: Lending) -> Budget:
            if budget.tokens is None or budget.tokens + delta < 0:
                raise ValueError(f"delta={delta}: agent {agent_name!r} has less than that")
            return _limited(budget, budget.tokens + delta)

        self._crew.change(agent_name, adjusted)

    # -- accounting ----------------------------------------------------------------------------------------------

    def record(self, agent_name: str, tokens: int, note: str = "") -> None:
        """
        Count tokens that a call of this agent used. What it is short of is borrowed; beyond that it is recorded all the
        same, and the agent's next call is refused. Inside of a governed function it stands in place of the estimate.

        Raises KeyError (UnknownAgent) for an unknown agent, ValueError for anything but an integer of at least 0.
        """
        self.paid(agent_name, tokens, note)

    def paid(self, agent_name: str, tokens: int, note: str = "") -> BudgetExceeded | None:
        """As :meth:`record`; returns what would have refused these tokens if they had been asked for before."""
        budget, _ = self._crew.budget(agent_name)
        usage = Usage(input=count_of(tokens, field="tokens"))
        outcome = Outcome((tokens, 0, 1, 0), usage, None, "ok", "provider", None, note or None)
        if self._alone:
            self._write(budget, outcome)
            return None
        work = next((of.work for of in current().bindings if of.budget.name == budget.name), None)
        inside = self._crew.enter(current(), budget, work)
        refused: list[BudgetExceeded | None] = []

        def charged() -> Life:
            refused.append((yield from charge(runtime(), inside, outcome, dialect="agents.record")))
            return Finished()

        advance(charged())
        return refused[0]

    def _write(self, budget: Budget, outcome: Outcome) -> None:
        ledger = self._crew.ledger
        lending = budget.lending
        account = ledger.catalogue.account(budget, {}, ledger.store.now())
        facts = CallFacts(
            dialect="agents.record",
            tags=(("agent", "" if lending is None else lending.agent), ("pool", self._crew.pool)),
            input_tokens=outcome.usage.total_tokens,
        )
        ask = Ask(f"record-{next(_numbers)}", facts, 0, 0, ledger.store.now() + HOLD_MS)
        plan = make_plan(ask, [replace(account, limits=())], catalogue_version=ledger.catalogue.version)
        ledger.store.record(plan, outcome).result()

    # -- figures -------------------------------------------------------------------------------------------------

    def remaining(self, agent_name: str) -> Amount:
        """What is left of the agent's own, never below 0; others may lend it more. Raises KeyError."""
        figures = self._main(agent_name)
        return figures.shown(figures.remaining)

    def consumed(self, agent_name: str) -> Amount:
        """What its calls cost. Raises KeyError."""
        figures = self._main(agent_name)
        return figures.shown(figures.consumed)

    def allocated(self, agent_name: str) -> Amount:
        """What it was given, with what it has borrowed and without what it has lent. Raises KeyError."""
        figures = self._main(agent_name)
        return figures.shown(figures.allocated)

    def snapshot(self) -> dict[str, dict[str, Amount]]:
        """``{name: {"allocated": …, "consumed": …, "remaining": …}}``, all as of one instant."""
        found = self._crew.figures(self._crew.members())
        return {agent: three(main_unit(units)) for agent, units in found.items()}

    def history(self, agent_name: str | None = None) -> list[LedgerEntry]:
        """Calls and recorded amounts in order, of one agent or of all; as far back as the ledger keeps them."""
        if agent_name is not None:
            self._crew.budget(agent_name, ended=True)
        rows = self._crew.ledger.store.entries().result()
        return [entry for row in rows if (entry := self._entry(row, agent_name)) is not None]

    def _entry(self, row: Entry, agent_name: str | None) -> LedgerEntry | None:
        tags = dict(row.facts.tags)
        agent = tags.get("agent")
        if agent is None or tags.get("pool") != self._crew.pool or agent_name not in (None, agent):
            return None
        tokens = sum(count for kind, count in row.usage if kind != "reasoning")
        return LedgerEntry(agent, tokens, row.at_ms / 1000, row.note or row.facts.model or "")

    def _main(self, agent_name: str) -> Figures:
        return main_unit(self._crew.figures_of(agent_name))


Ledger = AgentLedger
"""The name that users of the Token Budget Contracts package know it by."""


def main_unit(units: dict[str, Figures]) -> Figures:
    """The unit that an agent is shown in: tokens, unless it is limited in money alone."""
    return units["tokens"] if "tokens" in units else units["usd"]


def three(figures: Figures) -> dict[str, Amount]:
    """The three figures of a report."""
    return {
        "allocated": figures.shown(figures.allocated),
        "consumed": figures.shown(figures.consumed),
        "remaining": figures.shown(figures.remaining),
    }


def _crew_of_its_own() -> Crew:
    ledger = StoreLedger(MemoryStore())
    ledger.refresh(ledger.store.catalogue().result())
    return Crew(f"ledger-{next(_numbers)}", named=False, ledger=ledger)


def _limited(budget: Budget, tokens: int) -> Budget:
    """The same agent with so many tokens; it can reserve no more than it has."""
    lending = budget.lending
    if tokens < 0:
        raise ValueError("allocated is less than the agent has lent to others")
    if lending is not None and lending.reserve_tokens > tokens:
        budget = replace(budget, lending=replace(lending, reserve_tokens=tokens))
    return replace(budget, tokens=tokens)
