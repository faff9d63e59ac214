"""
Tokens of what went into a function and came out of it, where no measured call said.

Strings count wherever they stand: in lists, dicts, dataclasses and objects of an SDK; lists of chat messages count as
the chat template makes them. A result that carries a ``usage`` is that usage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

from .. import tokens
from ..kernel.money import COUNTER_MAX
from ..kernel.usage import Usage
from ..wire.reported import usage_from

DEPTH_MAX = 32
_USAGES = ("usage", "usage_metadata")
_NAMES = frozenset({"id", "object", "role", "type", "model", "created", "finish_reason", "system_fingerprint"})
"""Fields of answers and messages that no model reads or writes."""


def tokens_in(*values: object, model: str | None = None) -> int:
    """The tokens of everything textual in these values. Never raises for what it cannot read: that counts nothing."""
    total = 0
    texts: list[str] = []
    for value in values:
        for piece in _pieces(value, 0):
            if isinstance(piece, str):
                texts.append(piece)
            else:
                total += tokens.count(piece, model)
    return total + sum(tokens.count_text(text, model) for text in texts if text)


def usage_in(value: object) -> Usage | int | None:
    """
    The usage that an answer carries as an attribute or a key ``usage`` (LangChain's and Google's: ``usage_metadata``):
    a sum of tokens where it says no more than that, None where there is none to be read.
    """
    for name in _USAGES:
        carried = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if carried is not None and (found := read_usage(carried)) is not None:
            return found
    return None


def read_usage(carried: object) -> Usage | int | None:
    """A usage, or the ``total_tokens`` of one that names no parts; None for anything else."""
    if not callable(carried):
        try:
            return usage_from(carried)
        except ValueError:
            # Something else of that name, in a result that may be anything; or a total alone, see below.
            pass
    total = carried.get("total_tokens") if isinstance(carried, Mapping) else getattr(carried, "total_tokens", None)
    return total if type(total) is int and 0 <= total <= COUNTER_MAX else None


def _pieces(value: object, depth: int) -> Iterator[str | list[Any]]:
    """Texts, and lists of chat messages as a whole."""
    if isinstance(value, str):
        yield value
        return
    if depth > DEPTH_MAX:
        return
    if isinstance(value, (list, tuple)):
        if value and all(_is_message(item) for item in value):
            yield list(value)
            return
        inner: list[object] = list(value)
    elif isinstance(value, (set, frozenset)):
        inner = list(value)
    else:
        known = _fields(value)
        inner = [] if known is None else [of for name, of in known.items() if name not in _NAMES]
    for item in inner:
        yield from _pieces(item, depth + 1)


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and "role" in value and "content" in value


def _fields(value: object) -> Mapping[Any, Any] | None:
    """What stands in a mapping, a dataclass or an object of an SDK; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, SimpleNamespace):
        return vars(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {of.name: getattr(value, of.name) for of in fields(value)}
    dump = getattr(type(value), "model_dump", None)
    if callable(dump):
        found = dump(value, exclude_none=True)
        return found if isinstance(found, Mapping) else None
    return None
