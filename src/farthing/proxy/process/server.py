"""A proxy as programs start it: its socket, its ledger, its session, and one worker."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import fields, replace
from typing import Any, Self

from ...admin.owned import put_owned
from ...admin.trust import escapable, known_tags
from ...errors import ConfigError, FarthingError
from ...kernel.budget import Budget
from ...kernel.money import usd_from_nano
from ...reports.accounts import list_accounts
from ...runtime.runtime import Runtime
from ...stores.contract import Clock, wall_clock_ms
from .. import log
from ..assembly import identify_for, pages_for, warm_up
from ..callers.identity import is_loopback
from ..flags import BudgetConfig
from ..settings import ProxySettings
from .collecting import collect_rarely
from .sessions import close_session, open_session
from .signals import signals
from .worker import Worker, listen

START_SECONDS = 60.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told apart here, not listened on
"""What listens on every address, and the address at which this machine calls itself."""
_BARE = " (asked without a key: callers' own are for this proxy, so give it an api_key)"
AT_THE_START = ("host", "port", "workers", "session")
"""What a running proxy cannot change: it would not be the same one."""
CALLS_AT_THE_START = ("ledger", "durability")
"""And of what the pipeline is told."""


class Opened:
    """
    What stands before the first request, whoever serves it: the socket, the ledger with the budgets in it, the session.

    Raises ConfigError naming the setting; StoreUnavailable. Nothing is left open then.
    """

    def __init__(self, settings: ProxySettings, flags: BudgetConfig | None, *, clock: Clock = wall_clock_ms) -> None:
        self.flags = flags
        self.said: list[str] = []
        self._asked = settings
        self._totals: list[Budget] = []
        for upstream in settings.upstreams:
            upstream.check_files()
        try:
            self.listening = listen(settings.host, settings.port)
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise ConfigError(
                    f"cannot listen on {settings.host!r}: {error.strerror}; name an address of this machine", key="host"
                ) from error
            where = f"{settings.host}:{settings.port}"
            raise ConfigError(
                f"cannot listen on {where}: {error.strerror or error}; choose another, or 0 for a free one", key="port"
            ) from error
        try:
            port = self.listening.getsockname()[1]
            session = settings.session or _at(settings.host, port)
            self.named = settings.session is not None
            self.settings = replace(settings, port=port, session=session)
            self.runtime = Runtime(self.settings.calls, clock=clock, warns=False, reports=False)
            self._put_budgets()
        except BaseException:  # also a signal's: nobody else has the socket
            self.listening.close()
            raise

    @property
    def url(self) -> str:
        """
        What clients on this machine take as their base URL, OpenAI's with ``/v1`` behind it. A proxy that listens on
        every address is called by one.
        """
        return f"http://{_at(_EVERYWHERE.get(self.settings.host, self.settings.host), self.settings.port)}"

    @property
    def everywhere(self) -> bool:
        """Whether it listens on every address of this machine."""
        return self.settings.host in _EVERYWHERE

    @property
    def asks_for_keys(self) -> bool:
        """Whether callers need a virtual key: the ledger has one that makes calls."""
        return any(not key.admin for key in self.runtime.main.store.keys().result().keys.values())

    def _put_budgets(self) -> None:
        store = self.runtime.main.store
        if not is_loopback(self.settings.host) and not store.keys().result().keys:
            raise ConfigError(
                f"{self.settings.host!r} is reachable from elsewhere, and there are no keys: anybody could spend. Make "
                "one first (farthing keys create), or listen on 127.0.0.1",
                key="host",
            )
        self.said += self._put(self.settings)
        if self.flags is not None and self.settings.session is not None:
            self._totals, said = open_session(store, self.flags, self.settings.session)
            self.said += said
        ledger = self.runtime.main
        ledger.refresh(ledger.store.catalogue().result())
        self.said += self._say_escapable()
        self.runtime.housekeeper.start()

    def _say_escapable(self) -> Iterable[str]:
        """Budgets that others put into the ledger, for programs that name their own tags: here callers name them."""
        trusted = (tag for upstream in self.settings.upstreams for tag in upstream.trusted_tags)
        known = known_tags(trusted, self.runtime.main.store.keys().result())
        for budget in self.runtime.main.catalogue.budgets.values():
            for field, tag in escapable(dict(budget.scope), budget.each, known) if budget.standing else ():
                effect = "binds no call here" if field == "scope" else "has one account for all calls here"
                yield (
                    f"Budget {budget.title} names tag {tag!r}, which callers choose themselves, so it {effect}; "
                    f"trusted_tags at an upstream would change that"
                )

    def _put(self, settings: ProxySettings) -> list[str]:
        """The budgets of these settings in the ledger. Holds in flight, what is spent and grants stay as they are."""
        ledger = self.runtime.main
        said = []
        if settings.source is not None:
            said = put_owned(ledger.store, settings.budgets, defined_by=settings.source).lines()
        else:
            for budget in settings.budgets:
                self.runtime.put_budget(budget, update=True)
        ledger.refresh(ledger.store.catalogue().result())
        return said

    @property
    def session_budgets(self) -> tuple[Budget, ...]:
        """The budgets of the flags, as they are in the ledger."""
        return tuple(self._totals)

    def end_session(self, runtime: Runtime) -> None:
        """A clean stop. A session with a name of its own goes on another day."""
        if not self.named:
            close_session(runtime.main.store, self._totals, for_good=self._asked.port == 0)

    def reload(self, settings: ProxySettings) -> ProxySettings:
        """Put other budgets into the ledger. Returns the settings that are in force then."""
        kept = self.settings
        for line in self._put(settings):
            log.logger.info(line)
        for holder, asked, keys in (
            (settings, self._asked, AT_THE_START),
            (settings.calls, self._asked.calls, CALLS_AT_THE_START),
        ):
            for key in keys:
                if getattr(holder, key) != getattr(asked, key):
                    log.logger.warning("%s was changed: that takes a restart", key)
        calls = replace(settings.calls, **{key: getattr(kept.calls, key) for key in CALLS_AT_THE_START})
        for key in (field.name for field in fields(calls)):
            before, now = getattr(kept.calls, key), getattr(calls, key)
            if before != now:
                log.logger.info("%s: %s → %s", key, _shown(before), _shown(now))
        self.runtime.reconfigure(calls)
        self.settings = replace(settings, calls=calls, **{key: getattr(kept, key) for key in AT_THE_START})
        log.change_format(settings.log_format)
        return self.settings

    def lines(self) -> Iterable[str]:
        """What is said at the start."""
        yield f"Token-budget proxy listening on http://{_at(self.settings.host, self.settings.port)}"
        keyed = self.asks_for_keys
        for upstream in self.settings.upstreams:
            name = "" if upstream.name == "openai" else f" ({upstream.name})"
            bare = keyed and upstream.api_key is None
            yield f"Upstream{name}: {upstream.base_url}{_BARE if bare else ''}"
        yield f"Ledger: {self.runtime.main.store.name}"
        for budget in self._totals:
            yield _limit_line(budget)
        for budget in self.settings.budgets:
            yield f"Budget {budget.title}: {budget.terms_text()}"
        yield from self.said


class ProxyServer:
    """
    A running proxy. ``with start_proxy(…, block=False) as server:`` stops it at the end.

    ``url`` is where this machine calls it: OpenAI's clients take ``url + "/v1"`` as their base URL, Anthropic's and
    Gemini's ``url`` itself.
    """

    def __init__(
        self, settings: ProxySettings, flags: BudgetConfig | None = None, *, clock: Clock = wall_clock_ms
    ) -> None:
        self._opened = Opened(settings, flags, clock=clock)
        self.url: str = self._opened.url
        runtime = self._opened.runtime
        self._worker = Worker(
            self._opened.settings,
            runtime,
            self._opened.listening,
            identify=identify_for(runtime),
            pages=pages_for,
            before_close=self._end_session,
        )
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._left_at_the_end: dict[str, Any] | None = None

    @property
    def settings(self) -> ProxySettings:
        """As they are in force: with the port and the session that were chosen."""
        return self._opened.settings

    @property
    def runtime(self) -> Runtime:
        """Its ledgers."""
        return self._opened.runtime

    def run(self, say: Callable[[Opened], None] = lambda opened: None, *, alone: bool = False) -> None:
        """
        Serve in this thread until :meth:`stop`. *say* is called before the first request, with what stands then;
        *alone*: this process does nothing else.
        """
        warm_up(self.runtime)
        if alone:
            collect_rarely()
        for line in self._opened.lines():
            log.logger.info(line)
        say(self._opened)
        self._worker.run()

    def start(self) -> None:
        """Serve in a thread of its own; returns once it answers. Touches no signal handlers."""
        self._thread = threading.Thread(target=self._run_in_thread, name="farthing-proxy", daemon=True)
        # In no context: what clients call is in the budgets of the configuration, not in those of who starts it.
        Context().run(self._thread.start)
        self._worker.ready.wait(START_SECONDS)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let what is in flight end, for a bounded time, then stop. Stopping twice does nothing more."""
        self.ask_to_stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def ask_to_stop(self) -> None:
        """The same without waiting; from a signal handler, say. Asked twice, nobody in flight is waited for."""
        self._worker.stop()

    def reload_by(self, ask: Callable[[], None] | None) -> None:
        """Before it runs: what has its configuration read anew, for the admin API."""
        self._worker.ask_reload = ask

    def reload(self, settings: ProxySettings) -> None:
        """
        Take other settings over, from the next request on. What takes a restart stays as it is, and is said: host,
        port, workers, session, and the ledger with its durability.
        """
        self._worker.reload(self._opened.reload(settings))

    @property
    def stats(self) -> dict[str, Any]:
        """
        ``requests forwarded blocked refused unmetered in_flight tokens_used tokens_held cost_usd`` since the start, and
        ``remaining``: what is left of each limit, in its unit. After :meth:`stop`, as they were at the end.
        """
        proxy = self._worker.proxy
        done = None if proxy is None else proxy.stats
        names = ("requests", "forwarded", "blocked", "refused", "unmetered", "in_flight", "tokens_used", "tokens_held")
        counted: dict[str, Any] = {name: 0 if done is None else getattr(done, name) for name in names}
        counted["cost_usd"] = usd_from_nano(0 if done is None else done.cost_nano)
        counted["remaining"] = self._remaining() if self._left_at_the_end is None else dict(self._left_at_the_end)
        return counted

    def _end_session(self, runtime: Runtime) -> None:
        # With its session a total's budget goes.
        self._left_at_the_end = self._remaining()
        self._opened.end_session(runtime)

    def _remaining(self) -> dict[str, Any]:
        left: dict[str, Any] = {}
        try:
            for budget in self._opened.session_budgets:
                (figures,) = list_accounts(self.runtime.main.store, budget.name)
                for unit in figures.accounts[0].units if figures.accounts else ():
                    if unit.limit is not None and unit.remaining is not None:
                        left[budget.title] = usd_from_nano(unit.remaining) if unit.unit == "usd" else unit.remaining
        except FarthingError:
            # Stopped, and its ledger with it: what was counted stays readable.
            return left
        return left

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run_in_thread(self) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the start
            self._failure = error
        finally:
            self._worker.ready.set()


def begin(server: ProxyServer, *, block: bool) -> ProxyServer:
    """Start it as programs do: here until SIGTERM or Ctrl-C, or in a thread. Returns it."""
    if not logging.getLogger("farthing").hasHandlers():
        log.to_stream(server.settings.log_format)
    if not block:
        server.start()
        return server
    with signals(server.ask_to_stop):
        server.run()
    return server


def _shown(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _limit_line(budget: Budget) -> str:
    if budget.window.kind == "request" and budget.tokens is not None:
        line = f"Per-request limit: {budget.tokens} tokens"
    else:
        line = f"Limit {budget.title}: {budget.terms_text()}"
    return f"{line} (warn only)" if budget.on_exceed == "warn" else line
