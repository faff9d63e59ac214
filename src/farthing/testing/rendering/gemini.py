"""
Gemini's endpoints, under the Gemini API's paths and Vertex AI's.

``generateContent``, ``streamGenerateContent`` (events with ``alt=sse``, else one JSON array), ``countTokens``,
``embedContent`` and ``batchEmbedContents``.

Shapes as the ``google-genai`` package 3.4 types them (``types``). Thoughts are always billed, and shown only where the
request asks for them; calls of functions come whole, each in one chunk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from ...kernel.usage import Usage
from ..counting import Count
from ..endpoint import Body, Endpoint, Frame, Rejection, Rendering, dumps, event, require_integer
from ..generation import Generation, Part

_PATH = re.compile(r"^/v1[a-z0-9]*/(?:.*/)?(?:models|tunedModels|endpoints)/(?P<model>[^/:]+):(?P<method>[A-Za-z]+)$")
_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CONTENT_TOKENS = 2
_IMAGE_TOKENS = 258
_DEFAULT_DIMENSIONS = 16
_MAX_CANDIDATES = 8


def gemini_endpoint(path: str, query: str) -> tuple[Endpoint, str] | None:
    """The endpoint of one of Gemini's paths, and the model that the path names; None for any other path."""
    found = _PATH.match(path)
    endpoint = found and _METHODS.get((found["method"], "alt=sse" in query.split("&")))
    return (endpoint, found["model"]) if found and endpoint else None


class _Gemini(Endpoint):
    """Errors and field checks in Gemini's shape."""

    id_prefix = "gemini-"
    request_id_header = "x-gemini-request-id"
    error_kinds: ClassVar[dict[int, tuple[str, str | None]]] = {
        status: (word, None) for status, word in _STATUS.items()
    }

    def check_fields(self, body: Body) -> None:
        for field in body:
            if _camel(field) not in self.fields:
                raise Rejection(f'Invalid JSON payload received. Unknown name "{field}": Cannot find field.')

    def error(self, rejection: Rejection, request_id: str) -> Body:
        word = _STATUS.get(rejection.status) or _STATUS[500 if rejection.status >= 500 else 400]
        return {"error": {"code": rejection.status, "message": rejection.message, "status": word}}

    def stream_error(self, rejection: Rejection, request_id: str) -> bytes:
        return event(self.error(rejection, request_id))

    def stream(self, made: Generation, mark: Rendering, body: Body) -> Iterator[Frame]:
        yield Frame(dumps(self.plain(made, mark, body)), made.billed.output_tokens)


class GeminiGenerate(_Gemini):
    """Content. ``stream_type`` says how it is streamed, if it is."""

    name = "gemini.generate"
    fields = frozenset(
        "model contents systemInstruction tools toolConfig safetySettings generationConfig cachedContent labels "
        "serviceTier store".split()
    )

    def __init__(self, *, streamed: bool, sse: bool = True) -> None:
        self.streamed = streamed
        self.sse = sse

    def check(self, body: Body, headers: dict[str, str]) -> None:
        contents = body.get("contents")
        if not contents or not isinstance(contents, list):
            raise Rejection("* GenerateContentRequest.contents: contents is not specified")
        config = _config(body)
        for field, least in (("maxOutputTokens", 1), ("candidateCount", 1)):
            require_integer(config, field, minimum=least, refuse=_refuse)
        if (config.get("candidateCount") or 1) > _MAX_CANDIDATES:
            raise Rejection(f"* GenerateContentRequest.generation_config.candidate_count: at most {_MAX_CANDIDATES}")

    def input_tokens(self, body: Body, count: Count) -> int:
        model = body["model"]
        fields = {_camel(key): value for key, value in body.items()}
        contents = [*fields["contents"], *([fields["systemInstruction"]] if fields.get("systemInstruction") else ())]
        total = sum(_CONTENT_TOKENS + _content_tokens(content, model, count) for content in contents)
        for extra in (
            fields.get("tools"),
            _config(body).get("responseSchema"),
            _config(body).get("responseJsonSchema"),
        ):
            total += count(_json(extra), model) if extra else 0
        return total

    def ceiling(self, body: Body) -> int | None:
        found: int | None = _config(body).get("maxOutputTokens")
        return found

    def choices(self, body: Body) -> tuple[int, int]:
        candidates = _config(body).get("candidateCount") or 1
        return candidates, candidates

    def plain(self, made: Generation, mark: Rendering, body: Body) -> Body:
        parts = [_part(part) for part in made.parts]
        if made.reasoning_tokens and _shows_thoughts(body):
            parts.insert(0, {"text": made.thoughts, "thought": True})
        candidates = [_candidate(index, parts, finish=_finish(made)) for index in range(made.choices)]
        return _answer(mark, candidates, made.reported)

    def stream(self, made: Generation, mark: Rendering, body: Body) -> Iterator[Frame]:
        # Every chunk is one line of the array, the first with its bracket.
        lead = b"" if self.sse else b"["
        for chunk, generated, shows in _chunks(made, mark, body):
            data = event(chunk) if self.sse else lead + dumps(chunk)
            lead = b"\n,\n"
            yield Frame(data, generated, chunk=shows)
        if not self.sse:
            yield Frame(b"\n]\n", made.billed.output_tokens)

    def stream_error(self, rejection: Rejection, request_id: str) -> bytes:
        failure = self.error(rejection, request_id)
        return event(failure) if self.sse else b"[" + dumps(failure) + b"]"


class GeminiCountTokens(GeminiGenerate):
    """Counts the tokens of a request, for nothing."""

    name = "gemini.count_tokens"
    fields = GeminiGenerate.fields | {"generateContentRequest"}

    def check(self, body: Body, headers: dict[str, str]) -> None:
        inner = body.get("generateContentRequest")
        super().check(body if inner is None else inner, headers)

    def input_tokens(self, body: Body, count: Count) -> int:
        inner = body.get("generateContentRequest")
        return super().input_tokens(body if inner is None else {**inner, "model": body["model"]}, count)

    def counted(self, tokens: int) -> Body:
        return {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}


class GeminiEmbeddings(_Gemini):
    """Embeddings: input is billed, there is no output."""

    name = "gemini.embeddings"

    def __init__(self, *, batch: bool) -> None:
        self._batch = batch
        names = "model requests" if batch else "model content taskType title outputDimensionality embedContentConfig"
        self.fields = frozenset(names.split())  # type: ignore[misc]  # one class for two sets of fields

    def check(self, body: Body, headers: dict[str, str]) -> None:
        for one in self._inputs(body):
            if not isinstance(one, dict) or not isinstance(one.get("content"), dict):
                raise Rejection("* EmbedContentRequest.content: content is not specified")
            require_integer(one, "outputDimensionality", minimum=1, refuse=_refuse)

    def input_tokens(self, body: Body, count: Count) -> int:
        return sum(_content_tokens(one["content"], body["model"], count) for one in self._inputs(body))

    def ceiling(self, body: Body) -> int | None:
        return 0

    def plain(self, made: Generation, mark: Rendering, body: Body) -> Body:
        vectors = [
            {"values": [1.0] + [0.0] * ((one.get("outputDimensionality") or _DEFAULT_DIMENSIONS) - 1)}
            for one in self._inputs(body)
        ]
        answer: Body = {"embeddings": vectors} if self._batch else {"embedding": vectors[0]}
        return answer if made.reported is None else {**answer, "usageMetadata": _usage(made.reported)}

    def _inputs(self, body: Body) -> list[Any]:
        if not self._batch:
            return [body]
        found = body.get("requests")
        if not isinstance(found, list) or not found:
            raise Rejection("* BatchEmbedContentsRequest.requests: requests is not specified")
        return found


_METHODS: dict[tuple[str, bool], Endpoint] = {
    (method, sse): endpoint
    for sse in (True, False)
    for method, endpoint in (
        ("generateContent", GeminiGenerate(streamed=False)),
        ("streamGenerateContent", GeminiGenerate(streamed=True, sse=sse)),
        ("countTokens", GeminiCountTokens(streamed=False)),
        ("embedContent", GeminiEmbeddings(batch=False)),
        ("batchEmbedContents", GeminiEmbeddings(batch=True)),
    )
}
GENERATE = _METHODS["generateContent", False]
"""Speaks for the provider where no method is called."""


def _chunks(made: Generation, mark: Rendering, body: Body) -> Iterator[tuple[Body, int, bool]]:
    """Each chunk, how much had been generated when it is sent, and whether it carries output."""
    done = made.hidden_tokens
    if made.reasoning_tokens and _shows_thoughts(body):
        for index in range(made.choices):
            shown = _candidate(index, [{"text": made.thoughts, "thought": True}])
            yield _answer(mark, [shown], _running(made, done)), done, False
    for part in made.parts:
        pieces = made.chunks(part)
        for number, piece in enumerate(pieces, start=1):
            # The arguments of a call are sent when they are complete.
            whole = [_part(part)] if part.tool is not None and number == len(pieces) else []
            parts = [{"text": piece.text}] if part.tool is None else whole
            for index in range(made.choices):
                done += piece.tokens
                yield _answer(mark, [_candidate(index, parts)], _running(made, done)), done, True
    for index in range(made.choices):
        ending = _candidate(index, [{"text": ""}], finish=_finish(made))
        yield _answer(mark, [ending], made.reported), done, False


def _running(made: Generation, done: int) -> Usage | None:
    """What a chunk in the middle reports: the truth so far; what is said instead of the truth is said throughout."""
    if made.reported is None or made.reported != made.billed:
        return made.reported
    return made.billed_after(done)


def _answer(mark: Rendering, candidates: list[Body], usage: Usage | None) -> Body:
    answer: Body = {"candidates": candidates, "modelVersion": mark.model, "responseId": mark.id}
    return answer if usage is None else {**answer, "usageMetadata": _usage(usage)}


def _candidate(index: int, parts: list[Body], *, finish: str | None = None) -> Body:
    candidate: Body = {"content": {"parts": parts, "role": "model"}, "index": index}
    return candidate if finish is None else {**candidate, "finishReason": finish}


def _part(part: Part) -> Body:
    if part.tool is None:
        return {"text": part.text}
    return {"functionCall": {"name": part.tool.name, "args": part.arguments}}


def _usage(usage: Usage) -> Body:
    """Gemini's usage object: the prompt contains cached input, thoughts stand beside the candidates."""
    told: Body = {
        "promptTokenCount": usage.input_tokens,
        "totalTokenCount": usage.total_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input_tokens}],
    }
    if usage.cached_tokens:
        told["cachedContentTokenCount"] = usage.cached_tokens
        told["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": usage.cached_tokens}]
    if usage.output_tokens > usage.reasoning:
        told["candidatesTokenCount"] = usage.output_tokens - usage.reasoning
    if usage.reasoning:
        told["thoughtsTokenCount"] = usage.reasoning
    return told


def _finish(made: Generation) -> str:
    return made.finish or _FINISH[made.ending]


def _config(body: Body) -> Body:
    """The generation config, its names in camel case."""
    found = body.get("generationConfig") or body.get("generation_config") or {}
    return {_camel(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _shows_thoughts(body: Body) -> bool:
    thinking = _config(body).get("thinkingConfig") or {}
    return bool(thinking.get("includeThoughts") or thinking.get("include_thoughts"))


def _content_tokens(content: Any, model: str, count: Count) -> int:
    parts = content.get("parts") if isinstance(content, dict) else None
    total = 0
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, dict):
            fields = {_camel(key): value for key, value in part.items()}
            total += count(fields["text"], model) if isinstance(fields.get("text"), str) else 0
            total += _IMAGE_TOKENS if fields.get("inlineData") else 0
            for kind in ("functionCall", "functionResponse"):
                total += count(_json(fields[kind]), model) if fields.get(kind) else 0
    return total


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _refuse(message: str, field: str, problem: str) -> Rejection:
    return Rejection(f"* GenerateContentRequest.{field}: {message}")
