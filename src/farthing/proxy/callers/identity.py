"""Who calls: from the headers of a request to the identity that budgets match. Never from what a caller can choose."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple, Protocol


class Caller(NamedTuple):
    """What a request says of its caller before anything is believed."""

    credential: str | None
    """The bearer token, or what stands in ``x-api-key``, ``x-goog-api-key`` or ``?key=``; None: none was sent."""
    headers: Mapping[bytes, bytes]
    """Names in lower case; of several of one name, the last."""
    address: str | None
    """Where it comes from."""


class Identity(NamedTuple):
    """Who pays. ``tags`` are identity tags (``user``, ``team``, ``key`` …): budgets match them, no caller sets them."""

    tags: tuple[tuple[str, str], ...] = ()
    key_id: str | None = None
    """Of a virtual key. Its credential is ours: it never goes to an upstream."""
    deny_status: int | None = None
    """The key's own, before the proxy's."""


class Refused(Exception):
    """This caller may not call: ``status`` (401 or 403), ``code`` for programs, the message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Identify(Protocol):
    """Raises Refused. Called in the event loop for every request: what has to wait returns an awaitable."""

    def __call__(self, caller: Caller) -> Identity | Awaitable[Identity]: ...


class Loopback:
    """
    Without keys: whoever is on this machine. A page in a browser is not: its name for this address, or its origin,
    gives it away.
    """

    def __call__(self, caller: Caller) -> Identity:
        message = _why_not(caller.headers.get(b"host", b"localhost"), caller.headers.get(b"origin", b""))
        if message:
            raise Refused(403, "not_loopback", message)
        return _NOBODY


_NOBODY = Identity()


@lru_cache(maxsize=64)
def _why_not(host: bytes, origin: bytes) -> str:
    """Why no request with these headers is answered; "" if it may be."""
    name = _name(host)
    if not is_loopback(name):
        return f"without keys this proxy answers on this machine only, as localhost or 127.0.0.1, not as {name!r}"
    if origin.startswith((b"http://", b"https://")):
        page = _name(origin.partition(b"://")[2])
        if not is_loopback(page):
            return f"without keys this proxy takes no calls from web pages, and this one is of {page!r}"
    return ""


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether this address, or name, is reachable from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(host: bytes) -> str:
    """A host without its port, in lower case."""
    name = host.decode("latin-1").strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]
