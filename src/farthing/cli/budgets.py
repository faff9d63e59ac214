"""``farthing budgets``: what a ledger limits, and changing it."""

from __future__ import annotations

import getpass
from itertools import zip_longest
from shlex import quote
from typing import Annotated, Any

import typer

from ..admin.standing import grant_more, set_budget
from ..kernel.balances import UNITS
from ..kernel.budget import MODES, OPEN_BOUND, UNCAPPED, Budget
from ..kernel.money import usd_decimal
from ..reports.accounts import BudgetFigures, list_accounts
from ..reports.outlook import Outlook, outlooks
from .amounts import (
    count_from_text,
    decimals_from_text,
    names_from_texts,
    number_of,
    pairs_from_texts,
    usd_from_text,
)
from .budgets_shown import binding_text, print_budget, print_budgets
from .completing import PERIODS, budget_names, one_of
from .failing import UsageMistake, as_typed, confirm
from .helping import command, group
from .ledger import open_ledger
from .options import JsonOption, LedgerOption
from .screen import console, print_json, said

app = group("Budgets of a ledger: see what is left, set them, raise them for a while, freeze them.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The budget's name.", show_default=False, autocompletion=budget_names)
]


@command(app, "list", examples=("farthing budgets list", "farthing budgets list --json"))
def list_(json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """
    Every budget: its limit, what is spent, held and left, and when it resets.

    A + after a limit: it is raised by a grant for now. A budget with --each has a line for each value seen in this
    window. Agents are in `farthing agents`, with what they have lent and borrowed.
    """
    with open_ledger(ledger, as_json=json) as store:
        found = list_accounts(store)
        ahead = outlooks(store, found)
    if json:
        print_json({"budgets": _rows(found, ahead)})
        return
    # What an agent lent is on its account too, so its line here would say that it spent it.
    shown = [pair for pair in zip(found, ahead, strict=True) if pair[0].budget.lending is None]
    if shown:
        print_budgets(console(), [budget for budget, _ in shown], [outlook for _, outlook in shown])
    elif not found:
        console().print(
            "No budget is in this ledger yet. Set one that binds every call:\n\n"
            "    farthing budgets set everything --usd 5.00 --per day"
        )
    if agents := len(found) - len(shown):
        console().print(f"{number_of(agents, 'agent')} with a budget: see `farthing agents`", style="dim")


def _rows(found: list[BudgetFigures], ahead: list[list[Outlook]]) -> list[dict[str, Any]]:
    """One per account in use, with its outlook; a budget without one has its limits."""
    rows = []
    for budget, of_accounts in zip(found, ahead, strict=True):
        for row, outlook in zip_longest(budget.to_dicts(), of_accounts):
            rows.append(row if outlook is None else {**row, **outlook.to_dict()})
    return rows


@command(app, examples=("farthing budgets show search",))
def show(name: Name, json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """One budget in full: its terms, what each of its accounts has left, and its grants."""
    with open_ledger(ledger, as_json=json) as store:
        (found,) = list_accounts(store, name)
        ahead = outlooks(store, [found])
    if json:
        grants = [
            {
                **grant._asdict(),
                "amount": usd_decimal(grant.amount) if grant.unit == "usd" else grant.amount,
                "scope": dict(grant.scope),
            }
            for grant in found.grants
        ]
        terms = {**found.budget.to_dict(), "frozen": found.frozen}
        print_json({"terms": terms, "accounts": _rows([found], ahead), "grants": grants})
    else:
        print_budget(console(), found, ahead)


@command(
    app,
    "set",
    examples=(
        "farthing budgets set everything --usd 100 --per month",
        "farthing budgets set each-user --usd 2 --per day --each user",
        "farthing budgets set search-team --tokens 1M --per day --scope team=search",
        "farthing budgets set everything --usd 150 --update",
    ),
)
def set_(
    name: Name,
    usd: Annotated[str | None, typer.Option(metavar="USD", help="The limit in US dollars, such as 5.00.")] = None,
    tokens: Annotated[str | None, typer.Option(metavar="N", help="The limit in tokens, input and output.")] = None,
    requests: Annotated[str | None, typer.Option(metavar="N", help="The limit in calls.")] = None,
    concurrency: Annotated[str | None, typer.Option(metavar="N", help="The limit of calls at the same time.")] = None,
    per: Annotated[
        str | None,
        typer.Option(
            metavar="WINDOW",
            autocompletion=one_of(*PERIODS),
            help='Over how long: minute, hour, day, week, month (UTC; or "month Europe/Berlin"), "rolling 60s", '
            "request (each call by itself), lifetime (default: it never resets).",
        ),
    ] = None,
    on_exceed: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            autocompletion=one_of(*MODES),
            help="What happens to a call that does not fit: block (default), clamp, downgrade, wait, break, truncate, "
            "raise, warn.",
        ),
    ] = None,
    downgrade: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=CHEAPER", help="For downgrade: the model to take instead. Repeatable."),
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="TAG=VALUE", help="Binds only calls with this tag. Repeatable.")
    ] = None,
    each: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG,…", help="The whole limit for each value of this tag, such as user. Repeatable."),
    ] = None,
    alerts: Annotated[
        str | None,
        typer.Option(metavar="PARTS", help="Say so once when this part of the limit is spent, such as 0.5,0.8,1."),
    ] = None,
    wait_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="For wait: how long, at most. 30 if not given.")
    ] = None,
    min_output_tokens: Annotated[
        str | None,
        typer.Option(metavar="N", help="A call is denied rather than clamped to fewer output tokens. 16 if not given."),
    ] = None,
    default_output_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="The most that a request without an output ceiling gets. If not given 4,096; a reasoning model's "
            "own maximum.",
        ),
    ] = None,
    uncapped: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            autocompletion=one_of(*UNCAPPED),
            help="A request without an output ceiling: inject one (default), reject it, or watch its stream.",
        ),
    ] = None,
    open_bound: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            autocompletion=one_of(*OPEN_BOUND),
            help="A request whose input cannot be counted here (a stored prompt, say): hold what the model's "
            "context_window costs (default), reject it, or let an overrun happen.",
        ),
    ] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Change a budget that exists. Terms that are not given stay.")
    ] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    Set a budget that binds every call in every program on this ledger, or those that --scope matches.

    It needs a limit: --usd, --tokens, --requests or --concurrency, or several of them.
    """
    terms: dict[str, Any] = {
        "usd": usd_from_text(usd, option="--usd"),
        "tokens": count_from_text(tokens, option="--tokens"),
        "requests": count_from_text(requests, option="--requests"),
        "concurrency": count_from_text(concurrency, option="--concurrency"),
        "per": per,
        "on_exceed": on_exceed,
        "downgrade": pairs_from_texts(downgrade, option="--downgrade", form="MODEL=CHEAPER"),
        "scope": pairs_from_texts(scope, option="--scope"),
        "each": names_from_texts(each) or None,
        "alerts": decimals_from_text(alerts, option="--alerts"),
        "wait_seconds": wait_seconds,
        "min_output_tokens": count_from_text(min_output_tokens, option="--min-output-tokens"),
        "default_output_tokens": count_from_text(default_output_tokens, option="--default-output-tokens"),
        "uncapped": uncapped,
        "open_bound": open_bound,
        "description": description,
    }
    if not update and all(terms[unit] is None for unit in UNITS):
        raise UsageMistake("a budget needs a limit: --usd, --tokens, --requests or --concurrency")
    with open_ledger(ledger, as_json=json, make=True) as store, as_typed():
        done = set_budget(store, name, update=update, **terms)
    if json:
        print_json({"before": None if done.before is None else done.before.to_dict(), "now": done.now.to_dict()})
        return
    out = console()
    changed = "" if done.before is None else f" ({'; '.join(done.changes()) or 'as it was'})"
    out.print(said(f"{name}: {_terms_text(done.now)}{changed}"), soft_wrap=True)
    out.print(said(binding_text(done.now), "dim"))


@command(
    app,
    examples=(
        'farthing budgets grant search --usd 5 --reason "launch week"',
        "farthing budgets grant each-user --usd 1 --scope user=alice --until 3d",
    ),
)
def grant(
    name: Name,
    usd: Annotated[str | None, typer.Option(metavar="USD", help="How much more, in US dollars.")] = None,
    tokens: Annotated[str | None, typer.Option(metavar="N", help="How many more tokens.")] = None,
    requests: Annotated[str | None, typer.Option(metavar="N", help="How many more calls.")] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="A date, an ISO time (UTC), or a span from now such as 7d. Without it as long as the window.",
        ),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG=VALUE", help="Of a budget with --each: only for this value. Repeatable."),
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept with the grant.")] = None,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    Raise a budget for a while: in its current window, at most until a date.

    The grant is kept with your user name and the reason. It ends with the window; `budgets set --update` changes the
    limit for good.
    """
    amount = usd_from_text(usd, option="--usd")
    tags = pairs_from_texts(scope, option="--scope")
    with open_ledger(ledger, as_json=json) as store, as_typed():
        grant_more(
            store,
            name,
            usd=amount,
            tokens=count_from_text(tokens, option="--tokens"),
            requests=count_from_text(requests, option="--requests"),
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


@command(app, examples=("farthing budgets freeze search",))
def freeze(name: Name, json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """Deny every call that this budget binds, at once and everywhere, until it is unfrozen."""
    with open_ledger(ledger, as_json=json) as store:
        store.freeze(name, frozen=True).result()
    _say(
        {"name": name, "frozen": True},
        f"{name}: frozen; every call that it binds is denied until `farthing budgets unfreeze {quote(name)}`",
        as_json=json,
    )


@command(app, examples=("farthing budgets unfreeze search",))
def unfreeze(name: Name, json: JsonOption = False, ledger: LedgerOption = None) -> None:
    """Let calls pass a frozen budget again, as far as its limit goes."""
    with open_ledger(ledger, as_json=json) as store:
        store.freeze(name, frozen=False).result()
    _say({"name": name, "frozen": False}, f"{name}: in force again", as_json=json)


@command(app, examples=("farthing budgets remove search", "farthing budgets remove search --yes"))
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also a budget that a configuration file defines, for a file that is gone.")
    ] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """Take a budget and its grants away. What was spent stays in the ledger."""
    with open_ledger(ledger, as_json=json) as store:
        (found,) = list_accounts(store, name)  # asks nobody about a budget that is not there
        if not yes:
            confirm(f"Remove budget {name!r}? Calls will pass without it.")
        store.remove_budget(name, defined_by=found.budget.defined_by if force else None).result()
    _say({"name": name, "removed": True}, f"{name}: removed", as_json=json)


@command(app, examples=("farthing budgets apply farthing.toml --dry-run", "farthing budgets apply farthing.toml"))
def apply(
    config: Annotated[
        str, typer.Argument(metavar="PATH", help="The configuration file, such as farthing.toml.", show_default=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    json: JsonOption = False,
    ledger: LedgerOption = None,
) -> None:
    """
    Put the budgets of a configuration file into a ledger, and remove those that it does not name any more.

    The file owns its budgets from then on: they are changed there. The ledger is --ledger, else the one that the file
    names. (`farthing serve --config` and configure("farthing.toml") do this by themselves.)
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
    _say(
        plain, "\n".join(changes.lines()) or "nothing to change: the ledger has the budgets of this file", as_json=json
    )


def _terms_text(budget: Budget) -> str:
    mode = "" if budget.on_exceed == "block" else f", {budget.on_exceed}"
    return f"{budget.terms_text()}{mode}"


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
