"""The HTTP client towards providers on ``aiohttp``: also through a forward proxy (``HTTPS_PROXY``), and TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from yarl import URL

from ..errors import ConfigError
from ..runtime.sockets import is_full, refused_certificate
from .callers.identity import is_loopback
from .http1.delivery import is_silent
from .http1.tls import Tls
from .settings import Timeouts
from .upstream import Broken, Header, NotSent

_READ_BYTES = 64 * 1024


class AioClient:
    """An :class:`~.upstream.UpstreamClient`. Make it inside the event loop it is for."""

    def __init__(self) -> None:
        self._session = _session(trust_env=True)
        self._direct = _session(trust_env=False)
        """For what is on this machine: no forward proxy knows the way there."""
        # Who says with NO_PROXY what is reached directly, if only that nothing is, has said it of this machine too.
        self._own_rule = not {"NO_PROXY", "no_proxy"}.isdisjoint(os.environ)
        self._contexts: dict[Tls, ssl.SSLContext] = {}

    async def request(
        self,
        method: str,
        url: str,
        headers: Sequence[Header],
        body: bytes,
        *,
        timeouts: Timeouts,
        tls: Tls | None = None,
    ) -> AioResponse:
        """See :class:`~.upstream.UpstreamClient`."""
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=timeouts.connect_seconds, sock_read=timeouts.idle_seconds
        )
        context = True if tls is None else self._context(tls)
        target = URL(url, encoded=True)
        session = self._session if self._own_rule or not is_loopback(target.host or "") else self._direct
        named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        try:
            response = await session.request(
                method,
                target,
                headers=named,
                data=body or None,
                timeout=limits,
                allow_redirects=False,
                ssl=context,
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise _not_sent("connect_timeout", error) from error
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:
            # The latter: the forward proxy made no way to the provider.
            raise _not_sent("connect_error", error) from error
        except aiohttp.InvalidURL as error:
            raise NotSent("invalid_url") from error
        except TimeoutError as error:
            raise Broken("timeout", "no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            if refused_certificate(error):
                raise _not_sent("connect_error", error) from error
            raise Broken("connection_lost", type(error).__name__) from error
        if response.status == 101:
            # Nobody asked for it, and what follows on that connection is no answer.
            response.close()
            raise Broken("connection_lost", "the connection changes its protocol")
        return AioResponse(response)

    def renew(self) -> None:
        self._contexts = {}

    async def close(self) -> None:
        await self._session.close()
        await self._direct.close()

    def _context(self, tls: Tls) -> ssl.SSLContext:
        found = self._contexts.get(tls)
        if found is None:
            try:
                found = self._contexts[tls] = tls.context()
            except ConfigError as error:
                raise _not_sent("connect_error", error) from error
        return found


class AioResponse:
    """An :class:`~.upstream.UpstreamResponse`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Sequence[Header] = response.raw_headers
        self._response = response
        self._ended = False
        self._received = 0

    async def receive(self, through: Callable[[bytes], bool] | None = None) -> bytes:
        data = await self._piece()
        while data and through is not None and through(data):
            data = await self._piece()
        return data

    async def _piece(self) -> bytes:
        if self._ended:
            return b""
        content: Any = self._response.content
        try:
            data: bytes = await content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError, RuntimeError) as error:
            # aiohttp says RuntimeError of a connection that is closed already. What had arrived before the connection
            # ended is still in the reader, behind its exception.
            rest: bytes = content._read_nowait(-1)
            if rest:
                self._received += len(rest)
                return rest
            self._ended = True
            self._response.close()
            if isinstance(error, TimeoutError):
                raise Broken("timeout", "the answer stopped") from error
            raise Broken("connection_lost", type(error).__name__) from error
        self._received += len(data)
        if not data:
            self._ended = True
            self._response.release()
        return data

    def keeps_waiting(self) -> bool:
        transport = None if self._ended else self._transport()
        return transport is not None and is_full(transport.get_extra_info("socket"))

    def has_unread(self) -> bool:
        if self._ended:
            return False
        content: Any = self._response.content
        transport = self._transport()
        if transport is None or content.total_bytes > self._received:
            return bool(content.total_bytes > self._received)
        try:
            with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as duplicate:
                return not is_silent(duplicate)
        except OSError:
            # No handle is left to look with: then it may be.
            return True

    def _transport(self) -> asyncio.Transport | None:
        connection = self._response.connection
        protocol = None if connection is None else connection.protocol
        return None if protocol is None else protocol.transport

    def stop(self) -> bool:
        if self._ended:
            return True
        connection = self._response.connection
        protocol = None if connection is None else connection.protocol
        transport = self._transport()
        unreadable = transport is None or transport.get_extra_info("sslcontext") is not None
        if protocol is None or transport is None or unreadable or sys.platform != "linux":
            self.abort()
            return False
        # If the end of the answer is in what had arrived, no other request may follow it: its answer would not be read.
        protocol.force_close()
        own = transport.get_extra_info("socket")
        try:
            # A duplicate of the descriptor: event loops guard their own. Linux keeps what had arrived.
            with socket.socket(fileno=os.dup(own.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_RD)
        except OSError:
            # The provider has closed already: all that will ever arrive is here.
            return True
        return True

    def abort(self) -> None:
        self._response.close()


def _session(*, trust_env: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15.0),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
        trust_env=trust_env,
        read_bufsize=_READ_BYTES,
        max_line_size=64 * 1024,
        max_field_size=64 * 1024,
    )


def _not_sent(ending: str, error: Exception) -> NotSent:
    failed = NotSent(ending)
    failed.note = str(error) or type(error).__name__
    return failed
