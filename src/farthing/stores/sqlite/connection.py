"""Opening the ledger's file: its settings, its schema's version, and clear errors for files that are no ledger."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources

from ...errors import ConfigError, StoreUnavailable
from .files import FileLock

APPLICATION_ID = 0x46415254
"""Marks the file as a ledger of ours, so that no other database is ever written to."""
SQLITE_MIN = (3, 34, 0)
STRICT_SINCE = (3, 37, 0)
JOURNAL_SIZE_LIMIT_BYTES = 64 * 1024 * 1024


_WHAT_TO_DO = {
    "file is not a database": "; name another file",
    "database disk image is malformed": "; the file is damaged: restore it from a backup, or name another",
    "database or disk is full": "; make room on its disk",
    "attempt to write a readonly database": "; let this user write it and its folder",
    "unable to open database file": "; let this user read and write it and its folder",
    "database is locked": "; another program holds the file: end what it does there",
    "disk I/O error": "; its disk fails, or can only be read by now: the system's log says more",
}
"""SQLite's own words go first: they are what people search for."""


@contextmanager
def speaking_of(file: str) -> Iterator[None]:
    """SQLite's errors, as StoreUnavailable for this file."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(file, said_of(error)) from error


def said_of(error: Exception) -> str:
    """What went wrong with the file, and what to do about it."""
    if isinstance(error, StoreUnavailable):
        return error.reason
    said = str(error)
    return f"{said}{_WHAT_TO_DO.get(said, '')}"


def connect(file: str, *, busy_seconds: float) -> sqlite3.Connection:
    """
    A connection with our settings, transactions begun by hand, usable from any one thread at a time.

    Waits at most *busy_seconds* for a program that holds the file without our lock (a shell, a backup).
    """
    connection = _plain(file, busy_seconds)
    try:
        _set_up(connection)
    except BaseException:  # also a signal's: nobody else has it
        connection.close()
        raise
    return connection


def open_ledger(file: str, lock: FileLock, *, patience_seconds: float) -> sqlite3.Connection:
    """
    A connection to a ledger of this program's schema, made or brought forward if it is not.

    Raises StoreUnavailable if the file is locked, unreadable, not ours or newer than this program; it is left as it
    was then.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        least = ".".join(map(str, SQLITE_MIN))
        raise ConfigError(
            f"this Python has SQLite {sqlite3.sqlite_version}; the ledger needs {least} or later", key="ledger"
        )
    if not lock.acquire_within(patience_seconds):
        raise StoreUnavailable(
            file,
            f"another process has kept it locked for {patience_seconds:g} s; it may be bringing a large ledger forward "
            "to its version of farthing: try again in a minute",
        )
    try:
        with speaking_of(file):
            connection = _plain(file, patience_seconds)
            try:
                version = _check(connection, file)
                _set_up(connection)
                _migrate(connection, version)
            except BaseException:  # also a signal's: nobody else has it
                connection.close()
                raise
            return connection
    finally:
        lock.release()


def _plain(file: str, busy_seconds: float) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=busy_seconds, isolation_level=None, check_same_thread=False)


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # Reading opens the log; who looks whether it is still there must not come before that.
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    # A checkpoint inside a commit would make every caller of that group wait for it: the writer does it apart.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT_BYTES}")


def _check(connection: sqlite3.Connection, file: str) -> int:
    """The version of the schema, of a file that is empty or ours and not newer than this program."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (tables or version):
        raise StoreUnavailable(file, "this is a SQLite database, but not a ledger; name another file")
    check_version(connection, file)
    return int(version)


def check_version(connection: sqlite3.Connection, file: str) -> None:
    """
    Raises StoreUnavailable if the schema is newer than this program: also one that was brought forward by a newer
    farthing while this one runs. What its rows mean then is unknown here, whether or not they can be read.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    newest = max(_migrations())
    if version > newest:
        why = f"its schema has version {version}, this program knows up to {newest}"
        raise StoreUnavailable(file, f"{why}: update farthing, and start it again")


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for number, text in sorted(_migrations().items()):
        if number <= version:
            continue
        marks = f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};"
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{text}\n{marks}\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise


@cache
def _migrations() -> dict[int, str]:
    """The text of each migration, by number."""
    scripts = {}
    for script in resources.files(__package__).joinpath("migrations").iterdir():
        if numbered := re.fullmatch(r"(\d{4})_\w+\.sql", script.name):
            text = script.read_text("utf-8")
            if sqlite3.sqlite_version_info < STRICT_SINCE:
                text = re.sub(r",? STRICT;", ";", text)
            scripts[int(numbered[1])] = text
    return scripts
