"""
What a shell offers where a word is being typed: the words of an option, and names from the ledger that is meant.

A completion says nothing and fails at nothing: without a ledger there are no names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import typer

from ..errors import FarthingError
from ..kernel.scope import OWN_KEYS
from ..kernel.window import CALENDAR

if TYPE_CHECKING:
    from ..stores.contract import Store

T = TypeVar("T")
PERIODS = (*CALENDAR, "lifetime", "request")


def one_of(*words: object) -> Callable[[str], list[str]]:
    """Completes an option that takes one of a few words."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(incomplete, map(str, words))

    return complete


def budget_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Budgets of the ledger, agents apart: nobody names those on a command line."""
    budgets = _of_ledger(ctx, lambda store: store.catalogue().result().budgets.values())
    return _beginning(incomplete, (of.name for of in budgets if of.lending is None))


def group_keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """What a report can be grouped by: its own keys, and the tags that calls carry. Several, with commas between."""
    done, comma, begun = incomplete.rpartition(",")
    sums = _of_ledger(ctx, lambda store: store.sums(("tags",)).result())
    tags = sorted({name for key in sums for name, _ in key.tags})
    return [f"{done}{comma}{word}" for word in _beginning(begun, (*OWN_KEYS, *tags))]


def suspect_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Holds that can be resolved by hand."""
    holds = _of_ledger(ctx, lambda store: store.holds("suspect").result())
    return _beginning(incomplete, (hold.id for hold in holds))


def key_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Virtual keys."""
    return _beginning(incomplete, _of_ledger(ctx, lambda store: store.keys(fresh=True).result().keys))


def models(incomplete: str) -> list[str]:
    """Models of the price table, by the names that their own vendors give them."""
    from ..prices.listing import list_prices
    from ..prices.table import VENDORS
    from ..stores.contract import wall_clock_ms

    if not incomplete:
        return []  # more than anybody reads
    found = list_prices(pattern=f"{incomplete}*", at_ms=wall_clock_ms())
    return _beginning(incomplete, (price.model for price in found if price.provider in VENDORS))


def providers(incomplete: str) -> list[str]:
    """Providers of the price table."""
    from ..prices.table import load

    return _beginning(incomplete, load().providers)


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for word in words if word.startswith(incomplete)))


def _of_ledger(ctx: typer.Context, question: Callable[[Store], Iterable[T]]) -> list[T]:
    """What the ledger of the command line or the environment answers; nothing if none is there, or none answers."""
    from ..stores import open_store
    from .ledger import file_of, ledger_url

    try:
        url = ledger_url(ctx.params.get("ledger") or os.environ.get("FARTHING_LEDGER"))
        file = file_of(url)
        if file is None or not file.exists():
            return []
        store = open_store(url)
        try:
            return list(question(store))
        finally:
            store.close()
    except (FarthingError, OSError):
        # The latter of a path that cannot even be looked at.
        return []
