"""
What the proxy answers itself, beside calls: pages, by exact path, or by a prefix that ends in ``/``.

A page is one function from a request to a reply. They are looked up before anything goes to an upstream, so that none
of these paths can ever reach one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple


class Request(NamedTuple):
    """One request, its body read (within bounds)."""

    method: str
    path: str
    """Undecoded, without its query."""
    query: str
    headers: Mapping[bytes, bytes]
    """Names in lower case; of several of one name, the last."""
    body: bytes
    address: str | None


class Reply(NamedTuple):
    """The answer to it."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


Page = Callable[[Request], Awaitable[Reply]]
Pages = Mapping[str, Page]
"""``"/healthz"`` or ``"/admin/"``: the longest prefix wins."""


def find_page(pages: Pages, path: str) -> Page | None:
    """The page of a path, or None."""
    page = pages.get(path)
    if page is not None or not path.startswith(tuple(pages)):
        return page
    end = path.rfind("/")
    while end >= 0:
        page = pages.get(path[: end + 1])
        if page is not None:
            return page
        end = path.rfind("/", 0, end)
    return None
