"""
``farthing.toml``: every key, its type and what it means. One model for the library and the proxy.

What a value may be is said by the settings that it becomes (:class:`~farthing.runtime.settings.Settings`,
:func:`~farthing.kernel.budget.make_budget`, :mod:`farthing.proxy.settings`): here are only its type and its words. A
test holds that no setting lacks a key. The reference in the docs is generated from this file.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..kernel.money import number_from_text


def _amount(value: object) -> object:
    """US dollars as people write them: ``"100.00"``, ``"$1,000"``, 5, 0.5."""
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise ValueError(f'must be an amount of US dollars such as "100.00", not {value!r}')
    if isinstance(value, str):
        try:
            return number_from_text(value.strip().removeprefix("$"))
        except ValueError:
            raise ValueError(f'must be an amount of US dollars such as "100.00", not {value!r}') from None
    return Decimal(value)


def _float(value: object) -> object:
    """Numbers with a point are read exactly, as money needs them; time does not."""
    return float(value) if isinstance(value, Decimal) else value


Usd = Annotated[Decimal, BeforeValidator(_amount)]
Number = Annotated[float, BeforeValidator(_float)]


class Table(BaseModel):
    """A table of the file: nothing is converted, and no key is ignored."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SettingsTable(Table):
    """Keys at the top of the file, before the first table."""

    ledger: str | None = Field(
        None,
        description="The ledger: the path of a file, or a URL such as `sqlite:////var/lib/farthing/ledger.db`. Without "
        "it: in memory.",
    )
    durability: str = Field(
        "full",
        description="`full`: a hold is on the disk before its call leaves. `normal`: it survives the end of the "
        "process, and the last moments may be lost with the power.",
    )
    unpriced: str = Field(
        "reject",
        description="What happens to a call without a known price under a budget in USD: `reject`, `tokens_only`, or "
        "`price_as:MODEL`.",
    )
    on_store_failure: str = Field(
        "deny", description="When the ledger is unavailable: `deny` calls, or `allow` them without a durable hold."
    )
    max_records: int | Literal["none"] | None = Field(
        100_000, description="How many calls a process keeps to report on by itself; `none`: all."
    )
    abort_margin_tokens: int = Field(64, description="What a provider may go on to bill after a stream was cut.")
    suspect_policy: str = Field(
        "settle_at_hold",
        description="What becomes of a call whose outcome nobody learned: `keep`, `settle_at_hold` or `release`.",
    )
    suspect_after_hours: Number = Field(24.0, description="After how long `suspect_policy` is applied.")
    follow_threads: bool = Field(True, description="Carry budgets and tags into threads and thread pools.")
    retention_days: int | None = Field(
        None,
        description="After how many days the ledger's rows become daily sums; until then repetitions and late words "
        "about a call are understood. Without it: they are kept.",
    )
    stale_prices_after_days: int | Literal["none"] | None = Field(
        45, description="Say when a budget in USD goes by prices that nobody checked for longer; `none`: never."
    )
    watch: bool = Field(True, description="Warn when a client's calls bypass a hard budget.")


class UpstreamTable(Table):
    """One provider behind the proxy. In the library these tables are checked and not used."""

    base_url: str = Field(
        description="As that provider's SDK writes it: OpenAI's with `/v1`, Anthropic's and Gemini's without."
    )
    api_key: str | None = Field(
        None,
        json_schema_extra={"secret": True},
        description='Replaces the caller\'s credential; `"env:NAME"` takes it from the environment. Without it the '
        "caller's own goes through.",
    )
    provider: str | None = Field(
        None, description="Whose prices: the price table's id. Without it: known by the host, else by the dialect."
    )
    speaks: list[str] = Field(["openai"], description="Whose paths it has: `openai`, `anthropic`, `gemini`, `cohere`.")
    prefix: str = Field("", description="What begins the paths that are meant for it, such as `/groq`; taken off.")
    models: list[str] = Field([], description="Patterns of models that go to it, such as `llama-*`.")
    unmetered: str = Field(
        "deny", description="Requests that belong to no call that can be metered: `deny`, or `allow` (logged)."
    )
    trusted_tags: list[str] = Field(
        [], description="Tags that callers choose freely and that budgets may name all the same."
    )
    ceiling_field: str | None = Field(
        None, description="Where an output ceiling goes, if not where its provider documents it: `max_tokens` …"
    )
    unknown_endings: str = Field(
        "suspect",
        description="A call that may have been billed, and nobody knows: `suspect`, `settle_at_hold` or `release`.",
    )
    abort_margin_tokens: int | None = Field(None, description="As at the top of the file, for this upstream.")
    ca_file: str | None = Field(
        None,
        description="PEM file of the authorities that are trusted for it, instead of the system's: for one with a "
        "private certificate. A relative path is meant from where this file stands. SIGHUP reads it again.",
    )
    cert_file: str | None = Field(
        None, description="PEM file of this proxy's own certificate, where the upstream asks for one."
    )
    key_file: str | None = Field(None, description="PEM file of that certificate's key, if it is not in `cert_file`.")
    connect_seconds: Number = Field(10.0, description="The longest wait for a connection.")
    idle_seconds: Number = Field(600.0, description="The longest wait for the next bytes of an answer.")
    total_seconds: Number = Field(3600.0, description="The longest that one call may take.")


class BudgetTable(Table):
    """A standing budget: it binds every call that its scope matches. The file owns it: it is changed there only."""

    name: str = Field(description="What reports and refusals call it. Its account is kept under this name.")
    usd: Usd | None = Field(None, description='The limit in US dollars, such as `"100.00"`.')
    tokens: int | None = Field(None, description="The limit in tokens, input and output.")
    requests: int | None = Field(None, description="The limit in calls.")
    concurrency: int | None = Field(None, description="The limit of calls at once.")
    per: str | None = Field(
        None,
        description="Over what: `lifetime`, `minute`, `hour`, `day`, `week`, `month` (a time zone may follow: "
        "`month Europe/Berlin`), `rolling 60s`, or `request`.",
    )
    scope: dict[str, int | str] = Field({}, description='Tags that a call must carry: `{ team = "search" }`.')
    each: list[str] = Field([], description='An account of its own for each value of these tags: `["user"]`.')
    on_exceed: str = Field(
        "block",
        description="What happens to a call that does not fit: `block`, `clamp`, `downgrade`, `wait`, `break`, "
        "`truncate`, `raise` (not a hard limit) or `warn` (no limit: it only counts).",
    )
    downgrade: dict[str, str] = Field({}, description='For `downgrade`: `{ "gpt-4o" = "gpt-4o-mini" }`.')
    wait_seconds: Number = Field(30, description="For `wait`: the longest wait.")
    description: str | None = Field(None, description="What it is for.")
    min_output_tokens: int = Field(16, description="The least output that a lowered ceiling may leave.")
    default_output_tokens: int | None = Field(
        None, description="What a request without an output ceiling of its own is given, at most."
    )
    uncapped: str = Field(
        "inject", description="A request without an output ceiling: `inject` one, `reject` it, or `watch` its stream."
    )
    open_bound: str = Field(
        "context_window",
        description="A request whose input has no bound on this side: hold the model's `context_window`, `reject` it, "
        "or admit it and record any excess (`overrun`).",
    )
    alerts: list[Number] = Field(
        [],
        description="Parts of the limit, such as `[0.5, 0.8, 1.0]`: each is said once for every account and window.",
    )


class PriceTable(Table):
    """Your own price of a model, or of a pattern such as `"my-model*"`: it wins over the public table."""

    input: Usd = Field(description="US dollars for fresh input.")
    output: Usd = Field(description="US dollars for output.")
    cached: Usd | None = Field(None, description="For input read from the cache. Without it: as `input`.")
    cache_write: Usd | None = Field(None, description="For input written to the cache. Without it: as `input`.")
    cache_write_1h: Usd | None = Field(None, description="The same, kept for an hour.")
    per: str = Field("1M", description="For how many tokens: `1M`, `1K` or `token`.")


class ProxyTable(Table):
    """`farthing serve`: where it listens, how it speaks, and its bounds."""

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8080, description="The port; 0 picks a free one.")
    workers: int = Field(1, description="Processes. Several need a ledger that they share.")
    session: str | None = Field(
        None, description="Under which name `--max-tokens-total` and the like count; without it: host and port."
    )
    deny_status: int = Field(429, description="The status of a refusal: 400, 402, 403 or 429.")
    log_format: str = Field("text", description="`text` or `json`.")
    quiet: bool = Field(False, description="No line per request; refusals, warnings and errors are still logged.")
    identity_tags: list[str] = Field(
        [], description="Tags that your keys carry, beside org, team, user, key and agent, and that budgets may name."
    )
    max_body_bytes: int = Field(32 * 1024 * 1024, description="A larger request is refused with 413.")
    max_header_bytes: int = Field(64 * 1024, description="Larger headers are refused with 431.")
    max_connections: int = Field(10_000, description="More, in each worker, are refused with 503.")
    read_seconds: Number = Field(60.0, description="How long a client may take between two pieces of its request.")
    drain_seconds: Number = Field(
        120.0, description="How long a plain answer is still read, for its cost, once its client has gone."
    )
    shutdown_seconds: Number = Field(30.0, description="How long a stop waits for calls in flight.")


class Document(SettingsTable):
    """The whole file."""

    name: str | None = Field(
        None,
        description="What this configuration is called in the ledger, as the owner of its budgets. Without it: the "
        "path of the file. Needed only where two files stand at one path, in containers that share a ledger.",
    )
    upstreams: dict[str, UpstreamTable] = {}
    budgets: list[BudgetTable] = []
    prices: dict[str, PriceTable] = {}
    proxy: ProxyTable | None = None


def is_secret(table: type[Table], key: str) -> bool:
    """Whether a key's value is never printed, and may be ``"env:NAME"``."""
    field = table.model_fields.get(key)
    return field is not None and isinstance(field.json_schema_extra, dict) and "secret" in field.json_schema_extra
