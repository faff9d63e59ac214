"""Contracts: what an agent may spend, how much it matters, what it always keeps, and when its answer is good enough."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import ClassVar

from ..kernel.budget import Budget
from ..kernel.lending import Lending
from ..kernel.money import count_of, nano_from_usd, usd_from_nano
from ..kernel.window import datetime_from_ms

MILLION = 1_000_000
DEFAULT_TOKENS = 1_000
_CHANGEABLE = ("last_confidence", "created_at")


@dataclass
class AgentContract:
    """
    One agent's terms.

    Args:
        agent_name: how calls and reports name it.
        priority: at least 1; it may borrow from agents of this priority or a lower one, and lends to those above.
        max_tokens: its allocation in tokens; None: not limited in tokens.
        min_reserve: the tokens that it never lends; None: a tenth of *max_tokens*, rounded down.
        confidence_threshold: from 0 to 1: from this confidence on, nothing more is spent on the same task.
        last_confidence: of its last answer (outside of any named task); set it to None to open the gate again.
        created_at: seconds since the epoch.
        max_usd, min_reserve_usd: the same limits in US dollars.
        parent: the agent it was delegated from; *expires_at* is when that ends.

    Raises ValueError naming the field. Of a manager's contracts only ``last_confidence`` can be set: their terms stand
    in the ledger, and ``update_agent`` changes them there.
    """

    in_force: ClassVar[bool] = False
    """Whether it says what a ledger has."""

    agent_name: str
    priority: int = 1
    max_tokens: int | None = DEFAULT_TOKENS
    min_reserve: int | None = None
    confidence_threshold: float | None = None
    last_confidence: float | None = field(default=None, repr=False)
    created_at: float = field(default_factory=time.time)
    max_usd: Decimal | int | float | None = None
    min_reserve_usd: Decimal | int | float | None = None
    parent: str | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.agent_name, str) or not self.agent_name.strip() or len(self.agent_name) > 150:
            raise ValueError(f"agent_name must be non-empty text of at most 150 characters, not {self.agent_name!r}")
        if type(self.priority) is not int or self.priority < 1:
            raise ValueError(f"priority must be an integer of at least 1, not {self.priority!r}")
        if self.max_tokens is None and self.max_usd is None:
            raise ValueError("an agent needs a limit: give max_tokens= or max_usd=")
        if self.max_tokens is not None:
            count_of(self.max_tokens, field="max_tokens")
        if self.min_reserve is None:
            self.min_reserve = (self.max_tokens or 0) // 10
        count_of(self.min_reserve, field="min_reserve")
        if self.min_reserve > (self.max_tokens or 0):
            raise ValueError(f"min_reserve ({self.min_reserve}) must not be above max_tokens ({self.max_tokens})")
        limit_nano = 0 if self.max_usd is None else nano_from_usd(self.max_usd, field="max_usd")
        if self.min_reserve_usd is None:
            reserve_nano = limit_nano // 10
        else:
            reserve_nano = nano_from_usd(self.min_reserve_usd, field="min_reserve_usd")
        if reserve_nano > limit_nano:
            raise ValueError(f"min_reserve_usd ({self.min_reserve_usd}) must not be above max_usd ({self.max_usd})")
        if self.max_usd is not None:
            self.max_usd, self.min_reserve_usd = usd_from_nano(limit_nano), usd_from_nano(reserve_nano)
        if self.confidence_threshold is not None:
            check_confidence(self.confidence_threshold, field="confidence_threshold")

    def __setattr__(self, name: str, value: object) -> None:
        if self.in_force and name not in _CHANGEABLE and value != getattr(self, name, None):
            raise AttributeError(
                f"{name} stands in the ledger: change it with update_agent({self.agent_name!r}, {name}={value!r})"
            )
        object.__setattr__(self, name, value)

    def to_budget(self, pool: str, *, anonymous: bool, expires_ms: int | None = None, delegation: str = "") -> Budget:
        """The budget that these terms are in a ledger."""
        threshold = self.confidence_threshold
        return Budget(
            name=budget_name(pool, self.agent_name),
            tokens=self.max_tokens,
            usd_nano=None if self.max_usd is None else nano_from_usd(self.max_usd, field="max_usd"),
            scope=(("agent", self.agent_name), ("pool", pool)),
            anonymous=anonymous,
            label=self.agent_name if anonymous else "",
            min_output_tokens=1,
            lending=Lending(
                pool=pool,
                agent=self.agent_name,
                priority=self.priority,
                reserve_tokens=self.min_reserve or 0,
                reserve_usd_nano=nano_from_usd(self.min_reserve_usd or 0, field="min_reserve_usd"),
                threshold_ppm=None if threshold is None else round(threshold * MILLION),
                parent=self.parent,
                expires_ms=expires_ms,
                delegation=delegation,
            ),
        )

    @classmethod
    def of_budget(cls, budget: Budget) -> AgentContract:
        """The terms that a ledger's budget is: the inverse of :meth:`to_budget`."""
        lending = budget.lending
        if lending is None:
            raise ValueError(f"budget {budget.title!r} is not an agent's")
        contract = cls(
            agent_name=lending.agent,
            priority=lending.priority,
            max_tokens=budget.tokens,
            min_reserve=min(lending.reserve_tokens, budget.tokens or 0),
            confidence_threshold=None if lending.threshold_ppm is None else lending.threshold_ppm / MILLION,
            max_usd=None if budget.usd_nano is None else usd_from_nano(budget.usd_nano),
            min_reserve_usd=usd_from_nano(min(lending.reserve_usd_nano, budget.usd_nano or 0)),
            parent=lending.parent,
            expires_at=None if lending.expires_ms is None else datetime_from_ms(lending.expires_ms),
        )
        object.__setattr__(contract, "in_force", True)
        return contract


BudgetContract = AgentContract
"""The name that users of the Token Budget Contracts package know it by."""


class ConfidenceGate:
    """Whether an agent that is this confident may go on spending."""

    @staticmethod
    def allow_further_retrieval(contract: AgentContract, confidence: float | None) -> bool:
        """Without a threshold, or where no confidence is known, it may; else while it is below the threshold."""
        if contract.confidence_threshold is None or confidence is None:
            return True
        return confidence < contract.confidence_threshold


def budget_name(pool: str, agent: str) -> str:
    """What an agent's budget is called in its ledger."""
    return f"{pool}/{agent}"


def check_confidence(value: object, *, field: str) -> float:
    """A confidence as it is kept. Raises ValueError naming *field*: NaN and text are no confidence."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"{field} must be a number from 0 to 1, not {value!r}")
    return value
