"""The client itself: from an URL to a connection, and the one case in which a request is sent twice."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

from ...errors import ConfigError
from ..settings import Timeouts
from .errors import ConnectFailed, StaleConnection
from .pool import Limits, Pool
from .request import Origin, encode, split
from .response import Header, Response
from .tls import Tls


class Http1Client:
    """
    Implements :class:`..upstream.UpstreamClient`. Belongs to the event loop of its first request.

    Raises ConfigError when made, if *tls* names files that cannot be used.
    """

    def __init__(self, *, tls: Tls | None = None, limits: Limits | None = None) -> None:
        self._tls = tls or Tls()
        self._limits = limits or Limits()
        self._context: ssl.SSLContext | None = None if tls is None else tls.context()
        self._pools: dict[str, Pool] = {}
        self._others: dict[Tls, Http1Client] = {}
        """For upstreams with a TLS of their own: their connections are for nobody else."""

    async def request(
        self,
        method: str,
        url: str,
        headers: Sequence[Header],
        body: bytes,
        *,
        timeouts: Timeouts,
        tls: Tls | None = None,
    ) -> Response:
        """
        Send one request, and wait for the head of its answer. *url* is sent as it is; ``host`` and ``content-length``
        are added to the headers. *tls* goes before the client's own.

        Raises ConnectFailed (a NotSent), and TimedOut, ConnectionLost or BadAnswer (each a Broken). Raises ValueError
        for what no client may send: line breaks in a header, or an URL that is none.
        """
        if tls is not None:
            return await self._other(tls).request(method, url, headers, body, timeouts=timeouts)
        place, target = split(url)
        pool = self._pools.get(place) or self._pool(place)
        request = encode(method, target, pool.origin.authority, headers, body)
        connection = pool.take() or await pool.lease(timeouts.connect_seconds)
        response = connection.send(request, head_only=method == "HEAD", timeouts=timeouts)
        try:
            await response.head()
        except StaleConnection:
            # Nothing of it was received. Once more, on a new connection or one that was in use a moment ago.
            connection = await pool.lease(timeouts.connect_seconds)
            response = connection.send(request, head_only=method == "HEAD", timeouts=timeouts)
            await response.head()
        return response

    async def close(self) -> None:
        """Close what is pooled. Requests in flight are the caller's matter; their connections close behind them."""
        for client in (self, *self._others.values()):
            client._close_pools()
        # Transports close in the next turns of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def renew(self) -> None:
        """Read files anew from the next connection on. Requests in flight are not touched."""
        others, self._others = self._others, {}
        for client in others.values():
            client._close_pools()

    def _close_pools(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _other(self, tls: Tls) -> Http1Client:
        found = self._others.get(tls)
        if found is None:
            try:
                found = self._others[tls] = Http1Client(tls=tls, limits=self._limits)
            except ConfigError as error:
                raise ConnectFailed("connect_error", error.reason) from error
        return found

    def _pool(self, place: str) -> Pool:
        origin = Origin.parse(place)
        if origin.secure and self._context is None:
            self._context = self._tls.context()
        pool = Pool(asyncio.get_running_loop(), origin, self._limits, self._context if origin.secure else None)
        self._pools[place] = pool
        return pool
