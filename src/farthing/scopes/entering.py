"""A scope that many tasks and threads may be in at once by one object, each in a context of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from ..runtime.ambient import Ambient, current, enter


class Entered(ABC):
    """A context manager, sync and async, that may be entered again before it is left."""

    def __init__(self) -> None:
        self._entered: list[tuple[Ambient, Ambient]] = []
        """What each that is inside has there, and what was in force outside."""

    @abstractmethod
    def _go_in(self, outside: Ambient) -> Ambient:
        """What is in force inside."""

    @abstractmethod
    def _come_out(self, here: Ambient, inside: Ambient, outside: Ambient) -> Ambient | None:
        """What is in force again after *here*, if it was *inside* that was entered here; else None."""

    def __enter__(self) -> Self:
        outside = current()
        inside = self._go_in(outside)
        self._entered.append((inside, outside))
        enter(inside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Found by looking: many may be inside at once, and one may leave in another context than it entered in.
        here = current()
        for index in range(len(self._entered) - 1, -1, -1):
            again = self._come_out(here, *self._entered[index])
            if again is not None:
                del self._entered[index]
                enter(again)
                return

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)
