"""
OpenAI chat completions (``POST …/chat/completions``), as OpenAI and the many compatible servers speak it.

Shapes: openai 3.54 ``types/chat``; template overhead: OpenAI cookbook, "How to count tokens with tiktoken" (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...kernel.balances import bare
from .. import json
from ..facts import AnswerFacts, RequestFacts
from ..images import UNKNOWN, size_of_url
from ..metering import answer_object, mapping, mappings, string
from ..reading import (
    Gathering,
    count_in,
    flag_in,
    object_in,
    objects_in,
    read_models,
    without,
    word_in,
)
from ..reported import reported
from .chat_closing import ChatCloser
from .chat_metering import ChatMeter, finish_of, message_text
from .shared import (
    OpenAIDialect,
    answers_each,
    ask_usage_in,
    cache_breakpoint,
    model_at,
    read_cache_options,
    read_tool_choice,
)

MESSAGE_OVERHEAD = 3
NAME_OVERHEAD = 1
ROLE_OVERHEAD = 1
"""Each of the usual roles is one token, which is known without counting it."""
_USUAL_OVERHEAD = MESSAGE_OVERHEAD + ROLE_OVERHEAD
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
_CALL_FIELDS = frozenset({"name", "arguments", "input"})
_BODY_FIELDS = frozenset(
    {
        "model", "messages", "tools", "functions", "response_format", "tool_choice", "function_call", "prediction",
        "web_search_options", "audio", "modalities", "logit_bias", "metadata", "moderation", "prompt_cache_key",
        "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "safety_identifier", "service_tier",
        "stop", "stream_options", "user", "verbosity",
    }
)  # fmt: skip
_PLAIN_REQUEST = frozenset({"model", "messages", "temperature", "top_p", "seed", "user", *_CEILINGS})
"""What all requests have, and what only steers the sampling."""
_OPEN_FIELDS = {
    "prediction": "predicted output",
    "web_search_options": "hosted tool web_search",
    "search_parameters": "hosted tool search",
    "data_sources": "hosted tool data_sources",
    "plugins": "hosted plugins",
}
"""Fields by which a provider adds input or output of its own: OpenAI's, xAI's, Azure's and OpenRouter's."""
_NO_OPTIONS = (_BODY_FIELDS - {"response_format", "modalities", *_OPEN_FIELDS}) | _PLAIN_REQUEST | {"stream", "n"}
"""Fields that bring nothing, or are read where they belong."""


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
        found = Gathering(self, request, body, path, REPLY_PRIMING)
        _read_messages(request, found)
        if _PLAIN_REQUEST.issuperset(request):
            found.writes_cache = True
        else:
            self._read_rest(request, found)
        for field in _CEILINGS:
            if field in request:
                # Two names of one thing: servers differ in which one they go by.
                ceiling, told = found.output_ceiling, count_in(request, field, least=1)
                found.output_ceiling = told if ceiling is None else max(ceiling, told or 0)
        found.model = model_at(request, path)
        return found

    def _read_rest(self, request: Mapping[str, Any], found: Gathering) -> None:
        """What requests have beside what all have."""
        found.stream = flag_in(request, "stream")
        asks_usage = flag_in(object_in(request, "stream_options"), "include_usage")
        found.wants_usage = found.stream and (asks_usage or self._tells_usage)
        found.choices = answers_each(request)
        found.service_tier = word_in(request, "service_tier")
        _read_tools(request, found)
        if not _NO_OPTIONS.issuperset(request):
            _read_options(request, found)
        read_cache_options(request, found)

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
        usage, note = reported(answer.get("usage"))
        choices = mappings(answer.get("choices"))
        failed = not 200 <= status < 300
        text: tuple[str, ...] = ()
        if usage is None:
            # Some compatible servers answer 200 with an error in the body.
            failed = failed or (not choices and bool(answer.get("error")))
            said = [piece for choice in choices for piece in message_text(mapping(choice.get("message")))]
            text = tuple(piece for _, piece in said)
        model, response_id, tier = (
            string(answer.get("model")),
            string(answer.get("id")),
            string(answer.get("service_tier")),
        )
        return bare(
            AnswerFacts, (usage, note, None, text, model, response_id, finish_of(choices), True, failed, tier, None, ())
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


def _read_messages(request: Mapping[str, Any], found: Gathering) -> None:
    messages = request.get("messages")
    if not isinstance(messages, list):
        raise ValueError("messages must be a list of objects")
    for message in messages:
        if type(message) is not dict:
            raise ValueError("messages must be a list of objects")
        role, content = message.get("role"), message.get("content")
        if role in _ROLES:
            found.overhead_tokens += _USUAL_OVERHEAD
        else:
            found.overhead_tokens += MESSAGE_OVERHEAD
            found.add(role)
        if "name" in message and message["name"] is not None:
            found.overhead_tokens += NAME_OVERHEAD
            found.add(message["name"])
        if isinstance(content, list):
            for part in content:
                _read_part(part, found)
        else:
            found.add(content)
        # Nearly all have nothing else, and an agent's history has hundreds.
        if len(message) > 2 or role is None or content is None:
            _read_more(message, found)


def _read_more(message: Mapping[str, Any], found: Gathering) -> None:
    """What a message has beside its role, name and content."""
    found.add(message.get("refusal"))
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        found.overhead_tokens += TOOL_CALL_OVERHEAD
        _read_call(call, found)
    if message.get("function_call") is not None:
        found.overhead_tokens += TOOL_CALL_OVERHEAD
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
        found.overhead_tokens += TOOL_OVERHEAD
        found.add(without(tool, "type"))
        if kind not in (None, "function", "custom"):
            found.open(f"hosted tool {kind!s:.60}")
    if tools:
        found.overhead_tokens += TOOLS_OVERHEAD
        read_tool_choice(request.get("tool_choice") or request.get("function_call"), found)


def _read_options(request: Mapping[str, Any], found: Gathering) -> None:
    form = object_in(request, "response_format")
    if form.get("type") not in (None, "text", "json_object"):
        found.overhead_tokens += FORMAT_OVERHEAD
        found.add(without(form, "type"))
    modalities = request.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        found.open_output("audio output")
    for field, reason in _OPEN_FIELDS.items():
        if request.get(field):
            found.open(reason)
    if isinstance(request.get("prediction"), dict):
        found.add(request["prediction"])
    read_models(request, found)
    google = object_in(object_in(request, "extra_body"), "google")  # Gemini, asked in OpenAI's language
    if google.get("cached_content") or google.get("cachedContent"):
        found.open("cachedContent")
    found.rest(request, known=_BODY_FIELDS)
