"""
Exporting a ledger's rows, for other programs: page by page, so that a ledger of any size needs no more memory than one.

Rows are chosen by when they were written (``at``), and no row that was written is ever changed: exports of spans that
follow each other have each row once.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence

from ..kernel.hold import Entry
from ..kernel.scope import check_tags
from ..stores.contract import Store
from .rows import COLUMNS, Row, row_of

FORMATS = ("csv", "jsonl")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"-[0-9]+(\.[0-9]+)?")
"""Corrections have negative figures."""
PAGE_ROWS = 2_000


def export_rows(
    store: Store,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    where: dict[str, str] | None = None,
) -> Iterator[Row]:
    """
    The rows with ``since <= at < until`` of calls with these tags (or ``model``, ``provider``, ``budget``), in order.
    """
    wanted = check_tags(where or {}, field="where")
    after = 0
    while page := store.entries(since_ms=since_ms, until_ms=until_ms, after_seq=after, limit=PAGE_ROWS).result():
        for entry in page:
            row = row_of(entry)
            if all(_says(row, entry, name, value) for name, value in wanted.items()):
                yield row
        after = page[-1].seq


def to_lines(rows: Iterator[Row], *, form: str, tags: Sequence[str] = ()) -> Iterator[str]:
    """
    The lines of a file, with their ends. ``jsonl``: an object a row. ``csv``: a heading, then the columns; ``tags`` is
    JSON there, and each of *tags* also has a column ``tag.NAME``. Raises ValueError for another form.
    """
    if form == "jsonl":
        for row in rows:
            yield f"{json.dumps(row, ensure_ascii=False, separators=(',', ':'))}\n"
        return
    if form != "csv":
        raise ValueError(f"format: {form!r} is unknown; choose one of {', '.join(FORMATS)}")
    text = io.StringIO()
    # Not "\n": a carriage return in a tag would stand unquoted, and end its row wherever that ends a line.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*COLUMNS, *(f"tag.{name}" for name in tags)])
    for row in rows:
        yield _taken(text)
        own = row["tags"]
        plain = {**row, "tags": json.dumps(own, ensure_ascii=False)}
        writer.writerow([*(_cell(plain[name]) for name in COLUMNS), *(_cell(own.get(name)) for name in tags)])
    yield _taken(text)


def _says(row: Row, entry: Entry, name: str, value: str) -> bool:
    if name == "budget":
        return value in entry.facts.budgets
    said: object = row[name] if name in ("model", "provider") else row["tags"].get(name)
    return said == value


def _taken(text: io.StringIO) -> str:
    line = text.getvalue()
    text.seek(0)
    text.truncate()
    return line.removesuffix("\r\n") + "\n"


def _cell(value: object) -> object:
    """A spreadsheet takes text that begins with these for a formula, and tags come from anywhere."""
    if not isinstance(value, str) or value[:1] not in _FORMULA:
        return value
    return value if _NUMBER.fullmatch(value) else f"'{value}"
