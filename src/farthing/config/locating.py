"""
Where each key of a TOML text stands: the standard library's parser says what a file means, and not on which line.

Only for texts that :mod:`tomllib` has read already: nothing is checked again here, the text is only walked.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]
"""Keys from the top of the document; numbers count the items of arrays, from 0."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'')
_LONG = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def lines_of(text: str) -> dict[Path, int]:
    """The line, counted from 1, of every key, table and array item."""
    return _Walk(text).lines


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """The line of a key; of one that is not there, that of the table which lacks it. None where nothing is there."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


class _Walk:
    def __init__(self, text: str) -> None:
        # As tomllib does: one kind of line end.
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._arrays: dict[Path, int] = {}
        self.lines: dict[Path, int] = {}
        table: Path = ()
        self._blank()
        while self._at < len(self._text):
            table = self._header() if self._text[self._at] == "[" else self._pair(table)
            self._blank()

    def _header(self) -> Path:
        """``[a.b]`` or ``[[a.b]]``: the table that the pairs after it belong to."""
        line = self._line()
        items = self._text.startswith("[[", self._at)
        self._at += 2 if items else 1
        keys = self._keys()
        self._at = self._text.index("]", self._at) + (2 if items else 1)
        path: Path = ()
        for number, key in enumerate(keys):
            path += (key,)
            # A table that is named by those inside of it alone stands where the first of them does.
            self._found(path, line)
            if path in self._arrays and not (items and number == len(keys) - 1):
                path += (self._arrays[path],)
        if items:
            self._arrays[path] = self._arrays.get(path, -1) + 1
            path += (self._arrays[path],)
        self._found(path, line)
        return path

    def _pair(self, table: Path) -> Path:
        line = self._line()
        path = table
        for key in self._keys():
            path += (key,)
            self._found(path, line)
        self._at = self._text.index("=", self._at) + 1
        self._value(path)
        return table

    def _value(self, path: Path) -> None:
        self._blank()
        sign = self._text[self._at]
        if sign == "[":
            self._items(path)
        elif sign == "{":
            self._inline(path)
        elif sign in "\"'":
            long = self._text.startswith(sign * 3, self._at)
            self._skip(_LONG if long else _QUOTED)
        else:
            self._skip(_SCALAR)

    def _items(self, path: Path) -> None:
        self._at += 1
        number = 0
        while True:
            self._blank()
            if self._text[self._at] == "]":
                self._at += 1
                return
            self._found((*path, number), self._line())
            self._value((*path, number))
            number += 1
            self._comma()

    def _inline(self, path: Path) -> None:
        self._at += 1
        while True:
            self._blank()
            if self._text[self._at] == "}":
                self._at += 1
                return
            self._pair(path)
            self._comma()

    def _comma(self) -> None:
        self._blank()
        if self._text[self._at] == ",":
            self._at += 1

    def _keys(self) -> list[str]:
        """A dotted key: its parts."""
        parts = []
        while True:
            self._blank()
            if self._text[self._at] in "\"'":
                quoted = self._skip(_QUOTED)
                parts.append(next(iter(tomllib.loads(f"{quoted} = 0"))))
            else:
                parts.append(self._skip(_BARE))
            self._blank()
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"line {self._line()} is not TOML: {self._text[self._at : self._at + 20]!r}")
        self._at = found.end()
        return found[0]

    def _blank(self) -> None:
        self._skip(_BLANK)

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _found(self, path: Path, line: int) -> None:
        self.lines.setdefault(path, line)
