"""Counting tokens, under the name that users of the Token Budget Contracts package know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .counting import tokens_in


def estimate_tokens(args: Iterable[object], kwargs: Mapping[str, object], result: object) -> int:
    """The tokens of everything textual in a call's arguments and result."""
    return tokens_in(*args, *kwargs.values(), result)
