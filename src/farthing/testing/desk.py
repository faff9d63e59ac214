"""
The provider's front desk: which endpoint a request is for, whether it is refused, and what answers it.

Request in, :class:`~.exchange.Answer` out; the account is told of every call that is generated, and of its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from .background import Background, Job
from .bill import Account, Billed, RecordedRequest
from .counting import Count
from .endpoint import Body, Endpoint, Frame, Rejection, Rendering, dumps
from .exchange import Answer
from .generation import Generation, generate
from .rendering.anthropic import AnthropicCountTokens, AnthropicMessages
from .rendering.cohere import CohereChat
from .rendering.gemini import GENERATE, GeminiCountTokens, gemini_endpoint
from .rendering.openai_chat import OpenAIChat
from .rendering.openai_responses import OpenAIResponses
from .rendering.openai_text import OpenAICompletions, OpenAIEmbeddings
from .reply import Reply
from .server import HttpRequest

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-5", "claude-sonnet-5", "claude-haiku-4-5", "gemini-2.5-flash")
"""What the model lists show; a call may name any model."""

_CHAT = OpenAIChat()
_RESPONSES = OpenAIResponses()
_MESSAGES = AnthropicMessages()
_ENDPOINTS: dict[str, Endpoint] = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": OpenAICompletions(),
    "/v1/embeddings": OpenAIEmbeddings(),
    "/v1/responses": _RESPONSES,
    "/v1/messages": _MESSAGES,
    "/v2/chat": CohereChat(),
}
_COUNTING: dict[str, Endpoint] = {
    "/v1/messages/count_tokens": AnthropicCountTokens(),
    "/v1/responses/input_tokens": _RESPONSES,
}
_DEPLOYMENT = re.compile(r"/openai/deployments/(?P<model>[^/]+)/(?P<endpoint>.+)")
_STORED = re.compile(r"/v1/responses/(?P<id>[^/]+)(?P<cancel>/cancel)?")
_GARBAGE = b"<html>this is not the answer that you are looking for"
_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"
_SECONDS_MS = 1000
_decode = msgspec.json.Decoder().decode


class Desk:
    """Answers requests; *choose* picks the reply to a call that is not refused."""

    def __init__(
        self,
        account: Account,
        choose: Callable[[RecordedRequest], Reply],
        *,
        count: Count,
        max_output_tokens: int,
        abort_margin: int,
        strict: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self._account = account
        self._choose = choose
        self._count = count
        self._max_output_tokens = max_output_tokens
        self._abort_margin = abort_margin
        self._strict = strict
        self._now_ms = now_ms
        self._background = Background()

    def answer(self, http: HttpRequest) -> Answer:
        """The answer to one request. Raises what *choose* raises."""
        request = self._record(http)
        named = gemini_endpoint(http.path, http.query)
        path, deployment = _as_at_openai(http.path)
        endpoint = named[0] if named else _ENDPOINTS.get(path) or _COUNTING.get(path)
        if endpoint is None or http.method != "POST":
            return self._answer_free(request, endpoint)
        try:
            body = self._checked(endpoint, request, model=named[1] if named else deployment)
        except Rejection as rejection:
            return self._refusal(endpoint, request, rejection)
        if path in _COUNTING or isinstance(endpoint, GeminiCountTokens):
            counted = endpoint.counted(endpoint.input_tokens(body, self._count))
            if endpoint is _RESPONSES:
                counted["object"] = "response.input_tokens"
            return self._simple(endpoint, request, counted)
        return self._generate(endpoint, request, body, self._choose(request))

    def _record(self, http: HttpRequest) -> RecordedRequest:
        try:
            parsed = _decode(http.body) if http.body else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            parsed = None
        retries = http.headers.get("x-stainless-retry-count", "0")
        request = RecordedRequest(
            number=self._account.next_number(),
            method=http.method,
            path=http.path,
            query=http.query,
            headers=http.headers,
            body=http.body,
            json=parsed,
            attempt=1 + (int(retries) if retries.isdecimal() else 0),
            at=self._now_ms(),
        )
        self._account.arrived(request)
        return request

    def _checked(self, endpoint: Endpoint, request: RecordedRequest, *, model: str | None) -> Body:
        body = request.json
        if not isinstance(body, dict):
            raise Rejection("We could not parse the JSON body of your request: it must be a JSON object.")
        if self._strict:
            endpoint.check_fields(body)
        if model is not None:
            # It stands in the path; whatever the body says about it is ignored.
            body = {**body, "model": model}
        endpoint.check(body, dict(request.headers))
        return body

    def _generate(self, endpoint: Endpoint, request: RecordedRequest, body: Body, reply: Reply) -> Answer:
        ceiling = endpoint.ceiling(body)
        shown, generated = endpoint.choices(body)
        made = generate(
            reply,
            model=body["model"],
            input_tokens=endpoint.input_tokens(body, self._count) if reply.input_tokens is None else 0,
            ceiling=ceiling if ceiling is not None and reply.keeps_ceiling else self._max_output_tokens,
            count=self._count,
            choices=shown,
            generated_choices=generated,
        )
        answer = Answer(
            status=reply.status,
            headers=[],
            frames=iter(()),
            generated=lambda tokens, gone: None,
            total_tokens=made.billed.output_tokens,
            hidden_tokens=made.hidden_tokens,
            stream=bool(body.get("stream")) if endpoint.streamed is None else endpoint.streamed,
            abort_margin=self._abort_margin,
            latency_seconds=reply.latency_seconds,
            chunk_delay_seconds=reply.chunk_delay_seconds,
            pause_after_chunks=reply.pause_after_chunks,
            split_bytes=reply.split_bytes,
            gzip=reply.gzip and "gzip" in request.headers.get("accept-encoding", ""),
            fault=reply.fault,
        )
        mark = Rendering(_id(endpoint.id_prefix, request), body["model"], request.at // _SECONDS_MS)
        if endpoint is _RESPONSES and body.get("background") and not answer.stream and reply.status < 300:
            self._account.began()
            closing = self._closing(request, made, body["model"], billable=reply.fault is None)
            return self._simple(endpoint, request, self._queue(endpoint, body, reply, made, mark, closing))
        billable = _fill(answer, endpoint, request, body, reply, made, mark) or reply.bill_anyway
        answer.headers = _headers(endpoint, request, _EVENTS if answer.stream and endpoint.sse else _JSON, reply)
        self._account.began()
        answer.generated = self._closing(request, made, body["model"], billable=billable)
        return answer

    def _queue(
        self,
        endpoint: Endpoint,
        body: Body,
        reply: Reply,
        made: Generation,
        mark: Rendering,
        closing: Callable[[int, bool], None],
    ) -> Body:
        """A response that is made while nobody waits for it."""
        done = endpoint.plain(made, mark, body)
        if reply.fault == "error_mid_stream":
            error = {"code": "server_error", "message": "The fake provider was told to fail."}
            done = {**done, "status": "failed", "output": [], "usage": None, "error": error}
        return self._background.queue(Job(done, made.billed.output_tokens, closing, reply.background_polls))

    def _closing(
        self, request: RecordedRequest, made: Generation, model: str, *, billable: bool
    ) -> Callable[[int, bool], None]:
        """What writes the bill line when generation ends."""

        def generated(tokens: int, gone: bool) -> None:
            if not billable:
                self._account.ended(None)
                return
            cut = made.billed.output_tokens - tokens
            usage = made.billed_after(tokens) if cut else made.billed
            line = Billed(model, usage, self._now_ms(), request.path, aborted=gone or cut > 0, request=request)
            self._account.ended(line)

        return generated

    def _answer_free(self, request: RecordedRequest, endpoint: Endpoint | None) -> Answer:
        """Model lists, and everything that is not there."""
        if request.path.startswith("/v1beta/") or "x-goog-api-key" in request.headers:
            return self._answer_free_gemini(request)
        anthropic = endpoint is _MESSAGES or "anthropic-version" in request.headers
        speaker: Endpoint = _MESSAGES if anthropic else _CHAT
        if stored := _STORED.fullmatch(_as_at_openai(request.path)[0]):
            ask = self._background.cancel if stored["cancel"] else self._background.ask
            found = ask(stored["id"]) if request.method == ("POST" if stored["cancel"] else "GET") else None
            if found is not None:
                return self._simple(_RESPONSES, request, found)
        wanted = request.path.removeprefix("/v1/models")
        if request.method == "GET" and request.path == "/v1/models":
            return self._simple(speaker, request, _model_list(request.at, anthropic=anthropic))
        if request.method == "GET" and request.path.startswith("/v1/models/") and wanted != "/":
            return self._simple(speaker, request, _model(wanted[1:], request.at, anthropic=anthropic))
        rejection = Rejection(
            f"Invalid URL ({request.method} {request.path})",
            status=404,
            kind="not_found_error" if anthropic else "invalid_request_error",
        )
        return self._refusal(speaker, request, rejection)

    def _answer_free_gemini(self, request: RecordedRequest) -> Answer:
        folder, _, name = request.path.partition("/models")
        if request.method == "GET" and not name:
            names = [model for model in MODELS if model.startswith("gemini")]
            return self._simple(GENERATE, request, {"models": [_gemini_model(model) for model in names]})
        if request.method == "GET" and name.count("/") == 1 and folder:
            return self._simple(GENERATE, request, _gemini_model(name[1:]))
        rejection = Rejection(f"Method not found: {request.method} {request.path}", status=404)
        return self._refusal(GENERATE, request, rejection)

    def _refusal(self, endpoint: Endpoint, request: RecordedRequest, rejection: Rejection) -> Answer:
        body = endpoint.error(rejection, _id("req_", request))
        return self._simple(endpoint, request, body, status=rejection.status)

    def _simple(self, endpoint: Endpoint, request: RecordedRequest, body: Body, *, status: int = 200) -> Answer:
        """An answer that costs nothing and takes no time."""
        return Answer(
            status=status,
            headers=_headers(endpoint, request, _JSON, None),
            frames=iter((Frame(dumps(body), 0),)),
            generated=lambda tokens, gone: None,
        )


def _as_at_openai(path: str) -> tuple[str, str | None]:
    """
    A path of those who speak OpenAI's language under another one, as OpenAI has it: Groq's and Azure's ``/openai/v1``,
    and Azure's deployments, with the model that they stand for.
    """
    deployed = _DEPLOYMENT.fullmatch(path)
    if deployed is not None:
        return f"/v1/{deployed['endpoint']}", deployed["model"]
    return (path.removeprefix("/openai"), None) if path.startswith("/openai/v1/") else (path, None)


def _fill(
    answer: Answer,
    endpoint: Endpoint,
    request: RecordedRequest,
    body: Body,
    reply: Reply,
    made: Generation,
    mark: Rendering,
) -> bool:
    """
    Gives the answer its status and frames, and says whether it is billed by nature.
    """
    total = answer.total_tokens
    status = reply.status
    if not answer.stream and reply.fault in ("error_first_event", "error_mid_stream"):
        status = 500
    if status >= 300:
        # An error is always plain, also where a stream was asked for.
        answer.status, answer.stream = status, False
        error = endpoint.error(endpoint.failure(status), _id("req_", request))
        answer.frames = iter((Frame(_given(reply.body, error), total),))
        return False
    if reply.body is not None or reply.fault == "garbage":
        data = _GARBAGE if reply.fault == "garbage" else _given(reply.body, {})
        answer.frames = iter((Frame(data, total, chunk=True),))
        return True
    if reply.fault == "error_first_event":
        failure = endpoint.stream_error(endpoint.failure(500), _id("req_", request))
        answer.frames = iter((Frame(failure, total),))
        return False
    if reply.cut_at is not None:
        halfway = made.chunk_count() // 2
        answer.cut_after_chunks = halfway if reply.cut_after_chunks is None else reply.cut_after_chunks
        if reply.cut_at == "error_mid_stream":
            answer.error_event = endpoint.stream_error(endpoint.failure(500), _id("req_", request))
    if answer.stream:
        answer.frames = endpoint.stream(made, mark, body)
    else:
        answer.frames = iter((Frame(dumps(endpoint.plain(made, mark, body)), total),))
    return reply.fault not in ("reset", "close_before_answer", "hang")


def _given(body: Any, otherwise: Body) -> bytes:
    """A reply's own body as bytes, or *otherwise* where it has none."""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else dumps(dict(otherwise if body is None else body))


def _headers(
    endpoint: Endpoint, request: RecordedRequest, content_type: str, reply: Reply | None
) -> list[tuple[str, str]]:
    headers = {"content-type": content_type, endpoint.request_id_header: _id("req_", request)}
    if reply is not None:
        headers |= {name.lower(): value for name, value in reply.headers.items()}
    return list(headers.items())


def _id(prefix: str, request: RecordedRequest) -> str:
    return f"{prefix}fake{request.number:08d}"


def _model(name: str, at: int, *, anthropic: bool) -> Body:
    if anthropic:
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": "2026-01-01T00:00:00Z",
            "lifecycle": "active",
        }
    return {"id": name, "object": "model", "created": at // _SECONDS_MS, "owned_by": "fake"}


def _gemini_model(name: str) -> Body:
    methods = ["generateContent", "countTokens"]
    return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}


def _model_list(at: int, *, anthropic: bool) -> Body:
    own = "claude" if anthropic else "gpt"
    data = [_model(name, at, anthropic=anthropic) for name in MODELS if name.startswith(own)]
    if anthropic:
        return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
    return {"object": "list", "data": data}
