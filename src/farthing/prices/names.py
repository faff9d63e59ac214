"""
The names under which one model is called: vendor prefixes, cloud forms, versions.

``openai/gpt-4o``, ``us.anthropic.claude-sonnet-4-5-20250929-v1:0``, ``publishers/google/models/gemini-2.5-pro`` and
``claude-sonnet-4-5@20250929`` are other ways to write a listed model. A date at the end is *not* taken off: dated
snapshots of one model are priced apart. ``ft:`` is not either: a fine-tune costs more than its base.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..kernel.scope import check_model

_BEDROCK = re.compile(
    r"^(?:[a-z]{2,6}(?:-[a-z]{2,4})?\.)?"
    r"(?P<vendor>anthropic|amazon|meta|mistral|cohere|deepseek|openai|ai21|qwen|google|nvidia|moonshot|minimax|zai)"
    r"\.(?P<name>[^/]+)$"
)
_BEDROCK_VERSION = re.compile(r"-v\d+(?::\d+)?$")
_MODELS_PATH = re.compile(r"^(?:.*/)?(?:publishers/(?P<vendor>[^/]+)/)?models/(?P<name>[^/]+)$")
_AT_VERSION = re.compile(r"@[^@/]*$")
_DEPTH = 3
"""How many layers of prefix are taken off at most: ``openrouter/openai/gpt-4o`` has two."""


class Candidate(NamedTuple):
    """One place to look a model up: under a provider's table, or (None) under the provider its name belongs to."""

    provider: str | None
    name: str


def candidates(model: str, provider: str | None) -> Iterator[Candidate]:
    """
    Where to look for *model*, best first, without repeats. The first is the name as it was given.

    *provider* is the API that is called; a model may be another vendor's, served through it.
    """
    check_model(model)
    seen: set[Candidate] = set()
    for candidate in _walk(model.strip().lower(), provider.strip().lower() if provider else None, _DEPTH):
        if candidate.name and candidate not in seen:
            seen.add(candidate)
            yield candidate


def _walk(name: str, provider: str | None, depth: int) -> Iterator[Candidate]:
    if provider is not None:
        yield Candidate(provider, name)
    yield Candidate(None, name)
    if name.startswith("ft:") or not depth:
        return
    if found := _BEDROCK.match(name):
        yield Candidate("aws", name)
        yield from _walk(_BEDROCK_VERSION.sub("", found["name"]), found["vendor"], depth - 1)
    if found := _MODELS_PATH.match(name):
        yield from _walk(found["name"], found["vendor"] or provider, depth - 1)
    elif "/" in name:
        vendor, rest = name.split("/", 1)
        yield from _walk(rest, vendor, depth - 1)
        if provider is not None:
            yield Candidate(provider, rest)
    if _AT_VERSION.search(name):
        yield from _walk(_AT_VERSION.sub("", name), provider, depth - 1)
