"""``track(...)``: tags for the calls made inside. They say where the money went, and which scopes match."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from ..kernel.scope import check_tags
from ..reports.spending import OWN_KEYS, report
from ..runtime import threads
from ..runtime.ambient import Ambient, current, enter
from ..runtime.default import runtime

F = TypeVar("F", bound=Callable[..., Any])


class track:  # noqa: N801 - used as a verb: with track(feature="search"):
    """
    Tag the calls made inside a ``with`` or a function. Inner tags win; they follow tasks and threads.

    Raises ValueError for a tag that is no text or number, or whose name a report uses itself.
    """

    report = staticmethod(report)
    """:func:`farthing.report`, under the name that the predecessor's programs know."""

    def __init__(self, **tags: object) -> None:
        for name in OWN_KEYS:
            if name in tags:
                raise ValueError(f"tag {name!r} is what a call says itself; choose another name")
        self._tags = check_tags(tags, field="track")
        self._outside: list[tuple[Ambient, Ambient]] = []

    def __enter__(self) -> Self:
        if runtime().settings.follow_threads:
            threads.follow()
        outside = current()
        inside = outside.with_tags(self._tags)
        self._outside.append((inside, outside))
        enter(inside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The same object may be entered by several tasks: each takes back the tags that it found when it entered.
        ambient = current()
        for index in range(len(self._outside) - 1, -1, -1):
            inside, outside = self._outside[index]
            if inside is ambient or inside.tags == ambient.tags:
                del self._outside[index]
                enter(Ambient(ambient.bindings, outside.tags))
                return

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Tag every call made by a function."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ValueError("track decorates plain and async functions; inside a generator use `with track(...)`")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def tagged_async(*args: Any, **kwargs: Any) -> Any:
                with track(**self._tags):
                    return await function(*args, **kwargs)

            return tagged_async  # type: ignore[return-value]

        @functools.wraps(function)
        def tagged(*args: Any, **kwargs: Any) -> Any:
            with track(**self._tags):
                return function(*args, **kwargs)

        return tagged  # type: ignore[return-value]
