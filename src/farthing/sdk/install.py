"""
``install()``: govern every HTTP client of this process that talks to a provider, also those that a framework makes.

Wraps the transport classes of ``httpx`` and ``httpx2``. A call is recognised by a known provider host, by the headers
of an SDK, or by a host that was declared here: another service's ``/v1/messages`` is left alone.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigError
from .hook import govern_async, govern_sync, is_governed

MODULES = ("httpx", "httpx2")
METHODS = (("HTTPTransport", "handle_request"), ("AsyncHTTPTransport", "handle_async_request"))
_originals: list[tuple[type, str, Callable[..., Any]]] = []
_lock = threading.Lock()


def install(*, hosts: Mapping[str, str] | None = None) -> None:
    """
    Govern all clients of this process, now and later. Calling it again replaces the declared hosts.

    Args:
        hosts: hosts of your own that speak a provider's language, and that provider (as the price table names it):
            ``{"llm.internal:8080": "openai"}``. Every path there that nothing can meter is refused under a hard budget.

    Raises ConfigError for a host that is none.
    """
    declared = tuple(sorted((hosts or {}).items()))
    for host, provider in declared:
        if not isinstance(host, str) or not host or "/" in host or not isinstance(provider, str) or not provider:
            raise ConfigError(
                f"{host!r}: {provider!r} is not a host (without scheme or path) and a provider", key="hosts"
            )
    with _lock:
        _restore()
        for name in MODULES:
            if importlib.util.find_spec(name) is None:
                continue
            module = importlib.import_module(name)
            for kind, method in METHODS:
                _wrap(getattr(module, kind), method, declared)


def uninstall() -> None:
    """Undo :func:`install`. Clients that were instrumented one by one stay governed."""
    with _lock:
        _restore()


def _restore() -> None:
    while _originals:
        owner, method, original = _originals.pop()
        setattr(owner, method, original)


def _wrap(owner: type, method: str, hosts: tuple[tuple[str, str], ...]) -> None:
    original = getattr(owner, method)
    govern = govern_async if method == "handle_async_request" else govern_sync

    @functools.wraps(original)
    def handle(self: Any, request: Any) -> Any:
        inner = functools.partial(original, self)
        # A transport that was instrumented by itself comes here from inside of its own hook.
        return inner(request) if is_governed(self) else govern(inner, sdk=None, hosts=hosts, in_care=False)(request)

    _originals.append((owner, method, original))
    setattr(owner, method, handle)
