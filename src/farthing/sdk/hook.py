"""
The hook: a governed transport.

``handle_request`` and ``handle_async_request`` of one transport object are wrapped, so that whatever an SDK does above
it (``with_options``, beta endpoints, raw responses, stream helpers, its own retries) passes here, every HTTP attempt by
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import FarthingError
from .errors import refusal, sdk_of_request
from .exchange import exchange, exchange_async
from .opening import open_call, recognise_request

MARK = "_farthing_governs"
Hosts = tuple[tuple[str, str], ...]


def is_governed(transport: Any) -> bool:
    """Whether this transport object is hooked already."""
    return getattr(transport, MARK, False) is True


def govern_transport(transport: Any, *, sdk: str | None, provider: str | None = None) -> None:
    """Hook one transport object, in place. Idempotent. *provider* is the only one that its client talks to."""
    if is_governed(transport):
        return
    if hasattr(transport, "handle_request"):
        transport.handle_request = govern_sync(transport.handle_request, sdk=sdk, provider=provider)
    if hasattr(transport, "handle_async_request"):
        transport.handle_async_request = govern_async(transport.handle_async_request, sdk=sdk, provider=provider)
    setattr(transport, MARK, True)


def govern_sync(
    inner: Callable[[Any], Any],
    *,
    sdk: str | None,
    provider: str | None = None,
    hosts: Hosts = (),
    in_care: bool = True,
) -> Callable[[Any], Any]:
    """
    A transport's ``handle_request``, governed.

    *sdk* is the package whose client it serves (a request that names another goes before: one HTTP client may serve
    two SDKs), None if anybody's; *provider* is the only one that client talks to; *in_care*: the user handed it over,
    so that whatever it sends to an unknown path is unmetered; *hosts* are declared hosts and their providers.
    """

    def handle_request(request: Any) -> Any:
        found = recognise_request(request, sdk=sdk, provider=provider, hosts=hosts, in_care=in_care)
        if found is None:
            return inner(request)
        try:
            body = request.read() if found.dialect is not None else b""
            call = open_call(request, found, body)
        except FarthingError as error:
            return refusal(error, request, sdk_of_request(request, sdk))
        return inner(request) if call is None else exchange(request, call, inner, sdk=sdk)

    return handle_request


def govern_async(
    inner: Callable[[Any], Any],
    *,
    sdk: str | None,
    provider: str | None = None,
    hosts: Hosts = (),
    in_care: bool = True,
) -> Callable[[Any], Any]:
    """The same for ``handle_async_request``."""

    async def handle_async_request(request: Any) -> Any:
        found = recognise_request(request, sdk=sdk, provider=provider, hosts=hosts, in_care=in_care)
        if found is None:
            return await inner(request)
        try:
            body = await request.aread() if found.dialect is not None else b""
            call = open_call(request, found, body)
        except FarthingError as error:
            return refusal(error, request, sdk_of_request(request, sdk))
        return await inner(request) if call is None else await exchange_async(request, call, inner, sdk=sdk)

    return handle_async_request
