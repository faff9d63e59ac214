"""
Cohere: ``POST /v2/chat``, plain and as events.

Shapes as the ``cohere`` package 7.3 types them (``v2/types``). Billed units are what is billed; the token counts beside
them hold what the template adds as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from ...kernel.usage import Usage
from ..counting import Count, prompt_tokens
from ..endpoint import Body, Endpoint, Frame, Rejection, Rendering, event, require_integer
from ..generation import Generation

TEMPLATE_TOKENS = 60
_FINISH = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL"}


class CohereChat(Endpoint):
    """Chat, version 2."""

    name = "cohere.chat"
    id_prefix = "co-"
    request_id_header = "x-debug-trace-id"
    error_kinds: ClassVar[dict[int, tuple[str, str | None]]] = {400: ("bad_request", None), 500: ("internal", None)}
    fields = frozenset(
        "model messages stream tools strict_tools documents citation_options response_format safety_mode max_tokens "
        "stop_sequences temperature seed frequency_penalty presence_penalty k p logprobs tool_choice thinking priority "
        "reasoning_effort".split()
    )

    def check_fields(self, body: Body) -> None:
        for field in body:
            if field not in self.fields:
                raise Rejection(f"invalid request: unknown field: parameter '{field}' is not a valid field")

    def check(self, body: Body, headers: dict[str, str]) -> None:
        for field, kind in (("model", str), ("messages", list)):
            if not isinstance(body.get(field), kind):
                raise Rejection(f"invalid request: {field} is required")
        require_integer(body, "max_tokens", minimum=1, refuse=lambda message, field, problem: Rejection(message))

    def input_tokens(self, body: Body, count: Count) -> int:
        return prompt_tokens(body["messages"], body.get("tools"), body["model"], count)

    def ceiling(self, body: Body) -> int | None:
        found: int | None = body.get("max_tokens")
        return found

    def plain(self, made: Generation, mark: Rendering, body: Body) -> Body:
        message: Body = {"role": "assistant"}
        if made.text:
            message["content"] = [{"type": "text", "text": made.text}]
        if made.tools:
            message["tool_calls"] = [_call(number, part) for number, part in enumerate(made.tools)]
        answer = {"id": mark.id, "finish_reason": _finish(made), "message": message}
        return answer if made.reported is None else {**answer, "usage": _usage(made.reported)}

    def stream(self, made: Generation, mark: Rendering, body: Body) -> Iterator[Frame]:
        done = made.hidden_tokens
        start = {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}
        yield Frame(_event("message-start", id=mark.id, delta=start), done)
        for index, part in enumerate(made.parts):
            kind, opening = _opening(index, part)
            yield Frame(_event(kind, index=index, **opening), done)
            for piece in made.chunks(part):
                done += piece.tokens
                delta: Body = {"content": {"text": piece.text}}
                if part.tool is not None:
                    delta = {"tool_calls": {"function": {"arguments": piece.text}}}
                kind = "content-delta" if part.tool is None else "tool-call-delta"
                yield Frame(_event(kind, index=index, delta={"message": delta}), done, chunk=True)
            yield Frame(_event("content-end" if part.tool is None else "tool-call-end", index=index), done)
        end: Body = {"finish_reason": _finish(made)}
        if made.reported is not None:
            end["usage"] = _usage(made.reported)
        yield Frame(_event("message-end", delta=end), done)

    def error(self, rejection: Rejection, request_id: str) -> Body:
        return {"id": request_id, "message": rejection.message}

    def stream_error(self, rejection: Rejection, request_id: str) -> bytes:
        return _event("message-end", delta={"finish_reason": "ERROR", "error": rejection.message})


def _event(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


def _opening(index: int, part: Any) -> tuple[str, Body]:
    if part.tool is None:
        return "content-start", {"delta": {"message": {"content": {"type": "text", "text": ""}}}}
    call = {**_call(index, part), "function": {"name": part.tool.name, "arguments": ""}}
    return "tool-call-start", {"delta": {"message": {"tool_calls": call}}}


def _call(number: int, part: Any) -> Body:
    return {"id": f"call_{number}", "type": "function", "function": {"name": part.tool.name, "arguments": part.text}}


def _finish(made: Generation) -> str:
    return made.finish or _FINISH[made.ending]


def _usage(usage: Usage) -> Body:
    """As floats, as Cohere writes them."""
    given = usage.total_tokens - usage.output
    return {
        "billed_units": {"input_tokens": float(given), "output_tokens": float(usage.output)},
        "tokens": {"input_tokens": float(given + TEMPLATE_TOKENS), "output_tokens": float(usage.output)},
    }
