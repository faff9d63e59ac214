"""
``BudgetManager``: agents that share one pool of budget, which flows to whoever matters more.

One class, for it is one door: what people call on a manager stands here, a few lines each, and the rules behind it in
the files beside this one.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from .. import forks
from ..errors import ConfidenceReached, ConfigError, UnknownAgent
from ..kernel.budget import Budget
from ..kernel.lending import Lending
from ..runtime.default import runtime
from ..runtime.delegations import close_ended
from ..runtime.runtime import log
from . import delegation
from .adopting import adopt, used_by
from .child import Child
from .confidence import Answer, Gates
from .contract import DEFAULT_TOKENS, AgentContract, ConfidenceGate, check_confidence
from .crew import Amount, Crew, Figures
from .delegation import Expires
from .governing import governed, is_method
from .ledger import AgentLedger, main_unit, three
from .past import Past
from .piece import ON_OVERRUN, Governing
from .reallocator import Reallocator
from .scope import AgentScope
from .seeing import Explanation, explain, hint

F = TypeVar("F", bound=Callable[..., Any])
NAME_LENGTH_MAX = 40


class BudgetManager:
    """
    Agents, each with a budget, that lend to each other before a call is refused.

    An agent that is short of tokens (or money) before a call borrows what is missing from agents of lower or equal
    priority: lowest priority first, never below their reserve, in the same step that holds it. What the call did not
    use goes back. Without a name a manager's agents live in this process's memory.

    Args:
        ledger: URL or path of the durable ledger (``"sqlite:///crew.db"``): the one of this process, which it becomes
            if none is in use. Or an :class:`AgentLedger` whose agents this manager takes over.
        name: several managers of one name, in any process with the same ledger, have the same agents.
        wait_seconds: how long a call waits for others whose size nobody knows yet, if it fits once they have ended.
    """

    def __init__(
        self,
        ledger: str | os.PathLike[str] | AgentLedger | None = None,
        name: str | None = None,
        *,
        wait_seconds: float = 30,
    ) -> None:
        if isinstance(wait_seconds, bool) or not isinstance(wait_seconds, (int, float)) or not wait_seconds >= 0:
            raise ValueError(f"wait_seconds must be a number of seconds of at least 0, not {wait_seconds!r}")
        self.wait_seconds = wait_seconds
        self.crew = _crew(ledger, name)
        self.ledger = ledger if isinstance(ledger, AgentLedger) else AgentLedger(self.crew)
        self._lock = forks.lock()
        self._contracts: dict[str, tuple[Budget, AgentContract]] = {}
        self._pasts: dict[str, Past] = {}
        self._gates: dict[str, Gates] = {}
        if self.crew.named:
            used_by(self)
        else:
            # When nobody can ask for its agents any more, their budgets go too. A finaliser may only enqueue, and may
            # run while the runtime is being made: so it has what it needs already.
            here = runtime()
            weakref.finalize(self, here.housekeeper.put, partial(self.crew.forget, here)).atexit = False

    # -- agents --------------------------------------------------------------------------------------------------

    @property
    def contracts(self) -> Mapping[str, AgentContract]:
        """
        The terms of each agent, by name, in order of registration. To be read: :meth:`register_agent` adds one,
        :meth:`update_agent` changes one.
        """
        members = self.crew.members()
        with self._lock:
            for name, budget in members.items():
                known = self._contracts.get(name)
                if known is None or known[0] is not budget:
                    contract = AgentContract.of_budget(budget)
                    if known is not None:
                        contract.last_confidence, contract.created_at = known[1].last_confidence, known[1].created_at
                    self._contracts[name] = (budget, contract)
            return MappingProxyType({name: self._contracts[name][1] for name in members})

    @property
    def reallocator(self) -> Reallocator:
        """Moves allocations by hand. Calls borrow by themselves."""
        return Reallocator(self.contracts, self.ledger)

    def register_agent(
        self,
        agent_name: str,
        priority: int = 1,
        max_tokens: int | None = None,
        min_reserve: int | None = None,
        confidence_threshold: float | None = None,
        *,
        max_usd: Decimal | int | float | None = None,
        min_reserve_usd: Decimal | int | float | None = None,
        parent: str | None = None,
    ) -> AgentContract:
        """
        Register an agent; 1,000 tokens if no limit is given. See :class:`AgentContract` for the terms.

        With a *parent* its budget is taken from that agent's, as :meth:`delegate` does. Registering it again on the
        same terms changes nothing; on others, it is a ConfigError: that is what :meth:`update_agent` is for.
        """
        if max_tokens is None and max_usd is None:
            max_tokens = DEFAULT_TOKENS
        contract = AgentContract(
            agent_name,
            priority,
            max_tokens,
            min_reserve,
            confidence_threshold,
            max_usd=max_usd,
            min_reserve_usd=min_reserve_usd,
            parent=parent,
        )
        if parent is not None and self.crew.find(agent_name) is None:
            try:
                delegation.grant(self.crew, self.crew.budget(parent)[0], contract, None)
                return self.contracts[agent_name]
            except ConfigError:
                # Another process may have registered it in this very moment.
                if self.crew.find(agent_name) is None:
                    raise
        known = self.crew.find(agent_name, ended=True)
        lending = None if known is None else known.lending
        if lending is not None and lending.closed:
            raise ConfigError(f"agent {agent_name!r} is closed; choose another name", key="agent")
        debit = "" if lending is None else lending.delegation
        budget = contract.to_budget(self.crew.pool, anonymous=not self.crew.named, delegation=debit)
        if parent is not None:
            budget = replace(budget, standing=self.crew.named)
        if known is not None and known != budget:
            raise ConfigError(
                f"agent {agent_name!r} is registered with other terms ({known.terms_text()}, priority "
                f"{known.lending.priority if known.lending else '?'}); update_agent changes them for everyone",
                key="agent",
            )
        self.crew.put(budget)
        return self.contracts[agent_name]

    def update_agent(self, agent_name: str, **terms: Any) -> AgentContract:
        """
        Change an agent's terms, for everyone: ``priority max_tokens min_reserve confidence_threshold max_usd
        min_reserve_usd``. What is not named stays. Raises UnknownAgent, ValueError naming the term.
        """
        changeable = ("priority", "max_tokens", "min_reserve", "confidence_threshold", "max_usd", "min_reserve_usd")
        for term in terms:
            if term not in changeable:
                raise ValueError(f"{term!r} is not a term of an agent; those are {', '.join(changeable)}")
        told: list[str] = []

        def changed(budget: Budget, lending: Lending) -> Budget:
            if lending.parent is not None and ({"max_tokens", "max_usd"} & terms.keys()):
                raise ValueError(f"agent {agent_name!r} has what {lending.parent!r} gave it: delegate another child")
            known = AgentContract.of_budget(budget)
            given = {term: getattr(known, term) for term in changeable}
            for limit, reserve in (("max_tokens", "min_reserve"), ("max_usd", "min_reserve_usd")):
                if limit in terms and reserve not in terms:
                    given[reserve] = None
            contract = AgentContract(agent_name, **{**given, **terms}, parent=lending.parent)
            told[:] = [f"{term} {getattr(known, term)!r} → {value!r}" for term, value in terms.items()]
            now = contract.to_budget(
                self.crew.pool,
                anonymous=not self.crew.named,
                expires_ms=lending.expires_ms,
                delegation=lending.delegation,
            )
            return replace(now, standing=budget.standing)

        self.crew.change(agent_name, changed)
        log.info("agent %r of %r: %s", agent_name, self.crew.pool, ", ".join(told))
        return self.contracts[agent_name]

    def close_agent(self, agent_name: str) -> None:
        """
        End an agent and all that it has delegated: it spends nothing from now on. What it leaves goes to its parent;
        without one it stays in the pool, for all to borrow. Raises UnknownAgent.
        """
        self.crew.budget(agent_name)
        delegation.close(self.crew, agent_name)

    def delegate(
        self,
        parent: str,
        child: str,
        *,
        max_tokens: int | None = None,
        max_usd: Decimal | int | float | None = None,
        priority: int | None = None,
        min_reserve: int | None = None,
        confidence_threshold: float | None = None,
        expires: Expires = None,
    ) -> Child:
        """
        Give a part of an agent's budget to a child: debited in one step, nested to any depth.

        The child is an agent like any other, except that it never borrows: it spends what it was given, until
        :meth:`Child.close`, *expires* (a span such as ``"10m"``, seconds, a timedelta or an instant), or the end of its
        parent. What it has not used then is its parent's again.

        Raises BudgetExceededError if the parent, loans included, has too little; UnknownAgent; ValueError.
        """
        budget, lending = self.crew.budget(parent)
        contract = AgentContract(
            child,
            lending.priority if priority is None else priority,
            max_tokens,
            min_reserve,
            confidence_threshold,
            max_usd=max_usd,
            parent=parent,
        )
        expires_ms = delegation.expiry_ms(self.crew, expires, budget)
        delegation.grant(self.crew, budget, contract, expires_ms)
        if expires_ms is not None:
            runtime().housekeeper.start()
        return Child(self, child)

    # -- work ----------------------------------------------------------------------------------------------------

    def govern(
        self,
        agent_name: str,
        confidence_fn: Callable[[Any], Any] | None = None,
        *,
        usage_fn: Callable[[Any], Any] | None = None,
        task_fn: Callable[..., Any] | None = None,
        on_overrun: str = "raise",
        model: str | None = None,
    ) -> Callable[[F], F]:
        """
        Charge a function to an agent: sync or async, a generator of either kind, or a method.

        Calls of instrumented SDKs inside are charged exactly. Where there is none, the tokens of arguments and result
        are counted; a result that carries a ``usage`` says it itself.

        Args:
            confidence_fn: of the result, how confident it is (0 to 1, or None): from the agent's threshold on, nothing
                more is spent on the same task.
            usage_fn: of the result, what was used: tokens, or a usage as :func:`farthing.record` takes it.
            task_fn: of the arguments, the task that they are about. Without it all calls are one task.
            on_overrun: a call that used more than the agent could have is counted in full; then ``"raise"`` raises
                BudgetExceededError with the result attached, ``"return"`` returns the result.
            model: prices what is counted, for agents that are limited in USD.

        Raises UnknownAgent here; when called, BudgetExceededError or ConfidenceReached before anything is called.
        """
        self.crew.budget(agent_name)
        if on_overrun not in ON_OVERRUN:
            raise ValueError(f"on_overrun={on_overrun!r} is unknown; choose one of {', '.join(ON_OVERRUN)}")
        for name, given in (("confidence_fn", confidence_fn), ("usage_fn", usage_fn), ("task_fn", task_fn)):
            if given is not None and not callable(given):
                raise ValueError(f"{name} must be a function, not {given!r}")

        def decorate(function: F) -> F:
            if not callable(function):
                raise ValueError(f"govern({agent_name!r}) decorates a function, not {function!r}")
            name = getattr(function, "__name__", type(function).__name__)
            governing = Governing(
                self, agent_name, name, confidence_fn, usage_fn, task_fn, on_overrun, model, is_method(function)
            )
            return governed(function, governing)

        return decorate

    def agent(self, agent_name: str, *, task: str | None = None) -> AgentScope:
        """
        ``with manager.agent("researcher"):`` (or ``async with``) charges the measured calls inside to this agent. Calls
        that nothing measures are not counted here: ``manager.ledger.record`` says what they used.

        Raises UnknownAgent; on entering, ConfidenceReached for a task that is done.
        """
        self.crew.budget(agent_name)
        return AgentScope(self, agent_name, task)

    def record_usage(self, agent_name: str, tokens: int, note: str = "usage", confidence: float | None = None) -> None:
        """
        Count what a call used that nothing measured, as ``ledger.record`` does, and say if it was too much: what the
        agent and its lenders cannot cover is recorded all the same, and then raised. *confidence*, if it is given, is
        that of the call's answer, for the agent's gate.

        Raises BudgetExceededError, UnknownAgent, ValueError.
        """
        if confidence is not None:
            confidence = check_confidence(confidence, field="confidence")
        refused = self.ledger.paid(agent_name, tokens, note)
        if confidence is not None:
            self.answered(agent_name, None, confidence, None)
        if refused is not None:
            raise refused

    # -- confidence ----------------------------------------------------------------------------------------------

    def check_gate(self, agent_name: str, task: str | None) -> None:
        """Raise ConfidenceReached if this task has an answer that is good enough."""
        contract = self.contracts.get(agent_name)
        if contract is None:
            raise UnknownAgent(agent_name, known=tuple(self.contracts))
        answer = self._gates_of(agent_name).answer(task)
        confidence = contract.last_confidence if task is None else None if answer is None else answer.confidence
        if ConfidenceGate.allow_further_retrieval(contract, confidence) or confidence is None:
            return
        result = answer.result if answer is not None and answer.confidence == confidence else None
        available = main_unit(self.crew.figures_of(agent_name))
        raise ConfidenceReached(
            agent_name,
            task=task,
            confidence=confidence,
            available=available.shown(available.remaining),
            result=result,
        )

    def answered(self, agent_name: str, task: str | None, confidence: float, result: Any) -> None:
        """An answer of this confidence was found for this task."""
        contract = self.contracts.get(agent_name)
        if contract is None:
            return
        # Kept only where it will be shown: an agent's every answer would fill the memory.
        closes = not ConfidenceGate.allow_further_retrieval(contract, confidence)
        self._gates_of(agent_name).put(task, Answer(confidence, result if closes else None))
        if task is None:
            contract.last_confidence = confidence

    def reset_confidence(self, agent_name: str, task: str | None = None) -> None:
        """Open the gate of a task again; without *task*, of all the agent's tasks. Raises UnknownAgent."""
        self.crew.budget(agent_name)
        if task is not None:
            self._gates_of(agent_name).forget(task)
            return
        self._gates_of(agent_name).forget_all()
        self.contracts[agent_name].last_confidence = None

    def _gates_of(self, agent_name: str) -> Gates:
        with self._lock:
            return self._gates.setdefault(agent_name, Gates())

    # -- figures -------------------------------------------------------------------------------------------------

    def remaining(self, agent_name: str) -> Amount:
        """What is left of the agent's own, in tokens (USD for one that is limited in money alone); KeyError."""
        self._catch_up()
        return self.ledger.remaining(agent_name)

    def hint(self, agent_name: str) -> str:
        """One line for the agent's prompt: what is left, of what, and how many typical calls that is."""
        self._catch_up()
        return hint(self.crew, agent_name, self.past(agent_name))

    def explain(self, agent_name: str, tokens: int) -> Explanation:
        """Whether the agent could use so many tokens now, and who would lend what. Nothing is held. UnknownAgent."""
        self._catch_up()
        return explain(self.crew, agent_name, tokens)

    def report(self, *, detail: bool = False) -> dict[str, dict[str, Any]]:
        """
        ``{name: {"allocated": …, "consumed": …, "remaining": …}}``, all as of one instant.

        With *detail* also ``held lent borrowed suspect overrun reserve priority parent expires_at`` and, for agents
        that are limited in both units, the figures in ``usd``.
        """
        self._catch_up()
        members = self.crew.members()
        figures = self.crew.figures(members)
        if not detail:
            return {name: dict(three(main_unit(units))) for name, units in figures.items()}
        contracts = self.contracts  # once: another thread may be closing one of them
        return {name: _detailed(contracts[name], units) for name, units in figures.items() if name in contracts}

    def past(self, agent_name: str) -> Past:
        """What the agent's calls came to, in this process."""
        with self._lock:
            return self._pasts.setdefault(agent_name, Past())

    def _catch_up(self) -> None:
        """What has ended goes back before figures are read."""
        ledger = self.crew.ledger
        if ledger.lends:
            close_ended(ledger)


def _crew(ledger: str | os.PathLike[str] | AgentLedger | None, name: str | None) -> Crew:
    if name is not None and (not isinstance(name, str) or not name.strip() or len(name) > NAME_LENGTH_MAX):
        raise ValueError(f"name must be non-empty text of at most {NAME_LENGTH_MAX} characters, not {name!r}")
    if isinstance(ledger, AgentLedger):
        if name is not None:
            raise ValueError("name: the agents of an AgentLedger have a pool of their own")
        return ledger.crew
    if ledger is not None:
        if not isinstance(ledger, (str, os.PathLike)):
            raise ValueError(f"ledger must be a path, a URL or an AgentLedger, not {ledger!r}")
        adopt(os.fspath(ledger))
        name = name or "agents"
    return Crew(f"agents-{secrets.token_hex(4)}" if name is None else name, named=name is not None)


def _detailed(contract: AgentContract, units: Mapping[str, Figures]) -> dict[str, Any]:
    main = main_unit(dict(units))
    more: dict[str, Any] = {
        "priority": contract.priority,
        "reserve": contract.min_reserve if main.unit == "tokens" else contract.min_reserve_usd,
        "parent": contract.parent,
        "expires_at": contract.expires_at,
    }
    if main.unit == "tokens" and "usd" in units:
        more["usd"] = {**three(units["usd"]), **_movements(units["usd"])}
    return {**three(main), **_movements(main), **more}


def _movements(figures: Figures) -> dict[str, Amount]:
    amounts = {
        "held": figures.held,
        "lent": figures.lent.total,
        "borrowed": figures.borrowed.total,
        "suspect": figures.suspect,
        "overrun": figures.overrun,
    }
    return {name: figures.shown(amount) for name, amount in amounts.items()}
