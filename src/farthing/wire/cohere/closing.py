"""How a stream of Cohere's chat is ended in order by somebody else than its provider."""

from __future__ import annotations

from typing import Any

from ...kernel.usage import Usage
from ..cut import event_bytes

_ENDS = {"content-start": "content-end", "tool-call-start": "tool-call-end", "citation-start": "citation-end"}


class CohereCloser:
    """What is open is ended, and the message with it, by ``MAX_TOKENS``."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, object], None] = {}

    def see(self, data: dict[str, Any]) -> None:
        kind, index = str(data.get("type")), data.get("index")
        if kind in _ENDS:
            self._open[_ENDS[kind], index] = None
        else:
            self._open.pop((kind, index), None)

    def close(self, usage: Usage) -> list[bytes]:
        ended = [event_bytes({"type": kind, "index": index}, kind) for kind, index in self._open]
        # Counts as Cohere writes them: numbers with a decimal point.
        units = {"input_tokens": float(usage.input_tokens), "output_tokens": float(usage.output_tokens)}
        delta = {"finish_reason": "MAX_TOKENS", "usage": {"billed_units": units, "tokens": units}}
        return [*ended, event_bytes({"type": "message-end", "delta": delta}, "message-end")]
