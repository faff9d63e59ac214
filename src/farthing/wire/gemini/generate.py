"""
Gemini ``generateContent`` and ``streamGenerateContent``, of the Gemini API and of Vertex AI.

Shapes: google-genai 3.4 ``types``; public API docs (ai.google.dev/api, 2026-11). The model and the kind of answer stand
in the path: ``/v1beta/models/MODEL:streamGenerateContent?alt=sse``. No tokeniser of these models is public, so the
constants below are upper bounds. ``maxOutputTokens`` bounds thoughts and text together.

A stream has no last event: the figures in its chunks are running ones, and it is over when its body ends. Without
``alt=sse`` it is one JSON array.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...kernel.usage import with_output
from .. import json
from ..dialect import JsonDialect
from ..facts import AnswerFacts, RequestFacts
from ..json_array import ArraySplitter
from ..metering import EventMeter, answer_object, event_data, mapping, mappings, string
from ..reading import Gathering
from ..reported import reported
from .closing import GeminiCloser
from .content import either, read_content, read_tools, several, whole_in, word
from .path import model_in, other_model, other_model_name, streams

PROMPT_OVERHEAD = 8
FORMAT_OVERHEAD = 300
"""What a schema of the answer brings beside its own text; its size is not documented."""
_BODY_FIELDS = frozenset(
    {
        "model", "contents", "systemInstruction", "system_instruction", "tools", "toolConfig", "tool_config",
        "safetySettings", "safety_settings", "generationConfig", "generation_config", "cachedContent",
        "cached_content", "labels", "serviceTier", "service_tier",
    }
)  # fmt: skip
_CONFIG_TEXT = (
    ("responseSchema", "response_schema"),
    ("responseJsonSchema", "response_json_schema"),
    ("_responseJsonSchema", "_response_json_schema"),
    ("responseFormat", "response_format"),
)
_MEDIA_MODELS = re.compile(r"image|tts|audio|banana|omni|live")
"""Models whose answer is sound or an image without being asked for one: no ceiling is known to hold for those."""
_AT_CEILING = frozenset({"MAX_TOKENS", "2"})
_CAN_STOP_THINKING = re.compile(r"^gemini-2\.5-flash")
"""A budget of 0 switches thinking off for these; Pro refuses it, and later models take it as advice."""
_TIERS = {
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
    "service_tier_priority": "priority",
    "service_tier_flex": "flex",
    "service_tier_standard": "standard",
    "unspecified": "standard",
    "service_tier_unspecified": "standard",
}
"""How Vertex, and the API's longer spellings, say what the price table calls a service tier."""


class GeminiGenerate(JsonDialect):
    """The dialect ``gemini.generate``."""

    name = "gemini.generate"
    provider = "google"

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """Raises ValueError, naming the field, on a body that is no such request, or a path that names no model."""
        request = json.decode_object(body)
        model = model_in(path)
        stream, sse = streams(path)
        config = either(request, "generationConfig", "generation_config")
        found = Gathering(self, request, body, path, PROMPT_OVERHEAD)
        resolution = either(config, "mediaResolution", "media_resolution")
        for content in (
            *several(request, "systemInstruction", "system_instruction"),
            *several(request, "contents"),
        ):
            read_content(content, found, resolution=resolution)
        if request.get("contents") is None:
            raise ValueError("contents must be a list of objects")
        read_tools(request, found)
        _read_config(config, model, found)
        if either(request, "cachedContent", "cached_content"):
            found.open("cachedContent")
        found.rest(request, known=_BODY_FIELDS)
        budget = whole_in(
            either(config, "thinkingConfig", "thinking_config"), "thinkingBudget", "thinking_budget", least=-1
        )
        found.model = model
        found.stream = stream
        found.output_ceiling = whole_in(config, "maxOutputTokens", "max_output_tokens", least=1)
        found.choices = whole_in(config, "candidateCount", "candidate_count", least=1) or 1
        found.min_output_tokens = max(budget or 0, 0) + 1
        found.no_reasoning = budget == 0 and _CAN_STOP_THINKING.match(model) is not None
        found.service_tier = _tier(either(request, "serviceTier", "service_tier"))
        found.wants_usage = True
        found.stream_type = "text/event-stream" if sse else "application/json"
        return found

    def rewrite_path(self, facts: RequestFacts, *, model: str) -> str | None:
        """The path with another model."""
        return other_model(facts.path, model)

    def _set_model(self, request: dict[str, Any], model: str) -> None:
        if isinstance(request.get("model"), str):
            request["model"] = other_model_name(request["model"], model)

    def _set_ceiling(self, request: dict[str, Any], ceiling: int) -> None:
        field = "generation_config" if request.get("generation_config") is not None else "generationConfig"
        given = request.get(field)
        config = dict(given) if isinstance(given, Mapping) else {}
        snake = config.get("max_output_tokens") is not None
        config["max_output_tokens" if snake else "maxOutputTokens"] = ceiling
        request[field] = config

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer."""
        failed = not 200 <= status < 300
        answer = answer_object(body)
        if answer is None:
            return AnswerFacts(error=failed)
        candidates = mappings(answer.get("candidates"))
        told = answer.get("usageMetadata")
        usage, note = reported(told)
        refused = bool(answer.get("error")) and not candidates and usage is None
        text: tuple[str, ...] = ()
        if usage is None:
            text = tuple(piece for candidate in candidates for _, piece in _content_text(candidate))
        return AnswerFacts(
            usage=usage,
            usage_note=note,
            text=text,
            model=string(answer.get("modelVersion")),
            response_id=string(answer.get("responseId")),
            finish=_finish([candidate.get("finishReason") for candidate in candidates]) or _blocked(answer),
            complete=True,
            error=failed or refused,
            service_tier=_answer_tier(told),
        )

    def closer(self, facts: RequestFacts) -> GeminiCloser:
        return GeminiCloser(candidates=facts.choices, sse=facts.stream_type == "text/event-stream")

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> GeminiMeter:
        """*strip_usage* never applies: usage is part of chunks that clients need."""
        return GeminiMeter(candidates=facts.choices, sse=facts.stream_type == "text/event-stream")


class GeminiMeter(EventMeter):
    """
    Meters a stream. Every chunk has running figures; they are final once all candidates have a finish reason (or the
    prompt was blocked) and nothing follows.
    """

    __slots__ = (
        "_blocked", "_calls", "_candidates", "_error", "_finishes", "_first_seen", "_id", "_model", "_over", "_seen",
        "_sse", "_told",
    )  # fmt: skip

    def __init__(self, *, candidates: int, sse: bool) -> None:
        super().__init__(strip=False, splitter=None if sse else ArraySplitter())
        self._sse = sse
        self._candidates = candidates
        self._told: Mapping[str, Any] | None = None
        self._finishes: dict[int, str] = {}
        self._seen: set[int] = set()
        self._blocked: str | None = None
        self._calls = 0
        self._first_seen = False
        self._over = False
        self._error = False
        self._model: str | None = None
        self._id: str | None = None

    def finish(self) -> bytes:
        """The body ended: nothing that matters can follow."""
        rest = super().finish()
        self._over = True
        # Or an error came in place of an answer.
        self.complete = self._error or self._ended
        return rest

    @property
    def _ended(self) -> bool:
        if self._blocked is not None or len(self._finishes) >= self._candidates:
            return True
        # Fewer candidates came than were asked for, and the body ended in good order.
        return self._over and bool(self._seen) and self._finishes.keys() >= self._seen

    def facts(self) -> AnswerFacts:
        """What has been seen so far."""
        running, note = reported(self._told)
        usage = running if self._ended else None
        return AnswerFacts(
            usage=usage,
            usage_note=note if usage is not None else None,
            partial_input=None if running is None else with_output(running, 0),
            text=() if usage is not None else self._delivered_text(),
            model=self._model,
            response_id=self._id,
            finish=_finish(list(self._finishes.values())) or self._blocked,
            complete=self._error or self._ended,
            error=self._error,
            service_tier=_answer_tier(self._told),
        )

    def _see(self, frame: bytes) -> bool:
        # Chunks are few and large, and each has figures: all are read at once.
        data = event_data(frame) if self._sse else answer_object(frame)
        if data is not None:
            self._read(data)
        return False

    def _read(self, data: Mapping[str, Any]) -> None:
        candidates = mappings(data.get("candidates"))
        if not self._first_seen:
            self._first_seen = True
            self._error = self.complete = not candidates and bool(data.get("error"))
        self._model = string(data.get("modelVersion")) or self._model
        self._id = string(data.get("responseId")) or self._id
        self._blocked = _blocked(data) or self._blocked
        if isinstance(data.get("usageMetadata"), dict):
            self._told = {**(self._told or {}), **data["usageMetadata"]}
        for position, candidate in enumerate(candidates):
            index = candidate.get("index")
            number = index if isinstance(index, int) else position
            self._calls += 1
            pieces = _content_text(candidate)
            for part, text in pieces:
                # Text comes in deltas; everything else is whole in its chunk.
                self._delivered((number, part, 0 if part in ("text", "thought") else self._calls), text)
            self._seen.add(number)
            reason = word(candidate.get("finishReason"))
            if reason is not None:
                self._finishes[number] = reason
            elif pieces:
                # A reason that more text follows was none.
                self._finishes.pop(number, None)


def _content_text(candidate: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The text of a candidate's content, with the kind of part that each piece is of."""
    pieces: list[tuple[str, str]] = []
    for part in mappings(mapping(candidate.get("content")).get("parts")):
        call = mapping(part.get("functionCall"))
        found: list[tuple[str, object]] = [
            ("thought" if part.get("thought") is True else "text", part.get("text")),
            ("call", call.get("name")),
            ("arguments", json.text_of(call["args"]) if call.get("args") else None),
            ("code", mapping(part.get("executableCode")).get("code")),
            ("output", mapping(part.get("codeExecutionResult")).get("output")),
        ]
        pieces += [(kind, text) for kind, text in found if isinstance(text, str) and text]
    return pieces


def _finish(reasons: list[Any]) -> str | None:
    """``length`` if any candidate ended at the ceiling, else the first one's reason."""
    told = [reason for reason in map(word, reasons) if reason is not None]
    return "length" if not _AT_CEILING.isdisjoint(told) else next(iter(told), None)


def _blocked(answer: Mapping[str, Any]) -> str | None:
    """Why the prompt was not answered at all; it was read, and is billed as the usage says."""
    return word(mapping(answer.get("promptFeedback")).get("blockReason"))


def _tier(value: object) -> str | None:
    name = value.lower() if isinstance(value, str) else None
    return _TIERS.get(name, name) if name is not None else None


def _answer_tier(told: object) -> str | None:
    usage = mapping(told)
    return _tier(usage.get("serviceTier")) or _TIERS.get(string(usage.get("trafficType")) or "")


def _read_config(config: Mapping[str, Any], model: str, found: Gathering) -> None:
    for names in _CONFIG_TEXT:
        schema = either(config, *names)
        if schema:
            found.overhead_tokens += FORMAT_OVERHEAD
            found.add(schema)
    modalities = either(config, "responseModalities", "response_modalities")
    others = [kind for kind in modalities if kind not in ("TEXT", "text", 1)] if isinstance(modalities, list) else []
    if others:
        found.open_output(f"{str(others[0]).lower():.20} output")
    elif _MEDIA_MODELS.search(model):
        found.open_output("output that is no text")
    if either(config, "routingConfig", "routing_config") or either(
        config, "modelSelectionConfig", "model_selection_config"
    ):
        found.open("a model that the provider selects")
