"""
The proxy as an ASGI application: who calls, what it is, where it goes.

One small table of pages comes first; everything else is a request to a provider, or it is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

from .. import prices
from ..calls.call import Call
from ..calls.endings import OUTCOME
from ..calls.handover import OFFER_HEADER
from ..calls.polling import asks
from ..errors import StoreUnavailable, UnmeteredCall
from ..runtime.ambient import Ambient
from ..runtime.runtime import Runtime
from ..wire.ambiguous import check_spelling
from ..wire.facts import RequestFacts
from ..wire.openai.shared import deployment_in
from ..wire.reading import model_of
from ..wire.routes import COSTS_NOTHING
from . import log
from .callers.identity import Caller, Identify, Identity, Loopback, Refused
from .client import BadBody, Client, Gone, Receive, Send
from .flags import SESSION_TAG
from .forward import Door, Outgoing, forward, pass_on
from .headers import credential_of, free_tags, without_key
from .pages.page import Page, Pages, Request, find_page
from .refusal import NO_RETRY, Refusal, of_error, refuse
from .routing import Route, Routes, Table, family_of, hint_of
from .settings import Bounds, ProxySettings
from .sharing import shared
from .stats import Stats, Vitals
from .upstream import UpstreamClient

SCOPES_KEPT = 1_024
_OFFER = OFFER_HEADER.encode()
_ENCODING = b"content-encoding"
_WEBSOCKET = (NO_RETRY, (b"connection", b"upgrade"), (b"upgrade", b"HTTP/1.1"))
"""A 426 must say what it would rather speak (RFC 9110, 15.5.22)."""


class Proxy:
    """
    One proxy. Requests in flight keep the settings that they came under.

    Args:
        runtime: its ledgers; opened and closed by whoever made it.
        upstreams: the HTTP client towards providers.
        identify: who calls; by default whoever is on this machine.
        pages: what it answers itself.
    """

    def __init__(
        self,
        settings: ProxySettings,
        runtime: Runtime,
        *,
        upstreams: UpstreamClient,
        identify: Identify | None = None,
        pages: Pages | None = None,
    ) -> None:
        self.runtime = runtime
        self.stats = Stats()
        self.identify: Identify = identify or Loopback()
        self.pages: Pages = {} if pages is None else pages
        self.ask_reload: Callable[[], None] | None = None
        """Has the configuration read anew, soon; None where nobody could."""
        self.stopping = False
        """No more requests are taken: those in flight get their time."""
        self.connections: Collection[object] = ()
        """Those of its clients, as its server knows them."""
        self._upstreams = upstreams
        self._prices: Mapping[str, Mapping[str, Any]] = {}
        # Kept with what was found to be in force there, for the next call by the same tags.
        # Of a tag that stands there twice, the last word counts: what a key says outranks its caller, and we do a key.
        self._scope = lru_cache(maxsize=SCOPES_KEPT)(lambda tags: Ambient().with_tags(dict(tags)))
        self.reload(settings)

    def reload(self, settings: ProxySettings) -> None:
        """Take other settings over, from the next request on. What concerns its runtime is its worker's to tell."""
        prices.register_all(settings.prices, before=self._prices)
        self._prices = settings.prices
        self._upstreams.renew()
        self.settings = settings
        self.bounds: Bounds = settings.bounds
        self.table = Table(settings.upstreams)
        self._door = Door(settings, self.runtime, self._upstreams, self.stats)
        self._own_tags = () if settings.session is None else ((SESSION_TAG, settings.session),)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"this application speaks HTTP only, not {scope['type']}")
        client = Client(scope, send)
        try:
            page = find_page(self.pages, client.path)
            try:
                if page is None:
                    self.stats.requests += 1
                    await self._route(client)
                else:
                    await self._page(page, client)
            except _Refusal as refused:
                await self._refuse(client, refused)
        except Gone:
            # Nobody is there to be told, and nothing was begun.
            return
        except Exception:  # noqa: BLE001 - a bug of ours, or of a page: its client must hear of it, and others not
            log.logger.exception("%s %s failed", client.method, client.path)
            await _apologise(client, 500, "internal_error", "this proxy failed; its log says how")
        except asyncio.CancelledError:
            # The server stops and waits no longer. Nothing is left to do for this task but this.
            message = "this proxy was stopped before the answer was whole; the call may have been billed"
            await _apologise(client, 503, "stopped", message)
        finally:
            client.leave()

    async def _refuse(self, client: Client, refused: _Refusal) -> None:
        refusal = refused.refusal
        self.stats.refused += 1
        log.say_refused(client.path, refusal.status, refusal.code, refused.said or refusal.message)
        headers = [*refusal.headers, (b"connection", b"close")] if refused.closes else refusal.headers
        await client.answer(refusal.status, headers, refusal.body)

    async def _page(self, page: Page, client: Client) -> None:
        body = await self._body(client, "openai")
        reply = await page(Request(client.method, client.path, client.query, client.headers, body, client.address))
        length = str(len(reply.body)).encode()
        headers = [(b"content-type", reply.content_type), (b"content-length", length), *reply.headers]
        await client.answer(reply.status, headers, reply.body)

    async def _route(self, client: Client) -> None:
        if not client.path.startswith("/"):
            # "*", or something behind it: put after a base URL, it would be a part of the host's name.
            message = "the target of a request must be a path that begins with /"
            raise _Refusal(refuse("openai", 400, "bad_target", message), said=message, closes=True)
        door = self._door
        routes = self.table.find(client.method, client.path, hint_of(client.headers))
        family = routes.family
        if client.header_bytes_exceed(self.bounds.max_header_bytes):
            raise _Refusal(refuse(family, 431, "headers_too_large", "the request's headers are too large"), closes=True)
        identity = await self._identity(client, family)
        route = routes.default
        if route is None:
            message = f"no upstream of this proxy speaks {routes.family}: {client.method} {client.path}"
            raise _Refusal(refuse(family, 404, "no_upstream", message))
        if routes.metered is not None:
            await self._call(door, client, routes, identity)
        else:
            await self._pass(door, client, route, routes.path, identity)

    async def _identity(self, client: Client, family: str) -> Identity:
        caller = Caller(credential_of(client.headers, client.query), client.headers, client.address)
        try:
            found = self.identify(caller)
            return found if isinstance(found, Identity) else await found
        except Refused as refused:
            raise _Refusal(refuse(family, refused.status, refused.code, str(refused))) from refused
        except StoreUnavailable as error:
            # Nobody knows whether this key is still good.
            raise _Refusal(of_error(error, family, deny_status=self.settings.deny_status)) from error

    def vitals(self) -> Vitals:
        """What it has in hand. To be asked in its event loop."""
        return Vitals(len(self.connections), self.stats.in_flight, len(asyncio.all_tasks()))

    # -- requests that are metered -------------------------------------------------------------------------------------

    async def _call(self, door: Door, client: Client, routes: Routes, identity: Identity) -> None:
        body = client.whole_body(self.bounds)
        if body is None:
            body = await self._body(client, routes.family)
        query = client.query
        target = _with_query(routes.path, query)
        route, facts = (
            _read(routes, body, target)
            if _ENCODING not in client.headers or not (encoding := _encoding(client))
            else _packed(routes, body, target, encoding)
        )
        if query and _replaces(route, identity):
            query = without_key(query)
            if facts is not None:
                facts = facts.but(path=_with_query(routes.path, query))
        outgoing = Outgoing(route, query, body, identity.key_id is None)
        if facts is None:
            say = _unmetered(client, route, "its body cannot be read")
            self.stats.unmetered += 1
            await pass_on(door, client, outgoing, say=say)
            return
        call = self._make_call(identity, route, facts, client.headers, client.path)
        offered = client.headers.get(_OFFER)
        if offered is not None:
            call = await shared(call, offered)
        await forward(door, client, call, outgoing, deny_status=identity.deny_status or door.settings.deny_status)

    def _make_call(
        self, identity: Identity, route: Route, facts: RequestFacts, headers: Mapping[bytes, bytes], path: str
    ) -> Call:
        """
        Budgets match who calls, and of what the caller says only the tags that its upstream trusts; the rest of what it
        says is recorded.
        """
        said = _free(headers, facts, route.family)
        tags = identity.tags + self._own_tags
        trusted = route.upstream.trusted_tags
        if trusted:
            tags = (*((name, said[name]) for name in trusted if name in said), *tags)
        return Call(
            self.runtime,
            route.dialect,
            facts,
            self._scope(tags),
            path,
            route.upstream.timeouts.idle_seconds,
            free_tags=said,
            abort_margin_tokens=route.upstream.abort_margin_tokens,
        )

    def scope_of(self, identity: Identity, said: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """What budgets may match of a caller that says this of itself, whatever its upstream: for figures only."""
        trusted = ((name, said[name]) for name in sorted(self.trusted_tags) if name in said)
        return (*trusted, *identity.tags, *self._own_tags)

    @property
    def trusted_tags(self) -> frozenset[str]:
        """Free tags that budgets may name, at some upstream."""
        return frozenset(name for upstream in self.settings.upstreams for name in upstream.trusted_tags)

    def read_call(self, identity: Identity, target: str, headers: Mapping[bytes, bytes], body: bytes) -> Call:
        """
        The call that this request would be, posted to *target*; nothing is done with it. Raises UnmeteredCall where no
        meter is known, ValueError for what cannot be read.
        """
        path = target.partition("?")[0]
        routes = self.table.find("POST", path, hint_of(headers))
        if routes.default is None:
            raise ValueError(f"no upstream of this proxy speaks {routes.family}: POST {path}")
        if routes.metered is None:
            raise UnmeteredCall("POST", path, reason=routes.default.found.reason)
        try:
            route, facts = _read(routes, body, target)
        except _Refusal as refused:
            raise ValueError(refused.refusal.message) from refused
        if facts is None:
            raise UnmeteredCall("POST", path, reason="its body cannot be read")
        return self._make_call(identity, route, facts, headers, path)

    # -- requests that are not -----------------------------------------------------------------------------------------

    async def _pass(self, door: Door, client: Client, route: Route, path: str, identity: Identity) -> None:
        family, found = route.family, route.found
        if client.headers.get(b"upgrade", b"").lower() == b"websocket":
            # The status at which Codex goes on over HTTP at once: at others it asks six times more.
            message = f"{client.method} {client.path}: no WebSocket passes this proxy, since none is metered; use HTTP."
            raise _Refusal(refuse(family, 426, "no_websocket", message, headers=_WEBSOCKET))
        free = found.verdict in COSTS_NOTHING
        if found.verdict != "free" and route.upstream.unmetered != "allow":
            rule = "Only what belongs to calls of models passes" if free else "What cannot be measured passes no budget"
            message = (
                f"{client.method} {client.path} was not sent: {found.reason}. {rule}; the operator of this proxy can "
                f'allow it with unmetered = "allow" for upstream {route.upstream.name!r}.'
            )
            raise _Refusal(refuse(family, 403, "unmetered_route", message))
        body = await self._body(client, family)
        query = without_key(client.query) if _replaces(route, identity) else client.query
        outgoing = Outgoing(route, query, body, identity.key_id is None)
        if found.answers is not None:
            await self._ask(door, client, outgoing, _with_query(path, query), identity)
            return
        if free:

            def say(status: int) -> None:
                if not door.settings.quiet:
                    log.say_passed(client.method, client.path, status, route.upstream.name, found.reason)
        else:
            self.stats.unmetered += 1
            say = _unmetered(client, route, found.reason)
        await pass_on(door, client, outgoing, say=say)

    async def _ask(self, door: Door, client: Client, outgoing: Outgoing, path: str, identity: Identity) -> None:
        """Ask for a stored answer: free, and what settles a call that ran in the background."""
        route = outgoing.route
        dialect = route.found.answers
        if dialect is None:
            raise AssertionError("only asked where answers are kept")
        facts = asks(dialect, path)
        seconds = route.upstream.timeouts.idle_seconds
        scope = self._scope(identity.tags + self._own_tags)
        call = Call(door.runtime, dialect, facts, scope, client.path, seconds, asks=True)
        await forward(door, client, call, outgoing, deny_status=door.settings.deny_status)

    async def _body(self, client: Client, family: str) -> bytes:
        try:
            return await client.body(self.bounds)
        except BadBody as error:
            raise _Refusal(refuse(family, error.status, error.code, str(error)), closes=True) from error


class _Refusal(Exception):
    """
    On the way out: what the client is told. ``closes``: the rest of its request is not read. ``said``: what the log
    says instead, where the message repeats a part of the request.
    """

    def __init__(self, refusal: Refusal, *, closes: bool = False, said: str = "") -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.closes = closes
        self.said = said


async def _apologise(client: Client, status: int, code: str, message: str) -> None:
    """
    An answer that cannot be had, of a call that may have been billed: said in the caller's dialect, or cut off where it
    had begun.
    """
    if client.begun:
        client.cut()
        return
    family = family_of(client.method, client.path, hint_of(client.headers))
    refusal = refuse(family, status, code, message, headers=(NO_RETRY, OUTCOME))
    await client.answer(refusal.status, refusal.headers, refusal.body)


def _read(routes: Routes, body: bytes, path: str) -> tuple[Route, RequestFacts | None]:
    """The request's facts, and the upstream for its model. No facts: it cannot be read, and may pass all the same."""
    route = routes.metered
    if route is None:
        raise AssertionError("only read where somebody can")
    try:
        facts = route.dialect.read_request(body, path)
        check_spelling(facts.body)
        deployed = deployment_in(routes.path)
        # A caller may write any model beside its deployment, and would pay that one's price.
        model = facts.model if deployed is None else model_of({"model": deployed})
    except ValueError as error:
        route = routes.default or route
        if route.upstream.unmetered == "allow":
            return route, None
        message = f"{routes.path}: the request cannot be read, so what it costs cannot be bounded: {error}"
        said = "the request cannot be read, so what it costs cannot be bounded"
        raise _Refusal(refuse(routes.family, 400, "unreadable_request", message), said=said) from error
    chosen = routes.for_model(model)
    if chosen is None or chosen.dialect is None:
        message = f"no upstream of this proxy serves model {model!r} at {routes.path}"
        raise _Refusal(refuse(routes.family, 404, "no_upstream", message))
    if chosen is not route:
        facts = chosen.dialect.read_request(body, path)
    return chosen, facts if model == facts.model else facts.but(model=model)


def _encoding(client: Client) -> str:
    """What its body is packed in, "" if it is not."""
    named = [value.strip().lower() for name, value in client.header_list if name == _ENCODING]
    return b", ".join(name for name in named if name not in (b"", b"identity")).decode("latin-1")


def _packed(routes: Routes, body: bytes, path: str, encoding: str) -> tuple[Route, None]:
    """
    Who takes a body with a content encoding, which is not measured: where it reads as a request as it is, an upstream
    that unpacks it may find another one, and for an upstream that does not, it would be a call that nobody counts.
    """
    route = routes.default
    if route is not None and route.upstream.unmetered == "allow":
        route, facts = _read(routes, body, path)
        if facts is None:
            return route, None
    message = (
        f"{routes.path}: the request's body has the content encoding {encoding!r}, so what it costs cannot be bounded; "
        "send it without one"
    )
    said = "the request's body has a content encoding, so what it costs cannot be bounded"
    headers = (NO_RETRY, (b"accept-encoding", b"identity"))
    raise _Refusal(refuse(routes.family, 415, "encoded_request", message, headers=headers), said=said)


def _free(headers: Mapping[bytes, bytes], facts: RequestFacts, family: str) -> Mapping[str, str]:
    try:
        return free_tags(headers, facts.body)
    except ValueError as error:
        raise _Refusal(refuse(family, 400, "invalid_tags", str(error))) from error


def _replaces(route: Route, identity: Identity) -> bool:
    return route.credential is not None or identity.key_id is not None


def _with_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _unmetered(client: Client, route: Route, reason: str) -> Any:
    def say(status: int) -> None:
        log.say_unmetered(client.method, client.path, route.upstream.name, reason)

    return say
