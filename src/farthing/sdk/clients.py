"""Where the HTTP clients of each SDK are, and what else is to be known of an SDK. Found by looking at each one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

PATHS: tuple[tuple[str, ...], ...] = (
    (),  # an httpx client itself
    ("_client",),  # openai, anthropic, groq
    ("_api_client", "_httpx_client"),  # google-genai
    ("_api_client", "_async_httpx_client"),
    ("sdk_configuration", "client"),  # mistralai
    ("sdk_configuration", "async_client"),
    ("_client_wrapper", "httpx_client", "httpx_client"),  # cohere
)
"""Attributes that lead from an SDK's client to an httpx-like client of its."""

PROVIDERS = {"groq": "groq", "mistralai": "mistral", "cohere": "cohere", "google": "google"}
"""SDKs that speak to one provider only, wherever their base URL points: the price table's id of it."""


def provider_of(client: Any) -> str | None:
    """The one provider that a client talks to, wherever its base URL points; None where only its host can tell."""
    kinds = [] if isinstance(client, ModuleType) else type(client).__mro__
    if any(kind.__name__.endswith("AzureOpenAI") for kind in kinds):
        return "azure"
    packages = {kind.__module__.partition(".")[0] for kind in kinds}
    return next((provider for package, provider in PROVIDERS.items() if package in packages), None)


def http_clients(client: Any) -> list[Any]:
    """The httpx-like clients that an SDK's client (or its module, for a module-level client) sends through."""
    if isinstance(client, ModuleType):
        load = getattr(client, "_load_client", None)
        return http_clients(load()) if callable(load) else []
    found = []
    for path in PATHS:
        reached: Any = client
        for name in path:
            reached = getattr(reached, name, None)
        if _is_http_client(reached) and reached not in found:
            found.append(reached)
    return found


def _is_http_client(candidate: Any) -> bool:
    return hasattr(candidate, "_transport") and hasattr(candidate, "_mounts")


def transports(http: Any) -> list[Any]:
    """
    The transports that an httpx-like client's requests leave by: of one that wraps another (to try again, to cache),
    the inner one, so that each attempt is seen, and an answer out of a cache costs nothing.
    """
    # httpx has no public way to a client's transports.
    found: list[Any] = []
    for transport in (http._transport, *http._mounts.values()):
        if transport is not None:
            _gather(transport, found, _MAX_NESTING)
    return found


def follow_inner(http: Any, found: Callable[[Any], None]) -> None:
    """
    google-genai sends async calls through an inner client for each event loop, made when a loop is first used: *found*
    gets each before it sends. Other clients send by themselves.
    """
    choose = getattr(http, "_client_for_running_loop", None)
    if not callable(choose) or hasattr(choose, "follows"):
        return

    def client_for_running_loop() -> Any:
        inner = choose()
        found(inner)
        return inner

    client_for_running_loop.follows = True  # type: ignore[attr-defined]
    http._client_for_running_loop = client_for_running_loop


_MAX_NESTING = 8


def _gather(transport: Any, found: list[Any], depth: int) -> None:
    inner = [value for value in _parts(transport) if _is_transport(value)] if depth else []
    for each in inner:
        _gather(each, found, depth - 1)
    if not inner and transport not in found:
        found.append(transport)


def _parts(transport: Any) -> Iterator[Any]:
    """What it has; of a list, or a mapping, each."""
    for value in list(getattr(transport, "__dict__", {}).values()):
        if isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _is_transport(candidate: Any) -> bool:
    # By name, for httpx and httpx2 each have their own; httpcore's pools have the same methods and are none.
    return any(kind.__name__ in ("BaseTransport", "AsyncBaseTransport") for kind in type(candidate).__mro__)


def send_over_httpx(client: Any) -> bool:
    """
    Where aiohttp is installed, google-genai's async calls leave by it, past every hook: move them to the httpx client
    that it has as well. False if they stay where they are: the user gave it an aiohttp session of their own.
    """
    api = getattr(client, "_api_client", None)
    uses_aiohttp = getattr(api, "_use_aiohttp", None)
    if not callable(uses_aiohttp) or not uses_aiohttp():
        return True
    if not can_send_over_httpx(api):
        return False
    api._use_aiohttp = _never  # type: ignore[union-attr]
    return True


def can_send_over_httpx(api: Any) -> bool:
    """Whether a google-genai client (its inner API client) has an httpx client for its async calls, and no choice."""
    options = getattr(api, "_http_options", None)
    return getattr(api, "_async_httpx_client", None) is not None and getattr(options, "aiohttp_client", None) is None


def _never() -> bool:
    return False
