"""
How the fake provider counts tokens: its own account, made apart from the one that is under test.

Text is counted through :mod:`farthing.tokens`, loaded on first use, since a vocabulary takes a moment; around it stands
OpenAI's published chat template. Claude has no public tokeniser: o200k stands in for it. Another count can be given to
the provider, to stand for a denser tokeniser, say.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

Count = Callable[[str, str], int]
"""``count(text, model)``: how many tokens the text has for that model."""

_FILLER = " a small coin is still money and every one of them counts when you keep book with care".split()
"""Each word, with the space before it, is one token of o200k and of cl100k; a test holds that."""

DEFAULT_TOKENS = 10
"""How many tokens a reply shows that says neither its text nor its length."""

_STAND_IN = "gpt-4o"
"""Its vocabulary, o200k, counts for models that have none of their own in public."""
_CACHED_TEXT_CHARS = 256
_MESSAGE_TOKENS = 3
_PRIMER_TOKENS = 3
_IMAGE_TOKENS = 85


class Piece(NamedTuple):
    """A bit of generated text and the tokens it took."""

    text: str
    tokens: int


def default_count(text: str, model: str) -> int:
    """Tokens of *text* by farthing's own tokenizer."""
    return _short(text, model) if len(text) <= _CACHED_TEXT_CHARS else _count(text, model)


def _count(text: str, model: str) -> int:
    from .. import tokens

    family = tokens.family_of(model)
    # farthing counts other models' text with a margin for safety; the truth that is billed here has none.
    known = family.exact or family.counter is not None
    return tokens.count_text(text, model if known else _STAND_IN, exact=True)


_short = functools.lru_cache(maxsize=4096)(_count)
# Roles, names and the short prompts of tests come again and again.


@functools.lru_cache(maxsize=64)
def filler(tokens: int) -> tuple[Piece, ...]:
    """Plain words of exactly *tokens* tokens, one word a token."""
    words = (_FILLER[index % len(_FILLER)] for index in range(tokens))
    return tuple(Piece(word if index == 0 else f" {word}", 1) for index, word in enumerate(words))


@functools.lru_cache(maxsize=256)
def pieces_of(text: str, model: str, count: Count) -> tuple[Piece, ...]:
    """*text* cut before its blanks, each piece counted; the last one takes up the difference to the whole."""
    texts = list(_words(text))
    counts = [count(piece, model) for piece in texts]
    if counts:
        counts[-1] = max(0, counts[-1] + count(text, model) - sum(counts))
    return tuple(map(Piece, texts, counts))


def spread(texts: Sequence[str], tokens: int) -> tuple[Piece, ...]:
    """The texts as pieces that take *tokens* tokens together, evenly."""
    bounds = [tokens * index // len(texts) for index in range(len(texts) + 1)]
    return tuple(Piece(text, bounds[index + 1] - bounds[index]) for index, text in enumerate(texts))


def _words(text: str) -> Iterator[str]:
    start = 0
    for index in range(1, len(text)):
        if text[index].isspace() and not text[index - 1].isspace():
            yield text[start:index]
            start = index
    if text[start:]:
        yield text[start:]


def prompt_tokens(items: Sequence[Any], schemas: Any, model: str, count: Count) -> int:
    """
    Tokens of a conversation in the chat template: three a message, its role, its content, three to prime the answer.

    *items* are messages or Responses items, as the body has them; *schemas* what else the model reads, as JSON: tools,
    and the schema of the answer.
    """
    total = _PRIMER_TOKENS
    for item in items:
        total += _MESSAGE_TOKENS
        if not isinstance(item, dict):
            total += count(str(item), model)
            continue
        total += count(str(item.get("role", item.get("type", ""))), model)
        if name := item.get("name"):
            total += 1 + count(str(name), model)
        total += sum(_part_tokens(item.get(key), model, count) for key in _CONTENT_KEYS)
    if schemas:
        total += count(_json(schemas), model)
    return total


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


_CONTENT_KEYS = ("content", "output", "arguments", "tool_calls", "summary")


def _part_tokens(value: Any, model: str, count: Count) -> int:
    """Tokens of content in any of its forms: text, parts, tool calls and their results, images."""
    if value is None:
        return 0
    if isinstance(value, str):
        return count(value, model)
    if isinstance(value, list):
        return sum(_part_tokens(part, model, count) for part in value)
    if not isinstance(value, dict):
        return count(str(value), model)
    if value.get("type") in ("image", "image_url", "input_image"):
        return _IMAGE_TOKENS
    if "function" in value:
        return _part_tokens(value["function"], model, count)
    if "input" in value:
        return count(str(value.get("name", "")), model) + count(_json(value["input"]), model)
    keys = ("text", "content", "output", "thinking", "refusal", "name", "arguments")
    return sum(_part_tokens(value.get(key), model, count) for key in keys)
