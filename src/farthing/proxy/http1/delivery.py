"""
What the kernel knows of a connection that was kept: whether it is still whole, and how much of ours was received.

A server may close a kept connection at the very moment at which a request is written to it. To send such a request
again is right only if the server cannot have read the first one, and a call is money. TCP knows: a FIN carries the
number of bytes that had arrived at its sender. If a connection ends by one, and the number of acknowledged bytes is the
same as before the request was written, no byte of the request had been received when the other end hung up. A reset
proves nothing, for what it acknowledges is not counted.
"""

from __future__ import annotations

import socket
import struct
import sys

_ELSEWHERE = sys.platform != "linux"
_SIZE = 128
_BYTES_ACKED = struct.Struct("=Q")
_BYTES_ACKED_AT = 120
"""Of ``struct tcp_info`` in Linux (since 4.2): its beginning never changes."""


def bytes_acknowledged(sock: socket.socket) -> int | None:
    """How many bytes of ours the other end has received, at least; None where the system does not say."""
    if _ELSEWHERE:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
        acknowledged: int = _BYTES_ACKED.unpack_from(info, _BYTES_ACKED_AT)[0]
    except (OSError, struct.error):
        # Closed already, or a kernel without it.
        return None
    return acknowledged


def is_silent(sock: socket.socket) -> bool:
    """
    Whether nothing waits to be read. On a connection without a request anything that does is its end, or not an answer.
    """
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
