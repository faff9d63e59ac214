"""
``install()``: govern every HTTP client of this process that talks to a provider, also those that a framework makes.

A call is recognised by a known provider host, by the headers of an SDK, or by a host that was declared here: another
service's ``/v1/messages`` is left alone. What leaves by a library that cannot be governed is refused under a hard
budget, see :mod:`.watch`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping

from .. import forks
from ..errors import ConfigError
from .seams import unwrap_all
from .watch import state, watch_now

MODULES = ("httpx", "httpx2")
_lock = forks.lock()


def install(*, hosts: Mapping[str, str] | None = None) -> None:
    """
    Govern all clients of this process, now and later. Calling it again replaces the declared hosts.

    Args:
        hosts: hosts of your own that speak a provider's language, and that provider (as the price table names it):
            ``{"llm.internal:8080": "openai"}``. Every path there that nothing can meter is refused under a hard budget.

    Raises ConfigError for what is not a host.
    """
    if hosts is not None and not isinstance(hosts, Mapping):
        raise ConfigError(f"must map hosts to their providers, not {hosts!r}", key="hosts")
    declared = tuple(sorted((hosts or {}).items()))
    for host, provider in declared:
        if not isinstance(host, str) or not host or "/" in host or not isinstance(provider, str) or not provider:
            raise ConfigError(
                f"{host!r}: {provider!r} is not a host (without scheme or path) and a provider", key="hosts"
            )
    with _lock, forks.loading():
        for name in MODULES:
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        state.installed = declared
        watch_now()


def uninstall() -> None:
    """Undo :func:`install`. Clients that were instrumented one by one stay governed."""
    with _lock:
        state.installed = None
        unwrap_all()


def installed() -> bool:
    """Whether :func:`install` is in force."""
    return state.installed is not None
