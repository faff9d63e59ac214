"""A configuration taken over by this process."""

from __future__ import annotations

from .. import prices
from ..admin.owned import Changes, put_owned
from ..errors import FarthingError
from ..runtime.runtime import Runtime
from .reading import Configuration


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
    prices.register_all(configuration.prices)
    return changes
