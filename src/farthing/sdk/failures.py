"""What an exception out of an HTTP client's transport means for the call that it was sent for."""

from __future__ import annotations

from ..calls.steps import Broken, NotSent
from ..runtime.sockets import refused_certificate

NEVER_SENT = frozenset(
    {
        *("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "LocalProtocolError"),
        *("ClientConnectorError", "ConnectionTimeoutError", "ClientHttpProxyError", "InvalidURL"),  # aiohttp's own
    }
)
"""Errors after which certainly nothing has left: by name, for two modules define httpx's alike."""


def failure(error: BaseException) -> NotSent | Broken:
    """What to throw into the life of the call."""
    names = _names(error)
    if names & NEVER_SENT or refused_certificate(error):
        return NotSent("connect_error")
    if names & {"TimeoutException", "TimeoutError"}:
        return Broken("timeout", str(error) or type(error).__name__)
    if names & {"CancelledError", "Cancelled"}:  # asyncio's, and trio's
        return Broken("cancelled")
    if not isinstance(error, Exception):
        return Broken("interrupted", type(error).__name__)
    return Broken("connection_lost", f"{type(error).__name__}: {error}")


def _names(error: BaseException) -> set[str]:
    """The names of an error's class and its bases."""
    cause = error.__cause__
    if type(cause).__module__.partition(".")[0] == "aiohttp":
        # A transport over it tells of a connection that was lost as of one that was never made.
        error = cause  # type: ignore[assignment]
    return {kind.__name__ for kind in type(error).__mro__}
