"""
OpenAI Responses (``POST …/responses``).

Shapes: openai 3.54 ``types/responses``. An item or a tool of a kind not listed here counts as its whole JSON text and
makes the request open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ...kernel.usage import Usage
from .. import json
from ..facts import AnswerFacts, RequestFacts
from ..images import UNKNOWN, size_of_base64, size_of_url
from ..metering import EventMeter, answer_object, event_data, mapping, mappings, string
from ..reading import (
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
from .images import images_reported
from .responses_closing import ResponsesCloser
from .shared import OpenAIDialect, cache_breakpoint, read_cache_options, read_tool_choice

MESSAGE_OVERHEAD = 3
ITEM_OVERHEAD = 16
"""Around a past call, its output, or a piece of reasoning."""
REPLY_PRIMING = 3
TOOL_OVERHEAD = 10
TOOLS_OVERHEAD = 16
FORMAT_OVERHEAD = 16
MIN_OUTPUT_TOKENS = 16
"""The endpoint refuses a smaller ``max_output_tokens`` (public API docs, 2026-11)."""

_BODY_FIELDS = frozenset(
    {
        "model", "input", "instructions", "tools", "text", "tool_choice", "background_options", "access_programs",
        "include", "metadata", "moderation", "previous_response_id", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "stream_options", "truncation",
        "user", "image", "conversation", "client_metadata",
    }
)  # fmt: skip
_PLAIN_REQUEST = frozenset(
    {"model", "input", "instructions", "max_output_tokens", "stream", "temperature", "top_p", "user"}
)
"""Fields that are read in any case, or only steer the sampling."""
_OPEN_FIELDS = ("previous_response_id", "conversation", "prompt", "background", "context_management", "multi_agent")
_OWN_TOOLS = ("function", "custom", "namespace")
_PAST_WORK = (
    "web_search_call", "file_search_call", "computer_call", "code_interpreter_call", "tool_search_call",
    "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output", "apply_patch_call",
    "apply_patch_call_output", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "mcp_call",
    "configuration_update", "program", "program_output",
)  # fmt: skip
"""Items that bring in their own JSON text and nothing else."""


class OpenAIResponses(OpenAIDialect):
    """The dialect ``openai.responses``."""

    name = "openai.responses"
    ceiling_field = "max_output_tokens"

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """Raises ValueError, naming the field, on a body that is no Responses request."""
        request = json.decode_object(body)
        stream = flag_in(request, "stream")
        found = Gathering(self, request, body, path, REPLY_PRIMING)
        instructions = request.get("instructions")
        if instructions:
            found.overhead_tokens += MESSAGE_OVERHEAD
            found.add("system")
            found.add(instructions)
        _read_input(request.get("input"), found)
        if not _PLAIN_REQUEST.issuperset(request):
            _read_tools(request, found)
            _read_options(request, found)
        read_cache_options(request, found)
        found.model = model_of(request)
        found.stream = stream
        found.output_ceiling = count_in(request, "max_output_tokens", least=1)
        found.min_output_tokens = MIN_OUTPUT_TOKENS
        found.service_tier = word_in(request, "service_tier")
        found.previous_response_id = word_in(request, "previous_response_id")
        found.wants_usage = stream
        return found

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer; also that of ``GET …/responses/{id}``, which may still be in progress."""
        failed = not 200 <= status < 300
        answer = answer_object(body)
        if answer is None:
            return AnswerFacts(error=failed)
        read = _read_response(answer)
        text: tuple[str, ...] = ()
        if read.usage is None:
            text = tuple(piece for item in mappings(answer.get("output")) for piece in _item_text(item))
            failed = failed or (not text and bool(answer.get("error")))
        complete = answer.get("status") not in ("queued", "in_progress")
        return read._replace(text=text, complete=complete, error=failed, kept_as=read.response_id)

    def closer(self, facts: RequestFacts) -> ResponsesCloser:
        return ResponsesCloser()

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> ResponsesMeter:
        """*strip_usage* never applies: the figure is part of the last event, which clients need."""
        return ResponsesMeter()


class ResponsesMeter(EventMeter):
    """
    Meters a Responses stream: the figure stands in the response that the terminal event carries.

    ``response.created`` delivers nothing: a response that then fails before its first item is an error, not an answer.
    """

    __slots__ = ("_answer", "_delivers", "_error", "_terminal")

    def __init__(self) -> None:
        super().__init__(strip=False)
        self._answer = AnswerFacts()
        self._terminal = False
        self._error = False
        self._delivers = False

    def facts(self) -> AnswerFacts:
        """What has been seen so far."""
        answer = self._answer
        return AnswerFacts(
            usage=answer.usage,
            usage_note=answer.usage_note,
            text=() if answer.usage is not None else self._delivered_text(),
            model=answer.model,
            response_id=answer.response_id,
            finish=answer.finish if self._terminal else None,
            complete=self.complete,
            error=self._error,
            service_tier=answer.service_tier,
            kept_as=answer.response_id,
            beside=answer.beside,
        )

    def _see(self, frame: bytes) -> bool:
        if not _matters(frame):
            if b'.delta"' in frame or b'"response.output_item.added"' in frame:
                self._delivers = True
                self._keep(frame)
            return False
        data = event_data(frame)
        if data is None:
            return False
        kind = data.get("type")
        response = data.get("response")
        if kind == "error" or (kind is None and data.get("error")):
            self._error = not self._delivers
        elif isinstance(response, dict):
            self._answer = _read_response(response)
            if kind in _TERMINAL:
                self._terminal = True
                failed = kind == "response.failed" and self._answer.usage is None
                self._error = failed and not self._delivers
        # A terminal event, or an error in place of an answer.
        self.complete = self._terminal or self._error
        return False

    def _read(self, data: Mapping[str, Any]) -> None:
        kind = data.get("type")
        place = repr([data.get(index) for index in ("output_index", "item_id", "content_index", "summary_index")])
        if kind == "response.output_item.added":
            item = mapping(data.get("item"))
            self._delivered(("name", place), item.get("name"))
        elif kind not in _NOT_TEXT:
            self._delivered((repr(kind), place), data.get("delta"))


_IMAGE_MODEL = "gpt-image-1"
"""What the tool uses where nothing is said (openai 3.54, ``ImageGeneration``)."""
_TERMINAL = ("response.completed", "response.incomplete", "response.failed")
_NOT_TEXT = ("response.audio.delta", "response.output_audio.delta")
_MATTERS = re.compile(rb'"type"\s*:\s*"(?:response\.(?:created|completed|incomplete|failed)|error)"|"error"\s*:\s*[{"]')


def _matters(frame: bytes) -> bool:
    """Whether an event is worth reading now. Plain searches, a tenth of the pattern's time, rule out nearly all."""
    if (
        b'"response.c' not in frame
        and b'"response.incomplete"' not in frame
        and b'"response.failed"' not in frame
        and b'"error"' not in frame
    ):
        return False
    return _MATTERS.search(frame) is not None


def _read_response(response: Mapping[str, Any]) -> AnswerFacts:
    usage: Usage | None
    usage, note = reported(response.get("usage"))
    reason = string(mapping(response.get("incomplete_details")).get("reason"))
    return AnswerFacts(
        usage=usage,
        usage_note=note,
        model=string(response.get("model")),
        response_id=string(response.get("id")),
        finish="length" if reason == "max_output_tokens" else reason or string(response.get("status")),
        service_tier=string(response.get("service_tier")),
        beside=_images_made(response) if response.get("tool_usage") else (),
    )


def _images_made(response: Mapping[str, Any]) -> tuple[tuple[str, Usage], ...]:
    """The images that a hosted tool made: by a model of its own, whose tokens the answer's usage leaves out."""
    usage, _ = images_reported(mapping(response.get("tool_usage")).get("image_gen"))
    if usage is None or not usage.total_tokens:
        return ()
    tools = [tool for tool in mappings(response.get("tools")) if tool.get("type") == "image_generation"]
    return ((next((tool["model"] for tool in tools if string(tool.get("model"))), _IMAGE_MODEL), usage),)


def _item_text(item: Mapping[str, Any]) -> list[str]:
    """The text of one output item."""
    pieces = [item.get(field) for field in ("name", "arguments", "input", "code")]
    for field in ("content", "summary"):
        for part in mappings(item.get(field)):
            pieces += [part.get("text"), part.get("refusal"), part.get("transcript")]
    return [piece for piece in pieces if isinstance(piece, str) and piece]


def _read_input(value: Any, found: Gathering) -> None:
    if value is None:
        return
    if isinstance(value, str):
        found.overhead_tokens += MESSAGE_OVERHEAD
        found.add("user")
        found.add(value)
        return
    if not isinstance(value, list):
        raise ValueError(f"input must be a string or a list of items, not {value!r:.80}")
    for item in value:
        if isinstance(item, dict):
            cache_breakpoint(item, found)
            _read_item(item, found)
        else:
            found.open_unknown("input item", None, item)


def _read_item(item: Mapping[str, Any], found: Gathering) -> None:
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else "item_reference" if "id" in item else None
    reader = _ITEMS.get(kind) if isinstance(kind, str) else None
    if reader is not None:
        reader(item, found)
    elif isinstance(kind, str) and kind in _PAST_WORK:
        found.overhead_tokens += ITEM_OVERHEAD
        found.add(without(item, "id", "type", "status", "call_id"))
    else:
        found.overhead_tokens += ITEM_OVERHEAD
        found.open_unknown("input item", kind, item)


def _message(item: Mapping[str, Any], found: Gathering) -> None:
    found.overhead_tokens += MESSAGE_OVERHEAD
    found.add(item.get("role"))
    _read_content(item.get("content"), found)
    found.rest(item, known=_MESSAGE_FIELDS)


def _call(item: Mapping[str, Any], found: Gathering) -> None:
    found.overhead_tokens += ITEM_OVERHEAD
    for field in ("name", "namespace", "arguments", "input"):
        found.add(item.get(field))


def _call_output(item: Mapping[str, Any], found: Gathering) -> None:
    found.overhead_tokens += ITEM_OVERHEAD
    found.add(item.get("name"))
    output = item.get("output")
    _read_content([output] if isinstance(output, dict) else output, found)


def _reasoning(item: Mapping[str, Any], found: Gathering) -> None:
    """
    Encrypted reasoning is longer, in tokens of its base64 text, than the reasoning in it. Without it the provider
    looks the reasoning up by its id, and no length is known here.
    """
    found.overhead_tokens += ITEM_OVERHEAD
    for field in ("summary", "content"):
        _read_content(item.get(field), found)
    if isinstance(item.get("encrypted_content"), str):
        found.add(item["encrypted_content"])
    else:
        found.open("reasoning by id")


def _item_reference(item: Mapping[str, Any], found: Gathering) -> None:
    found.open("item_reference")


def _compaction(item: Mapping[str, Any], found: Gathering) -> None:
    found.add(item.get("encrypted_content"))
    found.open("compaction")


def _image_generation(item: Mapping[str, Any], found: Gathering) -> None:
    found.overhead_tokens += ITEM_OVERHEAD
    result = item.get("result")
    if result is not None:
        found.add_image(size_of_base64(result) if isinstance(result, str) else UNKNOWN, detail=None)
    found.add(item.get("revised_prompt"))


def _more_tools(item: Mapping[str, Any], found: Gathering) -> None:
    found.overhead_tokens += ITEM_OVERHEAD
    for tool in objects_in(item, "tools"):
        _read_tool(tool, found)


_MESSAGE_FIELDS = frozenset({"role", "content", "type", "id", "status", "phase", "prompt_cache_breakpoint"})
_ITEMS: dict[str, Callable[[Mapping[str, Any], Gathering], None]] = {
    "message": _message,
    "function_call": _call,
    "custom_tool_call": _call,
    "function_call_output": _call_output,
    "custom_tool_call_output": _call_output,
    "computer_call_output": _call_output,
    "reasoning": _reasoning,
    "item_reference": _item_reference,
    "compaction": _compaction,
    "compaction_trigger": _compaction,
    "image_generation_call": _image_generation,
    "additional_tools": _more_tools,
    "tool_search_output": _more_tools,
}


def _read_content(content: Any, found: Gathering) -> None:
    if not isinstance(content, list):
        found.add(content)
        return
    for part in content:
        if isinstance(part, dict):
            _read_part(part, found)
        else:
            found.add(part)


def _read_part(part: Mapping[str, Any], found: Gathering) -> None:
    cache_breakpoint(part, found)
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text", "summary_text", "reasoning_text"):
        found.add(part.get("text"))
    elif kind == "refusal":
        found.add(part.get("refusal"))
    elif kind in ("input_image", "computer_screenshot"):
        url = part.get("image_url")
        found.add_image(size_of_url(url) if isinstance(url, str) else UNKNOWN, detail=part.get("detail"))
    elif kind == "input_file":
        found.open("file input")
    elif kind == "input_audio":
        found.open("audio input")
    else:
        found.open_unknown("content part", kind, part)


def _read_tools(request: Mapping[str, Any], found: Gathering) -> None:
    tools = objects_in(request, "tools")
    for tool in tools:
        _read_tool(tool, found)
    if tools:
        found.overhead_tokens += TOOLS_OVERHEAD
        read_tool_choice(request.get("tool_choice"), found)


def _read_tool(tool: Mapping[str, Any], found: Gathering) -> None:
    kind = tool.get("type")
    found.overhead_tokens += TOOL_OVERHEAD
    inner = tool.get("tools")
    if isinstance(inner, list):
        found.overhead_tokens += TOOL_OVERHEAD * len(inner)
    found.add(without(tool, "type"))
    if kind not in _OWN_TOOLS:
        found.open(f"hosted tool {kind!s:.60}")


def _read_options(request: Mapping[str, Any], found: Gathering) -> None:
    form = object_in(object_in(request, "text"), "format")
    if form.get("type") not in (None, "text", "json_object"):
        found.overhead_tokens += FORMAT_OVERHEAD
        found.add(without(form, "type"))
    for field in _OPEN_FIELDS:
        if request.get(field):
            found.open(field)
    read_models(request, found)
    found.rest(request, known=_BODY_FIELDS)
