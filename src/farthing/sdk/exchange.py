"""
One request and its answer on an HTTP client's transport, driving the life of a call.

Works alike for ``httpx`` and ``httpx2``, whose transports have the same shape; the module is taken from the response's
own class. A plain answer is read whole and settled before the client sees it; a stream is relayed as it comes.
"""

from __future__ import annotations

import sys
from functools import cache, lru_cache
from typing import Any

from ..calls.call import Call
from ..calls.endings import status_of
from ..calls.handover import CALL_HEADER, OFFER_HEADER, offer
from ..calls.life import life
from ..calls.polling import poll
from ..calls.steps import (
    FINISHED,
    READ_ALL,
    Answered,
    Finished,
    Life,
    Send,
    Step,
    advance,
    advance_async,
    advance_detached,
)
from ..errors import InvariantError
from ..kernel.balances import bare
from ..kernel.decision import Decision
from ..wire.encoding import decoded
from .errors import refusal, sdk_of_request
from .failures import failure
from .passing import within, within_async
from .relay import relayed
from .results import paid
from .streaming import OpenStream

_REPLACED = (b"content-length", b"transfer-encoding")
_CALL_HEADER = CALL_HEADER.encode()


def exchange(request: Any, call: Call, inner: Any, *, sdk: str | None) -> Any:
    """Send one request of a sync client, governed, and return its response."""
    steps: Life = poll(call) if call.asks else life(call)
    try:
        step = advance(steps)
    except Exception as error:  # noqa: BLE001 - also what a user's own function raised, which no SDK is to try again
        return refusal(error, request, sdk_of_request(request, sdk))
    except BaseException:
        # A signal, perhaps between two steps: what is held already is given back here and now.
        steps.close()
        raise
    body = None
    try:
        response = within(inner, _outgoing(request, call, step))
        answered, encoding = _answered(call, response)
        if advance(steps, answered) is READ_ALL:
            if hasattr(response, "_content"):
                # A transport of the user's has read it, and there is nothing more to come.
                body, encoding = response.content, b""
            else:
                body = b"".join(response.stream)
                response.stream.close()
    except BaseException as error:  # every way out ends the call, and a cancelled one waits for nothing
        advance_detached(steps, failure(error))
        raise
    if body is None:
        return _opened(OpenStream(request, call, steps, sdk=sdk), response, encoded=bool(encoding), asynchronous=False)
    plain = _decoded(response, encoding, body) if encoding else body
    finished = advance(steps, plain)
    if finished is not FINISHED and isinstance(finished, Finished) and finished.crossed is not None:
        return _crossing(request, call, response, plain, finished.crossed, sdk=sdk)
    return _whole(response, body)


async def exchange_async(request: Any, call: Call, inner: Any, *, sdk: str | None) -> Any:
    """The same for an async client."""
    steps: Life = poll(call) if call.asks else life(call)
    try:
        step = await advance_async(steps)
    except Exception as error:  # noqa: BLE001 - also what a user's own function raised, which no SDK is to try again
        return refusal(error, request, sdk_of_request(request, sdk))
    except BaseException:
        # A signal, perhaps between two steps: what is held already is given back here and now.
        steps.close()
        raise
    body = None
    try:
        response = await within_async(inner, _outgoing(request, call, step))
        answered, encoding = _answered(call, response)
        if await advance_async(steps, answered) is READ_ALL:
            if hasattr(response, "_content"):
                body, encoding = response.content, b""
            else:
                body = b"".join([chunk async for chunk in response.stream])
                await response.stream.aclose()
    except BaseException as error:  # every way out ends the call, and a cancelled one waits for nothing
        advance_detached(steps, failure(error))
        raise
    if body is None:
        return _opened(OpenStream(request, call, steps, sdk=sdk), response, encoded=bool(encoding), asynchronous=True)
    plain = _decoded(response, encoding, body) if encoding else body
    finished = await advance_async(steps, plain)
    if finished is not FINISHED and isinstance(finished, Finished) and finished.crossed is not None:
        return _crossing(request, call, response, plain, finished.crossed, sdk=sdk)
    return _whole(response, body)


def _outgoing(request: Any, call: Call, step: Step | Finished) -> Any:
    """The request to send, with the body that the life of the call asks for."""
    if not isinstance(step, Send):
        raise InvariantError(f"a call asked for {step!r} before it was sent")
    offered = offer(call) if call.offers else None
    if offered is not None:
        request.headers[OFFER_HEADER] = offered
    body, stream = step.body, call.request.stream
    if body is None:
        if stream:
            request.headers["accept-encoding"] = "identity"
        return request
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _REPLACED]
    if stream:
        # A compressed stream would have to be decoded before its usage frame can be taken out again.
        headers = [(name, value) for name, value in headers if name.lower() != b"accept-encoding"]
        headers.append((b"accept-encoding", b"identity"))
    url = request.url if step.path is None else request.url.copy_with(raw_path=step.path.encode("ascii"))
    return type(request)(request.method, url, headers=headers, content=body, extensions=request.extensions)


def _answered(call: Call, response: Any) -> tuple[Answered, bytes]:
    """What the status line and headers say; and the content encoding of the body, b"" where it has none."""
    headers, status = response.headers.raw, response.status_code
    content_type, encoding, proxied = _places(next(zip(*headers, strict=True), ()))
    streamed = call.request.streams(status, b"" if content_type is None else headers[content_type][1])
    if status >= 500:
        status = status_of(status, headers)
    return bare(Answered, (status, streamed, proxied)), b"" if encoding is None else headers[encoding][1]


@lru_cache(maxsize=64)
def _places(names: tuple[bytes, ...]) -> tuple[int | None, int | None, bool]:
    """
    Among the names of an answer's headers, which a provider hardly ever changes: where its content type stands, where
    its content encoding; and whether it came through a proxy like ours.
    """
    places = {name.lower(): place for place, name in enumerate(names)}
    return places.get(b"content-type"), places.get(b"content-encoding"), _CALL_HEADER in places


def _whole(response: Any, body: bytes) -> Any:
    """A plain answer as it came, byte for byte."""
    # The transport made this response for us alone, and its client reads whatever stream it finds on it.
    response.stream = _http(response.__class__).ByteStream(body)
    return response


def _crossing(request: Any, call: Call, response: Any, body: bytes, crossed: Decision, *, sdk: str | None) -> Any:
    """The exception of the budget that it crossed, instead."""
    sdk = sdk_of_request(request, sdk)
    return refusal(paid(crossed, call.dialect.name, body, sdk=sdk), response, sdk)


def _opened(stream: OpenStream, response: Any, *, encoded: bool, asynchronous: bool) -> Any:
    """The answer whose stream is relayed; if its caller never gets it, nobody else ends the call."""
    try:
        return relayed(response, stream, encoded=encoded, http=_http(response.__class__), asynchronous=asynchronous)
    except BaseException as error:  # nobody will read it: the call ends here
        stream.broke(error)
        raise


def _decoded(response: Any, encoding: bytes, body: bytes) -> bytes:
    """A copy of the body without its content encoding; the body itself if it is damaged."""
    plain = decoded(encoding.strip().lower(), body)
    if plain is not body:
        return plain
    # One that the client's own library may have a decoder for, or a more lenient one.
    kind = type(response)
    try:
        content: bytes = kind(200, headers=response.headers, content=body).content
    except Exception:  # noqa: BLE001 - each codec has errors of its own; the client will meet the same one itself
        return body
    return content


@cache
def _http(kind: type) -> Any:
    """``httpx`` or ``httpx2``: the module that a response's class belongs to."""
    return sys.modules[kind.__module__.partition(".")[0]]
