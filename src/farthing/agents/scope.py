"""``AgentScope``: a ``with`` whose measured calls are charged to an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..calls.lending import Work
from ..runtime.ambient import Ambient
from ..scopes.entering import Entered

if TYPE_CHECKING:
    from .manager import BudgetManager


class AgentScope(Entered):
    """What :meth:`BudgetManager.agent` returns: a context manager, sync and async; many tasks may enter one."""

    def __init__(self, manager: BudgetManager, agent_name: str, task: str | None) -> None:
        self.manager = manager
        self.agent_name = agent_name
        self.task = task

    def _go_in(self, outside: Ambient) -> Ambient:
        manager = self.manager
        budget, _ = manager.crew.budget(self.agent_name)
        manager.check_gate(self.agent_name, self.task)
        # Inside of a governed function a call takes the place of its estimate, whichever agent of the pool is charged.
        around = (of.work for of in reversed(outside.bindings) if of.work is not None and manager.crew.has(of.budget))
        work = next(around, None) or Work(manager.past(self.agent_name).expected_output())
        return manager.crew.enter(outside, budget, work)

    def _come_out(self, here: Ambient, outside: Ambient) -> Ambient:
        return outside
