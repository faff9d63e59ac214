"""
Every error that farthing raises, each with its evidence as attributes and as ``to_dict()``.

::

    FarthingError
    ├── BudgetExceeded            a budget said no; carries the Decision
    │   └── BudgetExceededError   (also TBCError) … that of an agent, loans included; carries its name
    │       └── ConfidenceReached the agent's last answer was good enough: nothing more is spent on this task
    ├── TBCError                  what concerns agents
    │   ├── AgentFunctionError    (also ValueError) a function given to govern failed; carries the paid result
    │   └── UnknownAgent          (also KeyError) no agent has this name
    ├── UnpricedModel             (also KeyError) a USD budget met a model without a known price
    ├── UnmeteredCall             a hard budget met a call that nothing here can measure
    ├── HoldError
    │   ├── HoldNotFound          (also LookupError) no hold or entry has this id
    │   └── HoldConflict          the id is known with another body
    ├── StoreUnavailable          the ledger is locked, silent, full, unreadable or newer than this program
    ├── ConfigError               (also ValueError) a setting is wrong: which file, which key
    └── InvariantError            farthing's own books would become wrong; nothing was changed

Bad arguments in code are plain ``ValueError``s that name the field.

One file, so that what can be caught is seen at once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from .kernel.decision import Decision, FailedLine


class FarthingError(Exception):
    """The base of all errors of this package."""

    def to_dict(self) -> dict[str, Any]:
        """The evidence, ready for JSON."""
        return {"error": type(self).__name__, "message": str(self)}


class BudgetExceeded(FarthingError):
    """
    A budget said no. Nothing was sent, unless ``result`` is set: then a paid answer is attached to it.

    The fields of :attr:`decision` are repeated here: ``budget scope unit limit spent held suspect asked remaining
    resets_at retry_after_seconds remedy failed``.
    """

    def __init__(self, decision: Decision, *, result: Any = None, truncates: frozenset[str] = frozenset()) -> None:
        super().__init__(decision.message())
        self.decision = decision
        self.result = result
        self.truncates = truncates
        """Budgets (by account name) whose ``with`` or function ends quietly by it."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process pools; a subclass made on demand for one SDK travels as its picklable base.
        return (_remake, (BudgetExceeded, (self.decision,), {"result": _portable(self.result), **self._rest()}))

    def __copy__(self) -> BudgetExceeded:
        return BudgetExceeded(self.decision, result=self.result, **self._rest())

    def _rest(self) -> dict[str, Any]:
        return {"truncates": self.truncates}

    @property
    def budget(self) -> str | None:
        return self.decision.budget

    @property
    def scope(self) -> dict[str, str]:
        return self.decision.scope

    @property
    def unit(self) -> str:
        return self.decision.unit

    @property
    def limit(self) -> int | Decimal:
        return self.decision.limit

    @property
    def spent(self) -> int | Decimal:
        return self.decision.spent

    @property
    def held(self) -> int | Decimal:
        return self.decision.held

    @property
    def suspect(self) -> int | Decimal:
        return self.decision.suspect

    @property
    def asked(self) -> int | Decimal:
        return self.decision.asked

    @property
    def remaining(self) -> int | Decimal:
        return self.decision.remaining

    @property
    def overrun(self) -> int | Decimal:
        return self.decision.overrun

    @property
    def resets_at(self) -> datetime | None:
        return self.decision.resets_at

    @property
    def retry_after_seconds(self) -> float | None:
        return self.decision.retry_after_seconds

    @property
    def remedy(self) -> str:
        return self.decision.remedy

    @property
    def failed(self) -> tuple[FailedLine, ...]:
        return self.decision.failed

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), **self.decision.to_dict(), "error": "BudgetExceeded"}


class TBCError(FarthingError):
    """What concerns agents. The name is the one that users of the Token Budget Contracts package catch."""


class BudgetExceededError(BudgetExceeded, TBCError):
    """
    An agent has too little, and others may not lend it the rest. Nothing was sent, unless ``result`` is set: then the
    call turned out larger than what was held for it, all of it is counted, and the paid answer is attached.

    ``requested`` and ``available`` are tokens; Decimals in USD where its limit in money is what was passed.
    """

    def __init__(
        self,
        agent_name: str,
        requested: int | Decimal,
        available: int | Decimal,
        *,
        decision: Decision | None = None,
        result: Any = None,
        truncates: frozenset[str] = frozenset(),
        ended: bool = False,
        message: str | None = None,
    ) -> None:
        if decision is None:
            # Made by hand, as programs that handle it are tested: it has the three figures and no more.
            Exception.__init__(self)
            self.decision = None  # type: ignore[assignment]
            self.result, self.truncates = result, truncates
        else:
            super().__init__(decision, result=result, truncates=truncates)
        self.agent_name = agent_name
        self.requested = requested
        self.available = available
        self.ended = ended
        """The agent is closed, or its time is over."""
        self.args = (message or self._message(),)

    def _message(self) -> str:
        name, usd = self.agent_name, not isinstance(self.requested, int)
        if self.ended:
            return f"Agent {name!r} is closed, or its time is over: it spends nothing any more."
        figures = (self.requested, self.available)
        requested, available = (f"${amount:,f}" if usd else f"{amount:,} tokens" for amount in figures)
        if self.result is not None:
            return (
                f"Agent {name!r} requested {requested}, but only {available} were available. The call is made and "
                "counted in full; its answer is the `result` of this error. What it spends next is refused."
            )
        return (
            f"Agent {name!r} requested {requested}, but only {available} were available, with all that other agents "
            "may lend it. Give it more with update_agent (a delegated one: delegate another), or wait until others "
            "have less in flight."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        figures = (self.agent_name, self.requested, self.available)
        return (_remake, (BudgetExceededError, figures, {**self._evidence(), "result": _portable(self.result)}))

    def __copy__(self) -> BudgetExceededError:
        again = BudgetExceededError(self.agent_name, self.requested, self.available, **self._evidence())
        again.result = self.result
        return again

    def _evidence(self) -> dict[str, Any]:
        return {"decision": self.decision, "ended": self.ended, "message": self.args[0], "truncates": self.truncates}

    def to_dict(self) -> dict[str, Any]:
        figures = {"requested": self.requested, "available": self.available}
        shown = {name: amount if isinstance(amount, int) else format(amount, "f") for name, amount in figures.items()}
        plain = FarthingError.to_dict(self) if self.decision is None else super().to_dict()
        return {**plain, "agent_name": self.agent_name, **shown, "error": type(self).__name__}


class ConfidenceReached(BudgetExceededError):
    """
    The agent's answer for this task was confident enough, so nothing more is spent on it. ``confidence`` says how
    confident; ``result`` has that answer, in the process that got it. ``reset_confidence`` opens the task again.
    """

    def __init__(
        self,
        agent_name: str,
        *,
        task: str | None,
        confidence: float,
        available: int | Decimal = 0,
        result: Any = None,
        decision: Decision | None = None,
    ) -> None:
        of = "" if task is None else f" for task {task!r}"
        super().__init__(
            agent_name,
            0,
            available,
            decision=decision,
            result=result,
            message=(
                f"Agent {agent_name!r} has an answer{of} with confidence {confidence:g}, which is enough: nothing more "
                f"is spent on it. reset_confidence({agent_name!r}, {task!r}) opens it again."
            ),
        )
        self.task = task
        self.confidence = confidence

    def __reduce__(self) -> tuple[Any, ...]:
        evidence = {
            "task": self.task,
            "confidence": self.confidence,
            "available": self.available,
            "decision": self.decision,
            "result": _portable(self.result),
        }
        return (_remake, (ConfidenceReached, (self.agent_name,), evidence))

    def __copy__(self) -> ConfidenceReached:
        return ConfidenceReached(
            self.agent_name,
            task=self.task,
            confidence=self.confidence,
            available=self.available,
            decision=self.decision,
            result=self.result,
        )

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "task": self.task, "confidence": self.confidence}


class AgentFunctionError(TBCError, ValueError):
    """
    A function that was given to ``govern`` raised, or returned what it must not: ``function`` says which one
    (``"confidence_fn"``, ``"usage_fn"``, ``"task_fn"``). What was used is counted; ``result`` has the governed
    function's answer, if it was called. The cause is attached.
    """

    def __init__(self, function: str, agent_name: str, problem: str, *, result: Any = None) -> None:
        super().__init__(f"{function} of agent {agent_name!r} {problem}")
        self.function = function
        self.agent_name = agent_name
        self.problem = problem
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self.function, self.agent_name, self.problem)
        return (_remake, (type(self), given, {"result": _portable(self.result)}))

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "function": self.function, "agent_name": self.agent_name, "problem": self.problem}


class UnknownAgent(TBCError, KeyError):
    """No agent of this name is registered, or it is closed; ``known`` lists those that are."""

    def __init__(self, agent_name: str, *, known: tuple[str, ...] = ()) -> None:
        listed = f"; registered are {', '.join(known)}" if known else "; none is registered"
        self.message = f"no agent is named {agent_name!r}{listed}"
        super().__init__(self.message)
        self.agent_name = agent_name
        self.known = known

    def __str__(self) -> str:
        # A KeyError would show the repr of its text.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_remake, (type(self), (self.agent_name,), {"known": self.known}))

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "agent_name": self.agent_name, "known": list(self.known)}


UnknownAgentError = UnknownAgent
"""The name that users of the Token Budget Contracts package catch."""


class UnpricedModel(FarthingError, KeyError):
    """A budget in USD matches a call to a model whose price is not known. An unknown price is never zero."""

    def __init__(self, model: str, *, provider: str | None = None, budget: str | None = None) -> None:
        self.model = model
        self.provider = provider
        self.budget = budget
        where = f" ({provider})" if provider else ""
        whose = f"budget {budget!r} counts USD, and " if budget else ""
        super().__init__(
            f"{whose}no price is known for model {model!r}{where}. Name its price with "
            f"farthing.prices.register({model!r}, input=…, output=…), or choose "
            f"configure(unpriced='price_as:<model>') or configure(unpriced='tokens_only')."
        )

    def __str__(self) -> str:
        # A KeyError would show the repr of its text.
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return (_remake, (type(self), (self.model,), {"provider": self.provider, "budget": self.budget}))

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "model": self.model, "provider": self.provider, "budget": self.budget}


class UnmeteredCall(FarthingError):
    """A call inside a hard budget goes to an endpoint that nothing here can measure, so it was not sent."""

    def __init__(self, method: str, url: str, *, budget: str | None = None, reason: str | None = None) -> None:
        self.method = method
        self.url = url
        self.budget = budget
        self.reason = reason
        why = reason or "no meter is known for this endpoint"
        whose = f" while budget {budget!r} is in force" if budget else ""
        super().__init__(f"{method} {url} was not sent{whose}: {why}. Make the call outside of the budget to allow it.")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_remake, (type(self), (self.method, self.url), {"budget": self.budget, "reason": self.reason}))

    def to_dict(self) -> dict[str, Any]:
        evidence = {"method": self.method, "url": self.url, "budget": self.budget, "reason": self.reason}
        return {**super().to_dict(), **evidence}


class HoldError(FarthingError):
    """A hold cannot do what was asked of it."""

    def __init__(self, message: str, *, hold_id: str) -> None:
        super().__init__(message)
        self.hold_id = hold_id

    def __reduce__(self) -> tuple[Any, ...]:
        return (_remake, (type(self), (str(self),), {"hold_id": self.hold_id}))

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "hold_id": self.hold_id}


class HoldNotFound(HoldError, LookupError):
    """No hold or entry has this id."""


class HoldConflict(HoldError):
    """The id is known, with another body: an id names one hold and one outcome for ever."""


class StoreUnavailable(FarthingError):
    """The ledger cannot be read or written now; ``store`` says which, ``reason`` why. No answer was guessed."""

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(f"ledger {store} is unavailable: {reason}")
        self.store = store
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.store, self.reason))

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "store": self.store, "reason": self.reason}


class ConfigError(FarthingError, ValueError):
    """
    A setting is wrong; ``key`` says which, ``file`` (and ``line``) where, if it came from a file.

    A file may have several mistakes: these are the first one's, and ``others`` has the rest.
    """

    def __init__(
        self,
        message: str,
        *,
        key: str,
        file: str | None = None,
        line: int | None = None,
        others: tuple[ConfigError, ...] = (),
    ) -> None:
        where = "".join((f"{file}: " if file else "", f"line {line}: " if line else ""))
        # What already begins with it ("no budget is named …") is not said twice.
        named = "" if re.match(rf"((no|an?|the) )?{re.escape(key)}\b", message) else f"{key}: "
        super().__init__("\n".join((f"{where}{named}{message}", *map(str, others))))
        self.reason = message
        self.key = key
        self.file = file
        self.line = line
        self.others = others

    def __reduce__(self) -> tuple[Any, ...]:
        evidence = {"key": self.key, "file": self.file, "line": self.line, "others": self.others}
        return (_remake, (type(self), (self.reason,), evidence))

    def to_dict(self) -> dict[str, Any]:
        plain = {**super().to_dict(), "key": self.key, "file": self.file, "line": self.line}
        return {**plain, "others": [other.to_dict() for other in self.others]} if self.others else plain


class InvariantError(FarthingError):
    """Applying this would break the ledger's own invariants. Nothing was changed. A bug of ours: please report it."""


def _portable(result: Any) -> Any:
    """A paid answer, if it can be pickled; without it an error still crosses, with it the whole pool might break."""
    if result is None:
        return None
    import pickle

    try:
        pickle.dumps(result)
    except Exception:  # noqa: BLE001 - what a user's or an SDK's own object raises here may be anything
        return None
    return result


def _remake(kind: type[FarthingError], given: tuple[Any, ...], evidence: dict[str, Any]) -> FarthingError:
    """Unpickle an error whose evidence is keyword-only."""
    return kind(*given, **evidence)
