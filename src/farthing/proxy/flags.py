"""
The proxy as its flags say it: limits in tokens and USD, one upstream for OpenAI's clients.

Each flag of ``farthing serve`` is a field here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal

from ..errors import ConfigError
from ..kernel.budget import Budget, make_budget
from ..runtime.settings import Settings
from .settings import DEFAULT_UPSTREAMS, OPENAI_URL, ProxySettings, Upstream

SESSION_TAG = "proxy"
"""The identity tag by which the budgets of one proxy's flags find its calls, and no others on the same ledger."""
MAX_TOKENS_PER_REQUEST = 4096
"""Where no configuration file defines budgets: a first runaway prompt is refused, not paid."""

_PER = {
    "max_tokens_per_request": ("tokens", "request"),
    "max_tokens_per_minute": ("tokens", "rolling 60s"),
    "max_tokens_total": ("tokens", "lifetime"),
    "max_usd_per_request": ("usd", "request"),
    "max_usd_per_day": ("usd", "day"),
    "max_usd_per_month": ("usd", "month"),
    "max_usd_total": ("usd", "lifetime"),
}


@dataclass(frozen=True)
class BudgetConfig:
    """
    Limits, the upstream they stand before, and how the proxy speaks. All limits combine; None is no limit.

    Calendar days and months are UTC's; a minute is any 60 seconds. ``…_total`` counts this session: see *session*.
    """

    max_tokens_per_request: int | None = MAX_TOKENS_PER_REQUEST
    """Prompt and output ceiling together."""
    max_tokens_per_minute: int | None = None
    max_tokens_total: int | None = None
    max_usd_per_request: Decimal | float | int | None = None
    max_usd_per_day: Decimal | float | int | None = None
    max_usd_per_month: Decimal | float | int | None = None
    max_usd_total: Decimal | float | int | None = None
    upstream_url: str = OPENAI_URL
    """Any API that speaks OpenAI's language, written as its SDK writes it."""
    upstream_api_key: str | None = field(default=None, repr=False)
    """Replaces the callers' own credentials there; None: those go through."""
    warn_only: bool = False
    """Log what would be refused, and refuse nothing."""
    quiet: bool = False
    """No line per request."""
    log_format: str = "text"
    deny_status: int = 429
    ledger: str | None = None
    """URL of the ledger; None: in memory."""
    session: str | None = None
    """
    A name: its ``…_total`` goes on from run to run. None: the session of this host and port, which ends with a clean
    stop; after an unclean one the next start resumes it, for a crash must not refill a budget.
    """

    def __post_init__(self) -> None:
        tuple(self.budgets("proxy", since=""))  # wrong amounts are said where they are written

    def settings(self, *, host: str = "127.0.0.1", port: int = 8080, workers: int = 1) -> ProxySettings:
        """The settings of a proxy without its budgets: those need its session."""
        openai = Upstream("openai", self.upstream_url, api_key=self.upstream_api_key)
        return ProxySettings(
            calls=Settings(ledger=self.ledger, unpriced="tokens_only" if self.warn_only else "reject"),
            upstreams=(openai, *DEFAULT_UPSTREAMS[1:]),
            session=self.session,
            host=host,
            port=port,
            workers=workers,
            deny_status=self.deny_status,
            log_format=self.log_format,
            quiet=self.quiet,
        )

    def budgets(self, session: str, *, since: str) -> Iterator[Budget]:
        """
        Its limits as standing budgets of the calls of one session. *since* tells one session of a name from the next.

        Raises ConfigError naming the field.
        """
        for name, (unit, per) in _PER.items():
            limit = getattr(self, name)
            if limit is None:
                continue
            flag = name.replace("_", "-")
            of = f"{session} {since}" if per == "lifetime" and since else session
            try:
                budget = make_budget(
                    f"{of} {flag}",
                    **{unit: limit},
                    per=per,
                    scope={SESSION_TAG: session},
                    on_exceed="warn" if self.warn_only else "block",
                    standing=True,
                )
            except ValueError as error:
                raise ConfigError(str(error), key=name) from error
            yield replace(budget, label=flag, defined_by=owner_of(session))


def owner_of(session: str) -> str:
    """Who defines the budgets of a session's flags, as messages say it."""
    return f"the flags of proxy {session}"
