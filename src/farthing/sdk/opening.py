"""From an HTTP request to a governed call: what every hook of this door does first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ..calls.call import TIMEOUT_SECONDS, Call
from ..calls.polling import asks
from ..errors import UnmeteredCall
from ..runtime.ambient import current
from ..runtime.default import runtime
from ..runtime.runtime import UnmeteredCallWarning
from ..wire.hosts import named_by, provider_of
from ..wire.recognise import Recognised, recognise
from ..wire.routes import COSTS_NOTHING
from .clients import PROVIDERS
from .errors import by_openai, sdk_named


class Sender(NamedTuple):
    """What is known of a hook's client before it sends anything."""

    sdk: str | None = None
    """Its package (a request that names another goes before: one HTTP client may serve two SDKs); None: anybody's."""
    provider: str | None = None
    """The only one that it talks to."""
    hosts: tuple[tuple[str, str], ...] = ()
    """Declared hosts, and their providers."""
    in_care: bool = True
    """The user handed it over: whatever it sends to an unknown path is unmetered."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes, and what that makes it."""

    found: Recognised
    path: str
    """With its query."""
    known: bool
    """A provider is known to be at its host: that is no proxy of ours."""


def recognise_request(request: Any, sender: Sender) -> Place | None:
    """
    What a request is; None if farthing has nothing to do with it.

    The client's own package says whose dialect it speaks; where it is not known, the headers do: what the client of a
    provider's own SDK sends goes to that provider, unless its host is declared as another's.
    """
    url = request.url
    signs = _SIGNS.get(sender.sdk) or _signs(request.headers)
    return _recognise(request.method, url.netloc, url.raw_path, signs, sender)


Signs = tuple[tuple[bytes, ...], str]
"""What the headers of a request tell of who sends it: the names of them all, and the ``user-agent``."""

_SIGNS: dict[str | None, Signs] = {
    "openai": ((b"x-stainless-lang",), ""),
    "anthropic": ((b"x-stainless-lang", b"anthropic-version"), ""),
}
"""Of SDKs whose clients need not be asked."""


def _signs(headers: Any) -> Signs:
    return tuple([name for name, _ in headers.raw]), headers.get("user-agent", "")


@lru_cache(maxsize=1024)
def _recognise(method: str, netloc: bytes, raw_path: bytes, signs: Signs, sender: Sender) -> Place | None:
    host, path = netloc.decode("ascii"), raw_path.decode("ascii")
    names, agent = signs
    headers = {name.decode("latin-1").lower(): "" for name in names}
    declared = dict(sender.hosts)
    provider = sender.provider
    named = sdk_named(agent)
    if provider is None and sender.sdk is None and not named_by(host, declared):
        provider = PROVIDERS.get(named or "")
    elif provider is not None and named not in (None, sender.sdk):
        # Another SDK's client sends by the same HTTP client.
        provider = PROVIDERS.get(named or "")
    elif provider is not None and sender.sdk in _SIGNS:
        # So may OpenAI's own beside Azure's.
        provider = provider_of(host, {}) or provider
    if provider is not None:
        declared[host] = provider
    openai = not sender.in_care and by_openai(agent)
    found = recognise(
        method, host, path, headers=headers, known_hosts=declared, sdk_client=sender.in_care, by_openai=openai
    )
    if found.verdict in ("other", *COSTS_NOTHING) and found.answers is None:
        return None
    return Place(found, path, provider_of(host, {}) is not None)


def open_call(request: Any, place: Place, body: bytes) -> Call | None:
    """
    The governed call of a recognised request; None if it may pass without one.

    Raises UnmeteredCall if nothing here can measure it and a hard budget is in force.
    """
    here = runtime()
    here.housekeeper.catch_up()
    ambient, found = current(), place.found
    reason = found.reason
    if found.dialect is not None:
        try:
            facts = found.dialect.read_request(body, place.path)
        except ValueError as error:
            reason = f"its body does not tell what it may cost: {error}"
        else:
            timeout = (request.extensions.get("timeout") or {}).get("read") or TIMEOUT_SECONDS
            offers = not place.known and here.durable is not None
            return Call(here, found.dialect, facts, ambient, request.url, timeout, offers=offers)
    if found.answers is not None:
        return Call(here, found.answers, asks(found.answers, place.path), ambient, request.url, asks=True)
    tags = {**dict(ambient.tags), "provider": found.provider or ""}
    hard = here.hard_budget(ambient, tags)
    url = str(request.url)
    if hard is not None:
        raise UnmeteredCall(request.method, url, budget=hard.title, reason=reason)
    message = f"{request.method} {url} is not metered ({reason}): its cost is not in any report."
    here.warn_once(f"unmetered:{request.method} {request.url.path}", UnmeteredCallWarning, message)
    return None
