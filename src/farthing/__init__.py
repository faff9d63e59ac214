"""
Hard budgets for LLM calls, to the last farthing.

Money and tokens are held before a call leaves and settled to what it really cost when it ends, on one ledger that a
program's code, a proxy and a whole fleet share::

    from openai import OpenAI
    from farthing import BudgetExceeded, budget, instrument

    client = instrument(OpenAI())

    with budget(usd=0.50):
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])

Importing this is cheap: each name below loads its part on first use; SDKs, price table and tokenisers even later.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import forks
from .errors import (
    AgentFunctionError,
    BudgetExceeded,
    BudgetExceededError,
    ConfidenceReached,
    ConfigError,
    FarthingError,
    HoldConflict,
    HoldError,
    HoldNotFound,
    InvariantError,
    StoreUnavailable,
    TBCError,
    UnknownAgent,
    UnknownAgentError,
    UnmeteredCall,
    UnpricedModel,
)

if TYPE_CHECKING:
    from . import prices, sinks, tokens
    from .agents import AgentContract, BudgetContract, BudgetManager, ConfidenceGate, Ledger, Reallocator
    from .calls.exceeding import Allow
    from .calls.manual import ManualHold, hold, record
    from .config import configure
    from .config.starting import start_proxy
    from .kernel.decision import Decision
    from .kernel.usage import Usage
    from .proxy.flags import BudgetConfig
    from .proxy.process.server import ProxyServer
    from .reports.estimates import estimate
    from .reports.explaining import Explanation, explain
    from .reports.lookback import clamps, downgrades, dropped, unpriced_calls
    from .reports.spending import Report, report
    from .runtime.default import reset
    from .runtime.events import BudgetEvent
    from .runtime.runtime import StalePricesWarning, StalePriceTableWarning, UnmeteredCallWarning, UnpricedModelWarning
    from .scopes.budgets import Amounts, BudgetHandle, budget
    from .scopes.tracking import track
    from .sdk.install import install, uninstall
    from .sdk.instrument import instrument
    from .sdk.watch import UngovernedClientWarning
    from .sinks.use import use_sink

__version__ = "0.1.0"

__all__ = [
    "AgentContract",
    "AgentFunctionError",
    "Allow",
    "Amounts",
    "BudgetConfig",
    "BudgetContract",
    "BudgetEvent",
    "BudgetExceeded",
    "BudgetExceededError",
    "BudgetHandle",
    "BudgetManager",
    "ConfidenceGate",
    "ConfidenceReached",
    "ConfigError",
    "Decision",
    "Explanation",
    "FarthingError",
    "HoldConflict",
    "HoldError",
    "HoldNotFound",
    "InvariantError",
    "Ledger",
    "ManualHold",
    "ProxyServer",
    "Reallocator",
    "Report",
    "StalePriceTableWarning",
    "StalePricesWarning",
    "StoreUnavailable",
    "TBCError",
    "UngovernedClientWarning",
    "UnknownAgent",
    "UnknownAgentError",
    "UnmeteredCall",
    "UnmeteredCallWarning",
    "UnpricedModel",
    "UnpricedModelWarning",
    "Usage",
    "budget",
    "clamps",
    "configure",
    "downgrades",
    "dropped",
    "estimate",
    "explain",
    "hold",
    "install",
    "instrument",
    "prices",
    "record",
    "report",
    "reset",
    "sinks",
    "start_proxy",
    "tokens",
    "track",
    "uninstall",
    "unpriced_calls",
    "use_sink",
]

_HOMES = {
    "AgentContract": "agents",
    "Allow": "calls.exceeding",
    "Amounts": "scopes.budgets",
    "BudgetConfig": "proxy.flags",
    "BudgetContract": "agents",
    "BudgetEvent": "runtime.events",
    "BudgetHandle": "scopes.budgets",
    "BudgetManager": "agents",
    "ConfidenceGate": "agents",
    "Decision": "kernel.decision",
    "Explanation": "reports.explaining",
    "Ledger": "agents",
    "ManualHold": "calls.manual",
    "ProxyServer": "proxy.process.server",
    "Reallocator": "agents",
    "Report": "reports.spending",
    "StalePriceTableWarning": "runtime.runtime",
    "StalePricesWarning": "runtime.runtime",
    "UngovernedClientWarning": "sdk.watch",
    "UnmeteredCallWarning": "runtime.runtime",
    "UnpricedModelWarning": "runtime.runtime",
    "Usage": "kernel.usage",
    "budget": "scopes.budgets",
    "clamps": "reports.lookback",
    "configure": "config",
    "downgrades": "reports.lookback",
    "dropped": "reports.lookback",
    "estimate": "reports.estimates",
    "explain": "reports.explaining",
    "hold": "calls.manual",
    "install": "sdk.install",
    "instrument": "sdk.instrument",
    "record": "calls.manual",
    "report": "reports.spending",
    "reset": "runtime.default",
    "start_proxy": "config.starting",
    "track": "scopes.tracking",
    "uninstall": "sdk.install",
    "unpriced_calls": "reports.lookback",
    "use_sink": "sinks.use",
}
"""Where each public name that is not loaded at once lives."""


def __getattr__(name: str) -> Any:
    if name in ("prices", "sinks", "tokens"):
        with forks.loading():
            return import_module(f".{name}", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with forks.loading():
        value = getattr(import_module(f".{home}", __name__), name)
    if home in ("scopes.budgets", "agents"):
        _watch()
    globals()[name] = value
    return value


def _watch() -> None:
    """Budgets are below the doors and do not know them, so it is said here: whoever uses one has its calls watched."""
    entered = import_module(".scopes.budgets", __name__).entered
    begin = import_module(".sdk.watch", __name__).begin
    if begin not in entered:
        entered.append(begin)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
