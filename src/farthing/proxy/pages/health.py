"""
Is this process there (``/healthz``), and can it decide about calls (``/readyz``)?

Ready means that the ledger answered a command that takes its lock, within a hard timeout: one that fails, is locked or
hangs is seen here before callers see it. Both say nothing else, so both are open to everyone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...errors import StoreUnavailable
from ...runtime.runtime import Runtime
from ...stores.contract import Store
from ..refusal import why_silent
from .page import Page, Reply, Request
from .replies import answered, reply_json

READY_SECONDS = 2.0


def healthz() -> Page:
    """Answers as long as the event loop turns."""

    async def page(request: Request) -> Reply:
        async def run() -> Reply:
            return reply_json({"status": "ok"})

        return await answered(request, _get(request), run)

    return page


def readyz(runtime: Runtime, *, seconds: float = READY_SECONDS, draining: Callable[[], bool] = lambda: False) -> Page:
    """503 while the ledger gives no answer, or this process takes no more calls."""

    async def page(request: Request) -> Reply:
        async def run() -> Reply:
            if draining():
                return reply_json({"status": "not ready", "reason": "shutting down"}, status=503)
            why = await ledger_trouble(runtime.main.store, seconds)
            if why is not None:
                return reply_json({"status": "not ready", "ledger": why}, status=503)
            return reply_json({"status": "ready", "ledger": "ok"})

        return await answered(request, _get(request), run)

    return page


async def ledger_trouble(store: Store, seconds: float) -> str | None:
    """Why no call can be held now; None if one can. Takes at most this long to say so."""
    try:
        # Writes nothing, but waits in line, takes the lock and begins to write, as a hold does.
        await asyncio.wait_for(_ask(store), seconds)
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except StoreUnavailable as error:
        return why_silent(error)
    return None


async def _ask(store: Store) -> None:
    await store.add_denials({})


def _get(request: Request) -> str:
    """Load balancers ask with HEAD, too."""
    return "HEAD" if request.method == "HEAD" else "GET"
