"""
Fresh looks at a ledger's keys, for a key that nobody here knows: another process may have made it this instant.

However many ask, and whatever they show, there is one look at a time and a few in a second. So keys that are made up
cost a wait, each to whoever sent it, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...kernel.keys import KeyRing

PAUSE_SECONDS = 0.1
"""From the beginning of one look to that of the next: the longest that a good key waits for its turn."""


class Looks:
    """Those of one event loop. *look* reads the ledger, and raises StoreUnavailable."""

    def __init__(self, look: Callable[[], Awaitable[KeyRing]]) -> None:
        self._look = look
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[KeyRing] | None = None
        """A look that has not begun: it will see all that is there now."""
        self._began_seconds = float("-inf")

    async def ring(self) -> KeyRing:
        """The keys as they are in the ledger now, or a little later. Raises StoreUnavailable."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._take_turn())
            self._next.add_done_callback(_hear)
        # Others wait for the same look: one who leaves must not take it away from them.
        return await asyncio.shield(self._next)

    async def _take_turn(self) -> KeyRing:
        loop = asyncio.get_running_loop()
        async with self._turn:
            pause_seconds = self._began_seconds + PAUSE_SECONDS - loop.time()
            if pause_seconds > 0:
                await asyncio.sleep(pause_seconds)
            self._began_seconds = loop.time()
            # Who asks from here on may have been too late for this look.
            self._next = None
            return await self._look()


def _hear(task: asyncio.Task[KeyRing]) -> None:
    """Take the failure of a look for which nobody waits any more."""
    if not task.cancelled():
        task.exception()
