"""``farthing serve``: the proxy."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..kernel.keys import DENY_STATUSES
from .amounts import count_from_text, usd_from_text
from .completing import one_of
from .failing import UsageMistake
from .ledger import ledger_url
from .options import LedgerOption

if TYPE_CHECKING:
    from ..proxy.flags import BudgetConfig
    from ..proxy.process.server import Opened
    from ..proxy.settings import ProxySettings, Upstream

EXAMPLES = (
    "farthing serve --fake",
    "farthing serve --max-usd-per-day 5",
    "farthing serve --config farthing.toml --port 9000",
    "farthing serve --upstream http://localhost:11434/v1 --max-tokens-total 1M",
)
_BODY = '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'


def serve(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            envvar="FARTHING_CONFIG",
            show_default=False,
            help="The configuration file: upstreams, budgets, prices. What is given beside it wins over it. SIGHUP "
            "reads it again.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen. Where others can reach it, keys are needed: `farthing keys create`.",
        ),
    ] = "127.0.0.1",
    port: Annotated[str, typer.Option(metavar="N", help="0 picks a free one.")] = "8080",
    upstream: Annotated[
        str, typer.Option(metavar="URL", help="Where calls in OpenAI's language go: its API, or one that speaks it.")
    ] = "https://api.openai.com/v1",
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="OPENAI_API_KEY",
            show_default=False,
            help="Sent to that upstream in place of the callers' own keys. Better given in the environment: other "
            "users of this machine can see command lines.",
        ),
    ] = None,
    max_tokens_per_request: Annotated[
        str,
        typer.Option(
            metavar="N|none",
            help="The most for one request, its prompt and output ceiling together. With budgets in --config: none.",
        ),
    ] = "4096",
    max_tokens_per_minute: Annotated[str | None, typer.Option(metavar="N", help="The most in any 60 seconds.")] = None,
    max_tokens_total: Annotated[str | None, typer.Option(metavar="N", help="The most in this session.")] = None,
    max_usd_per_request: Annotated[str | None, typer.Option(metavar="USD", help="The most for one request.")] = None,
    max_usd_per_day: Annotated[str | None, typer.Option(metavar="USD", help="The most in a day, UTC.")] = None,
    max_usd_per_month: Annotated[str | None, typer.Option(metavar="USD", help="The most in a month, UTC.")] = None,
    max_usd_total: Annotated[str | None, typer.Option(metavar="USD", help="The most in this session.")] = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A name under which the -total limits go on from run to run. Without it a session ends with a clean "
            "stop, and goes on after a crash.",
        ),
    ] = None,
    warn_only: Annotated[bool, typer.Option("--warn-only", help="Refuse nothing; log what would be refused.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No log line per request. Refusals, warnings and errors are logged.")
    ] = False,
    log_format: Annotated[
        str, typer.Option(metavar="text|json", autocompletion=one_of("text", "json"), help="How to log, on stderr.")
    ] = "text",
    deny_status: Annotated[
        str,
        typer.Option(
            metavar="400|402|403|429",
            autocompletion=one_of(*DENY_STATUSES),
            help="The status of a refusal by a budget.",
        ),
    ] = "429",
    workers: Annotated[str, typer.Option(metavar="N", help="Processes that share the port and the ledger.")] = "1",
    ledger: LedgerOption = None,
    fake: Annotated[
        bool, typer.Option("--fake", help="Stand before a fake provider on this machine: costs nothing, needs no key.")
    ] = False,
) -> None:
    """
    Run the proxy: it stands before LLM APIs, and refuses what no budget has room for. Point a client's base URL at it.

    All limits apply together; the strictest one decides. Without --config it serves OpenAI's, Anthropic's and Gemini's
    APIs. Every key of a configuration file may be an environment variable instead, such as
    FARTHING_UPSTREAMS__OPENAI__BASE_URL.
    """
    from ..config.loading import from_environment
    from ..config.loading import load as load_file
    from ..proxy.flags import BudgetConfig
    from ..proxy.process.serve import serve as run

    with ExitStack() as stack:
        fake_url = None
        if fake:
            from ..testing import FakeProvider

            provider = stack.enter_context(FakeProvider())
            fake_url, upstream, api_key = provider.url, provider.openai_url, "fake"
            typer.echo(
                f"No provider: a fake one answers at {upstream}. It costs nothing and knows no answer.", err=True
            )
        flags = BudgetConfig(
            max_tokens_per_request=_count_or_none(max_tokens_per_request, option="--max-tokens-per-request"),
            max_tokens_per_minute=count_from_text(max_tokens_per_minute, option="--max-tokens-per-minute"),
            max_tokens_total=count_from_text(max_tokens_total, option="--max-tokens-total"),
            max_usd_per_request=usd_from_text(max_usd_per_request, option="--max-usd-per-request"),
            max_usd_per_day=usd_from_text(max_usd_per_day, option="--max-usd-per-day"),
            max_usd_per_month=usd_from_text(max_usd_per_month, option="--max-usd-per-month"),
            max_usd_total=usd_from_text(max_usd_total, option="--max-usd-total"),
            upstream_url=upstream,
            upstream_api_key=api_key or None,
            warn_only=warn_only,
            quiet=quiet,
            log_format=log_format,
            deny_status=_number(deny_status, option="--deny-status"),
            ledger=ledger_url(ledger),
            session=session,
        )
        settings = _settings(
            flags,
            host=host,
            port=_number(port, option="--port"),
            workers=_number(workers, option="--workers"),
        )
        if config is None and from_environment() is None:
            if fake_url is not None:
                settings = _before(fake_url, settings)
            run(settings, flags, say=lambda opened: _say_how(opened, has_key=bool(api_key)))
            return

        def load() -> ProxySettings:
            found = load_file(config, for_proxy=True) if config is not None else from_environment()
            configured = settings if found is None else _configured(found.proxy, settings, _named(ctx))
            return configured if fake_url is None else _before(fake_url, configured)

        first = load()
        if first.budgets and "max_tokens_per_request" not in _named(ctx):
            flags = replace(flags, max_tokens_per_request=None)
        has_key = any(upstream.api_key for upstream in first.upstreams if "openai" in upstream.speaks)
        run(first, flags, load=load, say=lambda opened: _say_how(opened, has_key=has_key))


def _named(ctx: typer.Context) -> set[str]:
    """The options that were given, on the command line or by the environment."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}


def _configured(settings: ProxySettings, flags: ProxySettings, named: set[str]) -> ProxySettings:
    """The proxy of a configuration, with what was given on the command line in its place."""
    from ..proxy.settings import OPENAI_URL

    given: dict[str, Any] = {
        name: getattr(flags, name)
        for name in ("host", "port", "workers", "session", "quiet", "log_format", "deny_status")
        if name in named
    }
    calls = settings.calls
    if "ledger" in named or calls.ledger is None:
        calls = replace(calls, ledger=flags.calls.ledger)
    if "warn_only" in named:
        calls = replace(calls, unpriced=flags.calls.unpriced)
    openai, *_ = flags.upstreams
    if "upstream" in named or "fake" in named:
        given["upstreams"] = (openai, *(of for of in settings.upstreams if of.name != openai.name))
    elif openai.api_key is not None:
        # OPENAI_API_KEY, or --api-key: for an upstream of the file that says nothing of its own, and is OpenAI's.
        given["upstreams"] = tuple(
            replace(of, api_key=openai.api_key) if of.api_key is None and of.base_url == OPENAI_URL else of
            for of in settings.upstreams
        )
    return replace(settings, calls=calls, **given)


def _count_or_none(text: str, *, option: str) -> int | None:
    return None if text.strip().lower() == "none" else count_from_text(text, option=option)


def _number(text: str, *, option: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UsageMistake(f"{option} takes a whole number, not {text!r}") from error


def _settings(flags: BudgetConfig, **listening: Any) -> ProxySettings:
    """Raises ConfigError naming the option, where the upstream would be named as files name it."""
    try:
        return flags.settings(**listening)
    except ConfigError as error:
        option = {"upstreams.openai.base_url": "--upstream", "upstreams.openai.api_key": "--api-key"}.get(error.key)
        raise error if option is None else ConfigError(error.reason, key=option) from error


def _before(fake_url: str, settings: ProxySettings) -> ProxySettings:
    """The same proxy, with every upstream at the fake provider."""
    return replace(
        settings,
        upstreams=tuple(
            of if of.base_url.startswith(fake_url) else replace(of, base_url=_at(fake_url, of), api_key="fake")
            for of in settings.upstreams
        ),
    )


def _at(url: str, upstream: Upstream) -> str:
    """As the provider's own SDK writes it: OpenAI's with its version."""
    return f"{url}/v1" if "openai" in upstream.speaks else url


def _say_how(opened: Opened, *, has_key: bool) -> None:
    """Where clients go, with which key, and a request to try: as it is printed it works."""
    url = opened.url
    lines = [f"Clients: OPENAI_BASE_URL={url}/v1 · ANTHROPIC_BASE_URL={url} · Ctrl-C stops it."]
    if opened.everywhere:
        lines.append("From other machines: this one's name or address in the place of that host.")
    key = "" if has_key else "$OPENAI_API_KEY"
    if opened.asks_for_keys:
        lines.append("Callers send a key of this ledger (`farthing keys create`) as their API key.")
        lines.append("Try, with one in KEY:")
        key = "$KEY"
    else:
        lines.append("Try:")
    header = f' -H "authorization: Bearer {key}"' if key else ""
    request = f"  curl {url}/v1/chat/completions -H 'content-type: application/json'{header} -d '{_BODY}'"
    typer.echo("\n".join([*lines, "", request, ""]), err=True)
