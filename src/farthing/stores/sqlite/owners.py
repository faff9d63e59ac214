"""
Owners: which process a hold belongs to, and whether it still lives.

Each process that opens a ledger holds a lock on a file of its own, ``<ledger>-owners/<owner>``, for as long as it
lives. The kernel releases it at its death, whatever killed it, so "can be locked, or is gone" is proof and needs no
heartbeat and no timeout. Owner ids are never used twice.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from .files import DIRECTORY_MODE, FileLock

LEFTOVERS_MAX = 256
"""How many files of dead owners one opening clears away."""


class Owner:
    """This process as an owner of holds."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        self.id = f"{os.getpid()}-{time.time_ns() // 1_000_000}-{secrets.token_hex(4)}"
        self._lock = FileLock(directory / self.id)
        self._lock.acquire()
        while not self._lock.in_place():
            # Somebody who was clearing leftovers saw the file in the instant before it was locked, and removed it.
            self._lock.drop()
            self._lock = FileLock(directory / self.id)
            self._lock.acquire()

    def dead(self, owners: Iterable[str]) -> frozenset[str]:
        """Those of these owners whose process is gone. Their files go too."""
        return frozenset(owner for owner in owners if owner != self.id and self._is_dead(owner))

    def clear_leftovers(self) -> None:
        """Remove files of dead owners that hold nothing any more."""
        names = sorted(os.listdir(self._directory))[:LEFTOVERS_MAX]
        self.dead(names)

    def retire(self) -> None:
        """A clean stop: nothing is held in this owner's name any more, or what is may be judged by others."""
        try:
            self._lock.path.unlink(missing_ok=True)
        except OSError:
            # A file system that can only be read by now. A file that nobody has locked says the same.
            pass
        finally:
            self._lock.drop()

    def drop(self) -> None:
        """In a forked child: the lock is the parent's."""
        self._lock.drop()

    def _is_dead(self, owner: str) -> bool:
        path = self._directory / owner
        if path.name != owner:
            # Not an id that we make; nothing outside of this directory is touched.
            return False
        if not path.exists():
            return True
        try:
            lock = FileLock(path)
        except OSError:
            # Another user's process, or this one has no file handle left. What cannot be judged now is alive now.
            return False
        try:
            if not lock.try_acquire():
                return False
            # Locked by us alone, so its process is gone. Between our look and our opening it may have retired: then
            # FileLock made a new empty file, which goes as well.
            path.unlink(missing_ok=True)
            return True
        finally:
            lock.drop()
