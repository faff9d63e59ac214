"""``farthing serve``: the proxy."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from .amounts import usd_from_text
from .ledger import LedgerOption, ledger_url
from .running import UsageMistake

if TYPE_CHECKING:
    from ..proxy.settings import ProxySettings

_BODY = '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'


def serve(
    host: Annotated[
        str, typer.Option(help="Where to listen. Another than this machine's own needs keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8080,
    upstream: Annotated[
        str, typer.Option(metavar="URL", help="The OpenAI API, or one that speaks its language.")
    ] = "https://api.openai.com/v1",
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="OPENAI_API_KEY",
            show_default=False,
            help="Replaces the callers' own there. Better in the environment: other users can see command lines.",
        ),
    ] = None,
    max_tokens_per_request: Annotated[
        str, typer.Option(metavar="N|none", help="Prompt and output ceiling of one request together.")
    ] = "4096",
    max_tokens_per_minute: Annotated[int | None, typer.Option(metavar="N", help="In any 60 seconds.")] = None,
    max_tokens_total: Annotated[int | None, typer.Option(metavar="N", help="In this session.")] = None,
    max_usd_per_request: Annotated[str | None, typer.Option(metavar="USD", help="One request.")] = None,
    max_usd_per_day: Annotated[str | None, typer.Option(metavar="USD", help="A day, in UTC.")] = None,
    max_usd_per_month: Annotated[str | None, typer.Option(metavar="USD", help="A month, in UTC.")] = None,
    max_usd_total: Annotated[str | None, typer.Option(metavar="USD", help="In this session.")] = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What …-total counts goes on under this name from run to run. Without one it ends with a clean stop, "
            "and goes on after a crash.",
        ),
    ] = None,
    warn_only: Annotated[
        bool, typer.Option("--warn-only", help="Log what would be refused, and refuse nothing.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No line per request; refusals and errors are logged.")
    ] = False,
    log_format: Annotated[str, typer.Option(metavar="text|json", help="How to log, to stderr.")] = "text",
    deny_status: Annotated[
        int, typer.Option(metavar="400|402|403|429", help="The status of a refusal by a budget.")
    ] = 429,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that share the port and the ledger.")] = 1,
    ledger: LedgerOption = None,
    fake: Annotated[
        bool, typer.Option("--fake", help="Stand before a fake provider on this machine: costs nothing, needs no key.")
    ] = False,
) -> None:
    """Stand in front of LLM APIs and refuse what no budget covers. Point a client's base URL here."""
    from ..proxy.flags import BudgetConfig
    from ..proxy.serve import serve as run

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
            max_tokens_per_request=_count(max_tokens_per_request, option="--max-tokens-per-request"),
            max_tokens_per_minute=max_tokens_per_minute,
            max_tokens_total=max_tokens_total,
            max_usd_per_request=usd_from_text(max_usd_per_request, option="--max-usd-per-request"),
            max_usd_per_day=usd_from_text(max_usd_per_day, option="--max-usd-per-day"),
            max_usd_per_month=usd_from_text(max_usd_per_month, option="--max-usd-per-month"),
            max_usd_total=usd_from_text(max_usd_total, option="--max-usd-total"),
            upstream_url=upstream,
            upstream_api_key=api_key or None,
            warn_only=warn_only,
            quiet=quiet,
            log_format=log_format,
            deny_status=deny_status,
            ledger=ledger_url(ledger),
            session=session,
        )
        settings = flags.settings(host=host, port=port, workers=workers)
        if fake_url is not None:
            settings = _before(fake_url, settings)
        run(settings, flags, say=lambda url: _say_how(url, has_key=bool(api_key)))


def _count(text: str, *, option: str) -> int | None:
    if text.strip().lower() == "none":
        return None
    try:
        return int(text.replace(",", "").replace("_", ""))
    except ValueError as error:
        raise UsageMistake(f"{option} takes a number of tokens or 'none', not {text!r}") from error


def _before(fake_url: str, settings: ProxySettings) -> ProxySettings:
    """The same proxy, with every upstream at the fake provider."""
    openai, *others = settings.upstreams
    return replace(settings, upstreams=(openai, *(replace(of, base_url=fake_url, api_key="fake") for of in others)))


def _say_how(url: str, *, has_key: bool) -> None:
    """A request that works as it is printed, and where clients go."""
    key = "" if has_key else ' -H "authorization: Bearer $OPENAI_API_KEY"'
    typer.echo(
        f"Clients: OPENAI_BASE_URL={url}/v1 · ANTHROPIC_BASE_URL={url} · Ctrl-C stops it. Try:\n\n"
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json'{key} -d '{_BODY}'\n",
        err=True,
    )
