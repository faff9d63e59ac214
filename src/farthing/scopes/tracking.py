"""``track(...)``: tags for the calls made inside. They say where the money went, and which scopes match."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from ..kernel.scope import check_own, check_tags
from ..reports.spending import report
from ..runtime import threads
from ..runtime.ambient import Ambient, current
from ..runtime.default import runtime
from .bodies import around
from .entering import Entered

F = TypeVar("F", bound=Callable[..., Any])


class track(Entered):  # noqa: N801 - used as a verb: with track(feature="search"):
    """
    Tag the calls made inside a ``with`` or a function. Inner tags win; they follow tasks and threads.

    Raises ValueError for a tag that is neither text nor a number, or whose name a report uses itself.
    """

    report = staticmethod(report)
    """:func:`farthing.report`, under the name that the predecessor's programs know."""

    def __init__(self, *given: object, **tags: object) -> None:
        if given:
            raise ValueError(f'track takes tags by name, as track(feature="search") does, not {given[0]!r}')
        check_own(tags)
        self._tags = check_tags(tags, field="track")

    def _go_in(self, outside: Ambient) -> Ambient:
        if runtime().settings.follow_threads:
            threads.follow()
        return outside.with_tags(self._tags)

    def _come_out(self, here: Ambient, outside: Ambient) -> Ambient:
        # Its tags alone: a budget that was entered inside, and is left later, stays in force.
        return Ambient(here.bindings, outside.tags)

    def __call__(self, function: F) -> F:
        """Tag every call that a function makes: sync, async, generator or async generator."""
        if not callable(function):
            raise ValueError(f"track decorates a function, not {function!r}")
        wrapped: Any = around(function, lambda: (self._go_in(current()), None))
        functools.update_wrapper(wrapped, function)
        return wrapped  # type: ignore[no-any-return]
