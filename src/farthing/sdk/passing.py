"""Whether what is being sent right now is sent for a call that was looked at: what is below must not look again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

INSIDE: ContextVar[bool] = ContextVar("farthing_inside", default=False)


def within(send: Callable[[Any], Any], request: Any) -> Any:
    """Send it; transports and libraries below this one leave it alone."""
    token = INSIDE.set(True)
    try:
        return send(request)
    finally:
        INSIDE.reset(token)


async def within_async(send: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """The same for an async client."""
    token = INSIDE.set(True)
    try:
        return await send(request)
    finally:
        INSIDE.reset(token)
