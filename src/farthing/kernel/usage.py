"""
Usage: the token counts of one call, in kinds that do not overlap.

Providers disagree about what contains what (OpenAI's ``prompt_tokens`` contain the cached ones, Anthropic's
``input_tokens`` do not). The wire dialects translate each into this one shape, in which every token is counted once,
so that the sum of all kinds equals the provider's own total. ``reasoning`` alone is a part of ``output``, kept beside
it for reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from operator import attrgetter, itemgetter


@dataclass(frozen=True, slots=True)
class Usage:
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

    def __post_init__(self) -> None:
        counts = counts_of(self)
        if {*map(type, counts)} != {int} or min(counts) < 0:
            self._complain(counts)
        if self.reasoning > self.output:
            raise ValueError(f"usage.reasoning ({self.reasoning}) is part of usage.output ({self.output})")

    def _complain(self, counts: tuple[object, ...]) -> None:
        for kind, count in zip(KINDS, counts, strict=True):
            if type(count) is not int:
                raise ValueError(f"usage.{kind} must be an integer, not {count!r}")
            if count < 0:
                raise ValueError(f"usage.{kind} must be an integer of at least 0, not {count}")

    @property
    def input_tokens(self) -> int:
        """All input, cached and written to the cache included, as providers bill it."""
        return sum(_input_of(self))

    @property
    def cached_tokens(self) -> int:
        """Input read from a cache."""
        return sum(_cached_of(self))

    @property
    def cache_write_tokens(self) -> int:
        """Input written to a cache."""
        return self.cache_write + self.cache_write_1h

    @property
    def output_tokens(self) -> int:
        """All output, reasoning included."""
        return sum(_output_of(self))

    @property
    def total_tokens(self) -> int:
        """Every token of the call, once."""
        return sum(counts_of(self)) - self.reasoning

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, kind) + getattr(other, kind) for kind in KINDS))

    def to_dict(self) -> dict[str, int]:
        """The kinds that are not zero."""
        return dict(self.present())

    def present(self) -> tuple[tuple[str, int], ...]:
        """The kinds that are not zero, in order."""
        return tuple(filter(_count_of, zip(KINDS, counts_of(self), strict=True)))

    @classmethod
    def from_dict(cls, kinds: Mapping[str, int]) -> Usage:
        """The inverse of :meth:`to_dict`."""
        return cls(**kinds)


KINDS: tuple[str, ...] = tuple(field.name for field in fields(Usage))
"""The names of all kinds, in order: the fields of :class:`Usage`."""
INPUT_KINDS = ("input", "cached", "cache_write", "cache_write_1h", "input_audio", "cached_audio", "input_image")
CACHED_KINDS = ("cached", "cached_audio")
OUTPUT_KINDS = ("output", "output_audio", "output_image")
"""Disjoint: ``reasoning`` is a part of ``output``."""
counts_of: Callable[[Usage], tuple[int, ...]] = attrgetter(*KINDS)
"""The counts of a usage, in the order of ``KINDS``."""
_input_of: Callable[[Usage], tuple[int, ...]] = attrgetter(*INPUT_KINDS)
_cached_of: Callable[[Usage], tuple[int, ...]] = attrgetter(*CACHED_KINDS)
_output_of: Callable[[Usage], tuple[int, ...]] = attrgetter(*OUTPUT_KINDS)
_count_of = itemgetter(1)


def with_output(usage: Usage, output: int) -> Usage:
    """The same input, and so much text output in place of all there was."""
    return replace(usage, output=output, reasoning=0, output_audio=0, output_image=0)
