"""HTTP by hand: what a client sends and gets, byte for byte, and how it hangs up."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

SECONDS = 60.0


class Got(NamedTuple):
    """One answer. ``whole`` is False where the connection ended before it did."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool = True

    def header(self, name: str) -> str | None:
        return next((value for of, value in self.headers if of.lower() == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def send(
    base_url: str,
    path: str,
    body: object = None,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> http.client.HTTPResponse:
    """Send one request on a connection of its own; returns the answer from the end of its headers on."""
    where = urlsplit(base_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=seconds)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, raw if body is not None else None, {**_headers_for(path), **(headers or {})})
        response = connection.getresponse()
    except BaseException:
        connection.close()
        raise
    response.connection = connection  # type: ignore[attr-defined]  # so that a test can hang up
    return response


def hang_up(response: http.client.HTTPResponse) -> None:
    """Close the client's connection in the middle."""
    response.close()
    response.connection.close()  # type: ignore[attr-defined]


def ask(base_url: str, path: str, body: object = None, **options: Any) -> Got:
    """One request and its whole answer."""
    response = send(base_url, path, body, **options)
    try:
        got = Got(response.status, response.getheaders(), response.read())
    except http.client.IncompleteRead as cut:
        got = Got(response.status, response.getheaders(), cut.partial, whole=False)
    hang_up(response)
    return got


def _headers_for(path: str) -> dict[str, str]:
    """What the SDKs of this path's provider always send."""
    headers = {"content-type": "application/json"}
    if "/messages" in path:
        headers |= {"anthropic-version": "2023-06-01", "x-api-key": "fake"}
    return headers
