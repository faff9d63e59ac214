"""
The ambient scope: which budgets and tags a call is made under.

One context variable holds one immutable value. Tasks inherit it from asyncio; :mod:`.threads` carries it into threads.
A call reads it when it starts and keeps what it read, so a stream that is drained late belongs to the scope it was
started in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..kernel.budget import Budget

if TYPE_CHECKING:
    from .in_force import InForce


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Binding:
    """
    One budget in force here: entered by ``with`` or by a decorated function.

    Whoever has it may make calls under it, also when the ``with`` has ended: a task that was submitted inside starts
    later. So an anonymous budget's account stays open until nobody has its binding any more.
    """

    budget: Budget
    process: int
    """The process that entered it. A forked child inherits the binding, but not the account in memory."""
    handler: Callable[[Any], Any] | None = None
    """The callable that was given as its ``on_exceed``."""
    work: Any = None
    """The piece of an agent's work that goes on here (:class:`~farthing.calls.lending.Work`)."""


@dataclass(frozen=True, slots=True)
class Ambient:
    """What is in force: budgets from the outermost in, and tags (inner ones win)."""

    bindings: tuple[Binding, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    entered: tuple[tuple[object, Ambient], ...] = ()
    """Scopes that were entered and not left here, by the object that one enters, each with what was outside of it."""
    found: dict[tuple[str | None, str | None], InForce] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """By model and provider, what was found to bind calls made here, for the next ones. It goes when this does."""

    @property
    def work(self) -> Any:
        """The innermost piece of an agent's work that a call made here belongs to, or None."""
        return next((binding.work for binding in reversed(self.bindings) if binding.work is not None), None)

    def with_tags(self, tags: dict[str, str]) -> Ambient:
        return Ambient(self.bindings, tuple({**dict(self.tags), **tags}.items()), self.entered)

    def with_binding(self, binding: Binding) -> Ambient:
        return Ambient((*self.bindings, binding), self.tags, self.entered)

    def without(self, binding: Binding) -> Ambient:
        """Without the innermost occurrence of this binding; the same value if it is not in force here."""
        for index in range(len(self.bindings) - 1, -1, -1):
            if self.bindings[index] is binding:
                return Ambient(self.bindings[:index] + self.bindings[index + 1 :], self.tags, self.entered)
        return self


NOWHERE = Ambient()
_current: ContextVar[Ambient] = ContextVar("farthing", default=NOWHERE)


def current() -> Ambient:
    """What is in force in this context."""
    return _current.get()


def enter(ambient: Ambient) -> None:
    """Make this the ambient scope of the current context."""
    _current.set(ambient)


def entered_in(context: Context, ambient: Ambient) -> Context:
    """A context like this one, with this ambient scope; the same one, if that is its scope already."""
    if context.get(_current, NOWHERE) == ambient:
        return context
    # Somebody may be in it, or share it on purpose.
    context = context.copy()
    context.run(enter, ambient)
    return context
