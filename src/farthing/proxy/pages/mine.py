"""
What a caller may ask about itself: what is left on its budgets, whether a request would pass, what a call cost.

``GET /v1/budgets/me``, ``POST /v1/explain?route=…``, ``GET /v1/calls/ID``. Nothing here changes a ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from ...errors import UnmeteredCall
from ...kernel.decision import refusal
from ...reports.bound import bound_accounts
from ...reports.explaining import Explanation, explain_async
from ...reports.shown import shown_call
from ...runtime.ambient import Ambient
from ...wire import json
from ..callers.identity import Identity
from ..callers.keys import KeyIdentify
from ..headers import free_tags
from .page import Page, Pages, Reply, Request
from .replies import answered, query_of, reply_error, reply_json

if TYPE_CHECKING:
    from ..app import Proxy

CALLS = "/v1/calls/"
_LIKELY = {"messages": "/v1/chat/completions", "input": "/v1/responses", "prompt": "/v1/completions"}

_Answer = Callable[["Proxy", Identity, Request], Awaitable[Reply]]


def pages_about_callers(proxy: Proxy, keys: KeyIdentify) -> Pages:
    """The three pages, by path."""
    return {
        "/v1/budgets/me": _page(proxy, keys, "GET", budgets_of_caller),
        "/v1/explain": _page(proxy, keys, "POST", explain_request),
        CALLS: _page(proxy, keys, "GET", call_of_caller, admin=True),
    }


async def budgets_of_caller(proxy: Proxy, identity: Identity, request: Request) -> Reply:
    """Every account that a call with this key and these tags would be held on; ``?model=`` for those of a model."""
    query = query_of(request, "model", "provider")
    said = free_tags(request.headers, {})
    tags = {**dict(proxy.scope_of(identity, said)), **query}
    accounts = await bound_accounts(proxy.runtime, Ambient(), tags)
    # By the name that refusals and headers have for it, with the one that the ledger has.
    return reply_json({"budgets": [{**row, "name": row["title"], "budget": row["name"]} for row in accounts]})


async def explain_request(proxy: Proxy, identity: Identity, request: Request) -> Reply:
    """Would this body, posted to this route, pass now? Nothing is held or sent."""
    route = query_of(request, "route").get("route") or _likely_route(request)
    if route is None:
        raise ValueError("route is missing: POST /v1/explain?route=/v1/chat/completions with the body of that request")
    if not route.startswith("/"):
        raise ValueError(f"route must be a path of this proxy, such as /v1/chat/completions, not {route!r}")
    try:
        call = proxy.read_call(identity, route, request.headers, request.body)
    except UnmeteredCall as error:
        decision = refusal(budget="", remedy=f"{error.reason}: what cannot be measured passes no budget.")
        never = Explanation(False, decision, "", refused_by="UnmeteredCall", passes="It would not pass by itself.")
        return reply_json(never.to_dict())
    return reply_json((await explain_async(call)).to_dict())


def _likely_route(request: Request) -> str | None:
    """Where such a body is posted, as far as one can tell without being told."""
    try:
        body = json.decode(request.body)
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    if b"anthropic-version" in request.headers and "messages" in body:
        return "/v1/messages"
    return next((route for field, route in _LIKELY.items() if field in body), None)


async def call_of_caller(proxy: Proxy, identity: Identity, request: Request) -> Reply:
    """What one call held or cost. Another caller's is as unknown as one that never was, but to an admin."""
    query_of(request)
    call_id = request.path.removeprefix(CALLS)
    hold = await proxy.runtime.main.store.find(call_id)
    if hold is None or not _is_of(identity, dict(hold.facts.tags)):
        return reply_error(404, "not_found", f"no call of yours has the id {call_id!r}")
    return reply_json(shown_call(hold))


def _is_of(identity: Identity, tags: Mapping[str, str]) -> bool:
    """Whether a call was made by this key, or by one that was delegated from it."""
    return all(tags.get(name) == value for name, value in identity.tags)


def _page(proxy: Proxy, keys: KeyIdentify, method: str, answer: _Answer, *, admin: bool = False) -> Page:
    whose = keys.caller_or_admin if admin else keys.caller_of

    async def page(request: Request) -> Reply:
        async def run() -> Reply:
            return await answer(proxy, await whose(request), request)

        return await answered(request, method, run)

    return page
