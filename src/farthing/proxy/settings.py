"""
What a proxy is told: its upstreams, its bounds, how it speaks.

Frozen and picklable: workers get a copy, and a reload replaces the whole.

Validated when made: an unusable value is a ConfigError that names its key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..kernel.budget import Budget
from ..kernel.keys import DENY_STATUSES
from ..runtime.settings import Settings, check_at_least, check_choice
from ..wire.hosts import provider_of
from .http1.tls import Tls

LOG_FORMATS = ("text", "json")
SPEAKS = ("openai", "anthropic", "gemini", "cohere")
"""Families of dialects: whose paths, whose errors, whose way to send a credential."""
UNMETERED = ("deny", "allow")
UNKNOWN_ENDINGS = ("suspect", "settle_at_hold", "release")
"""What becomes of a call that may have been billed, and nobody knows: stay suspect, or be resolved at once."""
CEILING_FIELDS = ("max_tokens", "max_completion_tokens")
MIB = 1024 * 1024


def _seconds(key: str, value: object, *, least: float = 0.001) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= 86_400:
        raise ConfigError(f"must be a number of seconds from {least:g} to 86400, not {value!r}", key=key)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. ``idle_seconds`` is the longest wait for the next bytes of an answer, the first ones included."""

    connect_seconds: float = 10.0
    idle_seconds: float = 600.0
    total_seconds: float = 3600.0

    def __post_init__(self) -> None:
        for key in ("connect_seconds", "idle_seconds", "total_seconds"):
            _seconds(key, getattr(self, key))
        # No silence is longer than the whole: also the one before an answer begins.
        object.__setattr__(self, "idle_seconds", min(self.idle_seconds, self.total_seconds))


@dataclass(frozen=True, slots=True)
class Upstream:
    """
    One provider behind the proxy.

    ``base_url`` is written as that provider's SDK writes it: OpenAI's with ``/v1``, Anthropic's and Gemini's without.
    A request goes to the upstream whose ``prefix`` begins its path; of those without one, to the one that speaks its
    dialect and has a pattern in ``models`` that fits, else to the first that speaks it and has no patterns.
    """

    name: str
    base_url: str
    api_key: str | None = field(default=None, repr=False)
    """Replaces the caller's credential; None: the caller's own goes through."""
    provider: str | None = None
    """The price table's id; None: known by the host, else that of each dialect's own provider."""
    speaks: tuple[str, ...] = ("openai",)
    prefix: str = ""
    """``"/groq"``: what begins the paths that are meant for this upstream, and is taken off."""
    models: tuple[str, ...] = ()
    """Patterns such as ``"llama-*"``."""
    unmetered: str = "deny"
    """What becomes of requests that belong to no call that can be metered: ``deny``, or ``allow`` (logged)."""
    trusted_tags: tuple[str, ...] = ()
    """Free tags of the caller that budgets may name."""
    ceiling_field: str | None = None
    """Where a chat completion's output ceiling goes, if not where its provider documents it."""
    timeouts: Timeouts = Timeouts()
    unknown_endings: str = "suspect"
    abort_margin_tokens: int | None = None
    """What it may go on to bill after a stream was cut; None: as :class:`Settings` says."""
    ca_file: str | None = None
    """A PEM bundle of the authorities that are trusted for it, instead of the system's."""
    cert_file: str | None = None
    """This proxy's own certificate, where the upstream asks for one; its key too, if *key_file* is None."""
    key_file: str | None = None

    def __post_init__(self) -> None:
        where = f"upstreams.{self.name}"
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.name):
            raise ConfigError(f"an upstream's name is letters, digits, '_', '.' and '-', not {self.name!r}", key=where)
        try:
            url = urlsplit(self.base_url)
            _ = url.port  # only when it is asked for is it looked at
        except ValueError as error:
            raise ConfigError("is not a URL: look at its host and its port", key=f"{where}.base_url") from error
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            # Not repeated whole: people put passwords into URLs.
            raise ConfigError("must be an http:// or https:// URL without a query", key=f"{where}.base_url")
        if not re.fullmatch(r"[!-~]*", url.path) or re.search(r"\s", self.base_url):
            message = "has characters that no URL may have (spaces, letters beyond ASCII): they must be percent-encoded"
            raise ConfigError(message, key=f"{where}.base_url")
        if url.username or url.password:
            raise ConfigError("has a password in it; give the credential as api_key", key=f"{where}.base_url")
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key):
            raise ConfigError("has characters that no header may have (spaces, line ends, …)", key=f"{where}.api_key")
        if not self.speaks or not set(self.speaks) <= set(SPEAKS):
            raise ConfigError(f"must be some of {', '.join(SPEAKS)}", key=f"{where}.speaks")
        if self.prefix and not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)+", self.prefix):
            raise ConfigError(f"must look like '/groq', not {self.prefix!r}", key=f"{where}.prefix")
        if f"{self.prefix}/".startswith("/admin/"):
            raise ConfigError("'/admin/…' is this proxy's own", key=f"{where}.prefix")
        check_choice(f"{where}.unmetered", self.unmetered, UNMETERED)
        check_choice(f"{where}.unknown_endings", self.unknown_endings, UNKNOWN_ENDINGS)
        if self.ceiling_field is not None:
            check_choice(f"{where}.ceiling_field", self.ceiling_field, CEILING_FIELDS)
        if self.abort_margin_tokens is not None:
            check_at_least(f"{where}.abort_margin_tokens", self.abort_margin_tokens, 0)

        for key in ("ca_file", "cert_file", "key_file"):
            if getattr(self, key) is not None and url.scheme != "https":
                raise ConfigError("is for an https:// upstream", key=f"{where}.{key}")
        if self.key_file is not None and self.cert_file is None:
            raise ConfigError("is the key of a certificate: give cert_file too", key=f"{where}.key_file")

    def check_files(self) -> None:
        """Read what this upstream's TLS needs. Raises ConfigError, naming the key of a file that cannot be used."""
        try:
            if self.tls is not None:
                self.tls.context()
        except ConfigError as error:
            raise ConfigError(error.reason, key=f"upstreams.{self.name}.{error.key}") from error

    @property
    def tls(self) -> Tls | None:
        """Whom to trust and what to show there; None: as for every other upstream."""
        if self.ca_file is None and self.cert_file is None:
            return None
        return Tls(self.ca_file, self.cert_file, self.key_file)

    @property
    def host(self) -> str:
        """Host, and port if the URL names one."""
        return urlsplit(self.base_url).netloc.lower()

    @property
    def known_provider(self) -> str | None:
        """The price table's id, where it is given or the host tells it."""
        return self.provider or provider_of(self.host, {})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one client may ask of this process. Beyond each, a clear error in the caller's dialect."""

    max_body_bytes: int = 32 * MIB
    """413 beyond it."""
    max_header_bytes: int = 64 * 1024
    """431 beyond it."""
    max_connections: int = 10_000
    """503 beyond it; each worker by itself."""
    read_seconds: float = 60.0
    """How long a client may take between two pieces of its request: 408 beyond it."""
    drain_seconds: float = 120.0
    """How long a plain answer is still read, so that its cost is known, once its client has gone."""
    shutdown_seconds: float = 30.0
    """How long a stop waits for calls in flight; what is open then is suspect."""

    def __post_init__(self) -> None:
        for key in ("max_body_bytes", "max_header_bytes", "max_connections"):
            check_at_least(key, getattr(self, key), 1)
        _seconds("read_seconds", self.read_seconds)
        for key in ("drain_seconds", "shutdown_seconds"):
            _seconds(key, getattr(self, key), least=0)


OPENAI_URL = "https://api.openai.com/v1"
DEFAULT_UPSTREAMS = (
    Upstream("openai", OPENAI_URL),
    Upstream("anthropic", "https://api.anthropic.com", speaks=("anthropic",)),
    Upstream("gemini", "https://generativelanguage.googleapis.com", speaks=("gemini",)),
)
"""Where clients of the three SDKs go without a configuration, with their own credentials."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """One proxy, whole. ``calls`` is what the pipeline is told, the ledger's URL among it (None: in memory)."""

    calls: Settings = field(default_factory=Settings)
    upstreams: tuple[Upstream, ...] = DEFAULT_UPSTREAMS
    budgets: tuple[Budget, ...] = ()
    """Standing budgets, put into the ledger when the proxy starts and when it is told anew."""
    source: str | None = None
    """What owns them: a configuration file. What it does not name any more is taken out of the ledger."""
    prices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Prices of one's own: the arguments of :func:`farthing.prices.register`, by model or pattern."""
    session: str | None = None
    """The name under which ``--max-…-total`` counts; None: host and port."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0 picks a free one."""
    workers: int = 1
    deny_status: int = 429
    log_format: str = "text"
    quiet: bool = False
    """No line per request; refusals, warnings and errors are logged all the same."""
    bounds: Bounds = Bounds()

    def __post_init__(self) -> None:
        names = [upstream.name for upstream in self.upstreams]
        if not names or len(set(names)) != len(names):
            raise ConfigError("at least one is needed, each with a name of its own", key="upstreams")
        if type(self.port) is not int or not 0 <= self.port <= 65_535:
            raise ConfigError(f"must be from 0 to 65535, not {self.port!r}", key="port")
        check_at_least("workers", self.workers, 1)
        if self.workers > 1 and self.calls.ledger is None:
            raise ConfigError("several workers need a ledger that they share: name a file", key="workers")
        if self.deny_status not in DENY_STATUSES:
            raise ConfigError(
                f"must be one of {', '.join(map(str, DENY_STATUSES))}, not {self.deny_status!r}", key="deny_status"
            )
        check_choice("log_format", self.log_format, LOG_FORMATS)
