"""Which ledger a command works on, and opening it for as long as the command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, StoreUnavailable
from .failing import Failure

if TYPE_CHECKING:
    from ..kernel.ratios import Ratios
    from ..runtime.runtime import Runtime
    from ..stores.contract import Store


def ledger_url(given: str | None) -> str:
    """The URL of the ledger that is meant: a path means SQLite, and without either it is the user's own."""
    from ..stores import default_url, url_of

    if not given:
        return default_url()
    if given.startswith("memory:"):
        raise ConfigError("a ledger in memory belongs to one process; name a file", key="--ledger")
    return url_of(given)


def file_of(url: str) -> Path | None:
    """The file that a ledger's URL names; None if it names none: opening it says what is wrong with it."""
    return Path(url.removeprefix("sqlite:///")).expanduser() if url.startswith("sqlite:///") else None


@contextmanager
def open_ledger(given: str | None, *, as_json: bool, make: bool = False) -> Iterator[Store]:
    """
    The ledger's store; its name goes to stderr, unless the answer is JSON.

    Only with *make* is a file made that is not there: a question about a ledger does not leave an empty one behind.
    """
    from ..stores import open_store

    store = open_store(_url(given, make=make), key="--ledger")
    try:
        if not as_json:
            print(f"ledger {_from_home(store.name)}", file=sys.stderr)
        yield store
    finally:
        store.close()


def learned_ratios(given: str | None) -> Ratios:
    """
    What a ledger has learned of models' text; nothing if there is none. One that cannot be read is said on stderr, for
    what is asked about can be answered without it.
    """
    from ..stores import open_store

    url = ledger_url(given)
    file = file_of(url)
    if file is not None and not file.exists():
        return {}
    try:
        store = open_store(url, key="--ledger")
        try:
            return store.ratios().result()
        finally:
            store.close()
    except StoreUnavailable as error:
        print(f"what the ledger has learned of this model is left out: {error}", file=sys.stderr)
        return {}


@contextmanager
def open_runtime(given: str | None, *, as_json: bool) -> Iterator[Runtime]:
    """What calls are made with, on this ledger; else as :func:`open_ledger`. Settings come from the environment."""
    from ..runtime.runtime import Runtime
    from ..runtime.settings import from_environment

    runtime = Runtime(from_environment().changed(ledger=_url(given, make=False)))
    try:
        name = runtime.main.store.name
        if not as_json:
            print(f"ledger {_from_home(name)}", file=sys.stderr)
        yield runtime
    finally:
        runtime.close()


def _url(given: str | None, *, make: bool) -> str:
    url = ledger_url(given)
    file = file_of(url)
    if file is not None and not make and not file.exists():
        raise Failure(
            f"there is no ledger at {file} yet. The first program that runs with FARTHING_LEDGER={file} makes it, "
            "and so does `farthing budgets set`; --ledger names another"
        )
    return url


def _from_home(path: str) -> str:
    home = os.path.expanduser("~")
    return f"~{path[len(home) :]}" if home != "/" and path.startswith(f"{home}{os.sep}") else path
