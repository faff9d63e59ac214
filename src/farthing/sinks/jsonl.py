"""One JSON object a line."""

from __future__ import annotations

import json
import os
from typing import Any

from ..reports.rows import Row
from ..runtime.events import BudgetEvent


class JSONLSink:
    """
    Appends to a file: a line for each row, and for each event of a budget (``"kind": "event"``).

    Several processes, and a process and its forked children, may append to one file: a batch of lines is one write.
    Where the file is moved away or removed, as log rotation does, another is begun under its name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._place = os.path.abspath(self.path)
        self._file: int | None = None
        self._open()

    def _open(self) -> None:
        self._torn = False
        self._file = os.open(self._place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, row: Row) -> None:
        self._append([row])

    def write_many(self, rows: list[Row]) -> None:
        self._append(rows)

    def write_event(self, event: BudgetEvent) -> None:
        self._append([{"kind": "event", **event.to_dict()}])

    def flush(self) -> None:
        """To the disk."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _append(self, objects: list[dict[str, Any]]) -> None:
        text = "".join(f"{json.dumps(of, ensure_ascii=False, separators=(',', ':'))}\n" for of in objects)
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        if is_elsewhere(self._place, os.fstat(self._file)):
            before = self._file
            self._open()
            os.close(before)
        # A disk that was full may have cut a line short: what follows begins on one of its own.
        data = ("\n" if self._torn else "").encode() + text.encode()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        finally:
            self._torn = 0 < written < len(data) or (self._torn and not written)


def is_elsewhere(path: str, file: os.stat_result) -> bool:
    """Whether a file that was opened under this name has it no more. Where nobody may look, it has."""
    try:
        return not os.path.samestat(os.stat(path), file)
    except FileNotFoundError:
        return True
    except OSError:
        return False
