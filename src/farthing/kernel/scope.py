"""
Scopes: who pays. A set of tags; a budget matches the calls that carry all the tags of its scope.

``each`` splits a budget into one account per value of the named tags. A call without such a tag is not unmatched:
all of those share the account of the absent value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

Tags = Mapping[str, str]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

TAGS_MAX = 32
TAG_LENGTH_MAX = 256
OWN_KEYS = ("model", "provider", "budget", "day", "hour")
"""What a call says itself, and reports group by like any tag: no tag may have such a name."""


def check_tags(tags: Mapping[str, object], *, field: str) -> dict[str, str]:
    """
    Tags as they are kept: text to text, bounded in number and length. Numbers and booleans become their text.

    Raises ValueError naming *field* and the tag.
    """
    if not isinstance(tags, Mapping):
        raise ValueError(f"{field} must be a mapping of tags, not {tags!r}")
    if len(tags) > TAGS_MAX:
        raise ValueError(f"{field} has {len(tags)} tags; at most {TAGS_MAX} are kept")
    checked = {}
    for name, value in tags.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"{field}: a tag's name must be non-empty text, not {name!r}")
        if not isinstance(value, (str, int, float, bool)):
            raise ValueError(f"{field}: tag {name!r} must be text or a number, not {value!r}")
        text = str(value)
        if len(name) > TAG_LENGTH_MAX or len(text) > TAG_LENGTH_MAX:
            raise ValueError(f"{field}: tag {name!r} is longer than {TAG_LENGTH_MAX} characters")
        check_unicode(name + text, field=f"{field}: tag {name!r}")
        checked[name] = text
    return checked


def check_unicode(text: str, *, field: str) -> None:
    """Raises ValueError for half a surrogate pair, as which Python reads bytes that are no UTF-8: no file keeps it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{field} is not valid Unicode: {text!r}") from error


def one_line(text: str) -> str:
    """
    The text with whatever is not printable escaped: what callers choose (a tag, say) neither ends a line and begins one
    that we never said, nor paints the terminal.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def printable_json(text: str) -> str:
    """JSON text with what is not printable written as escapes: the same value. Its line breaks stay."""
    lines = text.split("\n")
    if all(map(str.isprintable, lines)):
        return text
    return "\n".join(
        "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line) for line in lines
    )


def check_own(tags: Iterable[str]) -> None:
    """Raises ValueError for the name of a tag that every call has already."""
    for name in OWN_KEYS:
        if name in tags:
            raise ValueError(f"tag {name!r} is what a call says itself; choose another name")


def check_model(model: object) -> None:
    """Raises ValueError for what cannot be the name of a model."""
    if not isinstance(model, str):
        raise ValueError(f"model must be the name of a model, not {model!r}")


def matches(scope: Tags, tags: Tags) -> bool:
    """Whether a call with these tags is in the scope: it carries every tag of it, with that value."""
    return all(tags.get(name) == value for name, value in scope.items())


def concrete(scope: Tags, each: tuple[str, ...], tags: Tags) -> dict[str, str | None]:
    """The scope of one account: the budget's own tags, and this call's value of every ``each`` tag (None: absent)."""
    values: dict[str, str | None] = dict(scope)
    for name in each:
        values[name] = tags.get(name)
    return values


def account_key(name: str, scope: Mapping[str, str | None], window_start_ms: int | None, window: str = "") -> str:
    """
    The identity of an account: budget name, concrete scope, window start, and the window as it is written; unambiguous
    for any text in them. The window itself, since a day and a month may begin together, and a budget that was changed
    from one to the other must not sum, or put away, the other's accounts.
    """
    return account_keys(name, scope, (window_start_ms,), window)[0]


def account_keys(
    name: str, scope: Mapping[str, str | None], window_starts_ms: Iterable[int | None], window: str = ""
) -> tuple[str, ...]:
    """The keys of one account's windows, or of the buckets of a rolling one: :func:`account_key` of each start."""
    # They differ in their last part only: the text of the rest is made once.
    head = _encode([name, sorted(scope.items())])[:-1]
    tail = f" {_encode(window)[1:-1]}".rstrip()
    return tuple(f'{head},""]' if start is None else f'{head},"{start}{tail}"]' for start in window_starts_ms)


def read_account_key(key: str) -> tuple[str, dict[str, str | None], int | None]:
    """The inverse of :func:`account_key`: budget name, concrete scope and window start."""
    name, scope, start = json.loads(key)
    return name, dict(scope), int(start.partition(" ")[0]) if start else None
