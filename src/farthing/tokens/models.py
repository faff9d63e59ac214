"""
Facts about models that bound a call: context window, most output, hidden reasoning.

They stand in ``model_facts.toml`` beside this file, each row with its source and date, and are read once, on first use.
A model that no row names is taken to reason unseen and to write 4,096 tokens at most, with an unknown context.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from typing import Any

from .. import forks
from .names import plain_name, undated

DEFAULT_OUTPUT = 4096
"""What is asked for where the caller sets no ceiling: enough for an answer, and little enough to hold."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """
    What bounds a call to one model.

    Args:
        model: the plain name that was looked up.
        provider: the vendor (``openai``, ``anthropic``, ``google``); for an unknown model what the caller said.
        context: the context window in tokens, input and output together; None if not known.
        max_output: the most output tokens of one answer, reasoning included.
        hidden_reasoning: it may be billed for output that is never delivered as such.
        default_output: the ceiling to ask for where the caller set none.
        known: False for a model that no row names; the figures are then cautious defaults.
        source: where the figures are from.
        date: when they were read there (ISO); None for an unknown model.
    """

    model: str
    provider: str | None
    context: int | None
    max_output: int
    hidden_reasoning: bool
    default_output: int
    known: bool
    source: str
    date: str | None


@lru_cache(maxsize=4096)
def facts_of(model: str, provider: str | None = None) -> ModelFacts:
    """The facts of a model, under any of the names by which it is called. Never raises."""
    name = plain_name(model)
    for wanted in (name, undated(name)):
        for patterns, facts in _rows():
            if any(fnmatchcase(wanted, pattern) for pattern in patterns):
                return replace(facts, model=name)
    return ModelFacts(
        model=name,
        provider=provider,
        context=None,
        max_output=DEFAULT_OUTPUT,
        hidden_reasoning=True,
        default_output=DEFAULT_OUTPUT,
        known=False,
        source="not in the table of models: cautious defaults",
        date=None,
    )


@cache
def _rows() -> tuple[tuple[tuple[str, ...], ModelFacts], ...]:
    with forks.loading():
        import tomllib
        from importlib.resources import files

    table = tomllib.loads(files(__package__).joinpath("model_facts.toml").read_text("utf-8"))
    return tuple((tuple(row["models"]), _facts(row)) for row in table["row"])


def _facts(row: dict[str, Any]) -> ModelFacts:
    hidden: bool = row["hidden_reasoning"]
    most: int = row["max_output"]
    return ModelFacts(
        model="",
        provider=row["provider"],
        context=row["context"],
        max_output=most,
        hidden_reasoning=hidden,
        # A reasoning model that is cut in the middle of its thoughts was paid for nothing.
        default_output=row.get("default_output", most if hidden else min(DEFAULT_OUTPUT, most)),
        known=True,
        source=row["source"],
        date=row["date"],
    )


def check_one_provider(replacements: Iterable[tuple[str, str]]) -> None:
    """
    Raises ValueError if a model is to be replaced by one that is known as another provider's: a call goes to the
    provider that it was made to. A gateway that names a model's vendor (``vendor/model``) may have them all.
    """
    for model, other in replacements:
        if "/" in model or "/" in other:
            continue
        whose, others = facts_of(model).provider, facts_of(other).provider
        if whose is not None and others is not None and whose != others:
            raise ValueError(
                f"downgrade: {model!r} is a model of {whose}, {other!r} one of {others}: a call stays with its provider"
            )
