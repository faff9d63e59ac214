"""
Tokens of texts, of chat messages, and of a whole request at most.

A family's factor multiplies what was counted; what is only bounded by its bytes is a bound for any byte-level
vocabulary as it stands. (A vocabulary that is not byte-level, such as Llama 2's, falls back to bytes as well.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from ..kernel.balances import bare
from ..kernel.money import div_ceil
from .families import Family, family_of
from .images import image_tokens
from .segments import digits_of, tokens_of
from .vocab import byte_bound

MESSAGE_TOKENS = 3
NAME_TOKENS = 1
PRIMING_TOKENS = 3
"""What OpenAI's chat template adds: around each message, for a name, and to begin the answer (OpenAI cookbook, "How to
count tokens with tiktoken")."""


class ImageLike(Protocol):
    """Anything with the size of an image in pixels (None where it is not known) and the detail that was asked for."""

    @property
    def width(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...
    @property
    def detail(self) -> str: ...


class Weight(NamedTuple):
    """What a request brings in, before a family's factor is applied."""

    counted: int
    """Tokens of its texts, by the family's yardstick; the factor applies to these."""
    beside: int
    """Tokens to which no factor applies: the chat template, images, digits where the family counts them apart, texts
    that are only bounded by their bytes."""
    by_bytes: int = 0
    """The part of ``beside`` that only bounds long texts: counting them would give less."""

    def bound(self, family: Family) -> int:
        """The most tokens that this can be."""
        counted = self.counted
        if family.num != family.den:
            counted = div_ceil(counted * family.num, family.den)
        return counted + self.beside + family.extra


def count_text(text: str, model: str | None = None, *, exact: bool = False) -> int:
    """
    The tokens of one text: exact for OpenAI's models, an upper estimate for the others (see ``families``).

    A text of more than 256 Ki characters is taken at its length in UTF-8, an upper bound, unless *exact*.
    """
    family = family_of(model)
    return weigh((text,), family, exact=exact).bound(family)


def surely(tokens: int, model: str) -> int:
    """What :func:`count_text` says of a text that has so many tokens for certain: an upper estimate says more."""
    family = family_of(model)
    extra = _tokens_of_digits(tokens) if family.digits else 0
    return div_ceil(tokens * family.num, family.den) + extra


def _tokens_of_digits(digits: int) -> int:
    """What so many digits come to where each is a token, on top of the third of it that the yardstick counts."""
    return div_ceil(2 * digits, 3)


def bound(
    text: Iterable[str],
    *,
    model: str,
    overhead_tokens: int = 0,
    images: Iterable[ImageLike] = (),
    exact: bool = False,
) -> int:
    """
    The most input tokens that a request can have: all its texts, what the chat template adds, and its images.

    Exact for OpenAI's text; for other models the family's factor applies to the texts.
    """
    family = family_of(model)
    weight = weigh(text, family, model=model, overhead_tokens=overhead_tokens, images=images, exact=exact)
    return weight.bound(family)


def weigh(
    texts: Iterable[str],
    family: Family,
    *,
    model: str = "",
    overhead_tokens: int = 0,
    images: Iterable[ImageLike] = (),
    exact: bool = False,
) -> Weight:
    """
    The same, before a factor is applied. *family* is the model's own, from which a learned one differs in the factor
    alone; *model* says what images cost.
    """
    counted = digits = by_bytes = 0
    beside = overhead_tokens
    if family.counter is not None:
        beside += sum(map(family.counter, texts))
    else:
        for text in texts:
            tokens = tokens_of(text, family.encoding, exact)
            if tokens is None:
                by_bytes += byte_bound(text)
            else:
                counted += tokens
                if family.digits:
                    digits += digits_of(text)
    for image in images:
        beside += image_tokens(model, width=image.width, height=image.height, detail=image.detail)
    if digits:
        beside += _tokens_of_digits(digits)
    return bare(Weight, (counted, beside + by_bytes, by_bytes))


def count(text_or_messages: str | Iterable[Any], model: str | None = None, *, family: Family | None = None) -> int:
    """
    The tokens of a text, or of a list of chat messages with what the chat template adds to them.

    Messages are mappings, or objects of an SDK. Their texts are counted wherever they stand, tool calls and results
    included; images count as the model's formula says for one of unknown size. Exact for OpenAI's models (o200k if no
    model is named), an upper estimate for others: by *family*, where a ledger has learned one (see
    ``learning``). Raises ValueError for anything else.
    """
    family = family or family_of(model)
    if isinstance(text_or_messages, str):
        return weigh((text_or_messages,), family).bound(family)
    if isinstance(text_or_messages, (bytes, Mapping)) or not isinstance(text_or_messages, Iterable):
        raise ValueError(f"messages must be a text or a list of messages, not {type(text_or_messages).__name__}")
    total = PRIMING_TOKENS
    texts: list[str] = []
    for message in text_or_messages:
        fields = message if isinstance(message, str) else _fields(message)
        total += MESSAGE_TOKENS
        if isinstance(fields, Mapping) and fields.get("name") is not None:
            total += NAME_TOKENS
        for piece in _pieces(fields):
            if piece is None:
                total += image_tokens(model or "gpt-4o", width=None, height=None, detail="auto")
            else:
                texts.append(piece)
    return total + weigh(texts, family).bound(family)


_NOT_TEXT = frozenset({"type", "id", "detail", "cache_control", "status", "index", "media_type", "mime_type"})
"""Fields that the model does not read."""
_IMAGES = frozenset({"image", "image_url", "input_image"})
_JSON = frozenset({"input", "args", "response", "parameters", "input_schema", "schema"})
"""Fields whose objects reach the model as JSON, keys included."""


def _pieces(value: Any) -> Iterator[str | None]:
    """All texts in a message, in order; None stands for an image."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        if value.get("type") in _IMAGES:
            yield None
            return
        for key, inner in value.items():
            if key in _JSON and isinstance(inner, Mapping):
                yield json.dumps(inner, ensure_ascii=False, default=str)
            elif key not in _NOT_TEXT:
                yield from _pieces(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _pieces(inner)
    elif value is not None and not isinstance(value, (bool, int, float, bytes)):
        yield from _pieces(_fields(value))


def _fields(message: Any) -> Mapping[str, Any]:
    """A message as a mapping: a mapping itself, or an object of an SDK (pydantic's, or with plain attributes)."""
    if isinstance(message, Mapping):
        return message
    dump = getattr(message, "model_dump", None)
    found = dump(exclude_none=True) if callable(dump) else getattr(message, "__dict__", None)
    if not isinstance(found, Mapping):
        raise ValueError(f"a message must be a mapping or an object of an SDK, not {message!r}")
    return found
