"""
Anthropic ``POST /v1/messages``: what it accepts, and its answers, plain and streamed.

Shapes as the ``anthropic`` package 2.12 types them (``types/message``, ``types/raw_message_*``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from ...kernel.usage import Usage
from ..counting import Count, prompt_tokens
from ..endpoint import Body, Endpoint, Frame, Rejection, Rendering, event, require_integer
from ..generation import Generation, Part

_MIN_THINKING_TOKENS = 1024
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_SIGNATURE = "ZmFrZQ=="


class AnthropicMessages(Endpoint):
    """Messages, the beta ones too."""

    name = "anthropic.messages"
    id_prefix = "msg_"
    request_id_header = "request-id"
    error_kinds: ClassVar[dict[int, tuple[str, str | None]]] = {
        400: ("invalid_request_error", None),
        401: ("authentication_error", None),
        402: ("billing_error", None),
        403: ("permission_error", None),
        404: ("not_found_error", None),
        413: ("request_too_large", None),
        429: ("rate_limit_error", None),
        500: ("api_error", None),
        504: ("timeout_error", None),
        529: ("overloaded_error", None),
    }
    required: ClassVar[tuple[str, ...]] = ("model", "messages", "max_tokens")
    fields = frozenset(
        "model messages max_tokens billing_policy cache_control compaction container context_management diagnostics "
        "fallback_credit_token fallbacks inference_geo mcp_servers metadata output_config output_format service_tier "
        "speed stop_sequences stream system temperature thinking thread tool_choice tools top_k top_p user_profile_id "
        "workspace_id".split()
    )

    def check_fields(self, body: Body) -> None:
        for field in body:
            if field not in self.fields:
                raise Rejection(f"{field}: Extra inputs are not permitted")

    def check(self, body: Body, headers: dict[str, str]) -> None:
        if "anthropic-version" not in headers:
            raise Rejection("anthropic-version: header is required")
        for field in self.required:
            if body.get(field) is None:
                raise Rejection(f"{field}: Field required")
        if not isinstance(body["model"], str):
            raise Rejection("model: Input should be a valid string")
        if not isinstance(body["messages"], list) or not body["messages"]:
            raise Rejection("messages: at least one message is required")
        require_integer(body, "max_tokens", minimum=0, refuse=_refuse)
        thinking = body.get("thinking") or {}
        if thinking.get("type") != "enabled":
            return
        require_integer(thinking, "budget_tokens", minimum=_MIN_THINKING_TOKENS, refuse=_refuse)
        if body.get("max_tokens") is not None and thinking.get("budget_tokens", 0) >= body["max_tokens"]:
            raise Rejection("`max_tokens` must be greater than `thinking.budget_tokens`.")

    def input_tokens(self, body: Body, count: Count) -> int:
        items: list[Any] = list(body["messages"])
        if system := body.get("system"):
            items.insert(0, {"role": "system", "content": system})
        return prompt_tokens(items, body.get("tools"), body["model"], count)

    def ceiling(self, body: Body) -> int | None:
        found: int = body["max_tokens"]
        return found

    def plain(self, made: Generation, mark: Rendering, body: Body) -> Body:
        blocks = [_block(part, index, mark) for index, part in enumerate(made.parts)]
        if made.reasoning_tokens and _shows_thinking(body):
            blocks.insert(0, {"type": "thinking", "thinking": made.thoughts, "signature": _SIGNATURE})
        answer = {**_message(mark), "content": blocks, "stop_reason": _stop_reason(made)}
        return answer if made.reported is None else {**answer, "usage": _usage(made.reported)}

    def stream(self, made: Generation, mark: Rendering, body: Body) -> Iterator[Frame]:
        shown = made.reasoning_tokens > 0 and _shows_thinking(body)
        done = made.hidden_tokens
        opening = {**_message(mark), "content": [], "stop_reason": None}
        if made.reported is not None:
            # The input is known from the start; of the output one token is announced, as the real ones do.
            opening["usage"] = {**_usage(made.reported), "output_tokens": min(1, made.reported.output_tokens)}
            opening["usage"].pop("output_tokens_details")
        yield Frame(_event("message_start", message=opening), done)
        index = 0
        if shown:
            yield Frame(_start(index, {"type": "thinking", "thinking": "", "signature": ""}), done)
            yield Frame(_delta(index, {"type": "thinking_delta", "thinking": made.thoughts}), done)
            yield Frame(_delta(index, {"type": "signature_delta", "signature": _SIGNATURE}), done)
            yield Frame(_event("content_block_stop", index=index), done)
            index += 1
        for number, part in enumerate(made.parts):
            yield Frame(_start(index, _opened(_block(part, number, mark))), done)
            if number == 0:
                yield Frame(_event("ping"), done)
            for piece in made.chunks(part):
                done += piece.tokens
                kind, field = ("text_delta", "text") if part.tool is None else ("input_json_delta", "partial_json")
                yield Frame(_delta(index, {"type": kind, field: piece.text}), done, chunk=True)
            yield Frame(_event("content_block_stop", index=index), done)
            index += 1
        ending: Body = {"delta": {"stop_reason": _stop_reason(made), "stop_sequence": None, "container": None}}
        if made.reported is not None:
            ending["usage"] = _final_usage(made.reported)
        yield Frame(_event("message_delta", **ending), done)
        yield Frame(_event("message_stop"), done)

    def error(self, rejection: Rejection, request_id: str) -> Body:
        return {
            "type": "error",
            "error": {"type": rejection.kind, "message": rejection.message},
            "request_id": request_id,
        }

    def stream_error(self, rejection: Rejection, request_id: str) -> bytes:
        return event(self.error(rejection, request_id), "error")


class AnthropicCountTokens(AnthropicMessages):
    """Counts the tokens of a request, for nothing."""

    name = "anthropic.count_tokens"
    required: ClassVar[tuple[str, ...]] = ("model", "messages")
    fields = AnthropicMessages.fields - {"max_tokens", "stream", "temperature", "top_k", "top_p", "stop_sequences"}


def _refuse(message: str, field: str, problem: str) -> Rejection:
    return Rejection(f"{field}: {message}")


def _event(name: str, **data: Any) -> bytes:
    return event({"type": name, **data}, name)


def _start(index: int, block: Body) -> bytes:
    return _event("content_block_start", index=index, content_block=block)


def _delta(index: int, delta: Body) -> bytes:
    return _event("content_block_delta", index=index, delta=delta)


def _message(mark: Rendering) -> Body:
    return {
        "id": mark.id,
        "type": "message",
        "role": "assistant",
        "model": mark.model,
        "stop_sequence": None,
        "container": None,
    }


def _stop_reason(made: Generation) -> str:
    return made.finish or _STOP_REASONS[made.ending]


def _shows_thinking(body: Body) -> bool:
    return (body.get("thinking") or {}).get("type") not in (None, "disabled")


def _block(part: Part, index: int, mark: Rendering) -> Body:
    if part.tool is None:
        return {"type": "text", "text": part.text}
    return {"type": "tool_use", "id": f"toolu_{mark.id}_{index}", "name": part.tool.name, "input": part.arguments}


def _opened(block: Body) -> Body:
    """The same block as it is announced: empty."""
    return {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}


def _usage(usage: Usage) -> Body:
    """Anthropic's usage object: its input tokens are the fresh ones alone."""
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
    }


def _final_usage(usage: Usage) -> Body:
    full = _usage(usage)
    keys = (
        "input_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "output_tokens",
        "output_tokens_details",
        "server_tool_use",
    )
    return {key: full[key] for key in keys}
