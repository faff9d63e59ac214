"""``instrument(client)``: govern one SDK client."""

from __future__ import annotations

import logging
import warnings
from typing import Any, TypeVar

from .clients import follow_inner, http_clients, provider_of, send_over_httpx, transports
from .errors import sdk_of
from .hook import govern_transport
from .watch import UngovernedClientWarning

C = TypeVar("C")
log = logging.getLogger("farthing")


def instrument(client: C) -> C:
    """
    Put an SDK client in farthing's care, and return the same object: ``client = instrument(OpenAI())``.

    Works on the client's inner HTTP client, so copies of it (``with_options``) and every endpoint are covered. Outside
    of any budget its calls are metered for :func:`farthing.report`; inside, they are held before they leave. A client
    that cannot be governed is returned untouched, with an UngovernedClientWarning.
    """
    clients = http_clients(client)
    if not clients:
        _warn(
            client,
            "has no HTTP transport that farthing can govern: its calls are neither held nor counted. "
            "farthing.install() governs the clients that a framework makes.",
        )
        return client
    sdk, provider = sdk_of(client), provider_of(client)

    def govern(http: Any) -> None:
        for transport in transports(http):
            try:
                govern_transport(transport, sdk=sdk, provider=provider)
            except AttributeError:  # a class with __slots__
                name = f"{type(transport).__module__}.{type(transport).__qualname__}"
                _warn(client, f"sends by a {name}, which takes no hook: its calls are neither held nor counted")
        follow_inner(http, govern)

    for http in clients:
        govern(http)
    if not send_over_httpx(client):
        _warn(client, "sends its async calls over an aiohttp session of yours: they are neither held nor counted")
    return client


def _warn(client: object, what: str) -> None:
    message = f"{type(client).__module__}.{type(client).__qualname__} {what}"
    if log.hasHandlers():
        log.warning(message)
    warnings.warn(message, UngovernedClientWarning, stacklevel=3)
