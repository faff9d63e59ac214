"""
Whether a stream's sender may have been kept waiting: its connection is full of what nobody has read.

A provider that is told to wait goes on generating, into buffers of its own, and bills that. Then what has arrived says
nothing of what a call costs.
"""

from __future__ import annotations

import socket
import struct
from typing import Protocol

SLOW_SECONDS = 0.05
"""A reader that was away for longer is asked whether its sender had to wait."""
_MEMORY = 55  # SO_MEMINFO, which Python does not name: what is received, and how much may be
_FULL_PART = 4
"""A sender has to stop where half of the receiving memory is taken, or more; half of that is not far from it."""


class Socket(Protocol):
    """A socket, or what an event loop shows of its own."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def is_full(sock: Socket) -> bool:
    """Whether so much waits unread that its sender may wait too. Nobody knows where it cannot be asked: then it may."""
    try:
        taken, room = struct.unpack("2I", sock.getsockopt(socket.SOL_SOCKET, _MEMORY, 8))
    except (OSError, struct.error):
        return True
    return bool(taken * _FULL_PART >= room)
