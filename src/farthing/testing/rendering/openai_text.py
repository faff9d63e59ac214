"""OpenAI's simple endpoints: ``POST /v1/completions`` and ``POST /v1/embeddings``."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any, ClassVar

from ..counting import Count
from ..endpoint import Body, Frame, Rejection, Rendering, dumps, event
from ..generation import Generation
from .openai import OpenAIEndpoint, completion_usage, wants_usage

_DEFAULT_COMPLETION_TOKENS = 16
_DEFAULT_DIMENSIONS = 16


class OpenAICompletions(OpenAIEndpoint):
    """Legacy text completions."""

    name = "openai.completions"
    id_prefix = "cmpl-"
    required: ClassVar[tuple[str, ...]] = ("prompt",)
    fields = frozenset(
        "model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop "
        "stream stream_options suffix temperature top_p user".split()
    )

    def check(self, body: Body, headers: dict[str, str]) -> None:
        self.require(body)
        # Zero tokens with ``echo`` only score the prompt.
        self.at_least(body, "max_tokens", 0)
        for field in ("n", "best_of"):
            self.at_least(body, field, 1)
        if (body.get("best_of") or body.get("n") or 1) < (body.get("n") or 1):
            raise Rejection("'best_of' must be at least 'n'.", param="best_of")

    def input_tokens(self, body: Body, count: Count) -> int:
        suffix = body.get("suffix")
        prompts = sum(_tokens(text, body["model"], count) for text in _inputs(body["prompt"]))
        return prompts + (count(suffix, body["model"]) if suffix else 0)

    def ceiling(self, body: Body) -> int | None:
        found: int | None = body.get("max_tokens")
        return _DEFAULT_COMPLETION_TOKENS if found is None else found

    def choices(self, body: Body) -> tuple[int, int]:
        prompts = len(_inputs(body["prompt"]))
        shown = body.get("n") or 1
        return prompts * shown, prompts * max(shown, body.get("best_of") or 1)

    def plain(self, made: Generation, mark: Rendering, body: Body) -> Body:
        choices = [
            _choice(index, _echoed(body, index) + made.text, made.finish or made.ending)
            for index in range(made.choices)
        ]
        answer = {**_head(mark), "choices": choices}
        return answer if made.reported is None else {**answer, "usage": completion_usage(made.reported)}

    def stream(self, made: Generation, mark: Rendering, body: Body) -> Iterator[Frame]:
        asked = wants_usage(body)
        tail: Body = {"usage": None} if asked else {}
        done = made.hidden_tokens
        for index in range(made.choices):
            if echoed := _echoed(body, index):
                yield Frame(event({**_head(mark), "choices": [_choice(index, echoed, None)], **tail}), done)
        for part in made.parts:
            for piece in made.chunks(part):
                for index in range(made.choices):
                    done += piece.tokens
                    yield Frame(
                        event({**_head(mark), "choices": [_choice(index, piece.text, None)], **tail}), done, chunk=True
                    )
        for index in range(made.choices):
            ending = _choice(index, "", made.finish or made.ending)
            yield Frame(event({**_head(mark), "choices": [ending], **tail}), done)
        if asked and made.reported is not None:
            yield Frame(event({**_head(mark), "choices": [], "usage": completion_usage(made.reported)}), done)
        yield Frame(b"data: [DONE]\n\n", done)


class OpenAIEmbeddings(OpenAIEndpoint):
    """Embeddings: input is billed, there is no output."""

    name = "openai.embeddings"
    id_prefix = "embd-"
    required: ClassVar[tuple[str, ...]] = ("input",)
    fields = frozenset("input model dimensions encoding_format user".split())

    def check(self, body: Body, headers: dict[str, str]) -> None:
        self.require(body)
        self.at_least(body, "dimensions", 1)
        if body.get("stream"):
            raise Rejection("Unrecognized request argument supplied: stream")

    def input_tokens(self, body: Body, count: Count) -> int:
        return sum(_tokens(text, body["model"], count) for text in _inputs(body["input"]))

    def ceiling(self, body: Body) -> int | None:
        return 0

    def plain(self, made: Generation, mark: Rendering, body: Body) -> Body:
        size = body.get("dimensions") or _DEFAULT_DIMENSIONS
        vector: Any = [1.0] + [0.0] * (size - 1)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        answer: Body = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index in range(len(_inputs(body["input"])))
            ],
            "model": mark.model,
        }
        if mark.model.startswith(("mistral", "codestral")):
            answer["id"] = mark.id  # Mistral's answers have one, and its SDK insists on it
        if made.reported is None:
            return answer
        tokens = made.reported.input_tokens
        return {**answer, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

    def stream(self, made: Generation, mark: Rendering, body: Body) -> Iterator[Frame]:
        yield Frame(dumps(self.plain(made, mark, body)), 0)


def _head(mark: Rendering) -> Body:
    return {"id": mark.id, "object": "text_completion", "created": mark.created, "model": mark.model}


def _choice(index: int, text: str, finish: str | None) -> Body:
    # This endpoint has no tools: what would be a call of one elsewhere simply stops here.
    finish = "stop" if finish == "tool_calls" else finish
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _echoed(body: Body, index: int) -> str:
    """The prompt that an answer repeats with ``echo``; token ids are not turned back into text here."""
    if not body.get("echo"):
        return ""
    prompt = _inputs(body["prompt"])[index // (body.get("n") or 1)]
    return prompt if isinstance(prompt, str) else ""


def _inputs(value: Any) -> list[Any]:
    """The prompts of a request: one text, several, one list of tokens, or several of those."""
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return value
    return [value]


def _tokens(value: Any, model: str, count: Count) -> int:
    return len(value) if isinstance(value, list) else count(str(value), model)
