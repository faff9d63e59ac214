"""
What the SQLite store needs of the operating system beside SQLite.

Locks that die with their process, private files, and which file systems may hold a ledger. Everything that is not the
same on every platform is in this file.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

from ...errors import ConfigError, StoreUnavailable

if sys.platform == "win32":  # pragma: no cover - covered where it runs
    import msvcrt

    def _try_lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    _EXCLUSIVE, _FREE = 1, 0

    def _set_lock(fd: int, to: int) -> None:
        if to == _FREE:
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
            return
        # LK_LOCK gives up after ten tries of a second each; whoever waits for us has lost patience before.
        while not _try_lock(fd):
            time.sleep(0.002)
else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    _set_lock, _EXCLUSIVE, _FREE = fcntl.flock, fcntl.LOCK_EX, fcntl.LOCK_UN


FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_POLL_SECONDS = 0.005

NETWORK_TYPES = frozenset(
    "9p afs beegfs ceph cifs coda fuse.ceph fuse.glusterfs fuse.s3fs fuse.sshfs glusterfs lustre ncpfs nfs nfs4 "
    "smb2 smb3 smbfs".split()
)
"""File systems on which locks and shared memory are not those of one machine, so that two writers would not see each
other. Named as in ``/proc/self/mountinfo``."""


class FileLock:
    """
    An exclusive lock on a file, which the kernel gives back when the process ends, however it ends.

    It belongs to the open file, which a forked child shares: the child must :meth:`drop` its copy, never release it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it."""
        return _try_lock(self._fd)

    def acquire(self) -> None:
        """Wait for the lock, however long that takes."""
        _set_lock(self._fd, _EXCLUSIVE)

    def acquire_within(self, seconds: float) -> bool:
        """Wait for the lock at most this long."""
        until = time.monotonic() + seconds
        while not _try_lock(self._fd):
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def release(self) -> None:
        _set_lock(self._fd, _FREE)

    def in_place(self) -> bool:
        """Whether the path still names the file that was opened."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def drop(self) -> None:
        """Close the file. Our lock goes with it, unless a forked process shares the open file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def prepare_file(path: Path) -> None:
    """
    Make the ledger's file, private to its user, and the directories above it, if they are not there.

    Raises ConfigError for a path that cannot be a file or lies on a network file system, StoreUnavailable for one that
    this user may not use.
    """
    file = str(path)
    if path.is_dir():
        raise ConfigError("is a directory; name a file in it, such as sqlite:///…/ledger.db", key="ledger", file=file)
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        kind = file_system_type(path.parent)
        if kind in NETWORK_TYPES:
            raise ConfigError(
                f"lies on a network file system ({kind}), where locks cannot be trusted and two writers could spend "
                "one budget twice; use a local disk",
                key="ledger",
                file=file,
            )
        if not path.exists():
            _make(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError("a part of the path is a file, not a directory", key="ledger", file=file) from error
    except OSError as error:
        raise StoreUnavailable(file, f"cannot be opened for writing ({error.strerror or error})") from error
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreUnavailable(file, f"cannot be opened for writing ({os.strerror(errno.EACCES)})")


def _make(path: Path) -> None:
    """
    Only a file that is not there is opened here. Closing any handle of one that SQLite has open in this process would
    take SQLite's locks off it (they belong to the process, not to the handle), and the next program that closes the
    ledger would believe to be the last one, and take the log away from under our connections.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))
    except FileExistsError:
        # Another process was faster.
        pass


class LedgerFile:
    """
    The file of a ledger as it was when it was opened. What others do to it by its name, SQLite does not see: it would
    go on in a file that has no name any more, beside another ledger that everybody else uses.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._log = f"{file}-wal"
        self._known = _identity(file)

    def check(self) -> None:
        """Raises StoreUnavailable if the file is not there any more, or another one is in its place."""
        found = _identity(self._file)
        if found != self._known:
            what = "removed" if found is None else "replaced by another"
            raise StoreUnavailable(
                self._file,
                f"the file was {what} while it was in use: put it back, or start this process anew with what is there",
            )

    def log(self) -> tuple[int, int] | None:
        """Which file SQLite's log is now; None if there is none."""
        return _identity(self._log)


def _identity(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def file_system_type(directory: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the file system that a directory lies on, or None where this machine does not say."""
    try:
        lines = mountinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        # Only Linux has this file. Elsewhere the check is left out, as the documentation says.
        return None
    real = Path(os.path.realpath(directory))
    best: tuple[int, str] | None = None
    for line in lines:
        fields, _, rest = line.partition(" - ")
        parts = fields.split(" ")
        if len(parts) < 5 or not rest:
            continue
        mount = Path(_unescape(parts[4]))
        depth = len(mount.parts)
        # Of two mounts on one point the later one is what is seen.
        if (mount == real or mount in real.parents) and (best is None or depth >= best[0]):
            best = (depth, rest.split(" ", 1)[0])
    return best[1] if best else None


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
