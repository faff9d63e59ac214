"""
What a connection tells of the other end: whether it may have been kept waiting, and whether it never listened.

A provider that is told to wait, because its connection is full of what nobody has read, goes on generating, into
buffers of its own, and bills that. Then what has arrived says nothing of what a call costs.
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


_REFUSES_A_CERTIFICATE = frozenset(
    f"{version}_ALERT_{alert}"
    for version in ("SSLV3", "TLSV1", "TLSV13")
    for alert in (
        *("ACCESS_DENIED", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REQUIRED", "CERTIFICATE_REVOKED"),
        *("CERTIFICATE_UNKNOWN", "DECRYPT_ERROR", "UNKNOWN_CA", "UNSUPPORTED_CERTIFICATE"),
    )
)
_CAUSES_MAX = 10


def refused_certificate(error: BaseException | None) -> bool:
    """
    Whether a server has ended a connection because of the certificate that it was shown, or was not.

    With TLS 1.3 it says so when the client has written its request already. But it has not read that: what comes
    before the end of its own handshake, in which it looks at certificates, is nothing to it.
    """
    for _ in range(_CAUSES_MAX):
        if error is None:
            return False
        if isinstance(error, OSError) and getattr(error, "reason", None) in _REFUSES_A_CERTIFICATE:
            return True
        error = error.__cause__ or error.__context__
    return False
