"""
When a hold does not fit: what the failing budgets say together. Pure; only budgets whose lines failed speak.

If one of them blocks, the call is denied. Otherwise a callable is asked, each once; then a cheaper model is tried, then
waiting, each time on all lines again. A clamp has shrunk the call as far as it may before it fails, so then it blocks.
``truncate`` only if every failing budget says so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import BudgetExceeded
from ..kernel.budget import Budget
from ..kernel.decision import resets_ms
from ..kernel.plan import LineResult
from ..runtime.ambient import Binding
from ..runtime.waiting import Queue, queue_of


@dataclass(frozen=True, slots=True)
class Allow:
    """
    What a callable ``on_exceed`` returns to admit a call on other terms; None as its answer denies the call.

    ``Allow()`` asks once more for the call as it is: for a function that has made room, with a grant for instance. What
    does not fit then is denied all the same.
    """

    model: str | None = None
    """Another model, of the same provider and endpoint."""
    max_output_tokens: int | None = None
    """A lower output ceiling."""

    def __post_init__(self) -> None:
        model, most = self.model, self.max_output_tokens
        if model is not None and (not isinstance(model, str) or not model):
            raise ValueError(f"Allow: model must be the name of a model, not {model!r}")
        if most is not None and (type(most) is not int or most < 1):
            raise ValueError(f"Allow: max_output_tokens must be an integer of at least 1, not {most!r}")


class Deny(NamedTuple):
    """The call is refused. ``truncates``: quietly, for the ``with`` or function of one of these budgets."""

    truncates: frozenset[str] = frozenset()


class Consult(NamedTuple):
    """Ask the callable of this budget."""

    budget: str


class Downgrade(NamedTuple):
    """Plan again with this model, which this budget names."""

    model: str
    budget: Budget


class Wait(NamedTuple):
    """Something may refill or come back: wait in these queues, at most this long in all."""

    queues: frozenset[Queue]
    seconds: float


def ends_quietly(error: BaseException | None, binding: Binding) -> bool:
    """Whether this is a quiet denial (``on_exceed="truncate"``) that ends at this binding's ``with`` or function."""
    return isinstance(error, BudgetExceeded) and binding.budget.name in error.truncates


def next_step(
    failed: tuple[LineResult, ...],
    *,
    model: str,
    now_ms: int,
    consulted: Collection[str] = (),
    tried: Collection[str] = (),
) -> Deny | Consult | Downgrade | Wait:
    """
    What to do about these failing lines. *consulted* are the budgets whose callables were asked before, *tried* the
    models that were: each is asked, and tried, once.
    """
    modes = {result.line.budget.on_exceed for result in failed}
    frozen = any(result.line.frozen for result in failed)
    if modes == {"truncate"}:
        return Deny(frozenset(result.line.budget.name for result in failed))
    if frozen or modes & {"block", "raise", "truncate"}:
        return Deny()
    if "callable" in modes:
        names = [result.line.budget.name for result in failed if result.line.budget.on_exceed == "callable"]
        return next((Consult(name) for name in names if name not in consulted), Deny())
    if "downgrade" in modes:
        cheaper = _cheaper(failed, model)
        # The chains of two budgets may make a ring.
        return Deny() if cheaper is None or cheaper.model in tried else cheaper
    if modes == {"wait"}:
        return _wait(failed, now_ms)
    return Deny()


def _cheaper(failed: tuple[LineResult, ...], model: str) -> Downgrade | None:
    """The first failing budget's cheaper model, if each failing budget that downgrades maps this model."""
    budgets = [result.line.budget for result in failed if result.line.budget.on_exceed == "downgrade"]
    mapped = [dict(budget.downgrade).get(model) for budget in budgets]
    return None if mapped[0] is None or None in mapped else Downgrade(mapped[0], budgets[0])


def _wait(failed: tuple[LineResult, ...], now_ms: int) -> Deny | Wait:
    """Wait, unless one of the lines can certainly not come to fit in time."""
    seconds = min(result.line.budget.wait_seconds for result in failed)
    if all(_may_fit(result, now_ms, seconds) for result in failed):
        return Wait(frozenset(queue_of(result.line.budget, dict(result.line.scope)) for result in failed), seconds)
    return Deny()


def _may_fit(result: LineResult, now_ms: int, seconds: float) -> bool:
    line, balance = result.line, result.balance
    if result.asked > line.ceiling:
        return False
    if balance.held and balance.settled + balance.suspect + result.asked <= line.ceiling:
        return True
    resets = resets_ms(result, now_ms)
    return resets is not None and resets - now_ms <= seconds * 1000
