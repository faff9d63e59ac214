"""
OpenAI embeddings (``POST …/embeddings``): input alone is billed.

Nothing is generated, so there is no ceiling to set, and none is ever sent.

Shapes: openai 3.54 ``types/embedding*``; public API docs, 2026-11.
"""

from __future__ import annotations

from .. import json
from ..facts import AnswerFacts, RequestFacts
from ..metering import answer_object, mapping, string
from ..reading import Gathering, word_in
from ..reported import reported
from ..single import SingleAnswer
from .shared import OpenAIDialect, model_at, read_inputs

_BODY_FIELDS = frozenset({"model", "input", "encoding_format", "user", "metadata", "service_tier"})


class OpenAIEmbeddings(OpenAIDialect):
    """The dialect ``openai.embeddings``."""

    name = "openai.embeddings"

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """Raises ValueError, naming the field, on a body that is no embeddings request."""
        request = json.decode_object(body)
        if request.get("input") is None:
            raise ValueError("input must be a text, a list of texts, or token ids")
        found = Gathering(self, request, body, path)
        read_inputs(request, "input", found)
        found.rest(request, known=_BODY_FIELDS)
        found.model = model_at(request, path)
        found.output_ceiling = 0
        found.min_output_tokens = 0
        found.no_reasoning = True
        found.service_tier = word_in(request, "service_tier")
        return found

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer."""
        answer = answer_object(body)
        if answer is None:
            return AnswerFacts(error=not 200 <= status < 300)
        told = mapping(answer.get("usage"))
        # An answer without ``total_tokens`` is understood as well.
        usage, note = reported({"completion_tokens": 0, **told} if "prompt_tokens" in told else told)
        refused = bool(answer.get("error")) and answer.get("data") is None and usage is None
        return AnswerFacts(
            usage=usage,
            usage_note=note,
            model=string(answer.get("model")),
            complete=True,
            error=refused or not 200 <= status < 300,
        )

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> SingleAnswer:
        """The endpoint has no streams: whatever arrives as one is read at its end, as the answer it is."""
        return SingleAnswer(self, facts)
