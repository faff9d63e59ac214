"""
Gemini ``embedContent`` and ``batchEmbedContents``: input alone is billed, nothing is generated.

Shapes: google-genai 3.4 ``types``; public API docs (ai.google.dev/api/embeddings, 2026-11). Older models report no
usage: then the input is what was held for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import json
from ..dialect import JsonDialect
from ..facts import AnswerFacts, RequestFacts
from ..metering import answer_object, mapping
from ..reading import Gathering
from ..reported import reported
from ..single import SingleAnswer
from .content import either, read_content, several
from .path import model_in, other_model, other_model_name

_BODY_FIELDS = frozenset(
    {
        "model", "content", "taskType", "task_type", "title", "outputDimensionality", "output_dimensionality",
        "embedContentConfig", "embed_content_config",
    }
)  # fmt: skip


class GeminiEmbeddings(JsonDialect):
    """The dialect ``gemini.embeddings``."""

    name = "gemini.embeddings"
    provider = "google"

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """Raises ValueError, naming the field, on a body that is no such request, or a path that names no model."""
        request = json.decode_object(body)
        model = model_in(path)
        inputs = several(request, "requests") if "requests" in request else [request]
        if not inputs:
            raise ValueError("requests must not be empty")
        found = Gathering(self, request, body, path)
        for one in inputs:
            _read_input(one, found)
        if "requests" in request:
            found.rest(request, known=frozenset({"requests", "model"}))
        if found.images:
            found.open("images to embed")
        if found.open_reasons and len(inputs) > 1:
            # The context window bounds one input: what several such could cost is not known here.
            raise ValueError("several inputs in one request, not all of them text, have no bound that is known here")
        found.model = model
        found.output_ceiling = 0
        found.min_output_tokens = 0
        found.no_reasoning = True
        return found

    def rewrite_path(self, facts: RequestFacts, *, model: str) -> str | None:
        """The path with another model."""
        return other_model(facts.path, model)

    def _set_model(self, request: dict[str, Any], model: str) -> None:
        """A batch names it once for every input."""
        request.update(_renamed(request, model))
        if "requests" in request:
            request["requests"] = [_renamed(one, model) for one in several(request, "requests")]

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer."""
        answer = answer_object(body)
        if answer is None:
            return AnswerFacts(error=not 200 <= status < 300)
        usage, note = reported(mapping(answer.get("usageMetadata")))
        refused = bool(answer.get("error")) and usage is None
        # All that an answer without a figure says is that there is one.
        model = facts.model if usage is None and (answer.get("embedding") or answer.get("embeddings")) else None
        return AnswerFacts(
            usage=usage, usage_note=note, model=model, complete=True, error=refused or not 200 <= status < 300
        )

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> SingleAnswer:
        """These methods have no streams: whatever arrives as one is read at its end, as the answer it is."""
        return SingleAnswer(self, facts)


def _read_input(one: Mapping[str, Any], found: Gathering) -> None:
    contents = several(one, "content")
    if not contents:
        raise ValueError("content must be an object")
    for content in contents:
        read_content(content, found)
    config = either(one, "embedContentConfig", "embed_content_config")
    for holder in (one, config):
        found.add(either(holder, "title"))
        # The task is told to the model in words of the provider's.
        found.overhead_tokens += 16 if either(holder, "taskType", "task_type") else 0
    found.rest(one, known=_BODY_FIELDS)


def _renamed(one: Mapping[str, Any], model: str) -> dict[str, Any]:
    named = one.get("model")
    return {**one, "model": other_model_name(named, model)} if isinstance(named, str) else dict(one)
