"""``Child``: what an agent has delegated, in the hands of whoever is to spend it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..admin.keys import create_key, revoke_key
from ..errors import ConfigError
from ..kernel.window import datetime_from_ms

if TYPE_CHECKING:
    from .crew import Amount
    from .manager import BudgetManager
    from .scope import AgentScope


class Child:
    """What :meth:`BudgetManager.delegate` returns: a child budget, also as a context manager that closes it."""

    def __init__(self, manager: BudgetManager, name: str) -> None:
        self.manager = manager
        self.name = name

    def agent(self, *, task: str | None = None) -> AgentScope:
        """The child's scope, as ``manager.agent(name)``."""
        return self.manager.agent(self.name, task=task)

    def remaining(self) -> Amount:
        """What is left of it."""
        return self.manager.remaining(self.name)

    def key(self) -> str:
        """
        A new virtual key of the proxy on the same ledger: whoever shows it, in any language, spends from this child and
        at most what it has. It is shown once, and ends with the child.

        Raises ConfigError for a manager without a name: a proxy does not see this process's memory.
        """
        crew = self.manager.crew
        budget, lending = crew.budget(self.name)
        if not crew.named or not crew.ledger.store.durable:
            raise ConfigError(
                "a virtual key needs a ledger that the proxy has too: BudgetManager(name=…) with configure(ledger=…)",
                key="ledger",
            )
        return create_key(
            crew.ledger.store,
            tags=dict(budget.scope),
            expires=None if lending.expires_ms is None else datetime_from_ms(lending.expires_ms),
            label=f"agent {self.name} of {crew.pool}",
        ).text

    def close(self) -> None:
        """End it: what it has not used is its parent's again. Its keys end too. Idempotent."""
        crew = self.manager.crew
        budget = crew.find(self.name)
        if budget is None:
            return
        self.manager.close_agent(self.name)
        if crew.ledger.store.durable:
            scope = set(budget.scope)
            for key in crew.ledger.store.keys().result().keys.values():
                if scope <= set(key.tags) and key.revoked_ms is None:
                    revoke_key(crew.ledger.store, key.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
