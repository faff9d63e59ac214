"""Budgets on the screen: for each account a heading, and a line with a bar for each unit that is limited."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import zip_longest

from rich.console import Console
from rich.text import Text

from ..kernel.budget import Budget
from ..kernel.catalogue import Grant
from ..kernel.window import datetime_from_ms
from ..reports.accounts import AccountFigures, BudgetFigures, UnitFigures
from ..reports.outlook import Outlook
from .amounts import NOTHING, number_of, usd_column, usd_text, when_text
from .screen import HELD, SPENT, SUSPECT, bar, said

_UNIT_WIDTH = 13
_BAR_MOST, _BAR_LEAST = 24, 8
_PLURALS = {"usd": "dollars"}


def print_budgets(out: Console, found: list[BudgetFigures], ahead: list[list[Outlook]] | None = None) -> None:
    """All of them, with one set of columns; under each account what is ahead of it, where that is known."""
    limited = [figures for budget in found for account in budget.accounts for figures in _limited(account)]
    # Columns that would be empty in every line are left out: most ledgers have nothing suspect.
    names = [
        name
        for name in ("spent", "held", "suspect", "left", "limit")
        if name not in ("held", "suspect") or any(getattr(figures, name) for figures in limited)
    ]
    columns = [_column(limited, name) for name in names]
    lines = [list(line) for line in zip(*columns, strict=True)]
    widths = [max(len(name), *(len(line[index]) for line in lines), 0) for index, name in enumerate(names)]
    room = out.width - _UNIT_WIDTH - sum(widths) - 2 * len(widths)
    bar_width = max(_BAR_LEAST, min(_BAR_MOST, room))
    if limited:
        heads = "  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))
        out.print(Text(f"{'':{_UNIT_WIDTH + bar_width}}  {heads}", "bold"), no_wrap=True, overflow="ignore", crop=False)
    following = iter(lines)
    for budget, of_accounts in zip(found, ahead or [[] for _ in found], strict=True):
        for account, outlook in zip_longest(budget.accounts or (None,), of_accounts):
            out.print(_heading(budget, account))
            for figures in _limited(account):
                text = _line(out, figures, bar_width)
                for name, cell, width in zip(names, next(following), widths, strict=True):
                    text.append(f"  {cell:>{width}}", _style(figures, name) if cell != NOTHING else "")
                out.print(text, no_wrap=True, overflow="ignore", crop=False)
            if outlook is not None:
                for note in _notes(outlook):
                    out.print(note)
    if any(figures.held or figures.suspect for figures in limited):
        signs = f"{SPENT} spent  {HELD} held by calls in flight  {SUSPECT} suspect: outcome unknown"
        out.print(Text(signs, "dim"))


def print_budget(out: Console, found: BudgetFigures, ahead: list[list[Outlook]]) -> None:
    """One in full: terms, accounts, grants."""
    budget = found.budget
    out.print(said(f"{budget.name}: {budget.terms_text()}, on_exceed={budget.on_exceed}", "bold"))
    if budget.description:
        out.print(said(budget.description))
    out.print(said(binding_text(budget), "dim"), soft_wrap=True)
    if budget.defined_by is not None:
        out.print(Text(f"Defined by {budget.defined_by}: change it there.", "dim"))
    if budget.alerts:
        parts = ", ".join(f"{Decimal(part) / 100:f} %" for part in budget.alerts)
        out.print(Text(f"Alerts: it says so once when {parts} of its limit is spent.", "dim"))
    if budget.each:
        out.print(said(f"Each {', '.join(budget.each)} has the whole limit, in an account of its own.", "dim"))
    out.print()
    print_budgets(out, [found], ahead)
    for granted in found.grants:
        out.print(said(_grant_text(granted)))


def binding_text(budget: Budget) -> str:
    """Which calls it binds, in a sentence."""
    if not budget.standing:
        return f"It binds the calls that programs make under its name: `with budget({budget.name!r}, …)`."
    tags = " ".join(f"{name}={value}" for name, value in budget.scope)
    return f"It binds every call with {tags}." if tags else "It binds every call on this ledger."


def _limited(account: AccountFigures | None) -> Iterator[UnitFigures]:
    return (figures for figures in (() if account is None else account.units) if figures.limit is not None)


def _heading(budget: BudgetFigures, account: AccountFigures | None) -> Text:
    terms = budget.budget
    text = Text().append_text(said(terms.name, "bold"))
    scope = terms.scope if account is None else account.scope.items()
    for name, value in scope:
        text.append_text(said(f" {name}={value}" if value is not None else f" (no {name})"))
    if budget.frozen:
        text.append(" frozen", "bold red")
    more = [] if terms.window.kind == "lifetime" else [f"per {terms.window}"]
    more += [] if terms.on_exceed == "block" else [terms.on_exceed]
    if account is None:
        more = [f"{terms.terms_text()} for each {', '.join(terms.each)}", "no call yet"]
    elif account.resets_at is not None:
        more.append(f"resets {when_text(account.resets_at, datetime.now(UTC))}")
    text.append("  " + ", ".join(more) if more else "", "dim")
    return text


def _notes(outlook: Outlook) -> Iterator[Text]:
    now = datetime.now(UTC)
    if outlook.exhausted_at:
        unit, at = min(outlook.exhausted_at.items(), key=lambda item: item[1])
        if at > now:
            when = f"{when_text(at, now)} ({at:%Y-%m-%d %H:%M} UTC)"
            yield Text(f"  at this rate its {_PLURALS.get(unit, unit)} are used up {when}", "yellow")
        else:
            yield Text("  used up", "red")
    if outlook.denied:
        yield Text(f"  denied {number_of(outlook.denied, 'call')} in this window", "dim")
    if outlook.would_deny:
        yield Text(f"  would have denied {number_of(outlook.would_deny, 'call')} in this window", "dim")


def _line(out: Console, figures: UnitFigures, bar_width: int) -> Text:
    text = Text(f"  {figures.unit:<{_UNIT_WIDTH - 2}}")
    return text.append(bar(out, (figures.spent, figures.held, figures.suspect), figures.limit or 0, width=bar_width))


def _style(figures: UnitFigures, name: str) -> str:
    return {"suspect": "yellow", "held": "cyan", "left": "red" if figures.overrun else "bold"}.get(name, "")


def _column(limited: list[UnitFigures], name: str) -> list[str]:
    """The texts of one column: USD with equally many decimals, below each other."""
    amounts = [_figure(figures, name) for figures in limited]
    dollars = [amount if figures.unit == "usd" else None for figures, amount in zip(limited, amounts, strict=True)]
    texts = []
    for figures, amount, usd in zip(limited, amounts, usd_column(dollars, down=name == "left"), strict=True):
        text = usd if figures.unit == "usd" else f"{amount:,}"
        if name in ("held", "suspect") and not amount:
            text = NOTHING
        elif name == "left" and figures.overrun:
            text = f"over {text}"
        texts.append(text + ("+" if name == "limit" and figures.granted else ""))
    return texts


def _figure(figures: UnitFigures, name: str) -> int:
    if name == "left":
        return figures.overrun or figures.remaining or 0
    amount: int | None = getattr(figures, name)
    return amount or 0


def _grant_text(granted: Grant) -> str:
    whom = "".join(f" for {name}={value}" for name, value in granted.scope)
    until = ""
    if granted.until_ms is not None:
        until = f" until {datetime_from_ms(granted.until_ms):%Y-%m-%d %H:%M} UTC"
    signed = f", by {granted.who}" if granted.who else ""
    why = f": {granted.reason}" if granted.reason else ""
    amount = usd_text(granted.amount) if granted.unit == "usd" else f"{granted.amount:,} {granted.unit}"
    return f"+ granted {amount}{whom}{until}{signed}{why}"
