"""A configuration taken over: by this process's library, and again, without losing a hold, by a proxy that runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .. import prices
from ..calls.owned import Changes, put_owned
from ..calls.runtime import Runtime
from ..errors import FarthingError
from ..stores.contract import Store
from .loading import load
from .reading import Configuration

_NEEDS_RESTART = ("ledger", "durability")


def take_over(runtime: Runtime, configuration: Configuration, **settings: object) -> Changes:
    """
    Make this the configuration of a process: settings, prices and standing budgets. *settings* go before the file's.

    Raises ConfigError, StoreUnavailable. The settings are as before then.
    """
    before = runtime.settings
    runtime.reconfigure(before.changed(**{**configuration.given, **settings}))
    try:
        ledger = runtime.main
        changes = put_owned(ledger.store, configuration.budgets, defined_by=configuration.source)
        ledger.refresh(ledger.store.catalogue().result())
    except FarthingError:
        runtime.reconfigure(before)
        raise
    put_prices(configuration.prices)
    return changes


def put_prices(
    now: Mapping[str, Mapping[str, object]], before: Mapping[str, Mapping[str, object]] | None = None
) -> None:
    """Register the prices of a configuration; those that only the one *before* it had are forgotten."""
    for model in before or {}:
        if model not in now:
            prices.unregister(model)
    for model, rates in now.items():
        prices.register(model, **rates)  # type: ignore[arg-type]


class Reloaded(NamedTuple):
    """What a reload did. ``restart`` names the keys that changed and that only a restart brings into force."""

    configuration: Configuration
    changes: Changes
    restart: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a log: what changed, one thing a line."""
        later = [f"{key}: changed in the file; in force after a restart" for key in self.restart]
        return [*self.changes.lines(), *later] or ["nothing changed in the budgets"]


def reload(configuration: Configuration, store: Store) -> Reloaded:
    """
    Read a proxy's file again and bring its budgets and prices into force: what it does on SIGHUP.

    Budgets are updated in place, so that holds in flight, spent amounts and grants stay. Every process of a proxy may
    do it at once. Raises ConfigError with every mistake in the file, StoreUnavailable; all is as before then.
    """
    if configuration.file is None:
        raise ValueError("configuration: there is no file to read again")
    now = load(configuration.file, for_proxy=True)
    changes = put_owned(store, now.budgets, defined_by=now.source)
    put_prices(now.prices, configuration.prices)
    return Reloaded(now, changes, tuple(_restart(configuration, now)))


def _restart(before: Configuration, now: Configuration) -> list[str]:
    keys = [key for key in _NEEDS_RESTART if before.given.get(key) != now.given.get(key)]
    if before.source != now.source:
        keys.append("name")
    return keys + [
        f"proxy.{key}"
        for key in ("host", "port", "workers", "session")
        if getattr(before.proxy, key) != getattr(now.proxy, key)
    ]
