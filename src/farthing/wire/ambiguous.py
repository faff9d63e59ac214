"""
Requests that two readers may read differently: a field that stands twice, or that differs from a known one by its case.

JSON leaves open which of two equal names counts. Most readers take the last, as ours does; some take the first, some
refuse. And some servers (those written in Go) take ``MAX_TOKENS`` for ``max_tokens``. What is metered must be what the
provider reads, or one request could be held for one token and billed for a hundred thousand.
"""

from __future__ import annotations

import json as plain_json
import re
from collections.abc import Mapping
from typing import Any

from . import json

CONTROLS = frozenset(
    {
        "background", "best_of", "conversation", "max_completion_tokens", "max_output_tokens", "max_tokens", "model",
        "n", "previous_response_id", "service_tier", "speed", "store", "stream", "stream_options",
    }
)  # fmt: skip
"""Fields at the top of a request that say what it may cost. (Text counts as text, whatever its field is called.)"""
_USUAL = CONTROLS | {
    "contents", "frequency_penalty", "generationConfig", "input", "instructions", "messages", "metadata",
    "parallel_tool_calls", "presence_penalty", "prompt", "reasoning", "reasoning_effort", "response_format", "seed",
    "stop", "stop_sequences", "system", "temperature", "text", "thinking", "tool_choice", "tools", "top_k", "top_p",
    "user",
}  # fmt: skip
"""Nearly all requests have only these, and need no closer look."""
_SPACED = re.compile(rb'"[ \t\r\n]+:')
_HIDDEN = re.compile(rb"\\u00(?:22|3[aA])")
"""A quote or a colon that a count of bytes does not see."""


def said_once(text: bytes, value: Mapping[str, Any]) -> bytes:
    """
    The text of a request that cannot be read but as *value*, which is what was read from it: itself, where no object in
    it names a field twice; else *value* written anew.
    """
    again = json.encode(value)
    if again == text or not _may_repeat(text, again):
        return text
    return again if _repeats(text) else text


def _may_repeat(text: bytes, again: bytes) -> bool:
    """
    Whether a field may stand twice: then the text has more names than its value. Inside of strings quotes are escaped,
    the same number of them in both, so ``":`` can be counted.
    """
    return (
        text.count(b'":') != again.count(b'":')
        or (b"\\u00" in text and _HIDDEN.search(text) is not None)
        or _SPACED.search(text) is not None
    )


def _repeats(text: bytes) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len({name for name, _ in pairs}) != len(pairs)

    plain_json.loads(text, object_pairs_hook=look)
    return found


def check_spelling(body: Mapping[str, Any]) -> None:
    """Raises ValueError for a field that only its case keeps from being one that says what a request may cost."""
    if body.keys() <= _USUAL:
        return
    for name in body:
        folded = name.casefold()
        if folded != name and folded in CONTROLS:
            raise ValueError(f"field {name!r} is not {folded!r}, and some servers would take it for that: write it so")
