"""
The meter of a chat stream: what of each chunk matters, and the text that was delivered.

Nearly all chunks of a stream carry a piece of text and nothing else. One search tells them from those that are worth
parsing, so that a stream costs little more than its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ...kernel.usage import Usage
from ..facts import AnswerFacts
from ..metering import EventMeter, answer_object, mapping, mappings, string
from ..reported import reported
from ..sse import frame_data

_TEXT_FIELDS = ("content", "refusal", "reasoning_content", "reasoning")


class ChatMeter(EventMeter):
    """
    Meters a chat stream. The figure stands in a chunk of its own at the end (``choices: []``), or, at some servers, in
    the chunk with the finish reason; a figure in an earlier chunk is a running one, and final only if the answer ended.
    """

    __slots__ = (
        "_choices", "_done", "_ends", "_error", "_expects_usage", "_final", "_first_seen", "_id", "_model", "_note",
        "_tier", "_usage",
    )  # fmt: skip

    def __init__(self, *, choices: int, expects_usage: bool, strip_usage: bool) -> None:
        super().__init__(strip=strip_usage)
        self._choices = choices
        self._expects_usage = expects_usage
        self._usage: Usage | None = None
        self._note: str | None = None
        self._final = False
        self._ends: dict[object, Mapping[str, Any]] = {}
        """The last of each choice: what has its finish reason."""
        self._done = False
        self._error = False
        self._first_seen = False
        self._model: str | None = None
        self._id: str | None = None
        self._tier: str | None = None

    @property
    def _ended(self) -> bool:
        return len(self._ends) >= self._choices

    def facts(self) -> AnswerFacts:
        """What has been seen so far."""
        usage = self._usage if self._final or self._done else None
        ended = self._ended and (usage is not None or not self._expects_usage)
        return AnswerFacts(
            usage=usage,
            usage_note=self._note if usage is not None else None,
            text=() if usage is not None else self._delivered_text(),
            model=self._model,
            response_id=self._id,
            finish=finish_of(self._ends.values()),
            complete=self._done or self._error or ended,
            error=self._error,
            service_tier=self._tier,
        )

    def feed(self, data: bytes) -> bytes:
        if not self._splitter.held:
            if self._first_seen and data.endswith(b"\n\n") and not _matters(data):
                # What nearly all pieces of a stream are: whole chunks, and nothing in them that matters.
                self._keep(data)
                return data
            if len(data) > _BURST_BYTES:
                return self._feed_burst(data)
        return super().feed(data)

    def _feed_burst(self, data: bytes) -> bytes:
        """Of an answer that came at once, the first frame and the last ones matter, and hardly any between them."""
        start = 0 if self._first_seen else data.find(b"\n\n") + 2
        end = data.rfind(b"\n\n") + 2
        for _ in range(_LAST_FRAMES):
            end = data.rfind(b"\n\n", 0, max(0, end - 1)) + 2
        between = data[start:end]
        if not between.endswith(b"\n\n") or _matters(between):
            return super().feed(data)
        relayed = super().feed(data[:start])
        if self._first_seen:
            self._keep(between)
        else:  # That was a comment.
            between = super().feed(between)
        relayed += between + super().feed(data[end:])
        return relayed if self._strip else data

    def _see(self, frame: bytes) -> bool:
        if self._first_seen and not _matters(frame):
            self._keep(frame)
            return False
        data = frame_data(frame)
        if data is None:
            return False
        if data.startswith(b"[DONE]"):
            self._done = self.complete = True
            return False
        chunk = answer_object(data)
        return chunk is not None and self._see_chunk(chunk, frame)

    def _see_chunk(self, data: Mapping[str, Any], frame: bytes) -> bool:
        choices = mappings(data.get("choices"))
        if not self._first_seen:
            self._first_seen = True
            self._error = not choices and (bool(data.get("error")) or data.get("object") == "error")
            self._model = string(data.get("model"))
            self._id = string(data.get("id"))
        if "service_tier" in data:
            self._tier = string(data["service_tier"]) or self._tier
        for choice in choices:
            if isinstance(choice.get("finish_reason"), str):
                index = choice.get("index")
                self._ends[index if isinstance(index, int) else 0] = choice
        # Groq tells it in the last chunk of every stream, in a place of its own.
        told = data.get("usage") or ("x_groq" in data and mapping(data["x_groq"]).get("usage"))
        usage, note = reported(told) if told else (None, None)
        if usage is not None:
            self._usage, self._note = usage, note
            self._final = not choices or self._ended
        # Nothing that matters follows ``[DONE]``, an error in place of an answer, or an ended answer's figure.
        self.complete = self._done or self._error or (self._final and self._ended)
        self._keep(frame)
        return usage is not None and data.get("choices") == []

    def _read(self, data: Mapping[str, Any]) -> None:
        for choice in mappings(data.get("choices")):
            index = choice.get("index")
            for part, text in message_text(mapping(choice.get("delta"))):
                self._delivered((index if isinstance(index, int) else 0, part), text)


# What makes a chunk worth reading: in JSON text no string's content can match this, for its quotes are escaped. All of
# it begins with a quote, so that the search jumps from one to the next: with ``[DONE]`` in it, it takes seven times.
_worth_reading = re.compile(rb'"(?:usage"\s*:\s*\{|finish_reason"\s*:\s*"|error"\s*:\s*[{"])').search

_BURST_BYTES = 4096
_LAST_FRAMES = 4
"""The finish reason, the usage, ``[DONE]``, and one to spare."""


def _matters(frames: bytes) -> bool:
    """Whether any of these chunks is worth reading."""
    return _worth_reading(frames) is not None or b"[DONE]" in frames


def finish_of(choices: Iterable[Mapping[str, Any]]) -> str | None:
    """``length`` if any choice ended at the ceiling, else the first one's reason."""
    finish = None
    for choice in choices:
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and (finish is None or reason == "length"):
            finish = reason
    return finish


def message_text(message: Mapping[str, Any]) -> list[tuple[object, str]]:
    """The text of a message or a delta, with the part of the answer that each piece belongs to."""
    pieces: list[tuple[object, object]] = [(field, message.get(field)) for field in _TEXT_FIELDS]
    for position, call in enumerate(mappings(message.get("tool_calls"))):
        index = call.get("index")
        number = index if isinstance(index, int) else position
        for kind in ("function", "custom"):
            named = mapping(call.get(kind))
            pieces += [((field, number), named.get(field)) for field in ("name", "arguments", "input")]
    if message.get("function_call"):
        called = mapping(message["function_call"])
        pieces += [(("function_call", field), called.get(field)) for field in ("name", "arguments")]
    if message.get("audio"):
        pieces.append(("transcript", mapping(message["audio"]).get("transcript")))
    return [(part, text) for part, text in pieces if text and isinstance(text, str)]
