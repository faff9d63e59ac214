"""What OpenAI's dialects have in common: Azure's deployments, prompt caching, the weight of a forced tool."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..dialect import JsonDialect
from ..facts import RequestFacts
from ..reading import Gathering, count_in, model_of, object_in

TOOL_CHOICE_OVERHEAD = 8
_DEFAULT_LIFETIME = "30m"
_DEPLOYMENT = re.compile(r"(?<=/deployments/)[^/?#]+")


class OpenAIDialect(JsonDialect):
    """Base of OpenAI's dialects. Azure's paths name the deployment; others no model."""

    provider = "openai"

    def rewrite_path(self, facts: RequestFacts, *, model: str) -> str | None:
        """An Azure path with another deployment; None for a path that names none."""
        return other_deployment(facts.path, model)


def ask_usage_in(request: dict[str, Any]) -> None:
    """Have a stream end with its usage figure, which it does not tell unasked."""
    request["stream_options"] = {**object_in(request, "stream_options"), "include_usage": True}


def answers_each(request: Mapping[str, Any]) -> int:
    """How many answers are generated for a prompt: as many as are asked for, or as the best is chosen of."""
    return max(count_in(request, "n", least=1) or 1, count_in(request, "best_of", least=1) or 1)


def other_deployment(path: str, model: str) -> str | None:
    """
    An Azure path with another deployment; None for a path that names none.

    The deployment decides which model runs, whatever the body says. It is named like the model that stands in for it:
    where none has that name, Azure answers 404, and nothing dearer was called.
    """
    changed, found = _DEPLOYMENT.subn(quote(model, safe=""), path, count=1)
    return changed if found else None


def model_at(request: Mapping[str, Any], path: str) -> str:
    """The model that a request names; where it names none, the deployment of an Azure path. Raises ValueError."""
    if request.get("model") is None and (deployment := deployment_in(path.partition("?")[0])) is not None:
        return model_of({"model": deployment})
    return model_of(request)


def deployment_in(path: str) -> str | None:
    """The deployment that an Azure path (without its query) names: that is the model which runs."""
    found = _DEPLOYMENT.search(path)
    return None if found is None else found[0]


def read_inputs(request: Mapping[str, Any], field: str, found: Gathering) -> int:
    """
    Texts or token ids: one text, several, one list of ids, or several of those. Gives how many inputs there are.

    A token is added to each, for one that a model sets before its text, or that stands for an empty one.
    """
    value = request.get(field)
    if not isinstance(value, list) or (value and all(type(item) is int for item in value)):
        value = [value]
    if not value:
        raise ValueError(f"{field} must not be an empty list")
    for item in value:
        found.overhead_tokens += 1
        if isinstance(item, list) and all(type(token) is int for token in item):
            found.overhead_tokens += len(item)
        elif isinstance(item, str) or item is None:
            found.add(item)
        else:
            raise ValueError(f"{field} must be a text, a list of texts, or token ids, not {item!r:.60}")
    return len(value)


def read_cache_options(request: Mapping[str, Any], found: Gathering) -> None:
    """
    Newer models write the cache by themselves and bill it above fresh input (openai 3.54, ``PromptCacheOptions``), so
    every request may, unless it says ``mode: explicit`` and sets no breakpoint. Prices know which models do.
    """
    if "prompt_cache_options" not in request:
        found.writes_cache = True
        return
    options = object_in(request, "prompt_cache_options")
    if options.get("mode") != "explicit":
        found.writes_cache = True
    _lifetime(options, found)


def cache_breakpoint(holder: Mapping[str, Any], found: Gathering) -> None:
    """A ``prompt_cache_breakpoint`` on a message, a part or an item."""
    mark = holder.get("prompt_cache_breakpoint")
    if isinstance(mark, dict):
        found.writes_cache = True
        _lifetime(mark, found)


def read_tool_choice(choice: object, found: Gathering) -> None:
    """A forced tool, or a list of allowed ones, is told to the model."""
    if choice not in (None, "auto", "none"):
        found.overhead_tokens += TOOL_CHOICE_OVERHEAD
        if isinstance(choice, dict):
            found.add(choice)


def _lifetime(options: Mapping[str, Any], found: Gathering) -> None:
    if options.get("ttl") not in (None, _DEFAULT_LIFETIME):
        found.cache_1h = True
