"""
What a request is: one that a dialect meters, one that is free, one that nothing here can measure, or none of ours.

The table of routes is reviewed data (:mod:`.routes`). Whatever goes to a provider and stands in no row is *unmetered*:
a new endpoint is never a silent bypass. Nor is an odd spelling of an old one: a path with ``//``, a slash at its end,
dot segments or percent escapes is unmetered too, save for reading what is free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from .anthropic.messages import AnthropicMessages
from .cohere.chat import CohereChat
from .facts import Dialect
from .gemini.embeddings import GeminiEmbeddings
from .gemini.generate import GeminiGenerate
from .hosts import ONLY_MAX_TOKENS, TELL_USAGE, provider_of
from .openai.chat import OpenAIChat
from .openai.completions import OpenAICompletions
from .openai.embeddings import OpenAIEmbeddings
from .openai.images import OpenAIImages
from .openai.responses import OpenAIResponses
from .routes import COSTS_NOTHING, ROUTES, TELLS_ANSWER, Row, Verdict


@dataclass(frozen=True, slots=True)
class Recognised:
    """
    The verdict on one request. ``dialect`` is set exactly where it is ``metered``; ``reason`` says why otherwise, in
    words for a person; ``provider`` is the price table's id, where one is known. ``answers`` is set on a free route
    that may tell how a background call ended: the dialect that its answer is written in.
    """

    verdict: Verdict
    reason: str
    provider: str | None = None
    dialect: Dialect | None = None
    answers: Dialect | None = None


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OpenAIChat(),
        OpenAIResponses(),
        OpenAICompletions(),
        OpenAIEmbeddings(),
        OpenAIImages(),
        AnthropicMessages(),
        GeminiGenerate(),
        GeminiEmbeddings(),
        CohereChat(),
    )
}
"""Every dialect by name, each for its own provider."""

_SDK_HEADERS = ("x-stainless-lang", "anthropic-version", "x-goog-api-key")
_HOMES = frozenset({"openai", "anthropic"})
"""Providers with a dialect of their own; at any other, a dialect is spoken at that provider's prices."""
# What may stand right before a route: a version, a gateway's name for the provider; or an Azure deployment, a place or
# a publisher of Vertex AI.
_BEFORE = re.compile(r"v\d+[a-z0-9]*|api|openai|openapi|anthropic|gemini")
_BEFORE_NAME = frozenset({"deployments", "locations", "publishers"})
_MAX_PATH_CHARS = 4096


def recognise(
    method: str,
    host: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    known_hosts: Mapping[str, str] | None = None,
    sdk_client: bool = False,
    by_openai: bool = False,
) -> Recognised:
    """
    Says what a request is.

    Args:
        method: the HTTP method.
        host: as in the URL, a port included or not.
        path: as in the URL, undecoded, a query included or not.
        headers: the request's, in any case; only their names matter.
        known_hosts: declared base URLs: host (with its port, if it has one), and the provider there. They come on top
            of those of :mod:`.hosts`.
        sdk_client: the request comes from an SDK client that the user put in our care.
        by_openai: the request says that OpenAI's own SDK sends it.
    """
    names = {name.lower() for name in headers} if headers else set()
    provider = provider_of(host.lower(), known_hosts or {})
    in_care = sdk_client or provider is not None or "anthropic-version" in names
    if not in_care and not any(name in names for name in _SDK_HEADERS):
        return _OTHER
    if provider is None:
        provider = "anthropic" if "anthropic-version" in names else None
    plain = path.partition("?")[0].partition("#")[0]
    found = _route(method.upper(), plain, provider) if len(plain) <= _MAX_PATH_CHARS else None
    if found is None and (sdk_client or by_openai) and provider is None:
        found = _behind_gateway(method.upper(), plain)
    if found is not None:
        return found
    # Several SDKs of other services come from the same generator as OpenAI's, and send the same header.
    return Recognised("unmetered", "no meter is known for this endpoint", provider) if in_care else _OTHER


def _behind_gateway(method: str, path: str) -> Recognised | None:
    """
    A client that its user handed over, or of OpenAI's own SDK, whose base URL is some gateway's:
    ``/serving-endpoints/chat/completions``. What the SDK itself adds to it says what it is, where nobody else ends a
    path so.
    """
    tail = next((tail for tail in _TAILS if path.endswith(tail) and len(path) <= _MAX_PATH_CHARS), None)
    prefix = path.removesuffix(tail).split("/") if tail else []
    if tail is None or prefix[0] or not all(prefix[1:]) or {".", ".."} & {*map(unquote, prefix)}:
        return None
    return _route(method, f"/v1{tail}", None)


_TAILS = ("/chat/completions", "/responses", "/embeddings")
_OTHER = Recognised("other", "not a call to a provider that is known here")


@lru_cache(maxsize=1024)
def _route(method: str, path: str, provider: str | None) -> Recognised | None:
    """The verdict of the table; None if the path is in no row. Of paths of a bounded length: they are kept."""
    # As a server may come to read it: escapes decoded, empty segments dropped.
    segments = [segment for segment in unquote(path).split("/") if segment]
    reads = method in ("GET", "HEAD")
    if method == "OPTIONS" or (reads and not segments):
        return Recognised("free", "costs no tokens", provider)
    row = _row(method, segments, provider)
    if row is None:
        return None
    home = row.provider if provider is None or provider in _HOMES else provider
    dotted = "." in segments or ".." in segments
    if dotted or ("/" + "/".join(segments) != path and not (reads and _costs_nothing(row))):
        return Recognised("unmetered", "the path is not in its plain form (without double or trailing slashes)", home)
    if _costs_nothing(row) and home not in (row.provider, "azure") and method not in ("GET", "HEAD", "DELETE"):
        # Mistral runs models where OpenAI only stores a conversation: what is free is free where the row was read.
        return Recognised("unmetered", f"free at {row.provider}; not known to be so at {home}", home)
    if row.verdict == "metered":
        return Recognised("metered", row.note, home, _dialect(row.note, home))
    answers = _dialect(OpenAIResponses.name, home) if row.note == TELLS_ANSWER else None
    return Recognised(row.verdict, row.note, home, answers=answers)


def _costs_nothing(row: Row) -> bool:
    return row.verdict in COSTS_NOTHING


def _row(method: str, segments: list[str], provider: str | None) -> Row | None:
    """
    The row that matches the longest end of the path; of several, the one of the host's own provider, then the more
    exact one, then the stricter one. What is sent somewhere free is looked at again: a gateway's prefix may look like
    a free route (``/files/v1/messages``), and that must hide nothing.
    """
    found = None
    for start, head in enumerate(segments):
        named = start >= 2 and segments[start - 2] in _BEFORE_NAME
        if start and not named and not _BEFORE.fullmatch(segments[start - 1]):
            continue
        matching = [row for row in _BY_HEAD.get(head, ()) if _matches(row, method, segments[start:])]
        if not matching:
            continue
        row = max(matching, key=lambda row: (row.provider == provider, _literals(row), not _costs_nothing(row)))
        if not _costs_nothing(row) or method in ("GET", "HEAD"):
            return row
        found = found or row
    return found


def _literals(row: Row) -> int:
    return sum(segment not in ("*", "**") for segment in row.path.split("/"))


def _matches(row: Row, method: str, segments: list[str]) -> bool:
    if ("GET" if method == "HEAD" else method) not in row.methods.split():
        return False
    pattern = row.path.split("/")
    if pattern[-1] == "**":
        pattern.pop()
        segments = segments[: len(pattern)]
    return len(pattern) == len(segments) and all(map(_fits, pattern, segments))


def _fits(want: str, got: str) -> bool:
    return want in ("*", got) or (want.startswith("*:") and got.endswith(want[1:]) and len(got) >= len(want))


_BY_HEAD: dict[str, list[Row]] = {}
for _each in ROUTES:
    _BY_HEAD.setdefault(_each.path.partition("/")[0], []).append(_each)


@lru_cache(maxsize=64)
def _dialect(name: str, provider: str) -> Dialect:
    """The dialect as spoken by this provider: Azure's prices are not OpenAI's."""
    own = DIALECTS[name]
    return own if provider == own.provider else _SPEAKERS[name](provider)


def _chat(provider: str) -> OpenAIChat:
    ceiling = "max_tokens" if provider in ONLY_MAX_TOKENS else "max_completion_tokens"
    return OpenAIChat(provider, ceiling_field=ceiling, tells_usage=provider in TELL_USAGE)


_SPEAKERS: dict[str, Callable[[str], Dialect]] = {name: type(dialect) for name, dialect in DIALECTS.items()}
_SPEAKERS[OpenAIChat.name] = _chat
