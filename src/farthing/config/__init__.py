"""
``farthing.toml``: one configuration for the library and the proxy.

Importing this is cheap: the model of the file, and what it stands on, load when a file is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..runtime import default
from ..runtime.settings import Settings


def configure(
    file: str | os.PathLike[str] | None = None, *, config: Mapping[str, Any] | None = None, **settings: Any
) -> Settings:
    """
    Change settings of this process; those that are not named stay. The default of each is the environment variable
    ``FARTHING_`` and its name in capitals, if there is one.

    Args:
        file: a ``farthing.toml``: its settings and prices are taken over, and its budgets stand in the ledger from then
            on, owned by the file. What is named beside it wins over it.
        config: the same as a mapping, instead of a file.
        ledger: the ledger that named budgets live in and that every call is written to: the path of a file, or a URL
            such as ``"sqlite:///ledger.db"``. None: in memory.
        durability: ``"full"``: a hold is on the disk before its call leaves; ``"normal"``: it survives the end of the
            process, and the last moments may be lost with the power.
        unpriced: what happens to a call without a known price under a budget in USD: ``"reject"`` (UnpricedModel),
            ``"tokens_only"`` (its cost is not counted; said once), ``"price_as:<model>"``.
        on_store_failure: ``"deny"`` (StoreUnavailable) or ``"allow"`` (the call goes out without a durable hold).
        max_records: how many calls :func:`farthing.report` can look back on in this process; None: without bound.
        abort_margin_tokens: what a provider may go on to bill after a stream was cut.
        suspect_policy: what becomes of a call whose outcome nobody learned: ``"keep"``, ``"settle_at_hold"`` or
            ``"release"``, after *suspect_after_hours*.
        suspect_after_hours: see *suspect_policy*.
        follow_threads: carry budgets and tags into threads and thread pools.
        retention_days: after how many days the ledger's rows become daily sums; repetitions and late words about calls
            are understood as long. None: they are kept.
        stale_prices_after_days: say, once, when a budget in USD goes by prices that nobody checked for longer
            (StalePricesWarning). None: never.
        watch: say, once for each client, when a call to a provider bypasses a hard budget (from the next budget on).

    Returns the settings now in force. Raises ConfigError naming the key, for a file with every mistake in it;
    StoreUnavailable if the ledger cannot be opened. Nothing changes then.
    """
    if file is None and config is None:
        return default.configure(**settings)
    if file is not None and config is not None:
        raise ValueError("configure: give a file or config, not both")
    from .applying import take_over
    from .loading import from_mapping, load

    runtime = default.runtime()
    take_over(runtime, load(file) if file is not None else from_mapping(config or {}), **settings)
    return runtime.settings
