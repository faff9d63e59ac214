"""``farthing budgets``: what a ledger limits, and changing it."""

from __future__ import annotations

import getpass
from itertools import zip_longest
from typing import Annotated, Any

import typer

from ..admin.standing import grant_more, set_budget
from ..kernel.money import usd_from_nano
from ..reports.accounts import BudgetFigures, list_accounts
from ..reports.outlook import Outlook, outlooks
from .amounts import decimals_from_text, names_from_texts, pairs_from_texts, usd_from_text
from .budgets_shown import binding_text, print_budget, print_budgets
from .ledger import JsonOption, LedgerOption, open_ledger
from .running import EXIT_CODES, as_typed
from .screen import console, print_json

app = typer.Typer(help="What a ledger limits: list, set, raise, freeze.", no_args_is_help=True, epilog=EXIT_CODES)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The budget's name.", show_default=False)]


@app.command("list", epilog=EXIT_CODES)
def list_(json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """Every budget: its limit, what is spent, held and left, and when it resets."""
    with open_ledger(ledger, as_json=json) as store:
        found = list_accounts(store)
        ahead = outlooks(store, found)
    if json:
        print_json({"budgets": _rows(found, ahead)})
    elif not found:
        console().print(
            "No budget is in this ledger yet. Set one that binds every call:\n\n"
            "    farthing budgets set everything --usd 5.00 --per day"
        )
    else:
        print_budgets(console(), found, ahead)


def _rows(found: list[BudgetFigures], ahead: list[list[Outlook]]) -> list[dict[str, Any]]:
    """One per account in use, with its outlook; a budget without one has its limits."""
    rows = []
    for budget, of_accounts in zip(found, ahead, strict=True):
        for row, outlook in zip_longest(budget.to_dicts(), of_accounts):
            rows.append(row if outlook is None else {**row, **outlook.to_dict()})
    return rows


@app.command(epilog=EXIT_CODES)
def show(name: Name, json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """One budget in full: its terms, its accounts in every unit, its grants."""
    with open_ledger(ledger, as_json=json) as store:
        (found,) = list_accounts(store, name)
        ahead = outlooks(store, [found])
    if json:
        grants = [
            {
                **grant._asdict(),
                "amount": format(usd_from_nano(grant.amount), "f") if grant.unit == "usd" else grant.amount,
                "scope": dict(grant.scope),
            }
            for grant in found.grants
        ]
        terms = {**found.budget.to_dict(), "frozen": found.frozen}
        print_json({"terms": terms, "accounts": _rows([found], ahead), "grants": grants})
    else:
        print_budget(console(), found, ahead)


@app.command("set", epilog=EXIT_CODES)
def set_(
    name: Name,
    usd: Annotated[str | None, typer.Option(metavar="USD", help="The limit in US dollars, such as 5.00.")] = None,
    tokens: Annotated[int | None, typer.Option(metavar="N", help="The limit in tokens, input and output.")] = None,
    requests: Annotated[int | None, typer.Option(metavar="N", help="The limit in calls.")] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="The limit of calls at once.")] = None,
    per: Annotated[
        str | None,
        typer.Option(
            metavar="WINDOW", help='"day", "month Europe/Berlin", "rolling 60s", "request"; lifetime if none.'
        ),
    ] = None,
    on_exceed: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="block (default), clamp, downgrade, wait, break, truncate, raise or warn."),
    ] = None,
    downgrade: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=CHEAPER", help="The model to take instead; may be repeated."),
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="TAG=VALUE", help="Binds only calls with this tag; may be repeated.")
    ] = None,
    each: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="An account of its own for each value of this tag.")
    ] = None,
    alerts: Annotated[
        str | None,
        typer.Option(metavar="PARTS", help='Parts of the limit to be told of, such as "0.5,0.8,1".'),
    ] = None,
    wait_seconds: Annotated[float | None, typer.Option(metavar="S", help="For wait: the longest wait (30).")] = None,
    min_output_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="The least output that a lowered ceiling may leave (16).")
    ] = None,
    default_output_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="What a request without an output ceiling is given, at most.")
    ] = None,
    uncapped: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="A request without an output ceiling: inject one (default), reject, watch."),
    ] = None,
    open_bound: Annotated[
        str | None,
        typer.Option(
            metavar="HOW", help="Input without a bound on this side: context_window (default), reject, overrun."
        ),
    ] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Change a budget that exists; what is not named stays as it is.")
    ] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """Set a standing budget: it binds every call that its scope matches, in every program on this ledger."""
    terms: dict[str, Any] = {
        "usd": usd_from_text(usd, option="--usd"),
        "tokens": tokens,
        "requests": requests,
        "concurrency": concurrency,
        "per": per,
        "on_exceed": on_exceed,
        "downgrade": pairs_from_texts(downgrade, option="--downgrade"),
        "scope": pairs_from_texts(scope, option="--scope"),
        "each": names_from_texts(each) or None,
        "alerts": decimals_from_text(alerts, option="--alerts"),
        "wait_seconds": wait_seconds,
        "min_output_tokens": min_output_tokens,
        "default_output_tokens": default_output_tokens,
        "uncapped": uncapped,
        "open_bound": open_bound,
        "description": description,
    }
    with open_ledger(ledger, as_json=json, make=True) as store, as_typed():
        done = set_budget(store, name, update=update, **terms)
    if json:
        print_json({"before": None if done.before is None else done.before.to_dict(), "now": done.now.to_dict()})
        return
    out = console()
    changed = "" if done.before is None else f" ({'; '.join(done.changes()) or 'as it was'})"
    out.print(f"{name}: {done.now.terms_text()}{changed}", markup=False)
    out.print(binding_text(done.now), style="dim", markup=False)


@app.command(epilog=EXIT_CODES)
def grant(
    name: Name,
    usd: Annotated[str | None, typer.Option(metavar="USD", help="How much more, in US dollars.")] = None,
    tokens: Annotated[int | None, typer.Option(metavar="N", help="How many more tokens.")] = None,
    requests: Annotated[int | None, typer.Option(metavar="N", help="How many more calls.")] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="A date, an ISO time (UTC) or a span such as 7d; else the window."),
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="TAG=VALUE", help="Only for this account of an --each budget.")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept with the grant.")] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """Raise a budget for now: in its current window, at most until a date, signed with your user name."""
    amount = usd_from_text(usd, option="--usd")
    tags = pairs_from_texts(scope, option="--scope")
    with open_ledger(ledger, as_json=json) as store, as_typed():
        grant_more(
            store,
            name,
            usd=amount,
            tokens=tokens,
            requests=requests,
            until=until,
            scope=tags,
            reason=reason,
            who=user_name(),
        )
        (found,) = list_accounts(store, name)
    if json:
        print_json({"budgets": found.to_dicts()})
    else:
        print_budgets(console(), [found])


@app.command(epilog=EXIT_CODES)
def freeze(name: Name, json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """Deny every call that this budget binds, at once and everywhere, until it is unfrozen."""
    with open_ledger(ledger, as_json=json) as store:
        store.freeze(name, frozen=True).result()
    _say({"name": name, "frozen": True}, f"{name}: frozen; every call that it binds is denied", as_json=json)


@app.command(epilog=EXIT_CODES)
def unfreeze(name: Name, json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """Let calls pass a frozen budget again."""
    with open_ledger(ledger, as_json=json) as store:
        store.freeze(name, frozen=False).result()
    _say({"name": name, "frozen": False}, f"{name}: in force again", as_json=json)


@app.command(epilog=EXIT_CODES)
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that a configuration file defines: for a file that is gone.")
    ] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """Take a budget and its grants away. What was spent stays in the ledger."""
    with open_ledger(ledger, as_json=json) as store:
        (found,) = list_accounts(store, name)  # asks nobody about a budget that is not there
        if not yes:
            typer.confirm(f"Remove budget {name!r}? Calls will pass without it.", abort=True, err=True)
        store.remove_budget(name, defined_by=found.budget.defined_by if force else None).result()
    _say({"name": name, "removed": True}, f"{name}: removed", as_json=json)


@app.command(epilog=EXIT_CODES)
def apply(
    config: Annotated[str, typer.Argument(metavar="PATH", help="A farthing.toml.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    Put the budgets of a configuration file into a ledger; those that it does not name any more are removed.

    The file owns them from then on. (`farthing serve --config` does this by itself.)
    """
    from ..admin.owned import differences, put_owned
    from ..config.loading import load

    configuration = load(config)
    url = ledger or configuration.given.get("ledger")
    with open_ledger(url, as_json=json, make=not dry_run) as store:
        source, wanted = configuration.source, configuration.budgets
        if dry_run:
            changes = differences(store.catalogue().result().budgets, wanted, defined_by=source)
        else:
            changes = put_owned(store, wanted, defined_by=source)
    plain = {
        "added": [budget.to_dict() for budget in changes.added],
        "changed": [{"before": of.before and of.before.to_dict(), "now": of.now.to_dict()} for of in changes.changed],
        "removed": [budget.name for budget in changes.removed],
    }
    _say(plain, "\n".join(changes.lines()) or "nothing differs", as_json=json)


def _say(plain: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(plain)
    else:
        print(text)


def user_name() -> str | None:
    """Who is at the keyboard, as far as the system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # No entry for this user id, as in many containers: a grant without a name is better than none.
        return None
