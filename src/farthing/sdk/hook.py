"""
The hook: a governed transport.

``handle_request`` and ``handle_async_request`` of one transport object are wrapped, so that whatever an SDK does above
it (``with_options``, beta endpoints, raw responses, stream helpers, its own retries) passes here, every HTTP attempt by
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import FarthingError
from .errors import refusal, sdk_of_request
from .exchange import exchange, exchange_async
from .opening import Sender, open_call, recognise_request

MARK = "_farthing_governs"


def is_governed(transport: Any) -> bool:
    """Whether this transport object is hooked already."""
    return getattr(transport, MARK, False) is True


def govern_transport(transport: Any, *, sdk: str | None, provider: str | None = None) -> None:
    """Hook one transport object, in place. Idempotent. *provider* is the only one that its client talks to."""
    if is_governed(transport):
        return
    sender = Sender(sdk, provider)
    for method, governed in (("handle_request", send), ("handle_async_request", send_async)):
        if hasattr(transport, method):
            setattr(transport, method, partial(governed, _own(transport, method), sender))
    setattr(transport, MARK, True)


def _own(transport: Any, method: str) -> Callable[[Any], Any]:
    """
    What it sends by: as its class has it at each call, for tests and tracers put theirs in its place there. Its own, or
    another's that it passes all on to, goes before.
    """
    kind = type(transport)
    if method in getattr(transport, "__dict__", ()) or not hasattr(kind, method):
        return getattr(transport, method)  # type: ignore[no-any-return]
    if method == "handle_request":
        return lambda request: kind.handle_request(transport, request)
    return lambda request: kind.handle_async_request(transport, request)


def _body(request: Any) -> bytes | None:
    """What it will send; None where that has to be read. (An event hook may have replaced what was read before.)"""
    stream = request.stream
    if type(stream).__name__ == "ByteStream":
        return b"".join(stream)
    vars(request).pop("_content", None)
    return None


def send(inner: Callable[[Any], Any], sender: Sender, request: Any) -> Any:
    """What a governed transport does instead of its own ``handle_request``."""
    place = recognise_request(request, sender)
    if place is None:
        return inner(request)
    try:
        body = _body(request) if place.found.dialect is not None else b""
        if body is None:
            body = request.read()
        call = open_call(request, place, body)
    except FarthingError as error:
        return refusal(error, request, sdk_of_request(request, sender.sdk))
    return inner(request) if call is None else exchange(request, call, inner, sdk=sender.sdk)


async def send_async(inner: Callable[[Any], Any], sender: Sender, request: Any) -> Any:
    """The same for ``handle_async_request``."""
    place = recognise_request(request, sender)
    if place is None:
        return await inner(request)
    try:
        body = _body(request) if place.found.dialect is not None else b""
        if body is None:
            body = await request.aread()
        call = open_call(request, place, body)
    except FarthingError as error:
        return refusal(error, request, sdk_of_request(request, sender.sdk))
    return await inner(request) if call is None else await exchange_async(request, call, inner, sdk=sender.sdk)
