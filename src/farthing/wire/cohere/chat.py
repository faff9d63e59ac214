"""
Cohere's chat (``POST …/v2/chat``). The older ``/v1/chat``, embeddings and reranking are not metered.

Shapes: the types of the SDK cohere 7.3 (``v2/types``, ``types/usage``), read 2026-11. What is billed are the *billed
units*, which leave out what Cohere's own template adds; an answer without them is read by its token counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...kernel.usage import Usage
from .. import json
from ..dialect import JsonDialect
from ..facts import AnswerFacts, RequestFacts
from ..metering import EventMeter, answer_object, event_data, mapping, mappings, string
from ..reading import Gathering, count_in, flag_in, model_of, objects_in
from .closing import CohereCloser

MESSAGE_OVERHEAD = 4
REPLY_PRIMING = 4
TOOL_OVERHEAD = 16
_MESSAGE_FIELDS = frozenset({"role", "content"})
_BODY_FIELDS = frozenset({"model", "messages", "safety_mode", "stop_sequences", "priority", "reasoning_effort"})
_KINDS = frozenset({"text", "thinking"})
_FINISHES = {"MAX_TOKENS": "length"}


class CohereChat(JsonDialect):
    """The dialect ``cohere.chat``."""

    name = "cohere.chat"
    provider = "cohere"
    ceiling_field = "max_tokens"

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """Raises ValueError, naming the field, on a body that is no chat request of version 2."""
        request = json.decode_object(body)
        if not isinstance(request.get("messages"), list):
            raise ValueError("messages must be a list of objects")
        found = Gathering(self, request, body, path)
        found.overhead_tokens += REPLY_PRIMING
        for message in objects_in(request, "messages"):
            _read_message(message, found)
        for tool in objects_in(request, "tools"):
            found.overhead_tokens += TOOL_OVERHEAD
            if (kind := tool.get("type")) not in (None, "function"):
                # Version 2 has functions alone; what else there may come to be runs at the provider.
                found.open(f"hosted tool {kind!s:.60}")
        found.rest(request, known=_BODY_FIELDS)
        found.model = model_of(request)
        found.stream = flag_in(request, "stream")
        found.output_ceiling = count_in(request, "max_tokens", least=1)
        found.wants_usage = True
        return found

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer."""
        answer = answer_object(body)
        failed = not 200 <= status < 300
        if answer is None:
            return AnswerFacts(error=failed)
        usage = _usage(answer.get("usage"))
        message = mapping(answer.get("message"))
        return AnswerFacts(
            usage=usage,
            text=() if usage is not None else tuple(text for _, text in _text(message)),
            response_id=string(answer.get("id")),
            finish=_finish(answer.get("finish_reason")),
            complete=True,
            error=failed,
        )

    def closer(self, facts: RequestFacts) -> CohereCloser:
        return CohereCloser()

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> CohereMeter:
        return CohereMeter()


class CohereMeter(EventMeter):
    """Meters a stream: its last event, ``message-end``, has the usage."""

    __slots__ = ("_error", "_finish", "_id", "_usage")

    def __init__(self) -> None:
        super().__init__(strip=False)
        self._usage: Usage | None = None
        self._id: str | None = None
        self._finish: str | None = None
        self._error = False

    def facts(self) -> AnswerFacts:
        """What has been seen so far."""
        return AnswerFacts(
            usage=self._usage,
            text=() if self._usage is not None else self._delivered_text(),
            response_id=self._id,
            finish=self._finish,
            complete=self.complete,
            error=self._error,
        )

    def _see(self, frame: bytes) -> bool:
        # In JSON text no string's content can match this, for its quotes are escaped.
        if b'"message-end"' in frame or b'"message-start"' in frame:
            data = event_data(frame) or {}
            self._id = string(data.get("id")) or self._id
            if data.get("type") == "message-end":
                delta = mapping(data.get("delta"))
                self._usage = _usage(delta.get("usage"))
                self._finish = _finish(delta.get("finish_reason"))
                failed = bool(delta.get("error")) and self._usage is None
                self._error = failed and not self._delivered_text()
                # An error after some text is no end of an answer: what came until then was cut off.
                self.complete = self._error or not failed
        elif b"-delta" in frame or b"-start" in frame:
            self._keep(frame)
        return False

    def _read(self, data: Mapping[str, Any]) -> None:
        index = repr(data.get("index"))
        for kind, text in _text(mapping(mapping(data.get("delta")).get("message"))):
            self._delivered((kind, index), text)


def _usage(value: object) -> Usage | None:
    reported = mapping(value)
    for figures in (mapping(reported.get("billed_units")), mapping(reported.get("tokens"))):
        counts = [_whole(figures.get(kind)) for kind in ("input_tokens", "output_tokens")]
        if any(count is not None for count in counts):
            given, made = (count or 0 for count in counts)
            return Usage(input=given, output=made)
    return None


def _whole(value: object) -> int | None:
    """A count: Cohere writes them as numbers with a decimal point."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**53:
        return None
    return int(value) if value == int(value) else int(value) + 1


def _finish(reason: object) -> str | None:
    return _FINISHES.get(reason, reason) if isinstance(reason, str) else None


def _text(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The text of a message or a delta: one part or several, the plan, calls of tools."""
    content = message.get("content")
    parts = [content] if isinstance(content, dict) else mappings(content)
    pieces: list[tuple[str, object]] = [(kind, part.get(kind)) for part in parts for kind in ("text", "thinking")]
    pieces.append(("tool_plan", message.get("tool_plan")))
    calls = message.get("tool_calls")
    for call in [calls] if isinstance(calls, dict) else mappings(calls):
        function = mapping(call.get("function"))
        pieces += [(field, function.get(field)) for field in ("name", "arguments")]
    return [(kind, text) for kind, text in pieces if isinstance(text, str) and text]


def _read_message(message: Mapping[str, Any], found: Gathering) -> None:
    found.overhead_tokens += MESSAGE_OVERHEAD
    found.add(message.get("role"))
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict) and part.get("type") == "image_url":
            found.open("image input")
        elif isinstance(part, dict) and part.get("type") in _KINDS:
            found.add(part.get(part["type"]))
        else:
            found.add(part)
    found.rest(message, known=_MESSAGE_FIELDS)
