"""``farthing keys``: who may call through the proxy, and on whose budget."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from ..admin.keys import KeyFigures, create_key, list_keys, revoke_key, rotate_key
from .amounts import NOTHING, pairs_from_texts
from .ledger import JsonOption, LedgerOption, open_ledger
from .running import EXIT_CODES, as_typed
from .screen import console, print_json

app = typer.Typer(
    help="Virtual keys for the proxy: who is calling, and on whose budget.", no_args_is_help=True, epilog=EXIT_CODES
)

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `keys list` shows it.", show_default=False)]


@app.command(epilog=EXIT_CODES)
def create(
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Who uses it.")] = None,
    team: Annotated[str | None, typer.Option(metavar="NAME", help="Which team they belong to.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="One more tag of its calls; may be repeated.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMIT",
            help="'$5/day', '100k tokens/hour', '1M tokens/month Europe/Berlin', '4 at once' (in single quotes): one "
            "account for all keys of the user, or of this key if it has none. May be repeated.",
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="WHEN", help="A date, an ISO time (UTC) or a span such as 30d; never if none.")
    ] = None,
    deny_status: Annotated[
        int | None,
        typer.Option(metavar="STATUS", help="Refuse its calls with 400, 402, 403 or 429; as the proxy does if none."),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for, as lists show it.")] = None,
    parent: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Delegate from this key: its tags and exactly one more, an end, and what it spends is its parent's.",
        ),
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="For the admin API only: it makes no model calls.")] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """Make a key. It is shown once: the ledger keeps only its hash."""
    tags = pairs_from_texts(tag, option="--tag")
    with open_ledger(ledger, as_json=json, make=True) as store, as_typed():
        made = create_key(
            store,
            user=user,
            team=team,
            tags=tags,
            budgets=budget or (),
            expires=expires,
            deny_status=deny_status,
            admin=admin,
            label=label,
            parent=parent,
        )
    figures = KeyFigures(made.key, "active")
    if json:
        print_json({**figures.to_dict(), "key": made.text})
        return
    _print_text(made.text)
    out = console()
    out.print(Text(f"id {made.key.id}: {_whose(figures)}", "dim"))
    for name in made.key.budgets:
        out.print(Text(f"budget {name!r} binds its calls", "dim"))


@app.command("list", epilog=EXIT_CODES)
def list_(json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """Every key: whose it is, its budgets, and whether it is still good. Never what opens it."""
    with open_ledger(ledger, as_json=json) as store:
        found = list_keys(store)
    if json:
        print_json({"keys": [figures.to_dict() for figures in found]})
        return
    out = console()
    if not found:
        out.print(
            "No key is in this ledger yet, so the proxy listens on this machine only. Make one:\n\n"
            "    farthing keys create --user alice --budget '$5/day'",
            markup=False,
        )
        return
    for figures in found:
        for line in _lines(figures):
            out.print(line, no_wrap=True, overflow="ignore", crop=False)


@app.command(epilog=EXIT_CODES)
def revoke(key_id: KeyId, json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """End a key for good. Within a second no proxy on this ledger lets it in; its budgets stay."""
    with open_ledger(ledger, as_json=json) as store:
        figures = revoke_key(store, key_id)
    if json:
        print_json(figures.to_dict())
    else:
        console().print(f"{figures.key.id}: revoked ({_whose(figures)})", markup=False)


@app.command(epilog=EXIT_CODES)
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str | None, typer.Option(metavar="SPAN", help="How long the old secret stays good, such as 1h; not at all.")
    ] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """Give a key a new secret, shown once. Its id, tags and accounts stay."""
    with open_ledger(ledger, as_json=json) as store, as_typed():
        made = rotate_key(store, key_id, overlap=overlap)
    if json:
        print_json({**KeyFigures(made.key, "active").to_dict(), "key": made.text})
        return
    _print_text(made.text)
    until_ms = made.key.previous_until_ms
    old = "is no longer good" if until_ms is None else f"stays good until {_when(until_ms)}"
    console().print(Text(f"id {made.key.id}: the old secret {old}", "dim"))


def _print_text(text: str) -> None:
    """On a line of its own, unwrapped, so that it can be copied or piped; what is said about it goes to stderr."""
    typer.echo("This is the only time that it is shown:", err=True)
    print(text)


def _lines(figures: KeyFigures) -> Iterator[Text]:
    key = figures.key
    line = Text(f"{key.shown:<17} ")
    line.append(f"{figures.state:<7}", {"active": "green", "revoked": "red"}.get(figures.state, "yellow"))
    yield line.append(f"  {_whose(figures)}", "bold")
    terms = [f"until {_when(key.expires_ms)}"] if key.expires_ms is not None else []
    terms += [f"refused with {key.deny_status}"] if key.deny_status else []
    terms += [f"delegated from {key.parent}"] if key.parent else []
    if terms:
        yield Text(f"  {', '.join(terms)}", "dim")
    for name in key.budgets:
        yield Text(f"  budget {name!r}", "dim")


def _whose(figures: KeyFigures) -> str:
    key = figures.key
    tags = " ".join(f"{name}={value}" for name, value in key.tags if name != "key")
    whose = "admin" if key.admin else tags or NOTHING
    return f"{whose} ({key.label})" if key.label else whose


def _when(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
