"""
Hard budgets for LLM calls, to the last farthing.

Money and tokens are held before a call leaves and settled to what it really cost when it ends, on one ledger that a
program's code, a proxy and a whole fleet share::

    from openai import OpenAI
    from farthing import BudgetExceeded, budget, instrument

    client = instrument(OpenAI())

    with budget(usd=0.50):
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])

Importing this loads the kernel and the ledger in memory; SDKs, price table, tokenisers and servers load on use.
"""

from __future__ import annotations

from . import prices, tokens
from .calls.budgets import Amounts, BudgetHandle, budget
from .calls.default import configure, reset
from .calls.estimates import estimate
from .calls.manual import ManualHold, hold, record
from .calls.reports import Report, report
from .calls.runtime import UnmeteredCallWarning, UnpricedModelWarning
from .calls.tracking import track
from .errors import (
    BudgetExceeded,
    ConfigError,
    FarthingError,
    HoldConflict,
    HoldError,
    HoldNotFound,
    InvariantError,
    StoreUnavailable,
    UnmeteredCall,
    UnpricedModel,
)
from .kernel.decision import Decision
from .kernel.usage import Usage
from .sdk import UngovernedClientWarning, instrument

__version__ = "0.1.0"

__all__ = [
    "Amounts",
    "BudgetExceeded",
    "BudgetHandle",
    "ConfigError",
    "Decision",
    "FarthingError",
    "HoldConflict",
    "HoldError",
    "HoldNotFound",
    "InvariantError",
    "ManualHold",
    "Report",
    "StoreUnavailable",
    "UngovernedClientWarning",
    "UnmeteredCall",
    "UnmeteredCallWarning",
    "UnpricedModel",
    "UnpricedModelWarning",
    "Usage",
    "budget",
    "configure",
    "estimate",
    "hold",
    "instrument",
    "prices",
    "record",
    "report",
    "reset",
    "tokens",
    "track",
]
