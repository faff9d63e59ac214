"""Where a request goes and what it is in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_JOIN_BELOW = 64 * 1024
"""Bodies up to this size are copied behind their head, to leave in one packet and one system call."""


class Origin(NamedTuple):
    """One place to connect to."""

    secure: bool
    host: str
    """A name, or an address without brackets."""
    port: int
    authority: bytes
    """What the ``host`` header says."""

    @classmethod
    def parse(cls, url: str) -> Origin:
        """Raises ValueError: not an http(s) URL of a host. Never repeats the URL: it may hold a secret."""
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError("an upstream's URL must be http://host… or https://host…")
        if "@" in parts.netloc:
            raise ValueError("an upstream's URL must not hold a password")
        port = parts.port if parts.port is not None else _DEFAULT_PORTS[parts.scheme]
        host = parts.hostname
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
            authority = host if parts.port is None else f"{host}:{port}"
        else:
            authority = parts.netloc
        return cls(parts.scheme == "https", host, port, authority.encode("ascii"))


def split(url: str) -> tuple[str, bytes]:
    """The part of an URL that names its origin, and the request's target as it goes on the wire."""
    start = url.find("/", 8)
    end_of_host = url.find("?", 8)
    if start < 0 or 0 <= end_of_host < start:
        if end_of_host < 0:
            return url, b"/"
        return url[:end_of_host], b"/" + url[end_of_host:].encode("ascii")
    return url[:start], url[start:].encode("ascii")


def encode(
    method: str, target: bytes, authority: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> tuple[bytes, ...]:
    """
    The request as the pieces to write: its head and body, together unless the body is large.

    Raises ValueError: something in it would end a line, and so smuggle in a header or a second request.
    """
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), target), b"host: " + authority, *map(b": ".join, headers)]
    if body or method not in {"GET", "HEAD", "OPTIONS"}:
        lines.append(b"content-length: %d" % len(body))
    head = b"\r\n".join(lines)
    ends = len(lines) - 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise ValueError("a line break or NUL in the method, the URL or a header")
    if b" " in target or b"#" in target:
        raise ValueError("an unescaped space or fragment in the URL")
    if len(body) <= _JOIN_BELOW:
        return (b"%b\r\n\r\n%b" % (head, body),)
    return head + b"\r\n\r\n", body
