"""The plain name of a model: without fine-tune wrapping, vendor prefix, cloud form or deployment version."""

from __future__ import annotations

import re

_BEDROCK = re.compile(
    r"^(?:[a-z]{2,6}(?:-[a-z]{2,4})?\.)?(?:anthropic|amazon|meta|mistral|cohere|deepseek|openai|google|qwen)\."
)
_VERSION = re.compile(r"(?:-v\d+(?::\d+)?|@[^@]*)$")
_DATE = re.compile(r"-(?:20\d\d-\d\d-\d\d|20\d{6})$")


def plain_name(model: str) -> str:
    """
    ``ft:gpt-4o-mini-2024-07-18:org::id`` → ``gpt-4o-mini-2024-07-18``; ``openai/gpt-4o`` → ``gpt-4o``;
    ``us.anthropic.claude-sonnet-4.5-v1:0`` → ``claude-sonnet-4-5``; in lower case.
    """
    name = model.strip().lower()
    if name.startswith("ft:"):
        name = name[3:].split(":", 1)[0]
    name = name.rsplit("/", 1)[-1]
    name = _VERSION.sub("", _BEDROCK.sub("", name))
    if name.startswith("gpt-35"):  # Azure's spelling
        name = "gpt-3.5" + name[6:]
    # Claude's versions are written with a dot by some gateways, with a hyphen by Anthropic.
    return name.replace(".", "-") if "claude" in name else name


def undated(name: str) -> str:
    """The name without the date of its snapshot: ``gpt-4o-2024-11-20`` → ``gpt-4o``."""
    return _DATE.sub("", name)
