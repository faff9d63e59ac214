"""
The HTTP client towards providers, as the rest of the proxy sees it: small enough that another can take its place.

A client speaks HTTP/1.1 and TLS, pools connections, follows no redirects, decodes nothing, retries nothing that may
have reached the provider, and keeps headers as they are. What goes wrong is said in the words of the life of a call:
:class:`NotSent` where certainly nothing left this machine, else :class:`Broken` with ``timeout`` or
``connection_lost``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..calls.steps import Broken, NotSent
from .http1.tls import Tls
from .settings import Timeouts

__all__ = ["Broken", "Header", "NotSent", "UpstreamClient", "UpstreamResponse"]

Header = tuple[bytes, bytes]
"""Name (in lower case where we made it) and value, as on the wire."""


class UpstreamResponse(Protocol):
    """
    One answer, from the end of its headers on. 1xx answers are skipped. Used by one task.

    A body that was read to its end gives its connection back by itself; any other must be stopped or aborted.
    """

    status: int
    headers: Sequence[Header]
    """In the order they came, several of one name included; hop-by-hop ones too."""

    async def receive(self, through: Callable[[bytes], bool] | None = None) -> bytes:
        """
        The next piece of the body as soon as there is one, without the chunking but with its content encoding; b"" at
        its end, and from then on. Nothing is read ahead without bound: a reader that is slow slows the provider.

        *through* is asked first of each piece that comes while this waits: True, and this waits for the next one. So
        pieces pass that nobody has to wait for, and no task is woken. It does not raise.

        Raises Broken: ``timeout`` (idle for longer than allowed) or ``connection_lost`` (ended before its end).
        """
        ...

    def keeps_waiting(self) -> bool:
        """Whether so much has arrived unread that its provider may have to wait: it goes on generating all the same."""
        ...

    def has_unread(self) -> bool:
        """Whether something had arrived, for all that is known here, which was not received."""
        ...

    def stop(self) -> bool:
        """
        Let the provider stop, and read only what is here: its side of the connection is shut, so that :meth:`receive`,
        also one that waits now, gives what had arrived and then raises Broken(``connection_lost``); it never waits.
        False where nobody can say what had arrived (another system); then nothing more is received.
        """
        ...

    def abort(self) -> None:
        """
        Close the connection at once, with whatever is in it: a :meth:`receive` that waits raises Broken
        (``connection_lost``). Idempotent, also after the body's end.
        """
        ...


class UpstreamClient(Protocol):
    """One per event loop. Any number of requests at once."""

    async def request(
        self,
        method: str,
        url: str,
        headers: Sequence[Header],
        body: bytes,
        *,
        timeouts: Timeouts,
        tls: Tls | None = None,
    ) -> UpstreamResponse:
        """
        Send one request and wait for the headers of its answer.

        Args:
            url: absolute and already escaped: sent as it is, byte for byte.
            headers: as they go out, in order. ``host``, ``content-length`` and ``connection`` are the client's own,
                and never among them.
            tls: whom to trust, and what to show, at this upstream; None: the system's authorities.

        Raises NotSent: connecting (DNS, TLS included) failed. Raises Broken otherwise. If the task is cancelled, the
        connection is closed.
        """
        ...

    def renew(self) -> None:
        """Read files of authorities and certificates anew from the next connection on: they may have been changed."""
        ...

    async def close(self) -> None:
        """Close what is pooled. Requests in flight are the caller's matter."""
        ...
