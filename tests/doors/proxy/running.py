"""Proxies for tests: real ones, on a socket, in front of a fake provider."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from farthing import BudgetConfig, ProxyServer, start_proxy
from farthing.kernel.hold import Entry, Hold
from farthing.proxy.settings import ProxySettings, Timeouts
from farthing.testing import FakeProvider


def settings_for(provider: FakeProvider, *, timeouts: Timeouts | None = None, **changes: Any) -> ProxySettings:
    """A proxy whose three upstreams are at this fake provider, without budgets."""
    plain = BudgetConfig(max_tokens_per_request=None, upstream_url=provider.openai_url).settings(port=0)
    upstreams = tuple(
        replace(of, base_url=_base_url(provider, of.name), timeouts=timeouts or of.timeouts) for of in plain.upstreams
    )
    return replace(plain, **{"upstreams": upstreams, **changes})


@contextmanager
def proxy_before(provider: FakeProvider, **limits: Any) -> Iterator[ProxyServer]:
    """A proxy with these flags, all its upstreams at this fake provider."""
    flags = BudgetConfig(**{"upstream_url": provider.openai_url, **limits})
    given = flags.settings(port=0)
    openai, *others = given.upstreams
    server = ProxyServer(
        replace(given, upstreams=(openai, *(replace(of, base_url=provider.url) for of in others))), flags
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def proxy_with(settings: ProxySettings) -> Iterator[ProxyServer]:
    """A proxy with these settings."""
    server = start_proxy(settings, block=False)
    try:
        yield server
    finally:
        server.stop()


def entries(server: ProxyServer) -> list[Entry]:
    """Every row that the proxy's ledger has."""
    return list(server.runtime.main.store.entries().result())


def holds(server: ProxyServer, *states: str) -> list[Hold]:
    return list(server.runtime.main.store.holds(*states).result())


def _base_url(provider: FakeProvider, name: str) -> str:
    return provider.openai_url if name == "openai" else provider.url
