"""
OpenAI ``POST /v1/responses``: what it accepts, and its answers, plain and streamed.

Shapes as the ``openai`` package 3.54 types them (``types/responses``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...kernel.usage import Usage
from ..counting import Count, prompt_tokens
from ..endpoint import Body, Frame, Rejection, Rendering, event
from ..generation import Generation, Part
from .openai import OpenAIEndpoint, missing

_MIN_OUTPUT_TOKENS = 16
_MOVED = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
_ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What an answer repeats of its request, and what it says where the request was silent."""


class OpenAIResponses(OpenAIEndpoint):
    """Responses."""

    name = "openai.responses"
    id_prefix = "resp_"
    fields = frozenset(
        "access_programs background background_options client_metadata context_management conversation image include "
        "input instructions max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls "
        "previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention reasoning "
        "safety_identifier service_tier store stream stream_options temperature text tool_choice tools top_logprobs "
        "top_p truncation user".split()
    )

    def check_fields(self, body: Body) -> None:
        for field in body:
            if field in _MOVED:
                raise Rejection(
                    f"Unsupported parameter: '{field}'. In the Responses API, this parameter has moved to "
                    f"'{_MOVED[field]}'. Try again with the new parameter.",
                    param=field,
                    code="unsupported_parameter",
                )
            if field not in self.fields:
                raise Rejection(f"Unknown parameter: '{field}'.", param=field, code="unknown_parameter")

    def check(self, body: Body, headers: dict[str, str]) -> None:
        self.require(body)
        if all(body.get(field) is None for field in ("input", "prompt", "conversation", "previous_response_id")):
            raise missing("input")
        self.at_least(body, "max_output_tokens", _MIN_OUTPUT_TOKENS)

    def input_tokens(self, body: Body, count: Count) -> int:
        items: list[Any] = []
        if instructions := body.get("instructions"):
            items.append({"role": "system", "content": instructions})
        given = body.get("input")
        items += [{"role": "user", "content": given}] if isinstance(given, str) else given or []
        schemas = [body["tools"]] if body.get("tools") else []
        if schema := ((body.get("text") or {}).get("format") or {}).get("schema"):
            schemas.append(schema)
        return prompt_tokens(items, schemas, body["model"], count)

    def ceiling(self, body: Body) -> int | None:
        found: int | None = body.get("max_output_tokens")
        return found

    def plain(self, made: Generation, mark: Rendering, body: Body) -> Body:
        items = [_item(part, index, mark, status=_status(made)) for index, part in enumerate(made.parts)]
        if made.reasoning_tokens:
            items.insert(0, _reasoning_item(mark))
        return _response(made, mark, body, status=_status(made), output=items)

    def stream(self, made: Generation, mark: Rendering, body: Body) -> Iterator[Frame]:
        numbers = iter(range(10**9))

        def send(name: str, done: int, /, *, chunk: bool = False, **data: Any) -> Frame:
            return Frame(event({"type": name, "sequence_number": next(numbers), **data}, name), done, chunk)

        running = _response(made, mark, body, status="in_progress", output=[])
        # The generation runs from the first event on, but nothing of it is known until reasoning is over.
        yield send("response.created", made.hidden_tokens, response=running)
        yield send("response.in_progress", made.hidden_tokens, response=running)
        done = made.hidden_tokens
        finished: list[Body] = []
        if made.reasoning_tokens:
            item = _reasoning_item(mark)
            yield send("response.output_item.added", done, output_index=0, item=item)
            yield send("response.output_item.done", done, output_index=0, item=item)
            finished.append(item)
        for index, part in enumerate(made.parts):
            place: dict[str, Any] = {"output_index": len(finished)}
            last = _item(part, index, mark, status=_status(made))
            yield send("response.output_item.added", done, **place, item=_opened(last))
            where = {**place, "item_id": last["id"]}
            for name, data, tokens in _part_events(made, part):
                done += tokens
                yield send(name, done, chunk=name.endswith(".delta"), **where, **data)
            yield send("response.output_item.done", done, **place, item=last)
            finished.append(last)
        ending = _status(made)
        closed = _response(made, mark, body, status=ending, output=finished)
        yield send(f"response.{ending}", done, response=closed)

    def stream_error(self, rejection: Rejection, request_id: str) -> bytes:
        data = {
            "type": "error",
            "code": rejection.code or rejection.kind,
            "message": rejection.message,
            "param": rejection.param,
            "sequence_number": 0,
        }
        return event(data, "error")


def _status(made: Generation) -> str:
    return "incomplete" if made.truncated or made.finish else "completed"


def _response(made: Generation, mark: Rendering, body: Body, *, status: str, output: list[Body]) -> Body:
    final = status != "in_progress"
    return {
        "id": mark.id,
        "object": "response",
        "created_at": mark.created,
        "completed_at": mark.created if status == "completed" else None,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": made.finish or "max_output_tokens"} if status == "incomplete" else None,
        "model": mark.model,
        "output": output,
        **{key: silent if body.get(key) is None else body[key] for key, silent in _ECHOED.items()},
        "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
        "service_tier": "default",
        "usage": _usage(made.reported) if final and made.reported is not None else None,
    }


def _usage(usage: Usage) -> Body:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total_tokens,
    }


def _reasoning_item(mark: Rendering) -> Body:
    return {"id": f"rs_{mark.id}", "type": "reasoning", "summary": []}


def _item(part: Part, index: int, mark: Rendering, *, status: str) -> Body:
    """A finished item of the output: a message, or a call of a function."""
    if part.tool is None:
        return {
            "id": f"msg_{mark.id}_{index}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [_text(part.text)],
        }
    return {
        "id": f"fc_{mark.id}_{index}",
        "type": "function_call",
        "status": status,
        "call_id": f"call_{mark.id}_{index}",
        "name": part.tool.name,
        "arguments": part.text,
    }


def _opened(item: Body) -> Body:
    """The same item as it is announced: empty."""
    empty: Body = {"content": []} if item["type"] == "message" else {"arguments": ""}
    return {**item, "status": "in_progress", **empty}


def _text(text: str) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _part_events(made: Generation, part: Part) -> Iterator[tuple[str, Body, int]]:
    """The events between an item's start and its end, with the tokens that each took."""
    if part.tool is not None:
        for piece in made.chunks(part):
            yield "response.function_call_arguments.delta", {"delta": piece.text}, piece.tokens
        yield "response.function_call_arguments.done", {"arguments": part.text, "name": part.tool.name}, 0
        return
    at: Body = {"content_index": 0}
    yield "response.content_part.added", {**at, "part": _text("")}, 0
    for piece in made.chunks(part):
        yield "response.output_text.delta", {**at, "delta": piece.text, "logprobs": []}, piece.tokens
    yield "response.output_text.done", {**at, "text": part.text, "logprobs": []}, 0
    yield "response.content_part.done", {**at, "part": _text(part.text)}, 0
