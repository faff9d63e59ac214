"""The one runtime that every door of this process shares, made on first use."""

from __future__ import annotations

import threading
from typing import Any

from .runtime import Runtime
from .settings import Settings

_lock = threading.Lock()
_runtime: Runtime | None = None


def runtime() -> Runtime:
    """The default runtime."""
    global _runtime  # noqa: PLW0603 - the one default of this process is what this file is about
    if _runtime is None:
        with _lock:
            if _runtime is None:
                _runtime = Runtime()
    return _runtime


def use(other: Runtime) -> Runtime:
    """Make another runtime the default one (a fake clock, fixed ids); returns the one before, not closed."""
    global _runtime  # noqa: PLW0603 - the one default of this process is what this file is about
    before = runtime()
    _runtime = other
    return before


def configure(**settings: Any) -> Settings:
    """
    Change settings of this process; those that are not named stay.

    Args:
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
        watch: say, once for each client, when a call to a provider passes a hard budget by (from the next budget on).

    The default of each is the environment variable ``FARTHING_`` and its name in capitals, if there is one.

    Returns the settings now in force. Raises ConfigError naming the key; StoreUnavailable if the ledger cannot be
    opened. Nothing changes then.
    """
    current = runtime()
    current.reconfigure(current.settings.changed(**settings))
    return current.settings


def reset() -> None:
    """
    Start over, as a new process would: what was kept in memory is forgotten, the ledger is closed, settings come from
    the environment again. Meant for tests.
    """
    global _runtime
    with _lock:
        before, _runtime = _runtime, None
    if before is not None:
        before.close()
