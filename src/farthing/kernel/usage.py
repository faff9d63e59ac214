"""
Usage: the token counts of one call, in kinds that do not overlap.

Providers disagree about what contains what (OpenAI's ``prompt_tokens`` contain the cached ones, Anthropic's
``input_tokens`` do not). The wire dialects translate each into this one shape, in which every token is counted once,
so that the sum of all kinds equals the provider's own total. ``reasoning`` alone is a part of ``output``, kept beside
it for reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from operator import itemgetter
from typing import Any, NamedTuple


class Usage(NamedTuple):
    """
    Token counts, all integers >= 0. Input kinds and output kinds are disjoint; ``reasoning`` is part of ``output``.

    Args:
        input: fresh text input, neither read from nor written to a cache.
        cached: input read from the provider's cache.
        cache_write: input written to the cache for the default time (Anthropic: 5 minutes).
        cache_write_1h: input written to the cache for an hour.
        input_audio: fresh audio input.
        cached_audio: audio input read from the cache.
        input_image: image input, where the provider reports and prices it apart.
        output: text output, hidden reasoning included.
        reasoning: the part of ``output`` that was reasoning.
        output_audio: audio output.
        output_image: image output.
    """

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    input_audio: int = 0
    cached_audio: int = 0
    input_image: int = 0
    output: int = 0
    reasoning: int = 0
    output_audio: int = 0
    output_image: int = 0

    @property
    def input_tokens(self) -> int:
        """All input, cached and written to the cache included, as providers bill it."""
        return sum(self[:_OUTPUT])

    @property
    def cached_tokens(self) -> int:
        """Input read from a cache."""
        return self.cached + self.cached_audio

    @property
    def cache_write_tokens(self) -> int:
        """Input written to a cache."""
        return self.cache_write + self.cache_write_1h

    @property
    def output_tokens(self) -> int:
        """All output, reasoning included."""
        return sum(self[_OUTPUT:]) - self.reasoning

    @property
    def total_tokens(self) -> int:
        """Every token of the call, once."""
        return sum(self) - self.reasoning

    def __add__(self, other: Usage) -> Usage:  # type: ignore[override]  # kind by kind: no longer tuple comes of it
        return Usage(*map(int.__add__, self, other))

    def to_dict(self) -> dict[str, int]:
        """The kinds that are not zero."""
        return dict(self.present())

    def present(self) -> tuple[tuple[str, int], ...]:
        """The kinds that are not zero, in order."""
        return tuple(filter(_count_of, zip(KINDS, self, strict=True)))

    @classmethod
    def from_dict(cls, kinds: Mapping[str, int]) -> Usage:
        """The inverse of :meth:`to_dict`."""
        return cls(**kinds)


KINDS = Usage._fields
"""The names of all kinds, in order."""
INPUT_KINDS = ("input", "cached", "cache_write", "cache_write_1h", "input_audio", "cached_audio", "input_image")
CACHED_KINDS = ("cached", "cached_audio")
OUTPUT_KINDS = ("output", "output_audio", "output_image")
"""Disjoint: ``reasoning`` is a part of ``output``."""
_OUTPUT = KINDS.index("output")
_count_of = itemgetter(1)
_made = Usage.__new__


@wraps(_made)
def _checked(kind: type[Usage], *counts: Any, **kinds: Any) -> Usage:
    usage = _made(kind, *counts, **kinds)
    if {*map(type, usage)} != {int} or min(usage) < 0:
        _complain(usage)
    if usage.reasoning > usage.output:
        raise ValueError(f"usage.reasoning ({usage.reasoning}) is part of usage.output ({usage.output})")
    return usage


# The body of a named tuple may not say this itself.
Usage.__new__ = _checked  # type: ignore[assignment, method-assign]


def _complain(usage: Usage) -> None:
    for kind, count in zip(KINDS, usage, strict=True):
        if type(count) is not int:
            raise ValueError(f"usage.{kind} must be an integer, not {count!r}")
        if count < 0:
            raise ValueError(f"usage.{kind} must be an integer of at least 0, not {count}")


def with_output(usage: Usage, output: int) -> Usage:
    """The same input, and so much text output in place of all there was."""
    return usage._replace(output=output, reasoning=0, output_audio=0, output_image=0)
