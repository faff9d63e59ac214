"""Headers on their way through: what passes, what is ours, what belongs to one connection only; and credentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote

from ..calls.call import Call
from ..calls.endings import OUTCOME, Settle
from ..kernel.money import usd_decimal
from ..kernel.scope import TAG_LENGTH_MAX, TAGS_MAX, check_tags
from ..reports.room import tightest
from .settings import Upstream
from .upstream import Header

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Of one connection (RFC 9110, 7.6.1); what ``connection`` names is, too."""
_OTHER_REQUEST = frozenset(
    {b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url"}
)
"""By which some servers take a request for another one, of another method or path, than was judged here."""
_NOT_SENT = HOP_BY_HOP | _OTHER_REQUEST | {b"host", b"content-length", b"expect"}
_CREDENTIALS = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")
OURS = b"x-farthing-"
IDENTITY = (b"accept-encoding", b"identity")


def credential_of(headers: Mapping[bytes, bytes], query: str) -> str | None:
    """The caller's credential, wherever its SDK puts it."""
    for name in _CREDENTIALS:
        value = headers.get(name)
        if value:
            text = value.decode("latin-1").strip()
            scheme, _, token = text.partition(" ")
            return token.strip() if token and scheme.lower() == "bearer" else text
    if "key=" in query:
        for pair in query.split("&"):
            key, _, text = pair.partition("=")
            if key == "key" and text:
                return unquote(text)
    return None


def outgoing_headers(
    headers: Iterable[Header], upstream: Upstream, family: str, *, identity: bool, keep_credential: bool
) -> list[Header]:
    """
    What goes to the upstream: the caller's headers, without those of its connection and without ours. The upstream's
    own credential replaces the caller's; *keep_credential* is False where the caller's is one of our keys.

    *identity*: ask for a body without content encoding.
    """
    kept: list[Header] = []
    connection = b""
    replaces = upstream.api_key is not None or not keep_credential
    for header in headers:
        name = header[0]
        if name in _NOT_SENT:
            if name == b"connection":
                connection += b"," + header[1]
            continue
        if name.startswith(OURS) or (identity and name == b"accept-encoding") or (replaces and name in _CREDENTIALS):
            continue
        kept.append(header)
    named = _named(connection)
    if named:
        kept = [header for header in kept if header[0] not in named]
    if identity:
        kept.append(IDENTITY)
    if upstream.api_key is not None:
        kept.append(_credential(upstream, family, upstream.api_key))
    return kept


def without_key(query: str) -> str:
    """The query without the credential that Gemini's clients may put there."""
    return "&".join(pair for pair in query.split("&") if pair.partition("=")[0] != "key")


def _credential(upstream: Upstream, family: str, key: str) -> Header:
    if upstream.known_provider == "azure":
        return (b"api-key", key.encode("latin-1"))
    if family == "anthropic":
        return (b"x-api-key", key.encode("latin-1"))
    if family == "gemini":
        return (b"x-goog-api-key", key.encode("latin-1"))
    return (b"authorization", b"Bearer " + key.encode("latin-1"))


def incoming(headers: Sequence[Header], *, decoded: bool = False) -> list[Header]:
    """What goes back to the client of an upstream's headers. *decoded*: the body lost its content encoding."""
    kept: list[Header] = []
    connection = b""
    for header in headers:
        name = header[0].lower()
        if name in HOP_BY_HOP:
            if name == b"connection":
                connection += b"," + header[1]
            continue
        if name.startswith(OURS) and name != OUTCOME[0]:
            continue
        if decoded and name in (b"content-encoding", b"content-length"):
            continue
        kept.append(header)
    named = _named(connection)
    return [header for header in kept if header[0].lower() not in named] if named else kept


def without(name: bytes, headers: Iterable[Header]) -> list[Header]:
    """All but this one."""
    return [header for header in headers if header[0].lower() != name]


def _named(connection: bytes) -> frozenset[bytes]:
    """The headers that ``connection`` names."""
    if not connection:
        return frozenset()
    words = {word.strip().lower() for word in connection.split(b",")}
    return frozenset(words - {b"", b"close", b"keep-alive"})


# -- what the caller says about itself -------------------------------------------------------------------------------


def free_tags(headers: Mapping[bytes, bytes], body: Mapping[str, object]) -> dict[str, str]:
    """
    Tags that the caller chose: ``x-farthing-tags: feature=search,run=42``, the session of Claude Code, and what
    OpenAI's and Anthropic's requests say of their user. Raises ValueError for a header that is not that.
    """
    tags: dict[str, str] = {}
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        for name, value in metadata.items():
            if name != "user_id":
                _note(tags, name, value)
            elif not str(value).startswith("{"):
                # Claude Code puts an object there, of its device and its session: nobody's name.
                _note(tags, "user", value)
    _note(tags, "user", body.get("user"))
    session = headers.get(b"x-claude-code-session-id")
    if session:
        _note(tags, "session", session.decode("latin-1"))
    given = headers.get(b"x-farthing-tags")
    if given:
        tags.update(_given(given.decode("utf-8", "replace")))
    return tags


def _given(text: str) -> dict[str, str]:
    pairs: dict[str, object] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"x-farthing-tags must be name=value pairs, separated by commas, not {part.strip()!r}")
        pairs[name.strip()] = value.strip()
    return check_tags(pairs, field="x-farthing-tags")


def _note(tags: dict[str, str], name: object, value: object) -> None:
    """Take one more tag, if it can be one: a body is the provider's to judge, not ours."""
    fits = isinstance(name, str) and isinstance(value, str) and 0 < len(name) <= TAG_LENGTH_MAX
    if fits and 0 < len(str(value)) <= TAG_LENGTH_MAX and len(tags) < TAGS_MAX:
        tags[str(name)] = str(value)


# -- what we say about a call ----------------------------------------------------------------------------------------


def about(call: Call) -> list[Header]:
    """Which call this was, what it cost where that is known by now, and what its tightest budget has left."""
    headers = [(b"x-farthing-call-id", call.hold_id.encode())]
    ending = call.ending
    if isinstance(ending, Settle) and ending.outcome.cost_nano is not None:
        headers.append((b"x-farthing-cost-usd", _usd(ending.outcome.cost_nano)))
    admitted = call.admitted
    room = None if admitted is None or admitted.granted is None else tightest(admitted.granted)
    if room is not None:
        headers.append((b"x-farthing-budget", quote(room.budget, safe=_PLAIN).encode()))
        for unit, left in room.remaining:
            amount = _usd(left) if unit == "usd" else str(left).encode()
            headers.append((b"x-farthing-remaining-" + unit.encode(), amount))
    return headers


_PLAIN = " !#$&'()*+,/:;=?@[]"
"""What a budget's name may have in a header as it stands; anything else is percent-encoded there."""


def _usd(amount_nano: int) -> bytes:
    return usd_decimal(amount_nano).encode()
