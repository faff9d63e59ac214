"""How a stream of Gemini's is ended in order by somebody else than its provider."""

from __future__ import annotations

from typing import Any

from ...kernel.usage import Usage
from .. import json
from ..cut import event_bytes
from ..metering import mapping, mappings
from .content import word


class GeminiCloser:
    """One more chunk, in which every candidate that has not finished does so with ``MAX_TOKENS``."""

    def __init__(self, *, candidates: int, sse: bool) -> None:
        self._candidates = candidates
        self._sse = sse
        self._finished: set[object] = set()
        self._head: dict[str, Any] = {}
        self._figures: dict[str, Any] = {}

    def see(self, data: dict[str, Any]) -> None:
        for field in ("modelVersion", "responseId"):
            if field in data:
                self._head[field] = data[field]
        self._figures.update(mapping(data.get("usageMetadata")))
        for position, candidate in enumerate(mappings(data.get("candidates"))):
            if word(candidate.get("finishReason")) is not None:
                index = candidate.get("index")
                self._finished.add(index if isinstance(index, int) else position)

    def close(self, usage: Usage) -> list[bytes]:
        # Its running figures stand in every chunk; what it has said of its thoughts and of the cache remains true.
        thoughts = self._figures.get("thoughtsTokenCount")
        told = thoughts if isinstance(thoughts, int) and thoughts <= usage.output_tokens else usage.reasoning
        metadata = {
            **self._figures,
            "promptTokenCount": usage.input_tokens,
            "candidatesTokenCount": usage.output_tokens - told,
            "thoughtsTokenCount": told,
            "totalTokenCount": usage.total_tokens,
        }
        metadata.pop("candidatesTokensDetails", None)
        content = {"role": "model", "parts": [{"text": ""}]}
        chunk = {
            "candidates": [
                {"content": content, "finishReason": "MAX_TOKENS", "index": index}
                for index in range(self._candidates)
                if index not in self._finished
            ],
            "usageMetadata": metadata,
            **self._head,
        }
        return [event_bytes(chunk) if self._sse else json.encode(chunk)]
