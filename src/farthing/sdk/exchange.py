"""
One request and its answer on an HTTP client's transport, driving the life of a call.

Works alike for ``httpx`` and ``httpx2``, whose transports have the same shape; the module is taken from the request's
own class. A plain answer is read whole and settled before the client sees it. A stream is relayed as it comes and
settled when its last event passes; closing it early only puts its end in line, for a finaliser may be what closes it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ..calls.call import Call
from ..calls.endings import status_of
from ..calls.handover import CALL_HEADER, OFFER_HEADER, offer
from ..calls.life import life
from ..calls.polling import poll
from ..calls.steps import (
    Answered,
    Broken,
    Finished,
    Life,
    NotSent,
    ReadAll,
    Relay,
    Send,
    Step,
    advance,
    advance_async,
    advance_detached,
)
from ..errors import BudgetExceeded, FarthingError, InvariantError
from ..runtime.runtime import log
from ..runtime.sockets import refused_certificate
from .errors import in_family, refusal, sdk_of_request
from .passing import within, within_async
from .relay import relayed
from .results import typed

NEVER_SENT = frozenset(
    {
        *("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "LocalProtocolError"),
        *("ClientConnectorError", "ConnectionTimeoutError", "ClientHttpProxyError", "InvalidURL"),  # aiohttp's own
    }
)
"""Errors after which certainly nothing has left: by name, for two modules define httpx's alike."""


class Exchange:
    """The state of one attempt: its life, and what the door has to know about it."""

    finished: Finished | None = None
    encoded = False
    """The body has a content encoding, so what is metered is a decoded copy."""
    keep: object = None
    """The unread rest of a stream. Held here, out of the garbage collector's reach: it would close it unread."""
    leftover: Callable[[], list[bytes] | None] | None = None
    """Asked when a stream ends unread: what had arrived; None: nobody can say."""
    _ending = _ended = _claimed = False
    kept_waiting = False
    """Its reader was so slow that the sender may hold back what it has generated since."""
    _taking = _torn = False
    """A piece is on its way from the connection to the life of the call; and one came while another closed it."""

    def __init__(self, request: Any, call: Call, *, sdk: str | None) -> None:
        self.call = call
        self._request = request
        self._sdk = sdk
        self.life: Life = poll(call) if call.asks else life(call)

    @property
    def sdk(self) -> str | None:
        """The package whose errors and types its caller knows: as the request says, else as the hook was told."""
        return sdk_of_request(self._request, self._sdk)

    # -- before the answer ---------------------------------------------------------------------------------------

    def outgoing(self, request: Any, step: Step | Finished) -> Any:
        """The request to send, with the body that the life of the call asks for."""
        if not isinstance(step, Send):
            raise InvariantError(f"a call asked for {step!r} before it was sent")
        offered = offer(self.call)
        if offered is not None:
            request.headers[OFFER_HEADER] = offered
        if step.body is None:
            if self.call.request.stream:
                request.headers["accept-encoding"] = "identity"
            return request
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _REPLACED]
        if self.call.request.stream:
            # A compressed stream would have to be decoded before its usage frame can be taken out again.
            headers = [(name, value) for name, value in headers if name.lower() != b"accept-encoding"]
            headers.append((b"accept-encoding", b"identity"))
        url = request.url if step.path is None else request.url.copy_with(raw_path=step.path.encode("ascii"))
        return type(request)(request.method, url, headers=headers, content=step.body, extensions=request.extensions)

    def answered(self, response: Any) -> Answered:
        """What the status line and headers say."""
        headers = {name.lower(): value for name, value in response.headers.raw}
        self.encoded = b"content-encoding" in headers
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        streamed = self.call.request.streams(response.status_code, content_type)
        proxied_as = headers.get(_CALL_HEADER)
        status = status_of(response.status_code, headers.items())
        return Answered(status, streamed, None if proxied_as is None else proxied_as.decode("latin-1"))

    def failure(self, error: BaseException) -> BaseException:
        """What an exception out of the transport means for the call."""
        names = _names(error)
        if names & NEVER_SENT or refused_certificate(error):
            return NotSent("connect_error")
        if names & {"TimeoutException", "TimeoutError"}:
            return Broken("timeout", str(error) or type(error).__name__)
        if names & {"CancelledError", "Cancelled"}:  # asyncio's, and trio's
            return Broken("cancelled")
        if not isinstance(error, Exception):
            return Broken("interrupted", type(error).__name__)
        return Broken("connection_lost", f"{type(error).__name__}: {error}")

    def refused(self, error: FarthingError) -> FarthingError:
        """The error as this SDK's family lets it through."""
        return in_family(error, self.sdk)

    def crossed(self, finished: Finished, body: bytes) -> FarthingError | None:
        """The exception of a budget with on_exceed="raise" that this call crossed, the paid answer attached."""
        if finished.crossed is None:
            return None
        result = typed(self.call.dialect.name, body, sdk=self.sdk)
        return self.refused(BudgetExceeded(finished.crossed, result=result))

    # -- the life of a stream ------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The stream goes to its caller: whatever becomes of it, its end is in line."""
        self._process = os.getpid()
        self._busy = threading.Lock()
        self.call.runtime.housekeeper.opened(id(self), self._end_abandoned)

    def take(self, chunks: Iterator[bytes]) -> bytes | None:
        """The next piece to feed; None at the end, and where another has closed the stream meanwhile."""
        self._taking = True
        try:
            chunk = next(chunks, None)
        except Exception:  # nothing came; a signal or a cancelled task may have taken a piece with it
            self._taking = False
            raise
        return self._taken(chunk)

    async def take_async(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        self._taking = True
        try:
            chunk = await anext(chunks, None)
        except Exception:  # nothing came; a signal or a cancelled task may have taken a piece with it
            self._taking = False
            raise
        return self._taken(chunk)

    def _taken(self, chunk: bytes | None) -> bytes | None:
        if chunk is None:
            self._taking = False
        elif self._claimed:
            # Whoever closes it read what came before this piece, or what came after: nobody has all of it in order.
            self._torn, chunk = True, None
        return chunk

    def feed(self, chunk: bytes | None) -> Relay | None:
        """The bytes to relay for these; None when the life is over."""
        with self._busy:
            relay = self._note(advance(self.life, chunk))
        self._taking = False
        return relay

    async def feed_async(self, chunk: bytes | None) -> Relay | None:
        with self._busy:
            relay = self._note(await advance_async(self.life, chunk))
        self._taking = False
        return relay

    def broke(self, error: BaseException) -> None:
        """The stream broke. Does not wait: its caller may be cancelled."""
        if not self._ending and not self._claimed:
            self._ending = True
            with self._busy:
                advance_detached(self.life, self.failure(error))
            self._over()

    @property
    def is_open(self) -> bool:
        """The stream's last event has not been seen, and it has not been ended: what it cost is not known yet."""
        return not self._ended and self.finished is None and self._process == os.getpid()

    def claim(self) -> bool:
        """Whether its caller is the one to read what arrived of an open stream: once, the first that asks."""
        claimed, self._claimed = self._claimed, True
        return not claimed and self.is_open

    @property
    def is_left(self) -> bool:
        """Another than its reader has closed the stream, has read what was left of it, and ends the call with that."""
        return self._claimed

    def leave(self, rest: list[bytes] | None) -> None:
        """Whoever claimed the stream has read what was left; None: nobody can say what that was."""
        whole = not self._taking and not self._torn
        self.leftover = lambda: rest if whole else None

    def abandon(self) -> None:
        """Nobody will read on. Safe in a finaliser: only puts the end in line."""
        if self._ended or self._ending or self._process != os.getpid():
            return
        self._ending = True
        self.call.runtime.housekeeper.put(self._end_abandoned)

    def _note(self, step: Step | Finished) -> Relay | None:
        if isinstance(step, Relay):
            if step.finished is not None and self.finished is None:
                self.finished = step.finished
            return step
        if isinstance(step, Finished):
            self.finished = self.finished or step
        self._ending = True
        self._over()
        return None

    def _end_abandoned(self) -> None:
        if not self._busy.acquire(blocking=False):
            # Its caller is in the middle of a chunk: later, then.
            self.call.runtime.housekeeper.put(self._end_abandoned)
            return
        try:
            rest = self._unread()
            advance_detached(self.life, Broken("abandoned", arrived=rest is not None), rest or ())
        finally:
            self._busy.release()
            self._ending = True
            self._over()

    def _unread(self) -> list[bytes] | None:
        """What had arrived unread; None where the connection cannot be asked any more."""
        try:
            return None if self.leftover is None else self.leftover()
        except Exception:  # noqa: BLE001 - two HTTP modules, each with errors of its own
            # Whoever runs this is an innocent caller, and the call must be ended all the same: as it was held.
            log.warning("the rest of an abandoned stream could not be read", exc_info=True)
            return None

    def _over(self) -> None:
        self._ended = True
        self.call.runtime.housekeeper.ended(id(self))

    def take_crossed(self) -> FarthingError | None:
        """The exception to raise at the end of a crossing stream, once."""
        finished = self.finished
        if finished is None or finished.crossed is None:
            return None
        self.finished = Finished()
        return self.crossed(finished, b"")


def _names(error: BaseException) -> set[str]:
    """The names of an error's class and its bases."""
    cause = error.__cause__
    if type(cause).__module__.partition(".")[0] == "aiohttp":
        # A transport over it tells of a connection that was lost as of one that was never made.
        error = cause  # type: ignore[assignment]
    return {kind.__name__ for kind in type(error).__mro__}


_REPLACED = (b"content-length", b"transfer-encoding")
_CALL_HEADER = CALL_HEADER.encode()


def exchange(request: Any, call: Call, inner: Any, *, sdk: str | None) -> Any:
    """Send one request of a sync client, governed, and return its response."""
    attempt = Exchange(request, call, sdk=sdk)
    try:
        step = advance(attempt.life)
    except Exception as error:  # noqa: BLE001 - also what a user's own function raised, which no SDK is to try again
        return refusal(error, request, attempt.sdk)
    except BaseException:
        # A signal, perhaps between two steps: what is held already is given back here and now.
        attempt.life.close()
        raise
    try:
        outgoing = attempt.outgoing(request, step)
        response = within(inner, outgoing)
        body, step = b"", advance(attempt.life, attempt.answered(response))
        if isinstance(step, ReadAll):
            body = b"".join(response.stream)
            response.stream.close()
    except BaseException as error:  # every way out ends the call, and a cancelled one waits for nothing
        advance_detached(attempt.life, attempt.failure(error))
        raise
    if isinstance(step, ReadAll):
        decoded = _decoded(response, body) if attempt.encoded else body
        return _plain(attempt, response, body, decoded, advance(attempt.life, decoded))
    return _opened(attempt, response, asynchronous=False)


async def exchange_async(request: Any, call: Call, inner: Any, *, sdk: str | None) -> Any:
    """The same for an async client."""
    attempt = Exchange(request, call, sdk=sdk)
    try:
        step = await advance_async(attempt.life)
    except Exception as error:  # noqa: BLE001 - also what a user's own function raised, which no SDK is to try again
        return refusal(error, request, attempt.sdk)
    except BaseException:
        # A signal, perhaps between two steps: what is held already is given back here and now.
        attempt.life.close()
        raise
    try:
        outgoing = attempt.outgoing(request, step)
        response = await within_async(inner, outgoing)
        body, step = b"", await advance_async(attempt.life, attempt.answered(response))
        if isinstance(step, ReadAll):
            body = b"".join([chunk async for chunk in response.stream])
            await response.stream.aclose()
    except BaseException as error:  # every way out ends the call, and a cancelled one waits for nothing
        advance_detached(attempt.life, attempt.failure(error))
        raise
    if isinstance(step, ReadAll):
        decoded = _decoded(response, body) if attempt.encoded else body
        return _plain(attempt, response, body, decoded, await advance_async(attempt.life, decoded))
    return _opened(attempt, response, asynchronous=True)


def _plain(attempt: Exchange, response: Any, body: bytes, decoded: bytes, finished: Step | Finished) -> Any:
    """A plain answer as it came, byte for byte; or the exception of the budget it crossed."""
    if isinstance(finished, Finished) and (error := attempt.crossed(finished, decoded)) is not None:
        return refusal(error, response, attempt.sdk)
    # The transport made this response for us alone, and its client reads whatever stream it finds on it.
    response.stream = _http(type(response)).ByteStream(body)
    return response


def _opened(attempt: Exchange, response: Any, *, asynchronous: bool) -> Any:
    """The answer whose stream is relayed; if its caller never gets it, nobody else ends the call."""
    attempt.opened()
    try:
        return relayed(response, attempt, http=_http(type(response)), asynchronous=asynchronous)
    except BaseException as error:  # nobody will read it: the call ends here
        attempt.broke(error)
        raise


def _decoded(response: Any, body: bytes) -> bytes:
    """A copy of the body without its content encoding; the body itself if it is damaged."""
    kind = type(response)
    try:
        decoded: bytes = kind(200, headers=response.headers, content=body).content
    except Exception:  # noqa: BLE001 - each codec has errors of its own; the client will meet the same one itself
        return body
    return decoded


def _http(kind: type) -> Any:
    """``httpx`` or ``httpx2``: the module that a request's class belongs to."""
    return sys.modules[kind.__module__.partition(".")[0]]
