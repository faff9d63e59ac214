"""
Agents: budgets that flow to whoever matters more. The standard library only.

    from farthing import BudgetManager

    manager = BudgetManager()
    manager.register_agent("researcher", priority=3, max_tokens=4000)
    manager.register_agent("critic", priority=1, max_tokens=2000)

    @manager.govern("researcher")
    def call_researcher(prompt: str) -> str: ...
"""

from __future__ import annotations

from ..errors import (
    AgentFunctionError,
    BudgetExceededError,
    ConfidenceReached,
    TBCError,
    UnknownAgent,
    UnknownAgentError,
)
from ..kernel.lending import Donor, downhill
from .child import Child
from .contract import AgentContract, BudgetContract, ConfidenceGate
from .ledger import AgentLedger, Ledger, LedgerEntry
from .manager import BudgetManager
from .reallocator import Reallocator
from .scope import AgentScope
from .seeing import Explanation
from .tokenizer import estimate_tokens

__all__ = [
    "AgentContract",
    "AgentFunctionError",
    "AgentLedger",
    "AgentScope",
    "BudgetContract",
    "BudgetExceededError",
    "BudgetManager",
    "Child",
    "ConfidenceGate",
    "ConfidenceReached",
    "Donor",
    "Explanation",
    "Ledger",
    "LedgerEntry",
    "Reallocator",
    "TBCError",
    "UnknownAgent",
    "UnknownAgentError",
    "downhill",
    "estimate_tokens",
]
