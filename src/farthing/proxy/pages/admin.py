"""
The admin API under ``/admin/``: what ``farthing budgets``, ``holds`` and ``keys`` do, over HTTP, for admin keys only.

One table of routes. It says what each takes and does; the OpenAPI description at ``/admin/openapi.json`` is made from
it, and so cannot say anything else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import msgspec

from ...admin.holds import open_holds, resolve_holds
from ...admin.keys import create_key, id_of, key_figures, list_keys, revoke_key, rotate_key
from ...admin.standing import grant_more, set_budget
from ...admin.trust import escapable, known_tags
from ...errors import ConfigError
from ...kernel.instants import instant_ms
from ...kernel.keys import Key
from ...reports.accounts import list_accounts
from ...reports.shown import shown_call, shown_entry
from ...reports.spending import read_report
from ...stores.contract import Store
from ..callers.keys import KeyIdentify
from .admin_bodies import Grant, NewKey, Resolution, Rotation, Terms
from .openapi import description
from .page import Page, Reply, Request
from .replies import NO_STORE, answered, query_of, reply_error, reply_json

if TYPE_CHECKING:
    from ..app import Proxy

log = logging.getLogger("farthing.proxy")
PREFIX = "/admin/"
RELOAD = "reload"
ENTRIES_MAX = 1_000


class Asked(NamedTuple):
    """One request to a route: the values of its path, its query, its body (of the route's type), and who asks."""

    proxy: Proxy
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    who: str

    @property
    def store(self) -> Store:
        return self.proxy.runtime.main.store

    def check_tags(self, scope: Iterable[str], each: Iterable[str]) -> None:
        """Raises ConfigError for a budget on a tag that callers choose themselves."""
        known = known_tags(self.proxy.trusted_tags, self.store.keys().result())
        for field, tag in escapable(scope, each, known):
            raise ConfigError(
                f"callers choose tag {tag!r} themselves, so a budget on it could be escaped: use one that comes from "
                f"their key, or trust them with it (trusted_tags at an upstream)",
                key=field,
            )


class Route(NamedTuple):
    """One row of the table. ``run`` may wait for the ledger: it is called in a thread."""

    method: str
    path: str
    """With the names of its values in braces."""
    summary: str
    run: Callable[[Asked], Any]
    body: type[msgspec.Struct] | None = None
    query: tuple[str, ...] = ()
    status: int = 200


def _budgets(asked: Asked) -> Any:
    return {"budgets": [row for budget in list_accounts(asked.store) for row in budget.to_dicts()]}


def _budget(asked: Asked) -> Any:
    (found,) = list_accounts(asked.store, _budget_name(asked))
    return {"terms": {**found.budget.to_dict(), "frozen": found.frozen}, "accounts": found.to_dicts()}


def _set_budget(asked: Asked) -> Any:
    asked.check_tags(asked.body.scope or (), asked.body.each or ())
    terms = {name: value for name, value in msgspec.structs.asdict(asked.body).items() if name != "update"}
    done = set_budget(asked.store, asked.path["name"], update=asked.body.update, **terms)
    return {"before": None if done.before is None else done.before.to_dict(), "now": done.now.to_dict()}


def _remove_budget(asked: Asked) -> Any:
    name = _budget_name(asked)
    asked.store.remove_budget(name).result()
    return {"removed": name}


def _grant(asked: Asked) -> Any:
    body: Grant = asked.body
    grant_more(asked.store, _budget_name(asked), **msgspec.structs.asdict(body), who=asked.who)
    return _budget(asked)


def _freeze(asked: Asked) -> Any:
    asked.store.freeze(_budget_name(asked), frozen=True).result()
    return _budget(asked)


def _unfreeze(asked: Asked) -> Any:
    asked.store.freeze(_budget_name(asked), frozen=False).result()
    return _budget(asked)


def _holds(asked: Asked) -> Any:
    return {"holds": [hold.to_dict() for hold in open_holds(asked.store)]}


def _resolve(asked: Asked) -> Any:
    body: Resolution = asked.body
    signed = f"by {asked.who}"
    note = f"{signed}: {body.note}" if body.note else signed
    (resolved,) = resolve_holds(asked.store, [asked.path["id"]], body.policy, note=note)
    return {"resolved": resolved.to_dict(), "policy": body.policy}


def _keys(asked: Asked) -> Any:
    return {"keys": [figures.to_dict() for figures in list_keys(asked.store)]}


def _create_key(asked: Asked) -> Any:
    made = create_key(asked.store, **msgspec.structs.asdict(asked.body))
    return {**_shown_key(asked.store, made.key.id), "key": made.text}


def _key(asked: Asked) -> Any:
    return _shown_key(asked.store, _key_id(asked))


def _rotate_key(asked: Asked) -> Any:
    made = rotate_key(asked.store, _key_id(asked), overlap=asked.body.overlap)
    return {**_shown_key(asked.store, made.key.id), "key": made.text}


def _revoke_key(asked: Asked) -> Any:
    return revoke_key(asked.store, _key_id(asked)).to_dict()


def _budget_name(asked: Asked) -> str:
    """Raises LookupError: what is not there is another answer than what cannot be used."""
    name = asked.path["name"]
    if name not in asked.store.catalogue().result().budgets:
        raise LookupError(f"no budget is named {name!r}")
    return name


def _key_id(asked: Asked) -> str:
    key_id = id_of(asked.path["id"])
    if key_id not in asked.store.keys(fresh=True).result().keys:
        raise LookupError(f"no key has the id {key_id!r}")
    return key_id


def _shown_key(store: Store, key_id: str) -> dict[str, Any]:
    ring = store.keys().result()
    return key_figures(ring, ring.known(key_id), store.now()).to_dict()


def _call(asked: Asked) -> Any:
    hold = asked.store.find(asked.path["id"]).result()
    if hold is None:
        raise LookupError(f"no call has the id {asked.path['id']!r}")
    return shown_call(hold)


def _entries(asked: Asked) -> Any:
    limit = _count(asked.query, "limit", 100, most=ENTRIES_MAX)
    after = _count(asked.query, "after", 0)
    since_ms, until_ms = _span(asked)
    found = asked.store.entries(since_ms=since_ms, until_ms=until_ms, after_seq=after, limit=limit).result()
    more = found[-1].seq if len(found) == limit else None
    return {"entries": [shown_entry(entry) for entry in found], "next": more}


def _report(asked: Asked) -> Any:
    keys = [key.strip() for key in asked.query.get("group_by", "").split(",") if key.strip()]
    since_ms, until_ms = _span(asked)
    found = read_report(asked.store, group_by=keys, since_ms=since_ms, until_ms=until_ms)
    return {"rows": found.to_dicts(), "total": found.totals()}


ROUTES = (
    Route("GET", "budgets", "Every budget with its accounts in use.", _budgets),
    Route("GET", "budgets/{name}", "One budget: its terms and its accounts.", _budget),
    Route("PUT", "budgets/{name}", "Set a standing budget; with update, change one.", _set_budget, body=Terms),
    Route("DELETE", "budgets/{name}", "Take a budget and its grants away. What was spent stays.", _remove_budget),
    Route("POST", "budgets/{name}/grants", "Raise a budget for now, signed by the key.", _grant, body=Grant),
    Route("POST", "budgets/{name}/freeze", "Deny every call that it binds, until it is unfrozen.", _freeze),
    Route("POST", "budgets/{name}/unfreeze", "Let calls pass it again.", _unfreeze),
    Route("GET", "holds", "Calls in flight, and calls with an unknown outcome.", _holds),
    Route("POST", "holds/{id}/resolve", "End a suspect hold by hand.", _resolve, body=Resolution),
    Route("GET", "keys", "Every key; nothing that opens one.", _keys),
    Route("POST", "keys", "Make a key. Its text is in this answer, and never again.", _create_key, NewKey, status=201),
    Route("GET", "keys/{id}", "One key.", _key),
    Route("POST", "keys/{id}/rotate", "Another secret for a key, shown in this answer only.", _rotate_key, Rotation),
    Route("DELETE", "keys/{id}", "Revoke a key for good; in force everywhere within a second.", _revoke_key),
    Route("GET", "calls/{id}", "What became of one call.", _call),
    Route(
        "GET",
        "entries",
        "Rows of the ledger, oldest first; go on with after=next.",
        _entries,
        query=("since", "until", "after", "limit"),
    ),
    Route("GET", "report", "Sums: where the money went.", _report, query=("group_by", "since", "until")),
)


def admin(proxy: Proxy, keys: KeyIdentify) -> Page:
    """The page of everything under ``/admin/``."""
    described = msgspec.json.encode(description(ROUTES))

    async def page(request: Request) -> Reply:
        path = request.path.removeprefix(PREFIX)
        if path == "openapi.json":
            return await answered(request, "GET", lambda: _description(described))

        async def run() -> Reply:
            key = await keys.check_admin(request)
            if path == RELOAD:
                return _reload(proxy, key)
            return await _answer(proxy, key, path, request)

        return await answered(request, "POST" if path == RELOAD else request.method, run)

    return page


async def _description(described: bytes) -> Reply:
    return Reply(200, described, headers=(NO_STORE,))


def _reload(proxy: Proxy, key: Key) -> Reply:
    """As SIGHUP does: it happens soon, in every worker, and the log says what came of it."""
    if proxy.ask_reload is None:
        message = "there is no configuration file to read again: give one to `farthing serve --config`"
        return reply_error(409, "nothing_to_reload", message)
    log.info("admin: POST /admin/reload by key %s", key.id)
    proxy.ask_reload()
    return reply_json({"reloading": True}, status=202)


async def _answer(proxy: Proxy, key: Key, path: str, request: Request) -> Reply:
    found = [(route, values) for route in ROUTES if (values := _match(route.path, path)) is not None]
    if not found:
        return reply_error(404, "not_found", f"{PREFIX}{path} is no path of the admin API; see {PREFIX}openapi.json")
    for route, values in found:
        if route.method == request.method:
            query = query_of(request, *route.query)
            asked = Asked(proxy, values, query, _body(route, request.body), f"key {key.id}")
            try:
                answer = await asyncio.to_thread(route.run, asked)
            except LookupError as error:
                if isinstance(error, ValueError):
                    raise
                return reply_error(404, "not_found", str(error))
            if route.method != "GET":
                log.info("admin: %s /admin/%s by key %s", route.method, path, key.id)
            return reply_json(answer, status=route.status)
    methods = ", ".join(sorted({route.method for route, _ in found}))
    refused = reply_error(405, "method_not_allowed", f"{request.path} answers {methods}")
    return refused._replace(headers=(*refused.headers, (b"allow", methods.encode())))


def _match(template: str, path: str) -> dict[str, str] | None:
    """The values of a path, decoded; None if it is another one."""
    names, parts = template.split("/"), path.split("/")
    if len(names) != len(parts):
        return None
    values = {}
    for name, part in zip(names, parts, strict=True):
        if name.startswith("{"):
            values[name[1:-1]] = unquote(part)
        elif name != part:
            return None
    return values if all(values.values()) else None


def _body(route: Route, body: bytes) -> msgspec.Struct | None:
    """Raises ValueError naming the field."""
    if route.body is None:
        if body.strip() not in (b"", b"{}"):
            raise ValueError(f"{route.method} {PREFIX}{route.path} takes no body")
        return None
    try:
        return msgspec.json.decode(body or b"{}", type=route.body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the body cannot be used: {error}") from error


def _span(asked: Asked) -> tuple[int | None, int | None]:
    now_ms = asked.store.now()
    since, until = asked.query.get("since"), asked.query.get("until")
    return (
        None if since is None else instant_ms(since, now_ms, argument="since"),
        None if until is None else instant_ms(until, now_ms, argument="until"),
    )


def _count(query: Mapping[str, str], name: str, default: int, *, most: int = 2**53) -> int:
    text = query.get(name)
    if text is None:
        return default
    if (
        not text.isascii()
        or not text.isdigit()
        or not 0 <= int(text[:17]) <= most
        or (name == "limit" and int(text) < 1)
    ):
        raise ValueError(f"{name}={text!r} must be an integer, at most {most}")
    return int(text)
