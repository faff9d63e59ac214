"""What several budgets say together about the terms of one call: of each term, the strictest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .budget import OPEN_BOUND, UNCAPPED, Budget


@dataclass(frozen=True, slots=True)
class Strictest:
    """What the matching budgets say together."""

    hard: tuple[Budget, ...]
    counts_usd: Budget | None
    """A budget that limits money, or None."""
    breaks: bool
    """One of them ends a stream whose hold is used up."""
    may_cut: bool
    """They may have a stream ended: that, or one of them lets a request without a ceiling be watched."""
    raises: bool
    """One of them lets the call that crosses it finish, and raises then."""
    uncapped: str
    open_bound: str
    min_output_tokens: int
    default_output_tokens: int | None
    titles: tuple[str, ...]
    """Of all of them, in order."""

    @classmethod
    def of(cls, budgets: Sequence[Budget]) -> Strictest:
        hard = [budget for budget in budgets if budget.hard]
        money = [budget for budget in budgets if budget.usd_nano is not None]
        breaks = any(budget.on_exceed == "break" for budget in hard)
        uncapped = min((budget.uncapped for budget in hard), key=UNCAPPED.index, default="inject")
        defaults = [budget.default_output_tokens for budget in hard if budget.default_output_tokens is not None]
        return cls(
            hard=tuple(hard),
            counts_usd=money[-1] if money else None,
            breaks=breaks,
            may_cut=breaks or uncapped == "watch",
            raises=any(budget.on_exceed == "raise" for budget in budgets),
            uncapped=uncapped,
            open_bound=min((budget.open_bound for budget in hard), key=OPEN_BOUND.index, default=OPEN_BOUND[-1]),
            min_output_tokens=max((budget.min_output_tokens for budget in hard), default=1),
            default_output_tokens=min(defaults, default=None),
            titles=tuple(budget.title for budget in budgets),
        )
