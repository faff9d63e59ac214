"""
Environment variables over the file: ``FARTHING_`` and the key's path, its parts joined by ``__``.

``FARTHING_LEDGER``, ``FARTHING_PROXY__PORT``, ``FARTHING_UPSTREAMS__OPENAI__API_KEY``, ``FARTHING_BUDGETS__0__USD``. An
item of a list is named by its number, a budget also by its name, with ``_`` for what a variable's name cannot have.
Values are text; where the key takes something else they are read as in the file (``8080``, ``true``, ``["a", "b"]``),
and a list may also be written ``a,b``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from .document import BudgetTable, Document, PriceTable, ProxyTable, Table, UpstreamTable
from .locating import Path

PREFIX = "FARTHING_"
CONFIG_VARIABLE = "FARTHING_CONFIG"
"""Names the file itself; not a key of it."""


class Override(NamedTuple):
    """One variable: the key it sets and the value, or why it sets none."""

    variable: str
    path: Path
    value: Any = None
    problem: str | None = None


def overrides(environ: Mapping[str, str], document: Mapping[str, Any]) -> Iterator[Override]:
    """What the environment says about this document, as far as its names are keys; misspelt ones are problems."""
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable != CONFIG_VARIABLE and environ[variable].strip():
            found = _override(variable, environ[variable].strip(), document)
            if found is not None:
                yield found


def _override(variable: str, text: str, document: Mapping[str, Any]) -> Override | None:
    parts = variable.removeprefix(PREFIX).split("__")
    first = parts[0].lower()
    if first not in Document.model_fields:
        near = difflib.get_close_matches(first, Document.model_fields, 1, 0.75)
        # Other programs may have variables of this prefix too; only what looks like a slip is one.
        return Override(variable, (), problem=f"unknown; did you mean {PREFIX}{near[0].upper()}?") if near else None
    table, path, rest = _table_of(first, parts[1:], document)
    if table is None:
        return Override(variable, path, problem="names no key: a table's name and a key follow, joined by '__'")
    if len(rest) != 1:
        return Override(variable, path, problem="names no key of the configuration")
    key = rest[0].lower()
    field = table.model_fields.get(key)
    if field is None:
        return Override(variable, (*path, key), problem=unknown(key, table))
    return Override(variable, (*path, key), _value(text, field.annotation))


def unknown(key: str, table: type[Table]) -> str:
    """What to say about a key that is none."""
    near = difflib.get_close_matches(key, table.model_fields, 1, 0.6)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    return f"unknown key; known here are {', '.join(table.model_fields)}"


def _table_of(first: str, rest: list[str], document: Mapping[str, Any]) -> tuple[type[Table] | None, Path, list[str]]:
    """The table that a variable's name leads into, its path, and what of the name is left."""
    if first == "proxy":
        return ProxyTable, ("proxy",), rest
    if first == "budgets":
        index = _index(rest[0], document.get("budgets")) if rest else None
        return (BudgetTable, ("budgets", index), rest[1:]) if index is not None else (None, ("budgets",), rest)
    if first in ("upstreams", "prices"):
        if not rest:
            return None, (first,), rest
        tables = document.get(first)
        names = [name for name in tables if _as_variable(name) == rest[0]] if isinstance(tables, dict) else []
        kind = UpstreamTable if first == "upstreams" else PriceTable
        return kind, (first, names[0] if names else rest[0].lower()), rest[1:]
    return Document, (), [first, *rest]


def _index(part: str, budgets: object) -> int | None:
    known = budgets if isinstance(budgets, list) else []
    if part.isdecimal():
        return int(part) if int(part) <= len(known) else None
    names = [budget.get("name") if isinstance(budget, dict) else None for budget in known]
    return next((at for at, name in enumerate(names) if isinstance(name, str) and _as_variable(name) == part), None)


def _as_variable(name: str) -> str:
    """A name as it can stand in a variable's."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").upper()


def _value(text: str, annotation: Any) -> Any:
    kinds = set(_kinds(annotation))
    if kinds & {str, Decimal}:
        return text
    try:
        return tomllib.loads(f"value = {text}", parse_float=Decimal)["value"]
    except tomllib.TOMLDecodeError:
        # A list, or else what it is: the document says what is wrong with it.
        return [part.strip() for part in text.split(",") if part.strip()] if list in kinds else text


def _kinds(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif origin is Literal:
        yield from (value for value in get_args(annotation) if value is None)
    elif hasattr(annotation, "__metadata__"):
        yield from _kinds(get_args(annotation)[0])
    else:
        yield origin or annotation
