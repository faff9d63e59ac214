"""
What an image costs in input tokens: each provider's formula, as an upper bound.

Sources, read in November 2026:

- OpenAI, "Images and vision" (developers.openai.com/api/docs/guides/images-vision): tiles of 512 px for GPT-4o, 4.1,
  4.5, GPT-5 and the o-series; patches of 32 px with a budget and a multiplier for the others. Since GPT-5.6 ``auto``
  means ``original``, which has no budget. The multiplier 1.2 of the large patch models is not in the guide; billed
  usage shows it (public measurements of GPT-5.2, 5.5 and 6 agree on it to the token).
- Anthropic, "Vision" (platform.claude.com/docs/en/build-with-claude/vision): about width × height / 750, scaled down
  to about 1,600 tokens; since Opus 4.7 up to 4,784. Billed usage follows patches of 28 px; the larger figure counts.
- Google, "Understand and count tokens" and "Media resolution" (ai.google.dev/gemini-api/docs): Gemini 2: 258 a tile;
  Gemini 3 and 4: at most 1,120 by default and 2,240 at the highest resolution.

Where sources disagree, or a model is not named, the dearer formula counts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from ..kernel.money import div_ceil
from .names import plain_name

OPEN_PATCHES = 65_536
"""Patches taken for an image of unknown size where the provider has no budget (67 megapixels). Larger images were
refused in public tests; the guide states no limit."""


class _Tiles(NamedTuple):
    base: int
    tile: int


class _Patches(NamedTuple):
    """Tokens are patches × hundredths / 100; ``high``, ``auto`` and ``original`` are budgets, None without one."""

    hundredths: int
    high: int | None
    auto: int | None
    original: int | None
    low_is_small: bool
    """``low`` is scaled to 512 × 512, even if it was smaller; otherwise it costs as much as ``high``."""


_SMALL_BUDGET = 1536
_LOW_PATCHES = 256


def _small(hundredths: int) -> _Patches:
    return _Patches(hundredths, _SMALL_BUDGET, _SMALL_BUDGET, _SMALL_BUDGET, low_is_small=False)


_OPENAI: tuple[tuple[re.Pattern[str], tuple[_Tiles | _Patches, ...]], ...] = (
    (re.compile(r"^gpt-4o-mini"), (_Tiles(2833, 5667),)),
    (re.compile(r"^(gpt-4\.1|gpt-5(\.4)?)-mini"), (_small(162),)),
    (re.compile(r"^(gpt-4\.1|gpt-5(\.4)?)-nano"), (_small(246),)),
    (re.compile(r"^(o4-mini|codex-mini)"), (_small(172),)),
    (re.compile(r"^computer-use"), (_Tiles(65, 129),)),
    (re.compile(r"^o[13](-|$)"), (_Tiles(75, 150),)),
    (re.compile(r"^(gpt-4o|gpt-4\.1|gpt-4\.5|gpt-4-|gpt-4$|chatgpt-4o)"), (_Tiles(85, 170),)),
    (re.compile(r"^gpt-5\.5"), (_Patches(120, 2500, 10_000, 10_000, low_is_small=True),)),
    (re.compile(r"^gpt-5\.4"), (_Patches(120, 2500, 2500, 10_000, low_is_small=True),)),
    # The guide puts GPT-5 among the tiles, 5.2 and the Codex models among the patches, and does not name 5.1 and 5.3.
    (re.compile(r"^gpt-5(-|$)"), (_Tiles(70, 140), _small(120))),
    (re.compile(r"^gpt-5\.[1-3]"), (_Tiles(70, 140), _small(120), _Patches(120, 2500, 2500, 2500, low_is_small=False))),
)
_OPENAI_NOW: tuple[_Tiles | _Patches, ...] = (_Patches(120, 2500, None, None, low_is_small=True),)
_IS_OPENAI = re.compile(r"^(gpt-|chatgpt|codex|computer-use|o\d)")

_CLAUDE_OLD = re.compile(
    r"^claude-(v?[12](-|$)|instant|3-|(opus|sonnet|haiku)-[34]-[0-6](-|$)|(opus|sonnet|haiku)-4(-20|$)|4-[0-6]-)"
)
_CLAUDE_OLD_MOST, _CLAUDE_MOST = 1600, 4784
_GEMINI_OLD = re.compile(r"^gemini-(1|2|pro|flash|exp)")
_GEMINI_TILE, _GEMINI_OLD_MOST = 258, 24 * 258
_GEMINI_AUTO, _GEMINI_MOST = 1120, 2240


@lru_cache(maxsize=4096)
def image_tokens(model: str, *, width: int | None, height: int | None, detail: str) -> int:
    """
    The most input tokens of one image. *detail* is ``low``, ``high``, ``original`` or ``auto``, as the request says it.

    An image of unknown size (a URL) costs what the formula allows at most.
    """
    name = plain_name(model)
    size = (width, height) if width and height else None
    if "claude" in name:
        return _claude(name, size)
    if name.startswith(("gemini", "gemma")):
        return _gemini(name, size, detail)
    if _IS_OPENAI.match(name):
        rules = next((rules for pattern, rules in _OPENAI if pattern.match(name)), _OPENAI_NOW)
        return max(_openai(rule, size, detail) for rule in rules)
    return _unknown(size)


def _openai(rule: _Tiles | _Patches, size: tuple[int, int] | None, detail: str) -> int:
    if isinstance(rule, _Tiles):
        # "auto" is resolved by the provider, so it may turn out high.
        return rule.base if detail == "low" else rule.base + rule.tile * _tiles(size)
    if detail == "low" and rule.low_is_small:
        return div_ceil(_LOW_PATCHES * rule.hundredths, 100)
    budget = {"low": rule.high, "high": rule.high, "original": rule.original}.get(detail, rule.auto)
    patches = OPEN_PATCHES if size is None else _patches(size, 32)
    # An image beyond the budget is scaled down to it, so the budget is the most it can cost.
    return div_ceil((patches if budget is None else min(patches, budget)) * rule.hundredths, 100)


def _tiles(size: tuple[int, int] | None) -> int:
    """Tiles of 512 px after scaling into 2048 × 2048 and then the shorter side to 768: at most 4 × 2."""
    if size is None:
        return 8
    short, long = min(size), max(size)
    # The smaller of the scales 1, 2048 / long and 768 / short, as a fraction; a part of a tile is a tile.
    num, den = 1, 1
    for wanted, side in ((2048, long), (768, short)):
        if wanted * den < num * side:
            num, den = wanted, side
    return div_ceil(short * num, 512 * den) * div_ceil(long * num, 512 * den)


def _patches(size: tuple[int, int], side: int) -> int:
    return div_ceil(size[0], side) * div_ceil(size[1], side)


def _claude(name: str, size: tuple[int, int] | None) -> int:
    most = _CLAUDE_OLD_MOST if _CLAUDE_OLD.match(name) else _CLAUDE_MOST
    if size is None:
        return most
    return min(most, max(_patches(size, 28), div_ceil(size[0] * size[1], 750)))


def _gemini(name: str, size: tuple[int, int] | None, detail: str) -> int:
    if not _GEMINI_OLD.match(name):
        return _GEMINI_AUTO if detail == "auto" else _GEMINI_MOST
    if size is None:
        return _GEMINI_OLD_MOST
    if max(size) <= 384:
        return _GEMINI_TILE
    unit = min(768, max(256, min(size) * 2 // 3))
    return min(_GEMINI_OLD_MOST, _GEMINI_TILE * _patches(size, unit))


def _unknown(size: tuple[int, int] | None) -> int:
    """Open models with vision take patches of 28 px and up, unscaled; the dearest budget in wide use is 16,384."""
    return 16_384 if size is None else max(_CLAUDE_MOST, _patches(size, 28) * 3 // 2)
