"""Headers on their way through: what passes, what is ours, what belongs to one connection only; and credentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from operator import itemgetter
from typing import NamedTuple
from urllib.parse import quote, unquote

from ..calls.call import Call
from ..calls.endings import OUTCOME, Settle
from ..kernel.balances import UNITS
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
_MASK = b"x-goog-fieldmask"
"""By which Google's servers leave a part of the answer out, and be it what it cost."""
_NOT_SENT = HOP_BY_HOP | _OTHER_REQUEST | {b"host", b"content-length", b"expect", OUTCOME[0], _MASK}
_CREDENTIALS = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")
OURS = b"x-farthing-"
IDENTITY = (b"accept-encoding", b"identity")
_NOT_GIVEN_BACK = HOP_BY_HOP | {b"content-length"}
_DROPPED = {
    (identity, replaces): _NOT_SENT.union(IDENTITY[:1] if identity else (), _CREDENTIALS if replaces else ())
    for identity in (False, True)
    for replaces in (False, True)
}
_name = itemgetter(0)
_LISTS_KEPT, _LENGTH_KEPT = 64, 100
"""Of names of headers: clients and providers send the same ones again and again. Longer ones are nobody's habit."""


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


class _Passing(NamedTuple):
    """What becomes of headers of certain names, in their order, and where those stand that are read here."""

    passes: tuple[bool, ...]
    connection: tuple[int, ...]
    content_type: int | None
    content_encoding: int | None


@lru_cache(maxsize=_LISTS_KEPT)
def _passing(names: tuple[bytes, ...], dropped: frozenset[bytes]) -> _Passing:
    lower = [name.lower() for name in names]
    return _Passing(
        tuple([name not in dropped and (not name.startswith(OURS) or name == OUTCOME[0]) for name in lower]),
        tuple([at for at, name in enumerate(lower) if name == b"connection"]),
        lower.index(b"content-type") if b"content-type" in lower else None,
        lower.index(b"content-encoding") if b"content-encoding" in lower else None,
    )


def _passed(headers: Sequence[Header], dropped: frozenset[bytes]) -> tuple[list[Header], _Passing]:
    names = tuple(map(_name, headers))
    passing = _passing(names, dropped) if len(names) <= _LENGTH_KEPT else _passing.__wrapped__(names, dropped)
    passed = list(compress(headers, passing.passes))
    if passing.connection:
        named = _named(b",".join([headers[at][1] for at in passing.connection]))
        if named:
            passed = [header for header in passed if header[0].lower() not in named]
    return passed, passing


def outgoing_headers(
    headers: Sequence[Header], credential: Header | None, *, identity: bool, keep_credential: bool
) -> list[Header]:
    """
    What goes to the upstream: the caller's headers, without those of its connection and without ours. The upstream's
    own *credential* replaces the caller's; *keep_credential* is False where the caller's is one of our keys.

    *identity*: ask for a body without content encoding.
    """
    sent, _ = _passed(headers, _DROPPED[identity, credential is not None or not keep_credential])
    if identity:
        sent.append(IDENTITY)
    if credential is not None:
        sent.append(credential)
    return sent


def without_key(query: str) -> str:
    """The query without the credential that Gemini's clients may put there."""
    return "&".join(pair for pair in query.split("&") if pair.partition("=")[0] != "key")


def credential_at(upstream: Upstream, family: str) -> Header | None:
    """What the upstream is shown of us, as its dialect says it; None where it sees the caller's own."""
    key = upstream.api_key
    if key is None:
        return None
    if upstream.known_provider == "azure":
        return (b"api-key", key.encode("latin-1"))
    if family == "anthropic":
        return (b"x-api-key", key.encode("latin-1"))
    if family == "gemini":
        return (b"x-goog-api-key", key.encode("latin-1"))
    return (b"authorization", b"Bearer " + key.encode("latin-1"))


class Incoming(NamedTuple):
    """The head of an answer, read once."""

    headers: list[Header]
    """What goes back to the client."""
    content_type: bytes
    """As its header says it; b"" if there is none."""
    encoding: bytes
    """How its body is packed, in lower case; b"" if it is not."""


def incoming(headers: Sequence[Header], *, with_length: bool = False) -> Incoming:
    """*with_length*: the body goes back as it comes, so what the upstream says of its length is true there too."""
    passed, passing = _passed(headers, HOP_BY_HOP if with_length else _NOT_GIVEN_BACK)
    _, _, content_type, encoding = passing
    return Incoming(
        passed,
        b"" if content_type is None else headers[content_type][1],
        b"" if encoding is None else headers[encoding][1].strip().lower(),
    )


def without(name: bytes, headers: Iterable[Header]) -> list[Header]:
    """All but this one."""
    return [header for header in headers if header[0].lower() != name]


@lru_cache(maxsize=_LISTS_KEPT)
def _named(connection: bytes) -> frozenset[bytes]:
    """The headers that ``connection`` names."""
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
    user = body.get("user")
    if user is not None:
        _note(tags, "user", user)
    session = headers.get(b"x-claude-code-session-id")
    if session:
        _note(tags, "session", session.decode("latin-1"))
    given = headers.get(b"x-farthing-tags")
    if given:
        tags.update(_given(given))
    return tags


@lru_cache(maxsize=_LISTS_KEPT)
def _given(header: bytes) -> Mapping[str, str]:
    pairs: dict[str, object] = {}
    for part in header.decode("utf-8", "replace").split(","):
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
    if type(ending) is Settle and ending.outcome.cost_nano is not None:
        headers.append((b"x-farthing-cost-usd", _usd(ending.outcome.cost_nano)))
    admitted = call.admitted
    room = None if admitted is None or admitted.granted is None else tightest(admitted.granted)
    if room is not None:
        headers.append((b"x-farthing-budget", _written(room.budget)))
        for unit, left in room.remaining:
            headers.append((_REMAINING[unit], _usd(left) if unit == "usd" else b"%d" % left))
    return headers


_REMAINING = {unit: b"x-farthing-remaining-" + unit.encode() for unit in UNITS}
_PLAIN = " !#$&'()*+,/:;=?@[]"
"""What a budget's name may have in a header as it stands; anything else is percent-encoded there."""


@lru_cache(maxsize=1_024)
def _written(title: str) -> bytes:
    return quote(title, safe=_PLAIN).encode()


def _usd(amount_nano: int) -> bytes:
    return usd_decimal(amount_nano).encode()
