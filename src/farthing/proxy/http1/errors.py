"""
What can go wrong, and whether anything had left by then. Each carries its evidence as ``note``.

::

    NotSent                certainly nothing reached the upstream
    └── ConnectFailed      name, address, TLS, or no connection free in time
        └── StaleConnection    a kept connection had been closed at the other end; nobody but the client sees it
    Broken                 the upstream may have acted on the request
    ├── TimedOut           "timeout"
    ├── ConnectionLost     "connection_lost"
    └── BadAnswer          "connection_lost": what came is not an HTTP/1.1 answer, or passes a bound
"""

from __future__ import annotations

from ...calls.steps import Broken, NotSent


class ConnectFailed(NotSent):
    """Its text is ``connect_error`` or ``connect_timeout``: how the call ends."""

    def __init__(self, ending: str, note: str) -> None:
        super().__init__(ending)
        self.note = note


class StaleConnection(ConnectFailed):
    """The request was written to a kept connection that was closed already: not one byte of it was taken."""

    def __init__(self) -> None:
        super().__init__("connect_error", "the kept connection was closed at the other end")


class TimedOut(Broken):
    """Nothing came for too long, or the whole took too long: the note says which."""

    def __init__(self, note: str) -> None:
        super().__init__("timeout", note)


class ConnectionLost(Broken):
    """The connection ended before the answer did."""

    def __init__(self, note: str) -> None:
        super().__init__("connection_lost", note)


class BadAnswer(Broken):
    """The other end does not keep to HTTP/1.1, or to the bounds of this client."""

    def __init__(self, note: str) -> None:
        super().__init__("connection_lost", note)
