"""The ledger in memory: the reference for every other store, and the default in a program."""

from .store import MemoryStore as MemoryStore
