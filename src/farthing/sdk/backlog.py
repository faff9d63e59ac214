"""
Whether a stream's sender may have been kept waiting: its connection is full of what nobody has read.

A provider that is told to wait goes on generating, into buffers of its own, and bills that. Then what has arrived says
nothing of what a call costs.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SLOW_SECONDS = 0.05
"""A reader that was away for longer is asked whether its sender had to wait."""
_MEMORY = 55  # SO_MEMINFO, which Python does not name: what is received, and how much may be
_FULL_PART = 4
"""A sender has to stop where half of the receiving memory is taken, or more; half of that is not far from it."""


def is_full(extensions: Any) -> bool:
    """Whether so much waits unread that its sender may wait too. Nobody knows where it cannot be asked: then it may."""
    with own_socket(extensions) as duplicate:
        if duplicate is None:
            return True
        try:
            taken, room = struct.unpack("2I", duplicate.getsockopt(socket.SOL_SOCKET, _MEMORY, 8))
        except (OSError, struct.error):
            return True
        return bool(taken * _FULL_PART >= room)


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
