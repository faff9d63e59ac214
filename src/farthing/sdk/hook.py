"""
The hook: a governed transport. ``handle_request`` and ``handle_async_request`` of one transport object are wrapped, so
that whatever an SDK does above it (``with_options``, beta endpoints, raw responses, stream helpers, its own retries)
passes here, every HTTP attempt by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import FarthingError
from .errors import in_family
from .exchange import exchange, exchange_async
from .opening import open_call, recognise_request

MARK = "_farthing_governs"


def is_governed(transport: Any) -> bool:
    """Whether this transport object is hooked already."""
    return getattr(transport, MARK, False) is True


def govern_transport(transport: Any, *, sdk: str | None) -> None:
    """Hook one transport object, in place. Idempotent."""
    if is_governed(transport):
        return
    if hasattr(transport, "handle_request"):
        transport.handle_request = _sync(transport.handle_request, sdk)
    if hasattr(transport, "handle_async_request"):
        transport.handle_async_request = _async(transport.handle_async_request, sdk)
    setattr(transport, MARK, True)


def _sync(inner: Callable[[Any], Any], sdk: str | None) -> Callable[[Any], Any]:
    def handle_request(request: Any) -> Any:
        found = recognise_request(request, sdk=sdk)
        if found is None:
            return inner(request)
        try:
            body = request.read() if found.dialect is not None else b""
            call = open_call(request, found, body)
        except FarthingError as error:
            raise in_family(error, sdk) from error.__cause__
        return inner(request) if call is None else exchange(request, call, inner, sdk=sdk)

    return handle_request


def _async(inner: Callable[[Any], Any], sdk: str | None) -> Callable[[Any], Any]:
    async def handle_async_request(request: Any) -> Any:
        found = recognise_request(request, sdk=sdk)
        if found is None:
            return await inner(request)
        try:
            body = await request.aread() if found.dialect is not None else b""
            call = open_call(request, found, body)
        except FarthingError as error:
            raise in_family(error, sdk) from error.__cause__
        return await inner(request) if call is None else await exchange_async(request, call, inner, sdk=sdk)

    return handle_async_request
