"""
Which durable ledger the agents of a manager live on. A process has one; the first manager that names one brings it.
"""

from __future__ import annotations

import gc
import os
import weakref

from ..errors import ConfigError
from ..runtime.default import configure, runtime
from ..runtime.runtime import Runtime, log
from ..stores import path_in

_adopted: weakref.WeakKeyDictionary[Runtime, str] = weakref.WeakKeyDictionary()
"""The ledger that a process has only because a manager named it."""
_users: weakref.WeakKeyDictionary[Runtime, weakref.WeakSet[object]] = weakref.WeakKeyDictionary()
"""Managers whose agents live on a durable ledger."""


def used_by(manager: object) -> None:
    """As long as somebody has this manager, its ledger stays."""
    _users.setdefault(runtime(), weakref.WeakSet()).add(manager)


def adopt(ledger: str) -> None:
    """
    Make this the process's ledger, if it has none, or only one that a manager brought which nobody has any more: tests
    are like that. Raises ConfigError where another one is in use.
    """
    here = runtime()
    configured = here.settings.ledger
    if configured is not None and _file(configured) == _file(ledger):
        return
    if configured is not None and (_adopted.get(here) != configured or _is_used(here)):
        raise ConfigError(
            f"this process uses {configured}: its calls are held on one durable ledger; change it with "
            "configure(ledger=…)",
            key="ledger",
        )
    if configured is not None:
        log.warning("the ledger of this process is %s from now on: no manager is left that uses %s", ledger, configured)
    configure(ledger=ledger)
    _adopted[here] = ledger


def _is_used(here: Runtime) -> bool:
    if _users.get(here):
        # Some may only wait to be collected.
        gc.collect()
    return bool(_users.get(here))


def _file(ledger: str) -> str | None:
    """One name for each ledger, however it is written; None for memory."""
    path = path_in(ledger)
    return None if path is None else os.path.realpath(os.path.expanduser(path))
