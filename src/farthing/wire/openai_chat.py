"""
OpenAI chat completions (``POST …/chat/completions``), as OpenAI and the many compatible servers speak it.

Shapes: openai 3.54 ``types/chat``; template overhead: OpenAI cookbook, "How to count tokens with tiktoken" (2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..kernel.usage import Usage
from . import json
from .closing_chat import ChatCloser
from .facts import AnswerFacts, RequestFacts
from .images import UNKNOWN, size_of_url
from .metering import EventMeter, answer_object, event_data, mapping, mappings, string
from .openai_shared import OpenAIDialect, ask_usage_in, cache_breakpoint, read_cache_options, read_tool_choice
from .reading import Gathering, count_in, flag_in, model_of, object_in, objects_in, without, word_in
from .reported import reported
from .sse import parse_frame

MESSAGE_OVERHEAD = 3
NAME_OVERHEAD = 1
ROLE_OVERHEAD = 1
"""Each of the usual roles is one token, which is known without counting it."""
REPLY_PRIMING = 3
TOOL_CALL_OVERHEAD = 16
"""Around a past call's name and arguments (parallel calls are wrapped in a call of their own)."""
TOOL_OVERHEAD = 10
TOOLS_OVERHEAD = 16
"""The heading under which tools are listed; the tools themselves are shorter there than their JSON text."""
FORMAT_OVERHEAD = 16

_CEILINGS = ("max_completion_tokens", "max_tokens")
_MESSAGE_FIELDS = frozenset(
    {
        "role",
        "content",
        "name",
        "refusal",
        "tool_calls",
        "function_call",
        "audio",
        "tool_call_id",
        "prompt_cache_breakpoint",
    }
)
_ROLES = ("user", "assistant", "system", "tool", "developer")
_PLAIN_FIELDS = frozenset({"role", "content"})
_CALL_FIELDS = frozenset({"name", "arguments", "input"})
_TEXT_FIELDS = ("content", "refusal", "reasoning_content", "reasoning")
_BODY_FIELDS = frozenset(
    {
        "model", "messages", "tools", "functions", "response_format", "tool_choice", "function_call", "prediction",
        "web_search_options", "audio", "modalities", "logit_bias", "metadata", "moderation", "prompt_cache_key",
        "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "safety_identifier", "service_tier",
        "stop", "stream_options", "user", "verbosity",
    }
)  # fmt: skip
_PLAIN_REQUEST = frozenset({"model", "messages", "stream", "n", "temperature", "top_p", "seed", "user", *_CEILINGS})
"""Fields that bring no text of their own, and whose values are checked elsewhere or steer the sampling."""
_OPEN_FIELDS = {
    "prediction": "predicted output",
    "web_search_options": "hosted tool web_search",
    "search_parameters": "hosted tool search",
    "data_sources": "hosted tool data_sources",
    "plugins": "hosted plugins",
}
"""Fields by which a provider adds input or output of its own: OpenAI's, xAI's, Azure's and OpenRouter's."""

# A named tuple's own constructor, without the class's call around it: a third of the time, on the path of every call.
_request_facts, _answer_facts = RequestFacts.__new__, AnswerFacts.__new__


class OpenAIChat(OpenAIDialect):
    """
    The dialect ``openai.chat``. *ceiling_field* is what a ceiling of ours is called where the caller set none;
    *tells_usage*: every stream carries its usage figure unasked, and asking for it is refused (Mistral).
    """

    name = "openai.chat"

    def __init__(
        self, provider: str | None = None, *, ceiling_field: str = "max_completion_tokens", tells_usage: bool = False
    ) -> None:
        super().__init__(provider)
        self.ceiling_field = ceiling_field
        self._tells_usage = tells_usage

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """Raises ValueError, naming the field, on a body that is no chat completion request."""
        request = json.decode_object(body)
        stream = flag_in(request, "stream")
        asks_usage = "stream_options" in request and flag_in(object_in(request, "stream_options"), "include_usage")
        if request.get("messages") is None:
            raise ValueError("messages must be a list of objects")
        found = Gathering()
        for message in objects_in(request, "messages"):
            _read_message(message, found)
        found.overhead += REPLY_PRIMING
        _read_tools(request, found)
        _read_options(request, found)
        read_cache_options(request, found)
        ceilings = [ceiling for field in _CEILINGS if (ceiling := count_in(request, field, least=1)) is not None]
        return _request_facts(
            RequestFacts,
            dialect=self.name,
            provider=self.provider,
            model=model_of(request),
            body=request,
            body_bytes=len(body),
            stream=stream,
            text=tuple(found.text),
            overhead_tokens=found.overhead,
            images=tuple(found.images),
            # Two names of one thing: servers differ in which one they go by.
            output_ceiling=max(ceilings, default=None),
            choices=_choices(request) if "n" in request or "best_of" in request else 1,
            writes_cache=found.caches,
            cache_1h=found.cache_long,
            service_tier=word_in(request, "service_tier"),
            open_reasons=found.reasons,
            wants_usage=stream and (asks_usage or self._tells_usage),
            path=path,
        )

    def _set_ceiling(self, request: dict[str, Any], ceiling: int) -> None:
        set_by_caller = [field for field in _CEILINGS if request.get(field) is not None]
        for field in set_by_caller:
            request[field] = ceiling
        if not set_by_caller:
            super()._set_ceiling(request, ceiling)

    def _ask_usage(self, request: dict[str, Any]) -> None:
        ask_usage_in(request)

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer."""
        answer = answer_object(body)
        if answer is None:
            return AnswerFacts(error=not 200 <= status < 300)
        choices = mappings(answer.get("choices"))
        usage, note = reported(answer.get("usage"))
        # Some compatible servers answer 200 with an error in the body.
        refused = bool(answer.get("error")) and not choices and usage is None
        text: list[str] = []
        if usage is None:
            for choice in choices:
                text += (part for _, part in _message_text(mapping(choice.get("message"))))
        return _answer_facts(
            AnswerFacts,
            usage=usage,
            usage_note=note,
            text=tuple(text),
            model=string(answer.get("model")),
            response_id=string(answer.get("id")),
            finish=finish_of([choice.get("finish_reason") for choice in choices]),
            complete=True,
            error=refused or not 200 <= status < 300,
            service_tier=string(answer.get("service_tier")),
        )

    def closer(self, facts: RequestFacts) -> ChatCloser:
        return ChatCloser(
            choices=facts.choices,
            delta={"delta": {}},
            usage_frame=facts.wants_usage and not self._tells_usage,
            usage_inside=self._tells_usage,
        )

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> ChatMeter:
        return ChatMeter(choices=facts.choices, expects_usage=strip_usage or facts.wants_usage, strip_usage=strip_usage)


class ChatMeter(EventMeter):
    """
    Meters a chat stream. The figure stands in a chunk of its own at the end (``choices: []``), or, at some servers, in
    the chunk with the finish reason; a figure in an earlier chunk is a running one, and final only if the answer ended.
    """

    __slots__ = (
        "_choices", "_done", "_error", "_expects_usage", "_final", "_finishes", "_first_seen", "_id", "_model", "_note",
        "_tier", "_usage",
    )  # fmt: skip

    def __init__(self, *, choices: int, expects_usage: bool, strip_usage: bool) -> None:
        super().__init__(strip=strip_usage)
        self._choices = choices
        self._expects_usage = expects_usage
        self._usage: Usage | None = None
        self._note: str | None = None
        self._final = False
        self._finishes: dict[object, str] = {}
        self._done = False
        self._error = False
        self._first_seen = False
        self._model: str | None = None
        self._id: str | None = None
        self._tier: str | None = None

    @property
    def complete(self) -> bool:
        """Nothing that matters follows: ``[DONE]``, an error in place of an answer, or an ended answer's figure."""
        return self._done or self._error or (self._final and self._ended)

    @property
    def _ended(self) -> bool:
        return len(self._finishes) >= self._choices

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
            finish=finish_of(self._finishes.values()),
            complete=self._done or self._error or ended,
            error=self._error,
            service_tier=self._tier,
        )

    def feed(self, data: bytes) -> bytes:
        if self._first_seen or self._splitter.held_bytes:
            # What nearly all pieces of a slow stream are: one chunk, and nothing in it that matters.
            if (
                self._first_seen
                and data.endswith(b"\n\n")
                and not self._splitter.held_bytes
                and b"\r" not in data
                and not _may_matter(data)
            ):
                self._keep(data)
                return data
            return super().feed(data)
        # The first chunk is read in any case; apart from it, what came with it may be dull.
        first = data.find(b"\n\n") + 2
        if not 1 < first < len(data):
            return super().feed(data)
        relayed = super().feed(data[:first]) + super().feed(data[first:])
        return relayed if self._strip else data

    def _dull(self, data: bytes) -> int:
        if not self._first_seen or b"\r" in data:
            return 0
        end = data.rfind(b"\n\n") + 2
        # Of an answer that came at once, the last frames matter, and hardly any before them.
        for _ in range(_LAST_FRAMES):
            end = data.rfind(b"\n\n", 0, max(0, end - 1)) + 2
        return end if end > 1 and not _may_matter(data[:end]) else 0

    def _see(self, frame: bytes) -> bool:
        matters = _matters(frame)
        if not matters and self._first_seen:
            self._keep(frame)
            return False
        data = event_data(frame)
        if data is None:
            event = parse_frame(frame) if matters else None
            self._done = self._done or (event is not None and event.data.startswith(b"[DONE]"))
            return False
        return self._see_chunk(data, frame)

    def _see_chunk(self, data: Mapping[str, Any], frame: bytes) -> bool:
        choices = mappings(data.get("choices"))
        if not self._first_seen:
            self._first_seen = True
            self._error = not choices and (bool(data.get("error")) or data.get("object") == "error")
            self._model = string(data.get("model"))
            self._id = string(data.get("id"))
        self._tier = string(data.get("service_tier")) or self._tier
        for choice in choices:
            reason = choice.get("finish_reason")
            if isinstance(reason, str):
                index = choice.get("index")
                self._finishes[index if isinstance(index, int) else 0] = reason
        usage, note = reported(data.get("usage"))
        if usage is not None:
            self._usage, self._note = usage, note
            self._final = not choices or self._ended
        self._keep(frame)
        return usage is not None and data.get("choices") == []

    def _read(self, data: Mapping[str, Any]) -> None:
        for choice in mappings(data.get("choices")):
            index = choice.get("index")
            for part, text in _message_text(mapping(choice.get("delta"))):
                self._delivered((index if isinstance(index, int) else 0, part), text)


# What makes a chunk worth reading: in JSON text no string's content can match this, for its quotes are escaped.
_MATTERS = re.compile(rb'"usage"\s*:\s*\{|"finish_reason"\s*:\s*"|\[DONE\]|"error"\s*:\s*[{"]')


_LAST_FRAMES = 4
"""The finish reason, the usage, ``[DONE]``, and one to spare."""


def _matters(frame: bytes) -> bool:
    """Whether a chunk is worth reading. Plain searches, a tenth of the pattern's time, rule out nearly all."""
    return _may_matter(frame) and _MATTERS.search(frame) is not None


def _may_matter(frames: bytes) -> bool:
    """Whether any of these chunks may be worth reading, by plain searches."""
    return (
        frames.count(b'"finish_reason":null') != frames.count(b'"finish_reason"')
        or frames.count(b'"usage":null') != frames.count(b'"usage"')
        or b"[DONE]" in frames
        or b'"error"' in frames
    )


def finish_of(reasons: Any) -> str | None:
    """``length`` if any choice ended at the ceiling, else the first one's reason."""
    told = [reason for reason in reasons if isinstance(reason, str)]
    return "length" if "length" in told else told[0] if told else None


def _message_text(message: Mapping[str, Any]) -> list[tuple[object, str]]:
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


def _choices(request: Mapping[str, Any]) -> int:
    return max(count_in(request, "n", least=1) or 1, count_in(request, "best_of", least=1) or 1)


def _read_message(message: Mapping[str, Any], found: Gathering) -> None:
    role = message.get("role")
    if role in _ROLES:
        found.overhead += MESSAGE_OVERHEAD + ROLE_OVERHEAD
    else:
        found.overhead += MESSAGE_OVERHEAD
        found.add(role)
    if message.keys() <= _PLAIN_FIELDS and isinstance(message.get("content"), str):
        # Nearly all of them, and an agent's history has hundreds.
        found.add(message["content"])
        return
    if message.get("name") is not None:
        found.overhead += NAME_OVERHEAD
        found.add(message["name"])
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            _read_part(part, found)
    else:
        found.add(content)
    found.add(message.get("refusal"))
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        found.overhead += TOOL_CALL_OVERHEAD
        _read_call(call, found)
    if message.get("function_call") is not None:
        found.overhead += TOOL_CALL_OVERHEAD
        _read_call({"function": message["function_call"]}, found)
    if message.get("audio") is not None:
        found.open("audio by id")
    cache_breakpoint(message, found)
    found.rest(message, known=_MESSAGE_FIELDS)


def _read_call(call: Any, found: Gathering) -> None:
    """A past call: its name and arguments as they are; arguments are JSON already, and quoting them would inflate."""
    called = (
        next((call[kind] for kind in ("function", "custom") if kind in call), None) if isinstance(call, dict) else None
    )
    if not isinstance(called, dict):
        found.add(call)
        return
    for field in ("name", "arguments", "input"):
        found.add(called.get(field))
    found.rest(called, known=_CALL_FIELDS)


def _read_part(part: Any, found: Gathering) -> None:
    if not isinstance(part, dict):
        found.add(part)
        return
    cache_breakpoint(part, found)
    kind = part.get("type")
    if kind in ("text", "refusal"):
        found.add(part.get(kind))
    elif kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        size = size_of_url(url) if isinstance(url, str) else UNKNOWN
        found.add_image(size, detail=image.get("detail") if isinstance(image, dict) else None)
    elif kind == "input_audio":
        found.open("audio input")
    elif kind == "file":
        found.open("file input")
    else:
        found.open_unknown("content part", kind, part)


def _read_tools(request: Mapping[str, Any], found: Gathering) -> None:
    if "tools" not in request and "functions" not in request:
        return
    tools = [*objects_in(request, "tools"), *objects_in(request, "functions")]
    for tool in tools:
        kind = tool.get("type")
        found.overhead += TOOL_OVERHEAD
        found.add(without(tool, "type"))
        if kind not in (None, "function", "custom"):
            found.open(f"hosted tool {kind!s:.60}")
    if tools:
        found.overhead += TOOLS_OVERHEAD
        read_tool_choice(request.get("tool_choice") or request.get("function_call"), found)


def _read_options(request: Mapping[str, Any], found: Gathering) -> None:
    if request.keys() <= _PLAIN_REQUEST:
        return
    form = object_in(request, "response_format")
    if form.get("type") not in (None, "text", "json_object"):
        found.overhead += FORMAT_OVERHEAD
        found.add(without(form, "type"))
    modalities = request.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        found.open("audio output")
    for field, reason in _OPEN_FIELDS.items():
        if request.get(field):
            found.open(reason)
    if isinstance(request.get("prediction"), dict):
        found.add(request["prediction"])
    found.rest(request, known=_BODY_FIELDS)
