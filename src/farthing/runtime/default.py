"""The one runtime that every door of this process shares, made on first use."""

from __future__ import annotations

from typing import Any

from .. import forks
from .ambient import NOWHERE, enter
from .runtime import Runtime
from .settings import Settings

_lock = forks.lock()
_runtime: Runtime | None = None


def runtime() -> Runtime:
    """The default runtime."""
    global _runtime  # noqa: PLW0603 - the one default of this process is what this file is about
    found = _runtime
    if found is None:
        with _lock:
            found = _runtime
            if found is None:
                found = _runtime = Runtime()
    # Looked at once: another thread may start over in between.
    return found


def use(other: Runtime) -> Runtime:
    """Make another runtime the default one (a fake clock, fixed ids); returns the one before, not closed."""
    global _runtime  # noqa: PLW0603 - the one default of this process is what this file is about
    before = runtime()
    _runtime = other
    return before


def configure(**settings: Any) -> Settings:
    """Change settings of this process; those that are not named stay: see :func:`farthing.configure`."""
    current = runtime()
    current.reconfigure(current.settings.changed(**settings))
    return current.settings


def reset() -> None:
    """
    Start over, as a new process would: what was kept in memory is forgotten, the ledger is closed, settings come from
    the environment again; budgets and tags that were entered here, and not left, are in force no more. Meant for tests.

    What a program *registers* stays: prices, token counters, declared hosts. Modules do that once, when they are
    imported, and nothing would do it again.
    """
    global _runtime
    with _lock:
        before, _runtime = _runtime, None
    enter(NOWHERE)
    # It is there for as long as the process is, and so would be what was in force there: the memory of before.
    NOWHERE.found.clear()
    if before is not None:
        before.close()
