"""
Which upstream a request goes to, and what it is there: from its path and a few headers, then from its model.

The table of routes is :mod:`farthing.wire.routes`; this only chooses among upstreams and puts URLs together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from ..wire.hosts import TELL_USAGE
from ..wire.openai.chat import OpenAIChat
from ..wire.recognise import Recognised, recognise
from .headers import credential_at
from .settings import Upstream

_FAMILIES = {"openai": "openai", "anthropic": "anthropic", "google": "gemini", "cohere": "cohere"}
_KEPT_CHARS = 512
_HINTS = {"anthropic": {"anthropic-version": ""}, "gemini": {}, "": {}}


class Route:
    """One upstream that a request may go to, and what the request is there."""

    __slots__ = ("credential", "dialect", "family", "found", "tls", "upstream", "url")

    def __init__(self, upstream: Upstream, found: Recognised, family: str, path: str) -> None:
        self.upstream = upstream
        self.found = found
        self.dialect: Any = found.dialect
        self.family = family
        self.url = url_of(upstream, family, path)
        """Where it goes, without its query."""
        self.credential = credential_at(upstream, family)
        self.tls = upstream.tls


class Routes:
    """All that a path may mean, in order of choice. ``path`` is the client's own, without the upstream's prefix."""

    __slots__ = ("candidates", "default", "family", "metered", "path")

    def __init__(self, path: str, family: str, candidates: tuple[Route, ...]) -> None:
        self.path = path
        self.family = family
        self.candidates = candidates
        self.metered = next((route for route in candidates if route.dialect is not None), None)
        """By whose dialect the request is read; None: nobody here could."""
        self.default = self.for_model("") or next(iter(candidates), None)
        """Where a request goes that names no model."""

    def for_model(self, model: str) -> Route | None:
        """The first whose patterns fit; those without patterns take what is left."""
        rest = None
        for route in self.candidates:
            patterns = route.upstream.models
            if not patterns:
                rest = rest or route
            elif any(fnmatchcase(model, pattern) for pattern in patterns):
                return route
        return rest


class Table:
    """The upstreams of one proxy."""

    def __init__(self, upstreams: tuple[Upstream, ...]) -> None:
        self._prefixed = sorted((of for of in upstreams if of.prefix), key=lambda of: -len(of.prefix))
        self._plain = tuple(of for of in upstreams if not of.prefix)
        self._kept = lru_cache(maxsize=2048)(self._find)

    def find(self, method: str, path: str, hint: str = "") -> Routes:
        """*path* without its query; *hint* as :func:`hint_of` gives it."""
        # Who calls is not known yet: what anybody may send is not kept at any length.
        return self._kept(method, path, hint) if len(path) <= _KEPT_CHARS else self._find(method, path, hint)

    def _find(self, method: str, path: str, hint: str) -> Routes:
        for upstream in self._prefixed:
            if path.startswith(upstream.prefix + "/"):
                path = path[len(upstream.prefix) :]
                family = family_of(method, path, hint)
                family = family if family in upstream.speaks else upstream.speaks[0]
                return Routes(path, family, (_route(method, path, family, upstream),))
        family = family_of(method, path, hint)
        candidates = tuple(
            _route(method, path, family, upstream) for upstream in self._plain if family in upstream.speaks
        )
        return Routes(path, family, candidates)


def hint_of(headers: Mapping[bytes, bytes]) -> str:
    """Whose client it is, where a header says so: some paths (``/v1/models``) belong to several."""
    if b"anthropic-version" in headers:
        return "anthropic"
    return "gemini" if b"x-goog-api-key" in headers else ""


def family_of(method: str, path: str, hint: str = "") -> str:
    """Whose dialect a path belongs to; OpenAI's where nothing says otherwise."""
    found = recognise(method, "", path, headers=_HINTS[hint], sdk_client=True)
    if found.dialect is not None or hint == "":
        if found.dialect is None and "/v1beta" in path:
            return "gemini"
        return _FAMILIES.get(found.provider or "", "openai")
    return hint


def _route(method: str, path: str, family: str, upstream: Upstream) -> Route:
    provider = upstream.known_provider
    hosts = {upstream.host: provider} if provider is not None else {}
    found = recognise(
        method, upstream.host if hosts else "", path, headers=_HINTS.get(family), known_hosts=hosts, sdk_client=True
    )
    field = upstream.ceiling_field
    if field is not None and found.dialect is not None and found.dialect.name == OpenAIChat.name:
        home = found.dialect.provider
        found = replace(found, dialect=OpenAIChat(home, ceiling_field=field, tells_usage=home in TELL_USAGE))
    return Route(upstream, found, family, path)


def url_of(upstream: Upstream, family: str, path: str) -> str:
    """
    The URL at the upstream. Its base is written as its SDK writes it: OpenAI's clients add ``/chat/completions`` to a
    base with ``/v1``, the others ``/v1/messages`` to one without. Some add all of it: Groq's ``/openai/v1/…``.
    """
    base = upstream.base_url.rstrip("/")
    if family == "openai":
        own = urlsplit(base).path
        said = next((part for part in (own, "/v1") if part and path.startswith(part + "/")), "")
        return base + path[len(said) :]
    if "openai" in upstream.speaks:
        base = base.removesuffix("/v1")
    return base + path
