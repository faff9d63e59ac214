"""
Where HTTP libraries send: the methods that are wrapped, each once its library is loaded, and put back by name.

httpx and httpx2 transports can be governed; of the other libraries it can only be seen that a call to a provider leaves
through them. Nothing is imported for it: a library that the program does not use costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .. import forks
from .loading import Watcher


class Leaving(NamedTuple):
    """A request that leaves by a library that cannot be governed."""

    client: object
    """What sends it: told once about each."""
    method: str
    host: str
    path: str
    headers: Mapping[str, Any]


class Seam(NamedTuple):
    """One method to wrap. ``read`` is None where what is passed speaks for itself (httpx's requests)."""

    library: str
    module: str
    owner: str
    """A class of the module; empty for the module's own function."""
    method: str
    read: Callable[[tuple[Any, ...], dict[str, Any]], Leaving] | None = None


def _of_url(client: object, method: object, url: object, headers: object) -> Leaving:
    parts = urlsplit(str(url))
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    named = headers if isinstance(headers, Mapping) else {}
    return Leaving(client, str(method), parts.netloc.rpartition("@")[2], path, named)


def _first(given: tuple[Any, ...], named: dict[str, Any], *names: str) -> tuple[Any, ...]:
    """The owner of a method, and the first arguments of a call, by place or by these names."""
    return (*given, *map(named.get, names[len(given) - 1 :]))[: len(names) + 1]


def _aiohttp(given: tuple[Any, ...], named: dict[str, Any]) -> Leaving:
    session, method, url = _first(given, named, "method", "str_or_url")
    return _of_url(session, method, url, {**getattr(session, "headers", {}), **(named.get("headers") or {})})


def _urllib3(given: tuple[Any, ...], named: dict[str, Any]) -> Leaving:
    pool, method, url = _first(given, named, "method", "url")
    headers = named.get("headers") or (given[4] if len(given) > 4 else None)
    port = f":{pool.port}" if pool.port else ""
    path = urlsplit(str(url))
    return _of_url(pool, method, f"//{pool.host}{port}{path.path}?{path.query}", headers)


def _http_client(given: tuple[Any, ...], named: dict[str, Any]) -> Leaving:
    connection, method, url = _first(given, named, "method", "url")
    headers = named.get("headers") or (given[4] if len(given) > 4 else None)
    tunnelled = connection._tunnel_host
    host, port = (tunnelled, connection._tunnel_port) if tunnelled else (connection.host, connection.port)
    netloc = host if port in (None, connection.default_port) else f"{host}:{port}"
    # It lives for one request, so it is its host that is told of; through a proxy the URL names that.
    leaving = _of_url(netloc, method, f"//{netloc}{url}" if str(url).startswith("/") else url, headers)
    return leaving._replace(client=leaving.host)


def _lm15(given: tuple[Any, ...], named: dict[str, Any]) -> Leaving:
    transport, request = _first(given, named, "request")
    return _of_url(transport, request.method, request.url, dict(request.headers))


def _websocket(given: tuple[Any, ...], named: dict[str, Any]) -> Leaving:
    # The class of the asyncio client is its own first argument; the function of the sync one has none.
    uri = named.get("uri") or named.get("url") or next((value for value in given if isinstance(value, str)), "")
    return _of_url(urlsplit(uri).netloc, "GET", uri, named.get("additional_headers"))


def _grpc(given: tuple[Any, ...], named: dict[str, Any]) -> Leaving:
    target = str(named.get("target") or next(iter(given), ""))
    host = target.rpartition("/")[2]
    return Leaving(host, "gRPC", host, "/", {})


_AIOHTTP_TRANSPORT = "AiohttpTransport", "handle_async_request"

SEAMS = (
    *(
        Seam(module, module, owner, method)
        for module in ("httpx", "httpx2")
        for owner, method in (
            ("HTTPTransport", "handle_request"),
            ("AsyncHTTPTransport", "handle_async_request"),
        )
    ),
    Seam("aiohttp", "openai._vendor.httpx_aiohttp.transport", *_AIOHTTP_TRANSPORT),
    Seam("aiohttp", "anthropic._vendor.httpx_aiohttp.transport", *_AIOHTTP_TRANSPORT),
    Seam("aiohttp", "httpx_aiohttp.transport", *_AIOHTTP_TRANSPORT),
    Seam("aiohttp", "litellm.llms.custom_httpx.aiohttp_transport", "LiteLLMAiohttpTransport", "handle_async_request"),
    Seam("litellm", "litellm.llms.custom_httpx.llm_http_handler", "BaseLLMHTTPHandler", "_handle_error"),
    Seam("litellm", "litellm.main", "", "exception_type"),
    Seam("google-genai", "google.genai._api_client", "BaseApiClient", "_use_aiohttp"),
    Seam("aiohttp", "aiohttp.client", "ClientSession", "_request", _aiohttp),
    Seam("urllib3", "urllib3.connectionpool", "HTTPConnectionPool", "urlopen", _urllib3),
    Seam("http.client", "http.client", "HTTPConnection", "request", _http_client),
    *(
        Seam("lm15", f"{package}.transports.{module}", owner, "stream", _lm15)
        for package in ("lm15", "dspy._vendor.lm15")
        for module, owner in (("_sync", "StdlibTransport"), ("_async", "StdlibAsyncTransport"))
    ),
    Seam("websockets", "websockets.asyncio.client", "connect", "__init__", _websocket),
    Seam("websockets", "websockets.sync.client", "", "connect", _websocket),
    Seam("websocket-client", "websocket._core", "WebSocket", "connect", _websocket),
    Seam("grpc", "grpc", "", "secure_channel", _grpc),
    Seam("grpc", "grpc.aio", "", "secure_channel", _grpc),
)

Wrap = Callable[[Seam, Callable[..., Any]], Callable[..., Any]]
_wrapped: dict[Seam, tuple[Any, Callable[..., Any]]] = {}
_lock = forks.rlock()
_watcher: Watcher | None = None


def wrap_all(wrap: Wrap) -> None:
    """Wrap the seams of every library, now or as soon as it is loaded. Again, it does nothing."""
    global _watcher  # noqa: PLW0603 - what of this process is wrapped is state of the process
    if _watcher is not None:
        return
    with _lock:
        if _watcher is None:
            _put_back()
            watcher = Watcher(frozenset(seam.module for seam in SEAMS), lambda: _wrap_loaded(wrap))
            watcher.begin()
            try:
                with forks.loading():
                    _wrap_loaded(wrap)
            except BaseException:  # a signal's too: the next one begins again
                watcher.stop()
                raise
            # Last: whoever sees it goes on at once, and sends.
            _watcher = watcher


def _wrap_loaded(wrap: Wrap) -> None:
    with _lock:
        for seam in SEAMS:
            module = sys.modules.get(seam.module)
            owner = getattr(module, seam.owner, None) if seam.owner else module
            # A module that is still being loaded has no such name yet; it says so when it has.
            original = None if owner is None else getattr(owner, seam.method, None)
            if seam not in _wrapped and original is not None:
                _wrapped[seam] = owner, original
                setattr(owner, seam.method, wrap(seam, original))


def unwrap_all() -> None:
    """Put every original back."""
    global _watcher  # noqa: PLW0603 - as above
    with _lock:
        if _watcher is not None:
            _watcher.stop()
        _watcher = None
        _put_back()


def _put_back() -> None:
    while _wrapped:
        seam, (owner, original) = next(iter(_wrapped.items()))
        setattr(owner, seam.method, original)
        del _wrapped[seam]
