"""
Waiting in event loops of other makers than asyncio's, and in scopes that are cancelled.

Clients that stand on anyio run under trio too. There, and in anyio's own scopes on asyncio, whatever waits in a
cancelled scope is called away, again and again: what must be done all the same is done behind a shield. Neither library
is imported here; where it runs, it is loaded.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def _asyncio() -> Any:
    """The asyncio whose loop runs in this thread; None if none does."""
    asyncio = sys.modules.get("asyncio")
    return asyncio if asyncio is not None and asyncio._get_running_loop() is not None else None


def _trio() -> Any:
    """The same of trio."""
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        # Asked in a way that older ones know too: a call must not fail for it.
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
    return trio


async def sleep(seconds: float) -> None:
    """Let this much time pass. Where nobody knows how to wait in the loop that runs, its thread waits."""
    here = _asyncio() or _trio()
    if here is None:
        time.sleep(seconds)
    else:
        await here.sleep(seconds)


def shielded() -> AbstractContextManager[Any]:
    """What is awaited within is not called away by a scope that is cancelled."""
    anyio = sys.modules.get("anyio")
    if anyio is None or (_asyncio() or _trio()) is None:
        return nullcontext()
    shield: AbstractContextManager[Any] = anyio.CancelScope(shield=True)
    return shield


class Bell:
    """Rung once, by any thread; waited for by one task of a loop that is not asyncio's."""

    __slots__ = ("_rung", "_token", "_trio")

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._rung = trio.Event()

    @classmethod
    def here(cls) -> Bell | None:
        """One for the loop that runs here; None if nobody knows how to wait in it."""
        trio = _trio()
        return None if trio is None else cls(trio)

    def release(self) -> None:
        """Ring it."""
        try:
            self._token.run_sync_soon(self._rung.set)
        except self._trio.RunFinishedError:
            # Its loop has ended, and whoever waited with it.
            pass

    async def wait(self, seconds: float) -> None:
        """Wait for the bell, at most so long, whatever is cancelled meanwhile."""
        with self._trio.CancelScope(deadline=self._trio.current_time() + seconds, shield=True):
            await self._rung.wait()
