"""What this process can look back on by itself: the last clamps and downgrades, and what it no longer knows."""

from __future__ import annotations

from ..runtime.default import runtime
from ..runtime.events import BudgetEvent


def clamps() -> list[BudgetEvent]:
    """The last calls whose output ceiling was lowered, oldest first; at most 1,000 are kept."""
    return list(runtime().events.clamps)


def downgrades() -> list[BudgetEvent]:
    """The last calls that were sent with a cheaper model, oldest first; at most 1,000 are kept."""
    return list(runtime().events.downgrades)


def dropped() -> int:
    """
    How many calls :func:`farthing.report` of this process no longer knows, for it keeps ``max_records``. Budgets have
    counted them all the same, and so has the ledger, if one is configured.
    """
    return runtime().memory_store.dropped


def unpriced_calls() -> int:
    """How many of the calls that this process knows have no known price: their tokens count, their cost is unknown."""
    here = runtime()
    here.housekeeper.catch_up()
    return sum(figures.unpriced_calls for figures in here.memory_store.sums().result().values())
