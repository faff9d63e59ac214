"""``instrument(client)``: govern one SDK client."""

from __future__ import annotations

import logging
import warnings
from typing import Any, TypeVar

from .errors import sdk_of
from .hook import govern_transport

C = TypeVar("C")
log = logging.getLogger("farthing")


class UngovernedClientWarning(UserWarning):
    """No HTTP transport was found on this client to govern: its calls pass without a budget and without a meter."""


def instrument(client: C) -> C:
    """
    Put an SDK client in farthing's care, and return the same object: ``client = instrument(OpenAI())``.

    Works on the client's inner HTTP client, so copies of it (``with_options``) and every endpoint are covered. Outside
    of any budget its calls are metered for :func:`farthing.report`; inside, they are held before they leave. A client
    that cannot be governed is returned untouched, with an UngovernedClientWarning.
    """
    http = _http_client(client)
    if http is None:
        message = (
            f"{type(client).__module__}.{type(client).__qualname__} has no HTTP transport that farthing can govern: "
            "its calls pass without a budget and without a meter"
        )
        log.warning(message)
        warnings.warn(message, UngovernedClientWarning, stacklevel=2)
        return client
    sdk = sdk_of(client)
    transports = [http._transport, *http._mounts.values()]
    for transport in transports:
        if transport is not None:
            govern_transport(transport, sdk=sdk)
    return client


def _http_client(client: Any) -> Any:
    """The httpx-like client inside of an SDK's client (or the client itself), or None."""
    for candidate in (client, getattr(client, "_client", None)):
        if hasattr(candidate, "_transport") and hasattr(candidate, "_mounts"):
            return candidate
    return None
