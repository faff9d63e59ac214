"""
Anthropic messages (``POST …/v1/messages``, its beta included).

Shapes: anthropic 2.12 ``types`` and ``types/beta``; tool-use figures: public API docs, "Tool use pricing" (2026-11).
No tokeniser of these models is public, so the constants below are upper bounds, not measurements.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...kernel.usage import with_output
from .. import json
from ..dialect import JsonDialect
from ..facts import AnswerFacts, RequestFacts
from ..images import UNKNOWN, size_of_base64
from ..metering import EventMeter, answer_object, event_data, mapping, mappings, string
from ..reading import (
    OTHER_MODELS,
    Gathering,
    count_in,
    flag_in,
    model_of,
    object_in,
    objects_in,
    read_models,
    without,
    word_in,
)
from ..reported import reported
from .closing import MessagesCloser

MESSAGE_OVERHEAD = 5
PROMPT_OVERHEAD = 8
BLOCK_OVERHEAD = 16
"""Around a tool call, a tool result or a document."""
TOOL_OVERHEAD = 16
TOOL_USE_PROMPT = 700
"""The hidden system prompt that tools bring: 264 to 530 tokens in the documented models."""
FORMAT_OVERHEAD = 300
"""The hidden system prompt of structured output; its size is not documented."""
_DEFINED_TOOLS = (("bash_", 500), ("text_editor_", 1_000))
"""Tools that Anthropic defines and the client runs: a hidden schema of documented size (245 and 700 tokens)."""

_BODY_FIELDS = frozenset(
    {
        "model", "messages", "system", "tools", "tool_choice", "output_config", "output_format", "thinking", "metadata",
        "service_tier", "speed", "stop_sequences", "cache_control", "container", "diagnostics", "inference_geo",
        "anthropic_version", "anthropic_beta", "betas", "user_profile_id", "workspace_id", "billing_policy",
        "fallback_credit_token", "mcp_servers", "thread", "context_management",
    }
)  # fmt: skip
_PLAIN_REQUEST = frozenset(
    {
        "model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences",
        "metadata",
    }
)  # fmt: skip
"""Fields that are read in any case, or that bring nothing."""
_ANYWHERE = (None, "global", "not_available")
"""What ``inference_geo`` says, as a request or in a usage, where inference is bound to no region."""
_CLEARING = frozenset({"clear_thinking_20251015", "clear_tool_uses_20250919"})
"""Edits of the context that only take out of it: what one leaves in a result's place is within `BLOCK_OVERHEAD`."""
THREAD = "thread"
"""Why a request is open that goes on from an earlier answer of a conversation that Anthropic keeps."""
_OPEN_FIELDS = {
    "mcp_servers": "hosted tool mcp_servers",
    "container": "container",
    "compaction": "compaction",
    "fallbacks": "fallbacks",
}
_TEXT_FIELDS = {
    "text": ("text",),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
    "tool_use": ("name", "input", "toolset_name"),
    "server_tool_use": ("name", "input"),
    "mcp_tool_use": ("name", "input", "server_name"),
    "tool_result": ("toolset_name",),
    "mcp_tool_result": (),
    "search_result": ("source", "title"),
    "document": ("title", "context"),
}
"""Blocks that are read field by field. A signature is the encrypted thinking: longer than the thinking in it."""
_WHOLE_BLOCKS = (
    "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result", "tool_search_tool_result",
    "bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "advisor_tool_result",
    "tool_addition", "tool_removal", "mcp_tool_listing", "fallback", "tool_reference",
)  # fmt: skip
"""Blocks that bring in their own JSON text and nothing else."""


class AnthropicMessages(JsonDialect):
    """The dialect ``anthropic.messages``."""

    name = "anthropic.messages"
    provider = "anthropic"
    ceiling_field = "max_tokens"

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """Raises ValueError, naming the field, on a body that is no messages request."""
        request = json.decode_object(body)
        stream = flag_in(request, "stream")
        if not isinstance(request.get("messages"), list):
            raise ValueError("messages must be a list of objects")
        found = Gathering(self, request, body, path, PROMPT_OVERHEAD)
        _read_content(request.get("system"), found)
        for message in objects_in(request, "messages"):
            found.overhead_tokens += MESSAGE_OVERHEAD
            _read_content(message.get("content"), found)
            found.rest(message, known=_MESSAGE_FIELDS)
        previous = tier = None
        least, thinks = 1, False
        if not _PLAIN_REQUEST.issuperset(request):
            _cache_mark(request, found)
            _read_tools(request, found)
            _read_options(request, found)
            previous = _read_thread(request, found)
            least, thinks = _least_output(request), _thinks(request)
            tier = _served_as(request, word_in(request, "service_tier"))
        # Zero is legal: it fills the prompt cache and generates nothing.
        ceiling = count_in(request, "max_tokens", least=0)
        found.model = model_of(request)
        found.stream = stream
        found.output_ceiling = ceiling
        found.min_output_tokens = 0 if ceiling == 0 else least
        found.no_reasoning = not thinks
        found.service_tier = tier
        found.previous_response_id = previous
        found.wants_usage = stream
        return found

    def _set_ceiling(self, request: dict[str, Any], ceiling: int) -> None:
        super()._set_ceiling(request, ceiling)
        if isinstance(request.get("fallbacks"), list):
            own = [(other, other.get("max_tokens")) for other in request["fallbacks"]]
            request["fallbacks"] = [
                other if most is None else {**other, "max_tokens": min(most, ceiling)} for other, most in own
            ]

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer."""
        failed = not 200 <= status < 300
        answer = answer_object(body)
        if answer is None:
            return AnswerFacts(error=failed)
        usage, note = reported(answer.get("usage"))
        text: tuple[str, ...] = ()
        if usage is None:
            text = tuple(piece for block in mappings(answer.get("content")) for _, piece in _block_text(block))
        return AnswerFacts(
            usage=usage,
            usage_note=note,
            text=text,
            model=string(answer.get("model")),
            response_id=string(answer.get("id")),
            finish=_finish(answer.get("stop_reason")),
            complete=True,
            error=failed or answer.get("type") == "error",
            service_tier=_tier(mapping(answer.get("usage"))),
            kept_as=string(answer.get("id")) if _in_thread(facts) else None,
        )

    def closer(self, facts: RequestFacts) -> MessagesCloser:
        return MessagesCloser()

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> MessagesMeter:
        """*strip_usage* never applies: usage is part of events that clients need."""
        return MessagesMeter(in_thread=_in_thread(facts))


class MessagesMeter(EventMeter):
    """
    Meters a messages stream. ``message_start`` tells the input; each ``message_delta`` tells the sums so far, and is
    the final figure once it has a stop reason.
    """

    __slots__ = ("_error", "_final", "_first_seen", "_id", "_in_thread", "_model", "_stop", "_terminal", "_usage")

    def __init__(self, *, in_thread: bool) -> None:
        super().__init__(strip=False)
        self._in_thread = in_thread
        self._usage: dict[str, Any] = {}
        self._first_seen = False
        self._final = False
        self._terminal = False
        self._error = False
        self._model: str | None = None
        self._id: str | None = None
        self._stop: str | None = None

    def facts(self) -> AnswerFacts:
        """What has been seen so far."""
        usage, note = reported(self._usage)
        final = usage if self._final else None
        return AnswerFacts(
            usage=final,
            usage_note=note if final is not None else None,
            partial_input=None if usage is None else with_output(usage, 0),
            text=() if final is not None else self._delivered_text(),
            model=self._model,
            response_id=self._id,
            finish=_finish(self._stop),
            complete=self.complete,
            error=self._error,
            service_tier=_tier(self._usage),
            kept_as=self._id if self._in_thread else None,
        )

    def _see(self, frame: bytes) -> bool:
        # Plain searches, a tenth of the pattern's time, rule out nearly all.
        if (b'"message_' not in frame and b'"error"' not in frame) or _MATTERS.search(frame) is None:
            if b'"content_block_' in frame:
                self._first_seen = True
                self._keep(frame)
            return False
        data = event_data(frame)
        if data is None:
            return False
        kind = data.get("type")
        if kind == "message_start":
            message = mapping(data.get("message"))
            self._model, self._id = string(message.get("model")), string(message.get("id"))
            self._stop = string(message.get("stop_reason"))
            self._merge(message.get("usage"))
        elif kind == "message_delta":
            self._stop = string(mapping(data.get("delta")).get("stop_reason")) or self._stop
            self._merge(data.get("usage"))
            self._final = self._stop is not None and mapping(data.get("usage")).get("output_tokens") is not None
        elif kind == "message_stop":
            self._terminal = True
        elif kind == "error" or (kind is None and data.get("error")):
            self._error = self._error or not self._first_seen
        self._first_seen = self._first_seen or kind != "ping"
        # Nothing that matters follows ``message_stop``, an error in place of an answer, or the final figure. Some
        # clients read no further than that, and close nothing.
        self.complete = self._terminal or self._error or self._final
        return False

    def _merge(self, usage: object) -> None:
        """Sums replace sums; a figure that is null or not repeated keeps its last value."""
        self._usage.update((key, value) for key, value in mapping(usage).items() if value is not None)

    def _read(self, data: Mapping[str, Any]) -> None:
        index = repr(data.get("index"))
        for holder in ("content_block", "delta"):
            for part, text in _block_text(mapping(data.get(holder))):
                self._delivered((index, part), text)


_MATTERS = re.compile(rb'"type"\s*:\s*"(?:message_(?:start|delta|stop)|error)"|"error"\s*:\s*[{"]')
_MESSAGE_FIELDS = frozenset({"role", "content"})
_MAX_DEPTH = 8
"""A tool result may hold a document that holds text; nothing nests deeper than a few levels."""


def _finish(reason: object) -> str | None:
    return "length" if reason == "max_tokens" else string(reason)


def _tier(usage: Mapping[str, Any]) -> str | None:
    return _served_as(usage, string(usage.get("service_tier")))


def _served_as(told: Mapping[str, Any], tier: str | None) -> str | None:
    """Fast mode has prices of its own, like a tier; so has either where inference is bound to one region."""
    tier = "fast" if told.get("speed") == "fast" else tier
    if told.get("inference_geo") in _ANYWHERE:
        return tier
    return "fast regional" if tier == "fast" else "regional"


def _block_text(block: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The text of a content block or a delta, with the part it belongs to."""
    pieces: list[tuple[str, str]] = []
    for field in ("name", "text", "thinking", "partial_json"):
        value = block.get(field)
        if isinstance(value, str) and value:
            pieces.append((field, value))
    # A plain answer's call has its arguments as an object; a stream starts with an empty one.
    if isinstance(block.get("input"), dict) and block["input"]:
        pieces.append(("input", json.text_of(block["input"])))
    return pieces


def _read_thread(request: Mapping[str, Any], found: Gathering) -> str | None:
    """The earlier answer that a thread goes on from: its whole conversation is input again. A new thread has none."""
    thread = object_in(request, "thread")
    if not thread or thread.get("type") == "create":
        return None
    found.open(THREAD)
    return string(thread.get("previous_message_id")) if thread.get("type") == "continue" else None


def _in_thread(facts: RequestFacts) -> bool:
    """Whether the provider keeps the conversation, so that a later request may go on from this answer."""
    return bool(facts.body.get("thread"))


def _least_output(request: Mapping[str, Any]) -> int:
    budget = count_in(object_in(request, "thinking"), "budget_tokens", least=0)
    return 1 if budget is None else budget + 1


def _thinks(request: Mapping[str, Any]) -> bool:
    """Whether thinking is switched on. It is off unless the request asks for it."""
    return request.get("thinking") is not None and object_in(request, "thinking").get("type") != "disabled"


def _cache_mark(holder: Mapping[str, Any], found: Gathering) -> None:
    mark = holder.get("cache_control")
    if isinstance(mark, dict):
        found.writes_cache = True
        found.cache_1h = found.cache_1h or mark.get("ttl") not in (None, "5m")


def _read_content(content: Any, found: Gathering, *, depth: int = 0) -> None:
    if not isinstance(content, list):
        found.add(content)
        return
    for block in content:
        if not isinstance(block, dict):
            found.add(block)
        elif depth < _MAX_DEPTH:
            _read_block(block, found, depth=depth)
        else:
            found.open_unknown("nesting", None, block)


def _read_block(block: Mapping[str, Any], found: Gathering, *, depth: int) -> None:
    _cache_mark(block, found)
    kind = block.get("type")
    fields = _TEXT_FIELDS.get(kind) if isinstance(kind, str) else None
    if kind == "image":
        source = object_in(block, "source")
        data = source.get("data")
        found.add_image(size_of_base64(data) if isinstance(data, str) else UNKNOWN, detail=None)
    elif fields is not None:
        for field in fields:
            found.add(block.get(field))
        if kind != "text":
            found.overhead_tokens += BLOCK_OVERHEAD
            _read_content(block.get("content"), found, depth=depth + 1)
        if kind == "document":
            _read_document(block, found, depth=depth)
    elif kind == "container_upload":
        found.open("file by id")
    elif isinstance(kind, str) and kind in _WHOLE_BLOCKS:
        found.overhead_tokens += BLOCK_OVERHEAD
        found.add(without(block, "cache_control"))
    else:
        found.overhead_tokens += BLOCK_OVERHEAD
        found.open_unknown("content block", kind, block)


def _read_document(block: Mapping[str, Any], found: Gathering, *, depth: int) -> None:
    source = object_in(block, "source")
    kind = source.get("type")
    if kind == "text":
        found.add(source.get("data"))
    elif kind == "content":
        _read_content(source.get("content"), found, depth=depth + 1)
    else:
        found.open(f"document {kind!s:.40}")
    if object_in(block, "citations").get("enabled"):
        # The text is cut into numbered pieces: how many, only the provider knows.
        found.open("citations")


def _read_tools(request: Mapping[str, Any], found: Gathering) -> None:
    tools = objects_in(request, "tools")
    for tool in tools:
        _cache_mark(tool, found)
        found.overhead_tokens += TOOL_OVERHEAD
        found.add(without(tool, "type", "cache_control"))
        kind = tool.get("type")
        if kind not in (None, "custom"):
            hidden = next((tokens for prefix, tokens in _DEFINED_TOOLS if str(kind).startswith(prefix)), None)
            found.overhead_tokens += hidden or 0
            if hidden is None:
                found.open(f"hosted tool {kind!s:.60}")
            if tool.get("model") not in (None, request.get("model")):  # an advisor
                found.open(OTHER_MODELS)
    if tools or request.get("mcp_servers"):
        found.overhead_tokens += TOOL_USE_PROMPT
        choice = request.get("tool_choice")
        if isinstance(choice, dict):
            found.add(choice.get("name"))


def _read_fallbacks(request: Mapping[str, Any], found: Gathering) -> None:
    """Models that answer where the one asked for declines, each perhaps with a ceiling of its own."""
    if not isinstance(request.get("fallbacks"), list):
        return
    ceiling = count_in(request, "max_tokens", least=0) or 0
    for other in objects_in(request, "fallbacks"):
        found.open(OTHER_MODELS)
        if (count_in(other, "max_tokens", least=0) or 0) > ceiling:
            raise ValueError("fallbacks: no max_tokens there may be above that of the request")


def _read_options(request: Mapping[str, Any], found: Gathering) -> None:
    for form in (object_in(request, "output_config").get("format"), request.get("output_format")):
        if isinstance(form, dict):
            found.overhead_tokens += FORMAT_OVERHEAD
            found.add(form)
    for field, reason in _OPEN_FIELDS.items():
        if request.get(field):
            found.open(reason)
    read_models(request, found)
    _read_fallbacks(request, found)
    managed = object_in(request, "context_management")
    edits = {str(edit.get("type")) for edit in objects_in(managed, "edits")}
    if not (managed.keys() <= {"edits"} and edits <= _CLEARING):
        found.open("context_management")
    found.rest(request, known=_BODY_FIELDS)
