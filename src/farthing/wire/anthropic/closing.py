"""How a stream of Anthropic messages is ended in order by somebody else than its provider."""

from __future__ import annotations

from typing import Any

from ...kernel.usage import Usage
from ..cut import event_bytes


class MessagesCloser:
    """
    Blocks that are open (text, thinking, a tool's input) are stopped, the message ends with ``max_tokens``.

    A thought that is cut has no signature, for only its provider can make one: like every cut thought, it cannot be
    sent back.
    """

    def __init__(self) -> None:
        self._open: dict[object, None] = {}

    def see(self, data: dict[str, Any]) -> None:
        if data.get("type") == "content_block_start":
            self._open[data.get("index")] = None
        elif data.get("type") == "content_block_stop":
            self._open.pop(data.get("index"), None)

    def close(self, usage: Usage) -> list[bytes]:
        events: list[dict[str, Any]] = [{"type": "content_block_stop", "index": index} for index in self._open]
        events.append(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
                "usage": _told(usage),
            }
        )
        events.append({"type": "message_stop"})
        return [event_bytes(event, event["type"]) for event in events]


def _told(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
