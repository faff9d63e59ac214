"""
What a proxy is put together from, for every way to start one.

Who calls, its pages, its client towards providers, and what is warmed up.
"""

from __future__ import annotations

import logging
from urllib.request import getproxies

from .. import tokens
from ..errors import FarthingError
from ..runtime.runtime import Runtime
from .app import Proxy
from .callers.identity import Identify
from .callers.keys import KeyIdentify
from .http1.client import Http1Client
from .pages.admin import PREFIX, admin
from .pages.health import healthz, readyz
from .pages.metrics import metrics
from .pages.mine import pages_about_callers
from .pages.page import Pages
from .upstream import UpstreamClient

log = logging.getLogger("farthing.proxy")


def identify_for(runtime: Runtime) -> Identify:
    """Who calls: by key; as long as there are none, whoever is on this machine."""
    return KeyIdentify(runtime)


def pages_for(proxy: Proxy) -> Pages:
    """What a proxy answers itself."""
    keys = proxy.identify if isinstance(proxy.identify, KeyIdentify) else KeyIdentify(proxy.runtime)
    return {
        **pages_about_callers(proxy, keys),
        "/healthz": healthz(),
        "/readyz": readyz(proxy.runtime, draining=lambda: proxy.stopping),
        "/metrics": metrics(proxy.runtime, keys, proxy.vitals),
        PREFIX: admin(proxy, keys),
    }


def upstream_client() -> UpstreamClient:
    """
    The HTTP client towards providers, for the event loop that runs: a lean one, or where the environment names a
    forward proxy (``HTTPS_PROXY`` and the like), one that goes through it.
    """
    if {"http", "https", "all"}.isdisjoint(getproxies()):
        return Http1Client()
    from .aio import AioClient

    return AioClient()


def warm_up(runtime: Runtime) -> None:
    """Load prices and tokenisers now: the first call must not wait for them."""
    try:
        tokens.count("farthing", "gpt-4o")
        runtime.prices.rates("gpt-4o", provider="openai", at_ms=runtime.memory_store.now())
    except (FarthingError, ImportError) as error:
        log.warning("prices or tokenisers cannot be loaded: %s", error)
