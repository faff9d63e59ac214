"""From an HTTP request to a governed call: what every hook of this door does first."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

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


def recognise_request(
    request: Any,
    *,
    sdk: str | None,
    provider: str | None = None,
    hosts: tuple[tuple[str, str], ...] = (),
    in_care: bool = True,
) -> Recognised | None:
    """
    What a request is; None if farthing has nothing to do with it.

    *sdk* is the client's own package, which says whose dialect it speaks; where it is not known, the headers do: what
    the client of a provider's own SDK sends goes to that provider, unless its host is declared as another's.
    *provider* is the only one that this SDK talks to, *hosts* are declared hosts and their providers; *in_care*: the
    user handed this very client over.
    """
    url = request.url
    names = _TELLING[sdk] if sdk in _TELLING else tuple([name for name, _ in request.headers.raw])
    if sdk is None and provider is None and (own := PROVIDERS.get(sdk_named(request) or "")) is not None:
        provider = None if named_by(url.netloc.decode("ascii"), dict(hosts)) else own
    openai = not in_care and by_openai(request.headers)
    return _recognise(request.method, url.netloc, url.raw_path, names, provider, hosts, in_care, openai)


_TELLING = {"openai": (b"x-stainless-lang",), "anthropic": (b"x-stainless-lang", b"anthropic-version")}
"""The headers by which each SDK's requests are known."""


@lru_cache(maxsize=1024)
def _recognise(
    method: str,
    netloc: bytes,
    raw_path: bytes,
    names: tuple[bytes, ...],
    provider: str | None,
    hosts: tuple[tuple[str, str], ...],
    in_care: bool,
    openai: bool,
) -> Recognised | None:
    headers = {name.decode("latin-1").lower(): "" for name in names}
    host, path = netloc.decode("ascii"), raw_path.decode("ascii")
    declared = {**dict(hosts), **({host: provider} if provider is not None else {})}
    found = recognise(method, host, path, headers=headers, known_hosts=declared, sdk_client=in_care, by_openai=openai)
    return None if found.verdict in ("other", *COSTS_NOTHING) and found.answers is None else found


@lru_cache(maxsize=256)
def _is_provider(host: str) -> bool:
    """Whether a provider is known to be there: then it is no proxy of ours."""
    return provider_of(host, {}) is not None


def open_call(request: Any, found: Recognised, body: bytes) -> Call | None:
    """
    The governed call of a recognised request; None if it may pass without one.

    Raises UnmeteredCall if nothing here can measure it and a hard budget is in force.
    """
    here = runtime()
    here.housekeeper.catch_up()
    ambient = current()
    reason = found.reason
    if found.answers is not None:
        path = request.url.raw_path.decode("ascii")
        return Call(here, found.answers, asks(found.answers, path), ambient, request.url, asks=True)
    if found.dialect is not None:
        try:
            facts = found.dialect.read_request(body, request.url.raw_path.decode("ascii"))
        except ValueError as error:
            reason = f"its body does not tell what it may cost: {error}"
        else:
            timeout = (request.extensions.get("timeout") or {}).get("read") or TIMEOUT_SECONDS
            offers = here.durable is not None and not _is_provider(request.url.host)
            return Call(here, found.dialect, facts, ambient, request.url, timeout, offers=offers)
    tags = {**dict(ambient.tags), "provider": found.provider or ""}
    hard = here.hard_budget(ambient, tags)
    url = str(request.url)
    if hard is not None:
        raise UnmeteredCall(request.method, url, budget=hard.title, reason=reason)
    message = f"{request.method} {url} is not metered ({reason}): its cost is not in any report."
    here.warn_once(f"unmetered:{request.method} {request.url.path}", UnmeteredCallWarning, message)
    return None
