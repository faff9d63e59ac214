"""``farthing serve``: a proxy in the foreground, with one worker or several, until it is told to stop."""

from __future__ import annotations

import os
from collections.abc import Callable

from ...errors import FarthingError
from .. import log
from ..flags import BudgetConfig
from ..settings import ProxySettings
from .server import Opened, ProxyServer
from .signals import hang_up, signals
from .workers import Workers

Load = Callable[[], ProxySettings]


def serve(
    settings: ProxySettings,
    flags: BudgetConfig | None = None,
    *,
    load: Load | None = None,
    say: Callable[[Opened], None] = lambda opened: None,
) -> None:
    """
    Serve until SIGTERM or Ctrl-C. *load* reads the configuration anew on SIGHUP; *say* is called before
    the first request, with what stands then. Raises ConfigError or StoreUnavailable before anything is served.
    """
    log.to_stream(settings.log_format)
    if settings.workers == 1:
        _serve_alone(ProxyServer(settings, flags), load, say)
    else:
        _serve_together(Opened(settings, flags), load, say)


def _serve_alone(server: ProxyServer, load: Load | None, say: Callable[[Opened], None]) -> None:
    server.reload_by(None if load is None else hang_up(os.getpid()))
    with signals(server.ask_to_stop, _reloading(load, server.reload)):
        server.run(say, alone=True)
    done = server.stats
    log.logger.info(
        "Stopped after %d requests: %d forwarded, %d blocked, %d refused; %s tokens, $%s",
        done["requests"],
        done["forwarded"],
        done["blocked"],
        done["refused"],
        f"{done['tokens_used']:,}",
        done["cost_usd"],
    )


def _serve_together(opened: Opened, load: Load | None, say: Callable[[Opened], None]) -> None:
    workers = Workers(opened.settings, opened.listening, reloads=load is not None)

    def reload(settings: ProxySettings) -> None:
        workers.reload(opened.reload(settings))

    for line in opened.lines():
        log.logger.info(line)
    say(opened)
    try:
        with signals(workers.stop, _reloading(load, reload)):
            workers.run()
        opened.end_session(opened.runtime)
    finally:
        opened.runtime.close()
    log.logger.info("Stopped")


def _reloading(load: Load | None, take: Callable[[ProxySettings], None]) -> Callable[[], None] | None:
    if load is None:
        return None

    def reload() -> None:
        try:
            take(load())
        except FarthingError as error:
            log.logger.error("the configuration was not taken over, the old one stays:")
            for mistake in str(error).splitlines():
                log.logger.error("%s", mistake)
        else:
            log.logger.info("The configuration was read anew")

    return reload
