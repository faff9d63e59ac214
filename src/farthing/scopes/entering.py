"""A scope that many tasks and threads may be in at once by one object, each in a context of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from types import TracebackType
from typing import Self

from ..runtime.ambient import Ambient, current, enter


class Entered(ABC):
    """A context manager, sync and async, that may be entered again before it is left."""

    @abstractmethod
    def _go_in(self, outside: Ambient) -> Ambient:
        """What is in force inside."""

    @abstractmethod
    def _come_out(self, here: Ambient, outside: Ambient) -> Ambient:
        """What is in force again after *here*; *outside* was in force where it was entered."""

    def __enter__(self) -> Self:
        outside = current()
        # Noted in the context itself: what this object has seen of other tasks says nothing about this one.
        enter(replace(self._go_in(outside), entered=(*outside.entered, (self, outside))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Found by looking: one may leave in another context than it entered in, or before what it entered later.
        here = current()
        for index in range(len(here.entered) - 1, -1, -1):
            scope, outside = here.entered[index]
            if scope is self:
                before, after = here.entered[:index], here.entered[index + 1 :]
                if after:
                    # Whatever was entered later comes out to where this one was entered.
                    enter(replace(here, entered=(*before, (after[0][0], outside), *after[1:])))
                else:
                    enter(replace(self._come_out(here, outside), entered=before))
                return

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)
