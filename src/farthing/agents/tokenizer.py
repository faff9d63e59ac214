"""Counting tokens, under the names that users of the Token Budget Contracts package know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .. import tokens
from .counting import tokens_in


def _count(text: str) -> int:
    """The tokens of a text. That package's name for it, which its users import."""
    return tokens.count_text(text)


def estimate_tokens(args: Iterable[object], kwargs: Mapping[str, object], result: object) -> int:
    """The tokens of everything textual in a call's arguments and result."""
    return tokens_in(*args, *kwargs.values(), result)
