"""What agents, and the people who watch them, can know: a hint for a prompt, and who would lend to whom."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernel.lending import downhill
from ..kernel.money import count_of, format_usd
from ..runtime.pools import LENT_UNITS
from .crew import Crew, Figures
from .past import Past


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether an agent could use an amount of tokens now. ``lenders``: who would lend how much, in order."""

    agent_name: str
    tokens: int
    allowed: bool
    own: int
    """What it has of its own towards it."""
    lenders: tuple[tuple[str, int], ...] = ()
    missing: int = 0
    """What nobody has, where it is not allowed."""
    reason: str = ""

    def __str__(self) -> str:
        return self.reason


def explain(crew: Crew, agent: str, tokens: int) -> Explanation:
    """See :meth:`BudgetManager.explain`."""
    count_of(tokens, field="tokens")
    _, lending = crew.budget(agent)
    figures = crew.figures(crew.members(ended=True))
    mine = figures[agent].get("tokens")
    if mine is None:
        return Explanation(agent, tokens, True, tokens, reason=f"{agent} is limited in USD alone, not in tokens.")
    own = min(tokens, mine.remaining)
    if mine.overrun:
        reason = f"No: {agent} used {mine.overrun:,} tokens more than it has. Give it more with update_agent."
        return Explanation(agent, tokens, False, 0, missing=tokens + mine.overrun, reason=reason)
    donors = crew.donors(agent, "tokens", figures)
    shares = downhill(lending.priority, tokens - own, donors)
    lenders = tuple((donor.name, amount) for donor, amount in shares)
    if own + sum(amount for _, amount in lenders) == tokens:
        loans = ", ".join(f"{amount:,} from {name}" for name, amount in lenders)
        reason = f"Yes: {agent} has {own:,} of {tokens:,} tokens" + (f" and would borrow {loans}." if loans else ".")
        return Explanation(agent, tokens, True, own, lenders, reason=reason)
    lendable = sum(donor.spare for donor in donors if donor.spare > 0 and donor.priority <= lending.priority)
    missing = tokens - own - lendable
    reason = f"No: {agent} has {own:,} of {tokens:,} tokens, others may lend {lendable:,}: {missing:,} are missing."
    return Explanation(agent, tokens, False, own, missing=missing, reason=reason)


def hint(crew: Crew, agent: str, past: Past) -> str:
    """See :meth:`BudgetManager.hint`."""
    units = crew.figures_of(agent)
    parts = [_left(units[unit]) for unit in LENT_UNITS if unit in units]
    text = f"Budget of {agent}: {' and '.join(parts)} left"
    typical, tokens = past.typical_total(), units.get("tokens")
    if typical is None or tokens is None:
        return f"{text}."
    calls = tokens.remaining // typical
    return f"{text}, about {calls:,} more {'call' if calls == 1 else 'calls'} of the usual {typical:,} tokens."


def _left(figures: Figures) -> str:
    if figures.unit == "usd":
        return f"{format_usd(figures.remaining)} of {format_usd(figures.allocated)}"
    return f"{figures.remaining:,} of {figures.allocated:,} tokens"
