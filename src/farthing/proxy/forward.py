"""
One request, forwarded: bytes in, the life of its call driven, bytes out.

A plain answer is read whole and settled before its client sees it, also when the client has gone (for a bounded time:
the provider finishes anyway). A stream is relayed piece by piece, no faster than its client reads; when the client has
gone the provider is stopped, and what had arrived by then is still counted.

One file, because how an exchange may end depends on how far it came: sending, relaying, stopping and saying what went
wrong share that state, and nobody else sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ..calls.call import Call
from ..calls.endings import OUTCOME, Lost, status_of
from ..calls.life import life
from ..calls.polling import poll
from ..calls.steps import (
    Answered,
    Broken,
    Finished,
    Life,
    NotSent,
    Pause,
    ReadAll,
    Relay,
    Send,
    Step,
    advance_async,
    advance_detached,
)
from ..errors import BudgetExceeded, FarthingError, InvariantError
from ..kernel.hold import SUSPECT
from ..runtime.runtime import Runtime
from ..runtime.sockets import SLOW_SECONDS
from ..stores.contract import Ticket
from ..wire.ambiguous import said_once
from ..wire.encoding import Decoder, decoded, decoder_of
from . import log
from .client import Client
from .headers import Incoming, about, incoming, outgoing_headers, without
from .refusal import Refusal, of_error, refuse
from .routing import Route, url_of
from .settings import ProxySettings, Upstream
from .sharing import refused
from .stats import Stats
from .upstream import Header, UpstreamClient, UpstreamResponse

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""A plain answer larger than this is no answer to a call that is metered."""


class Door(NamedTuple):
    """What a request needs of its proxy: as it was when the request came, whatever is reloaded meanwhile."""

    settings: ProxySettings
    runtime: Runtime
    upstreams: UpstreamClient
    stats: Stats


class Outgoing(NamedTuple):
    """A request as it is to leave, but for what the life of its call changes."""

    route: Route
    query: str
    body: bytes
    keep_credential: bool
    """Its upstream is shown the caller's credential, unless it has one of its own."""

    def url(self, path: str | None) -> str:
        """Where it goes, or would with this path, query included."""
        route = self.route
        if path is not None:
            return url_of(route.upstream, route.family, path)
        return f"{route.url}?{self.query}" if self.query else route.url

    def headers(self, client: Client, *, metered: bool) -> list[Header]:
        """Put together only for a request that goes out."""
        return outgoing_headers(
            client.header_list, self.route.credential, identity=metered, keep_credential=self.keep_credential
        )


async def forward(door: Door, client: Client, call: Call, outgoing: Outgoing, *, deny_status: int) -> None:
    """Forward a call that is metered: hold, send, meter, settle, and answer the client."""
    steps = poll(call) if call.asks else life(call)
    family = outgoing.route.family
    try:
        step = await advance_async(steps)
    except FarthingError as error:
        refusal = of_error(error, family, deny_status=deny_status)
        if call.replaces is not None:
            await refused(call, refusal.status)
        await _deny(door, client, call, refusal, error)
        return
    if not isinstance(step, Send):
        raise InvariantError(f"a call asked for {step!r} before it was sent")
    if client.gone:
        # It waited in line for a budget, and its client did not.
        advance_detached(steps, NotSent("client_gone"))
        return
    exchange = _Exchange(door, client, call, outgoing, steps)
    try:
        await exchange.run(step)
    except BaseException as error:
        # A task that is called away (the server stops), or a bug: the call must have its end all the same.
        exchange.leave("cancelled" if isinstance(error, asyncio.CancelledError) else "interrupted")
        raise
    finally:
        exchange.count()
    if door.settings.quiet:
        return
    if call.asks:
        log.say_passed(client.method, client.path, exchange.status, outgoing.route.upstream.name, "asks for an answer")
    else:
        log.say_call(call, client.path, exchange.status, outgoing.route.upstream.name)


async def _deny(door: Door, client: Client, call: Call, refusal: Refusal, error: FarthingError) -> None:
    if isinstance(error, BudgetExceeded):
        door.stats.blocked += 1
        log.say_blocked(client.path, error.decision, call.request.model, message=refusal.message)
    else:
        door.stats.refused += 1
        log.say_refused(client.path, refusal.status, refusal.code, refusal.message)
    await client.answer(refusal.status, refusal.headers, refusal.body)


async def _resolve_unknown(call: Call, upstream: Upstream) -> None:
    """What this upstream's policy says of a call that may have been billed."""
    if upstream.unknown_endings == SUSPECT or not isinstance(call.ending, Lost):
        return
    granted = None if call.admitted is None else call.admitted.granted
    held = () if granted is None else granted.stores
    for store in call.runtime.stores:
        if not store.durable and store not in held:
            continue
        try:
            await store.resolve(call.hold_id, upstream.unknown_endings, note="policy of its upstream")
        except FarthingError as error:
            # It stays suspect, and counted, until somebody or the sweeper resolves it.
            log.logger.warning("call %s could not be resolved: %s", call.id, error)


class _Exchange:
    """One call on its way to the upstream and back."""

    status = 0
    _response: UpstreamResponse | None = None
    _all_arrived = True
    _kept_waiting = False
    """Its client was so slow that the provider may hold back what it has generated since."""
    _late = False
    _counted = False
    _met: Step | Pause | Ticket[Any] | None = None
    """What the life said of a piece that could not just pass; None: it has not read the piece that the task has."""
    _draining: asyncio.TimerHandle | None = None

    def __init__(self, door: Door, client: Client, call: Call, outgoing: Outgoing, steps: Life) -> None:
        self._door = door
        self._client = client
        self._call = call
        self._outgoing = outgoing
        self._upstream = outgoing.route.upstream
        self._steps = steps
        self._held_tokens = door.stats.began(call)

    async def run(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._upstream.timeouts.total_seconds, self._out_of_time)
        try:
            try:
                response = self._response = await self._request(send)
            except (NotSent, Broken) as error:
                await self._end_broken(error)
                await self._answer_gateway(error)
                return
            self.status = status = response.status
            head = incoming(response.headers)
            streamed = self._call.request.streams(status, head.content_type)
            if status >= 500:
                status = status_of(status, response.headers)
            step = await advance_async(self._steps, Answered(status, streamed))
            if isinstance(step, ReadAll):
                await self._plain(response, head)
            else:
                await self._stream(response, head, step)
        finally:
            timer.cancel()
            if self._draining is not None:
                self._draining.cancel()

    def count(self) -> None:
        """The call is over. Counted before its client hears so, who may ask for the figures then."""
        if not self._counted:
            self._counted = True
            self._door.stats.ended(self._call, self._held_tokens)

    def leave(self, ending: str) -> None:
        """End the call where nobody can wait for anything."""
        response = self._response
        arrived = response is None or not (self._kept_waiting or response.keeps_waiting() or response.has_unread())
        advance_detached(self._steps, Broken(ending, arrived=arrived))
        if response is not None:
            response.abort()

    # -- there -----------------------------------------------------------------------------------------------------

    def _request(self, send: Send) -> Awaitable[UpstreamResponse]:
        outgoing = self._outgoing
        body = send.body
        if body is None:
            # What only asks was not read: it goes as it came.
            body = outgoing.body if self._call.asks else said_once(outgoing.body, self._call.request.body)
        return self._door.upstreams.request(
            self._client.method,
            outgoing.url(send.path),
            outgoing.headers(self._client, metered=True),
            body,
            timeouts=self._upstream.timeouts,
            tls=outgoing.route.tls,
        )

    async def _end_broken(self, error: NotSent | Broken) -> None:
        """The call's end where its answer has none, its upstream's policy for that included."""
        await advance_async(self._steps, error=error)
        await _resolve_unknown(self._call, self._upstream)
        self.count()

    async def _answer_gateway(self, error: NotSent | Broken) -> None:
        refusal = gateway_error(error, self._outgoing.route.family, self._upstream)
        log.say_unreached(self._upstream.name, error)
        self.status = refusal.status
        await self._client.answer(refusal.status, [*refusal.headers, *about(self._call)], refusal.body)

    # -- and back: a plain answer --------------------------------------------------------------------------------------

    async def _plain(self, response: UpstreamResponse, head: Incoming) -> None:
        client = self._client
        client.when_gone(self._drain)
        try:
            body = await read_all(response)
        except Broken as error:
            meaning = self._meaning(error)
            await self._end_broken(meaning)
            await self._answer_gateway(meaning)
            return
        await advance_async(self._steps, decoded(head.encoding, body) if head.encoding else body)
        self.count()
        headers = head.headers
        if response.status != 204:  # whose length nobody may tell (RFC 9110, 8.6)
            headers.append((b"content-length", b"%d" % len(body)))
        headers += about(self._call)
        await client.answer(response.status, headers, body)

    def _drain(self) -> None:
        """The client of a plain answer has gone: read on, for a while."""
        if self._response is not None:
            loop = asyncio.get_running_loop()
            seconds = self._door.settings.bounds.drain_seconds
            self._draining = loop.call_later(seconds, self._response.abort)

    # -- and back: a stream --------------------------------------------------------------------------------------------

    async def _stream(self, response: UpstreamResponse, head: Incoming, step: Step | Finished) -> None:
        client = self._client
        decoder = decoder_of(head.encoding)
        # A meter may take events of ours out, and a budget may end it early: only the provider knew its length.
        headers = head.headers if decoder is None else without(b"content-encoding", head.headers)
        client.when_gone(self._stop)
        try:
            await client.begin(response.status, [*headers, *about(self._call)])
            while isinstance(step, Relay) and not step.last:
                data = await response.receive(self._passes if decoder is None else None)
                met, self._met = self._met, None
                read = data if decoder is None else _readable(decoder, data)
                step = await advance_async(self._steps, read if data else None, met=met)
                if isinstance(step, Relay):
                    if step.last:
                        # A budget that breaks is used up: the provider stops before the client has the end in hand.
                        response.abort()
                    if step.data and not client.relay_at_once(step.data):
                        await self._relay_slowly(step.data)
                if not data:
                    await self._finish(step)
                    return
            # The life of the call ended the stream, not the provider.
            await advance_async(self._steps)
            self.count()
            await client.end()
        except Broken as error:
            await self._end_broken(self._meaning(error))
            client.cut()

    def _passes(self, data: bytes) -> bool:
        """
        Relay a piece without waking the task. False where something has to be waited for: then the task goes on from
        what its life said of the piece.
        """
        step = self._steps.send(data)
        if type(step) is Relay:
            out, _, last = step
            if not last and (not out or self._client.relay_at_once(out)):
                return True
        self._met = step
        return False

    async def _finish(self, step: Step | Finished) -> None:
        """The provider's last byte is here: relay what a meter still held back, then end."""
        while isinstance(step, Relay):
            step = await advance_async(self._steps, None)
            if isinstance(step, Relay) and step.data:
                await self._client.relay(step.data)
        self.count()
        await self._client.end()

    async def _relay_slowly(self, data: bytes) -> None:
        """To a client that does not take it at once. While it is waited for, nobody reads what the provider sends."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        await self._client.relay(data)
        if loop.time() - before > SLOW_SECONDS and self._response is not None:
            self._kept_waiting = self._response.keeps_waiting()

    def _stop(self) -> None:
        """The client of a stream has gone, or its time is over: so the provider may stop."""
        response = self._response
        if response is not None:
            kept_waiting = self._kept_waiting or response.keeps_waiting()
            self._all_arrived = response.stop() and self._all_arrived and not kept_waiting

    # -- what went wrong -----------------------------------------------------------------------------------------------

    def _out_of_time(self) -> None:
        self._late = True
        if self._response is None:
            return
        if self._client.begun:
            self._stop()
            self._client.cut()
        else:
            self._response.abort()

    def _meaning(self, error: Broken) -> Broken:
        """Whose fault it was that the answer has no end."""
        if self._late:
            return Broken("timeout", "longer than an answer may take in all", arrived=self._all_arrived)
        if self._client.gone and error.ending == "connection_lost":
            return Broken("client_gone", arrived=self._all_arrived)
        return error


async def pass_on(
    door: Door, client: Client, outgoing: Outgoing, *, say: Callable[[int], None] = lambda status: None
) -> None:
    """Relay a request that no budget is asked about: it costs nothing, or its upstream allows it unmetered."""
    upstream = outgoing.route.upstream
    door.stats.forwarded += 1
    try:
        response = await door.upstreams.request(
            client.method,
            outgoing.url(None),
            outgoing.headers(client, metered=False),
            outgoing.body,
            timeouts=upstream.timeouts,
            tls=outgoing.route.tls,
        )
    except (NotSent, Broken) as error:
        refusal = gateway_error(error, outgoing.route.family, upstream)
        log.say_unreached(upstream.name, error)
        say(refusal.status)
        await client.answer(refusal.status, refusal.headers, refusal.body)
        return
    say(response.status)
    client.when_gone(response.abort)
    try:
        await client.begin(response.status, incoming(response.headers, with_length=True).headers)
        while data := await response.receive(client.relay_at_once):
            await client.relay(data)
        await client.end()
    except Broken:
        client.cut()
    except BaseException:  # the server stops, or a header that no client may be sent: nobody reads on
        response.abort()
        raise


async def read_all(response: UpstreamResponse) -> bytes:
    """The rest of a body, at once. Raises Broken."""
    first = await response.receive()
    if not first:
        return b""
    parts = [first]
    size = len(first)
    while data := await response.receive():
        parts.append(data)
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            response.abort()
            raise Broken("too_large", f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return first if len(parts) == 1 else b"".join(parts)


def gateway_error(error: NotSent | Broken, family: str, upstream: Upstream) -> Refusal:
    """
    What a client is told when its upstream gives no answer. Its SDK may try again: that is a call of its own. Who
    counts for itself takes a 502 for free, so a header says where the call may have been billed.
    """
    name = upstream.name
    if isinstance(error, NotSent):
        message = f"upstream {name!r} cannot be reached ({error}); the request was not sent"
        return refuse(family, 502, "upstream_unreachable", message, headers=())
    if error.ending == "timeout":
        message = f"upstream {name!r} gave no whole answer in time; the call may have been billed"
        return refuse(family, 504, "upstream_timeout", message, headers=(OUTCOME,))
    message = f"upstream {name!r} ended the connection before its answer was whole; the call may have been billed"
    return refuse(family, 502, "upstream_connection_lost", message, headers=(OUTCOME,))


def _readable(decoder: Decoder, data: bytes) -> bytes:
    """What the meter and the client get of an encoded piece, b"" at its end. Raises Broken on a damaged encoding."""
    try:
        if not data:
            decoder.end()
        return decoder.feed(data)
    except ValueError as error:
        raise Broken("connection_lost", str(error), arrived=False) from error
