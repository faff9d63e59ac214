"""``farthing keys``: who may call through the proxy, and on whose budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from ..admin.keys import KeyFigures, create_key, list_keys, revoke_key, rotate_key
from ..kernel.keys import DENY_STATUSES
from ..kernel.scope import one_line
from ..kernel.window import datetime_from_ms
from .amounts import count_from_text, pairs_from_texts
from .completing import key_ids, one_of
from .failing import UsageMistake, as_typed
from .helping import command, group
from .ledger import open_ledger
from .options import JsonOption, LedgerOption
from .screen import console, print_json

app = group("Virtual keys for the proxy: who is calling, and on whose budget.")

KeyId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The key's id, as `keys list` shows it.", show_default=False, autocompletion=key_ids
    ),
]


@command(
    app,
    examples=(
        "farthing keys create --user alice --budget '$5/day'",
        "farthing keys create --team search --budget '100k tokens/hour' --expires 30d",
        "farthing keys create --parent ID --tag run=42 --expires 2h",
        "farthing keys create --admin --label ops",
    ),
)
def create(
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Who uses it.")] = None,
    team: Annotated[str | None, typer.Option(metavar="NAME", help="Which team they belong to.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG=VALUE", help="One more tag of its calls. Repeatable.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMIT",
            help="'$5/day', '100k tokens/hour', '1M tokens/month Europe/Berlin', '4 at once': in single quotes, for a "
            "shell replaces $5 elsewhere. All keys of one user share it; without a user it is this key's. Repeatable.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="A date, an ISO time (UTC), or a span from now such as 30d. Else never."),
    ] = None,
    deny_status: Annotated[
        str | None,
        typer.Option(
            metavar="400|402|403|429",
            autocompletion=one_of(*DENY_STATUSES),
            help="The status of a refusal by a budget; else the proxy's own.",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for, as lists show it.")] = None,
    parent: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Delegate from this key. The new key has its tags and one more (--tag), must expire (--expires), and "
            "spends what the parent has.",
        ),
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="For the admin API only: it makes no model calls.")] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """Make a key. It is shown once: the ledger keeps only its hash, so nobody can look it up later."""
    tags = pairs_from_texts(tag, option="--tag")
    if parent is not None and expires is None:
        raise UsageMistake("a delegated key must expire: give --expires, such as --expires 2h")
    with open_ledger(ledger, as_json=json, make=True) as store, as_typed():
        made = create_key(
            store,
            user=user,
            team=team,
            tags=tags,
            budgets=budget or (),
            expires=expires,
            deny_status=count_from_text(deny_status, option="--deny-status"),
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
    if not made.key.budgets and not admin:
        out.print(Text("No budget was made for it: the ledger's own bind its calls.", "dim"))
    for name in made.key.budgets:
        out.print(Text(f"budget {name!r} binds its calls", "dim"))


@command(app, "list", examples=("farthing keys list", "farthing keys list --json"))
def list_(json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """Every key: whose it is, its budgets, and whether it is still good. The keys themselves are not kept anywhere."""
    with open_ledger(ledger, as_json=json) as store:
        found = list_keys(store)
    if json:
        print_json({"keys": [figures.to_dict() for figures in found]})
        return
    out = console()
    if not found:
        out.print(
            "No key is in this ledger yet, so a proxy on it serves this machine only. Make one:\n\n"
            "    farthing keys create --user alice --budget '$5/day'",
            markup=False,
        )
        return
    for figures in found:
        for line in _lines(figures):
            out.print(line, no_wrap=True, overflow="ignore", crop=False)


@command(app, examples=("farthing keys revoke ID",))
def revoke(key_id: KeyId, json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """End a key for good. Within a second no proxy on this ledger accepts it, nor keys delegated from it."""
    with open_ledger(ledger, as_json=json) as store:
        figures = revoke_key(store, key_id)
    if json:
        print_json(figures.to_dict())
    else:
        console().print(f"{figures.key.id}: revoked; it was {_whose(figures)}", markup=False)


@command(app, examples=("farthing keys rotate ID", "farthing keys rotate ID --overlap 1h"))
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="How long the old secret stays good, such as 1h. Else not at all."),
    ] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """Replace the secret of a key; the new one is shown once. Its id, tags and accounts stay."""
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
    typer.echo("The key, shown only this once:", err=True)
    print(text)


def _lines(figures: KeyFigures) -> Iterator[Text]:
    key = figures.key
    line = Text(f"{key.shown:<17} ")
    line.append(f"{figures.state:<7}", {"active": "green", "revoked": "red"}.get(figures.state, "yellow"))
    yield line.append(f"  {_whose(figures)}", "bold")
    terms = [f"expires {_when(key.expires_ms)}"] if key.expires_ms is not None else []
    terms += [f"refused with {key.deny_status}"] if key.deny_status else []
    terms += [f"delegated from {key.parent}"] if key.parent else []
    if terms:
        yield Text(f"  {', '.join(terms)}", "dim")
    for name in key.budgets:
        yield Text(f"  budget {name!r}", "dim")


def _whose(figures: KeyFigures) -> str:
    key = figures.key
    tags = " ".join(f"{name}={value}" for name, value in key.tags if name != "key")
    whose = "admin" if key.admin else tags or "no tags"
    return one_line(f"{whose} ({key.label})" if key.label else whose)


def _when(at_ms: int) -> str:
    return f"{datetime_from_ms(at_ms):%Y-%m-%d %H:%M} UTC"
