"""
One worker: a server, its event loop and its HTTP client, in the thread that runs it.

It listens on a socket that it is given, and is stopped and told anew from other threads.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from ...runtime.runtime import Runtime
from .. import log
from ..app import Proxy
from ..assembly import upstream_client
from ..callers.identity import Identify
from ..connection import Connection
from ..pages.page import Pages
from ..settings import ProxySettings
from ..stats import Stats

BACKLOG = 4096
KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep a connection idle: they close it, and no request meets a closed one."""

MakePages = Callable[[Proxy], Pages]


class Worker:
    """
    A proxy that listens. *runtime* is its own until :meth:`run` returns: it is closed there, so that what was still in
    flight is written; *before_close* is called with it after a clean stop.
    """

    def __init__(
        self,
        settings: ProxySettings,
        runtime: Runtime,
        listening: socket.socket,
        *,
        identify: Identify | None = None,
        pages: MakePages | None = None,
        before_close: Callable[[Runtime], None] | None = None,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._listening = listening
        self._identify = identify
        self._pages = pages
        self._before_close = before_close
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self.ask_reload: Callable[[], None] | None = None
        """What has the configuration read anew: for the admin API; set before :meth:`run`."""
        self.proxy: Proxy | None = None
        """Set once it runs."""
        self.ready = threading.Event()
        """Set once it answers, or has failed to."""

    def run(self) -> None:
        """Serve until :meth:`stop`. What is in flight then gets its time; what is left after it is suspect."""
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._serve())
            if self._before_close is not None:
                self._before_close(self._runtime)
        finally:
            self.ready.set()
            self._runtime.close()

    def stop(self) -> None:
        """From any thread, or a signal handler: take no more requests, and end."""
        again, self._stopping = self._stopping, True
        if self.proxy is not None:
            self.proxy.stopping = True
        server = self._server
        if server is not None:
            server.should_exit = True
            # Asked twice, it waits for nobody: what is in flight is suspect.
            server.force_exit = server.force_exit or again

    def reload(self, settings: ProxySettings) -> None:
        """From any thread: other settings from the next request on."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._take, settings)
        except RuntimeError:
            pass  # it has stopped since

    def _take(self, settings: ProxySettings) -> None:
        log.change_format(settings.log_format)
        self._runtime.reconfigure(settings.calls)
        if self.proxy is not None and self._server is not None:
            self.proxy.reload(settings)
            self._server.config.timeout_graceful_shutdown = _patience(settings)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        upstreams = upstream_client()
        try:
            proxy = Proxy(self._settings, self._runtime, upstreams=upstreams, identify=self._identify)
            proxy.ask_reload, proxy.stopping = self.ask_reload, self._stopping
            if self._pages is not None:
                proxy.pages = self._pages(proxy)
            server = _Server(_config(proxy, self._settings), self.ready.set, proxy.stats)
            proxy.connections = server.server_state.connections
            self.proxy, self._server = proxy, server
            server.should_exit = self._stopping
            await server._serve([self._listening])
        finally:
            await upstreams.close()


class _Server(uvicorn.Server):
    """Uvicorn's server without its signal handlers: who runs it decides about signals."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stats: Stats) -> None:
        super().__init__(config)
        self._ready = ready
        self._stats = stats

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        waited_for = self._stats.in_flight
        if waited_for and not self.force_exit:
            log.logger.info(
                "Stopping: %d calls in flight have %s s to end; asked again, it waits for none",
                waited_for,
                self.config.timeout_graceful_shutdown,
            )
        await super().shutdown(sockets)
        if self._stats.in_flight:
            log.logger.warning("Stopped with %d calls in flight: they are suspect", self._stats.in_flight)


def _config(proxy: Proxy, settings: ProxySettings) -> uvicorn.Config:
    app: Any = proxy
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_patience(settings),
    )


def _patience(settings: ProxySettings) -> int:
    """How many seconds a stop waits for calls in flight."""
    return max(1, round(settings.bounds.shutdown_seconds))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError: the port is taken, or the host is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:  # also a signal's: nobody else has the socket
        listening.close()
        raise
    return listening
