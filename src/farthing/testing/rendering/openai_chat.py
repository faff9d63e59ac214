"""
OpenAI ``POST /v1/chat/completions``: what it accepts, and its answers, plain and streamed.

Shapes as the ``openai`` package 3.54 types them (``types/chat``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from ..counting import Count, prompt_tokens
from ..endpoint import Body, Frame, Rejection, Rendering, event
from ..generation import Generation, Part
from .openai import OpenAIEndpoint, completion_usage, wants_usage

_NO_MAX_TOKENS = re.compile(r"o\d|gpt-5")
"""Reasoning models refuse the older name of the ceiling."""

_MAX_CHOICES = 128


class OpenAIChat(OpenAIEndpoint):
    """Chat completions."""

    name = "openai.chat"
    id_prefix = "chatcmpl-"
    required: ClassVar[tuple[str, ...]] = ("messages",)
    fields = frozenset(
        "messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens "
        "max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key "
        "prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed "
        "service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user "
        "verbosity web_search_options".split()
    )

    def check(self, body: Body, headers: dict[str, str]) -> None:
        self.require(body)
        messages = body["messages"]
        if not isinstance(messages, list) or not messages:
            raise Rejection(
                "Invalid 'messages': expected an array with at least one message.",
                param="messages",
                code="empty_array" if messages == [] else "invalid_type",
            )
        for field in ("max_tokens", "max_completion_tokens", "n"):
            self.at_least(body, field, 1)
        if (body.get("n") or 1) > _MAX_CHOICES:
            raise Rejection("Invalid 'n': integer above maximum value.", param="n", code="integer_above_max_value")
        if body.get("max_tokens") is None:
            return
        if body.get("max_completion_tokens") is not None:
            raise Rejection(
                "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
                code="invalid_parameter_combination",
            )
        if _NO_MAX_TOKENS.match(body["model"]):
            raise Rejection(
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                param="max_tokens",
                code="unsupported_parameter",
            )

    def input_tokens(self, body: Body, count: Count) -> int:
        schemas = [body[field] for field in ("tools", "functions") if body.get(field)]
        if schema := (body.get("response_format") or {}).get("json_schema"):
            schemas.append(schema)
        return prompt_tokens(body["messages"], schemas, body["model"], count)

    def ceiling(self, body: Body) -> int | None:
        found = body.get("max_completion_tokens")
        return found if found is not None else body.get("max_tokens")

    def choices(self, body: Body) -> tuple[int, int]:
        shown = body.get("n") or 1
        return shown, shown

    def plain(self, made: Generation, mark: Rendering, body: Body) -> Body:
        message: Body = {
            "role": "assistant",
            "content": made.text if made.text or not made.tools else None,
            "refusal": None,
            "annotations": [],
        }
        if made.tools:
            message["tool_calls"] = [_tool_call(part, mark, index) for index, part in enumerate(made.tools)]
        finish = made.finish or made.ending
        answer: Body = {
            "id": mark.id,
            "object": "chat.completion",
            "created": mark.created,
            "model": mark.model,
            "choices": [
                {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
                for index in range(made.choices)
            ],
        }
        if made.reported is not None:
            answer["usage"] = completion_usage(made.reported)
        return {**answer, "service_tier": "default", "system_fingerprint": None}

    def stream(self, made: Generation, mark: Rendering, body: Body) -> Iterator[Frame]:
        asked = wants_usage(body)
        head: Body = {
            "id": mark.id,
            "object": "chat.completion.chunk",
            "created": mark.created,
            "model": mark.model,
            "service_tier": "default",
            "system_fingerprint": None,
        }
        tail: Body = {"usage": None} if asked else {}

        def chunk(index: int, delta: Body, finish: str | None = None) -> bytes:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            return event({**head, "choices": [choice], **tail})

        done = made.hidden_tokens
        everyone = range(made.choices)
        for index in everyone:
            yield Frame(chunk(index, {"role": "assistant", "content": "", "refusal": None}), done)
        for delta, tokens in _deltas(made, mark):
            for index in everyone:
                done += tokens
                yield Frame(chunk(index, delta), done, chunk=True)
        for index in everyone:
            yield Frame(chunk(index, {}, made.finish or made.ending), done)
        if asked and made.reported is not None:
            yield Frame(event({**head, "choices": [], "usage": completion_usage(made.reported)}), done)
        yield Frame(b"data: [DONE]\n\n", done)


def _tool_call(part: Part, mark: Rendering, index: int) -> Body:
    assert part.tool is not None
    return {
        "id": f"call_{mark.id}_{index}",
        "type": "function",
        "function": {"name": part.tool.name, "arguments": part.text},
    }


def _deltas(made: Generation, mark: Rendering) -> Iterator[tuple[dict[str, Any], int]]:
    """What each choice sends, with its tokens: text as content; a tool's name first, then its arguments."""
    tool_index = -1
    for part in made.parts:
        if part.tool is None:
            for piece in made.chunks(part):
                yield {"content": piece.text}, piece.tokens
            continue
        tool_index += 1
        call = _tool_call(part, mark, tool_index)
        opening = {**call, "index": tool_index, "function": {"name": part.tool.name, "arguments": ""}}
        yield {"tool_calls": [opening]}, 0
        for piece in made.chunks(part):
            yield {"tool_calls": [{"index": tool_index, "function": {"arguments": piece.text}}]}, piece.tokens
