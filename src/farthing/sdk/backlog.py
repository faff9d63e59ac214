"""The connection of a stream, as its HTTP client shows it: whether its sender may have been kept waiting."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..runtime import sockets


def is_full(extensions: Any) -> bool:
    """Whether so much waits unread that its sender may wait too. Nobody knows where it cannot be asked: then it may."""
    with own_socket(extensions) as duplicate:
        return duplicate is None or sockets.is_full(duplicate)


@contextmanager
def own_socket(extensions: Any) -> Iterator[socket.socket | None]:
    """The socket of a stream that has a connection to itself; None if it has not, or it is closed on this side."""
    network = extensions.get("network_stream")
    own = None
    if network is not None and extensions.get("http_version") in (b"HTTP/1.1", b"HTTP/1.0"):
        own = network.get_extra_info("socket")
    if own is None or own.fileno() < 0:
        yield None
        return
    # A duplicate of the descriptor: the wrappers of TLS and of event loops have ideas of their own about it.
    with socket.socket(fileno=os.dup(own.fileno())) as duplicate:
        yield duplicate
