"""Where the HTTP clients of each SDK are, and what else is to be known of an SDK. Found by looking at each one."""

from __future__ import annotations

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
