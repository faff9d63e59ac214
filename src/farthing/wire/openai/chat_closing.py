"""How a stream of chat completions, or of legacy completions, is ended in order by somebody else than its provider."""

from __future__ import annotations

from typing import Any

from ...kernel.usage import Usage
from ..cut import event_bytes
from ..metering import mappings

_HEAD = ("id", "object", "created", "model", "system_fingerprint", "service_tier")


class ChatCloser:
    """
    Every choice that has not finished does so with ``length``; then comes the usage, if the client gets it, and
    ``[DONE]``.

    Args:
        choices: how many there are.
        delta: what a choice is given beside its finish reason: an empty delta, or an empty text.
        usage_frame: the client is told the usage in a chunk of its own.
        usage_inside: the client is told the usage in the chunk with the last finish reason (Mistral).
    """

    def __init__(self, *, choices: int, delta: dict[str, Any], usage_frame: bool, usage_inside: bool) -> None:
        self._choices = choices
        self._delta = delta
        self._usage_frame = usage_frame
        self._usage_inside = usage_inside
        self._head: dict[str, Any] = {}
        self._finished: set[object] = set()

    def see(self, data: dict[str, Any]) -> None:
        if not self._head:
            self._head = {field: data[field] for field in _HEAD if field in data}
        for choice in mappings(data.get("choices")):
            if isinstance(choice.get("finish_reason"), str):
                index = choice.get("index")
                self._finished.add(index if isinstance(index, int) else 0)

    def close(self, usage: Usage) -> list[bytes]:
        figures = told(usage)
        # A client that asked for the figure finds the field, empty, in every chunk before it.
        field: dict[str, Any] = {"usage": None} if self._usage_frame else {}
        missing = [index for index in range(self._choices) if index not in self._finished]
        events = []
        for index in missing:
            choice = {"index": index, **self._delta, "logprobs": None, "finish_reason": "length"}
            inside = {"usage": figures} if self._usage_inside and index == missing[-1] else field
            events.append(event_bytes({**self._head, "choices": [choice], **inside}))
        if self._usage_frame:
            events.append(event_bytes({**self._head, "choices": [], "usage": figures}))
        return [*events, b"data: [DONE]\n\n"]


def told(usage: Usage) -> dict[str, Any]:
    """The figures as these endpoints tell them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
