"""``instrument(client)``: govern one SDK client."""

from __future__ import annotations

import logging
import warnings
from typing import TypeVar

from .clients import http_clients
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
    clients = http_clients(client)
    if not clients:
        message = (
            f"{type(client).__module__}.{type(client).__qualname__} has no HTTP transport that farthing can govern: "
            "its calls pass without a budget and without a meter"
        )
        log.warning(message)
        warnings.warn(message, UngovernedClientWarning, stacklevel=2)
        return client
    sdk = sdk_of(client)
    for http in clients:
        # httpx has no public way to a client's transports.
        for transport in (http._transport, *http._mounts.values()):
            if transport is not None:
                govern_transport(transport, sdk=sdk)
    return client
