"""Ledgers as people name them: ``memory:``, ``sqlite:///path``, or the path of a file."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ..errors import ConfigError
from .contract import PATIENCE_SECONDS, Clock, Store, wall_clock_ms

_FORMS = "use the path of a file, sqlite:///relative/path.db, sqlite:////absolute/path.db or memory:"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""Two letters at least: ``C:`` is a drive."""


def open_store(
    url: str,
    *,
    clock: Clock = wall_clock_ms,
    patience_seconds: float = PATIENCE_SECONDS,
    durability: str = "full",
    key: str = "ledger",
) -> Store:
    """
    The store of a URL, or of a path (see :func:`url_of`). *key* is the setting that messages name.

    Raises ConfigError for a URL that names no store, StoreUnavailable for a file that cannot be used.
    """
    path = path_in(url, key=key)
    if path is None:
        from .memory import MemoryStore

        return MemoryStore(clock=clock)
    from .sqlite import SQLiteStore

    return SQLiteStore(Path(path).expanduser(), clock=clock, patience_seconds=patience_seconds, durability=durability)


def path_in(url: str, *, key: str = "ledger") -> str | None:
    """The path of the file that a URL names, None for memory. Raises ConfigError for one that names no store."""
    if not isinstance(url, str) or not url:
        raise ConfigError(f"must be a ledger's path or URL, not {url!r}: {_FORMS}", key=key)
    if url in ("memory", "sqlite"):
        raise ConfigError(f"{url!r} could be a file's name: write {url}: or ./{url}", key=key)
    url = url_of(url)
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "memory" and rest in ("", "//"):
        return None
    if not colon or scheme != "sqlite":
        raise ConfigError(f"{url!r} is not a ledger this program knows: {_FORMS}", key=key)
    if not rest.startswith("///") or len(rest) == 3:
        raise ConfigError(f"{url!r} names no file: {_FORMS}", key=key)
    path = rest[3:]
    if Path(path).name == ":memory:":
        raise ConfigError(f"{url!r} is not how a ledger in memory is named: write memory:", key=key)
    if "?" in path or "#" in path:
        raise ConfigError(f"{url!r} has options after its path; there are none: {_FORMS}", key=key)
    return path


def url_of(text: str) -> str:
    """The URL of what may be one already, or the path of an SQLite file: whatever has no scheme in front."""
    if _SCHEME.match(text):
        return text
    return f"sqlite:///{Path(text).expanduser().absolute()}"


def default_path() -> Path:
    """
    The user's own ledger, the same for every door: ``farthing/ledger.db`` in the place where this system keeps a
    user's data. (The rule of ``platformdirs``, written out: with and without that package it must be one file.)
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME", "").strip() or "~/.local/share"
    return Path(base).expanduser() / "farthing" / "ledger.db"


def default_url() -> str:
    """The URL of :func:`default_path`."""
    return f"sqlite:///{default_path()}"
