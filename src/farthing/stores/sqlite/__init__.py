"""The durable ledger in a SQLite file, on the standard library alone."""

from .store import SQLiteStore as SQLiteStore
