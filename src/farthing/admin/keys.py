"""
Virtual keys as an operator handles them: made, listed, rotated, revoked.

A key is who its caller is (``user``, ``team`` and other tags), and may bring a budget with it. That budget is a
standing one: of the user, if the key has one, so that all keys of one user share one account; else of the key itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..kernel.instants import instant_ms
from ..kernel.keys import DENY_STATUSES, ID_BYTES, PARENTS_MAX, PREFIX, SECRET_BYTES, Key, KeyRing, hash_of
from ..kernel.scope import check_tags
from ..kernel.window import datetime_from_ms
from ..stores.contract import Store
from .limits import budget_terms, parse_limit
from .standing import set_budget

RandomHex = Callable[[int], str]
"""That many random bytes, as hexadecimal text; of cryptographic quality."""
OWN_TAGS = ("key", "model", "provider")
"""Tags that every call has by itself: a key cannot claim them."""
LABEL_LENGTH_MAX = 200


class Made(NamedTuple):
    """A key, and its text. This is the only moment at which the text is known."""

    key: Key
    text: str


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """A key as it may be shown. ``state`` is ``active``, ``expired`` or ``revoked``."""

    key: Key
    state: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; nothing in it opens anything."""
        key = self.key
        return {
            "id": key.id,
            "shown": key.shown,
            "state": self.state,
            "tags": {name: value for name, value in key.tags if (name, value) != ("key", key.id)},
            "admin": key.admin,
            "label": key.label,
            "budgets": list(key.budgets),
            "deny_status": key.deny_status,
            "parent": key.parent,
            "created_at": _iso(key.created_ms),
            "expires_at": _iso(key.expires_ms),
            "revoked_at": _iso(key.revoked_ms),
            "previous_until": _iso(key.previous_until_ms),
        }


def create_key(
    store: Store,
    *,
    user: str | None = None,
    team: str | None = None,
    tags: Mapping[str, object] | None = None,
    budgets: Iterable[str] = (),
    expires: str | datetime | None = None,
    deny_status: int | None = None,
    admin: bool = False,
    label: str | None = None,
    parent: str | None = None,
    random_hex: RandomHex = secrets.token_hex,
) -> Made:
    """
    Make a key, and the budgets that come with it.

    Args:
        user, team, tags: who its caller is.
        budgets: limits as :mod:`.limits` reads them: ``"$5/day"``.
        expires: a date, an ISO time or a span from now (``"30d"``).
        deny_status: the HTTP status of refusals, where the key's client needs another than the proxy's.
        admin: for the admin API only; it makes no model calls.
        parent: the id of a key to delegate from: the new one has that one's tags and exactly one more, an end, and ends
            with its parent at the latest.

    Raises ValueError naming the argument; ConfigError for a budget that exists with other terms, or an unknown parent.
    """
    ring, now_ms = store.keys(fresh=True).result(), store.now()
    own = _tags(user, team, tags)
    expires_ms = None if expires is None else instant_ms(expires, now_ms, argument="expires", ahead=True)
    if expires_ms is not None and expires_ms <= now_ms:
        raise ValueError(f"expires={expires!r} is in the past")
    if deny_status is not None and deny_status not in DENY_STATUSES:
        raise ValueError(f"deny_status must be one of {', '.join(map(str, DENY_STATUSES))}, not {deny_status!r}")
    if label is not None and not (isinstance(label, str) and label.strip() and len(label) <= LABEL_LENGTH_MAX):
        raise ValueError(f"label must be non-empty text of at most {LABEL_LENGTH_MAX} characters, not {label!r}")
    terms = budget_terms([parse_limit(text, argument="budget") for text in budgets])
    if admin and (own or terms or deny_status is not None or parent is not None):
        raise ValueError("an admin key makes no model calls: it has no user, team, tags, budget, deny_status or parent")
    key_id = _unused_id(ring, random_hex)
    text = _text(key_id, random_hex)
    known = {"key": key_id, **own}
    scope = {"user": user} if user is not None else {"key": key_id}
    if parent is not None:
        known = _delegated(ring, parent, own, expires_ms, now_ms)
        scope = {"key": known["key"], **own}
    names = tuple(_put_budget(store, scope, of) for of in terms.values())
    key = Key(
        id=key_id,
        hash=hash_of(text),
        tags=tuple(sorted(known.items())),
        admin=admin,
        deny_status=deny_status,
        label=label,
        budgets=names,
        parent=parent,
        created_ms=now_ms,
        expires_ms=expires_ms,
    )
    store.put_key(key).result()
    return Made(key, text)


def list_keys(store: Store) -> list[KeyFigures]:
    """Every key, oldest first; revoked ones too."""
    ring, now_ms = store.keys(fresh=True).result(), store.now()
    ordered = sorted(ring.keys.values(), key=lambda key: (key.created_ms, key.id))
    return [key_figures(ring, key, now_ms) for key in ordered]


def key_figures(ring: KeyRing, key: Key, now_ms: int) -> KeyFigures:
    """One key as it may be shown."""
    return KeyFigures(key, ring.ended(key, now_ms) or "active")


def revoke_key(store: Store, named: str) -> KeyFigures:
    """
    End a key for good: within a second no process lets it in. Calls in flight go on to their end. Raises ConfigError.
    """
    key_id = id_of(named)
    ring = store.revoke_key(key_id).result()
    return key_figures(ring, ring.keys[key_id], store.now())


def rotate_key(
    store: Store, named: str, *, overlap: str | None = None, random_hex: RandomHex = secrets.token_hex
) -> Made:
    """
    Another secret for a key; its id, tags and accounts stay. The old one ends at once, or after *overlap* (``"1h"``).

    Raises ValueError naming the argument; ConfigError for a key that is unknown, expired or revoked.
    """
    key_id, now_ms = id_of(named), store.now()
    until_ms = now_ms if overlap is None else instant_ms(overlap, now_ms, argument="overlap", ahead=True)
    if until_ms < now_ms:
        raise ValueError(f"overlap={overlap!r} is in the past")
    text = _text(key_id, random_hex)
    ring = store.rotate_key(key_id, hash_of(text), overlap_ms=until_ms - now_ms).result()
    return Made(ring.keys[key_id], text)


def id_of(named: str) -> str:
    """The id in what a person pasted: an id, what lists show, or the whole text."""
    return named.strip().removeprefix(PREFIX).partition("_")[0]


def _tags(user: str | None, team: str | None, tags: Mapping[str, object] | None) -> dict[str, str]:
    named = {name: value for name, value in (("user", user), ("team", team)) if value is not None}
    given = check_tags(tags or {}, field="tags")
    for name in given:
        if name in named:
            raise ValueError(f"tags: {name!r} is given twice")
        if name in OWN_TAGS:
            raise ValueError(f"tags: every call has {name!r} by itself, so a key cannot set it")
    found = {**check_tags(named, field="key"), **given}
    for name, value in found.items():
        if not value.strip():
            raise ValueError(f"{name} must not be empty")
    return found


def _unused_id(ring: KeyRing, random_hex: RandomHex) -> str:
    while (key_id := random_hex(ID_BYTES)) in ring.keys:
        pass
    return key_id


def _text(key_id: str, random_hex: RandomHex) -> str:
    return f"{PREFIX}{key_id}_{random_hex(SECRET_BYTES)}"


def _delegated(
    ring: KeyRing, parent_id: str, own: Mapping[str, str], expires_ms: int | None, now_ms: int
) -> dict[str, str]:
    """All tags of a key that is delegated from another."""
    parent = ring.known(parent_id)
    ended = ring.ended(parent, now_ms)
    if ended is not None or parent.admin:
        raise ConfigError(f"key {parent_id} is {ended or 'an admin key'}: nothing is delegated from it", key="parent")
    if expires_ms is None or (parent.expires_ms is not None and expires_ms > parent.expires_ms):
        raise ValueError("expires: a delegated key must expire, and not after the key that it comes from")
    inherited = dict(parent.tags)
    if len(own) != 1 or not inherited.keys().isdisjoint(own):
        raise ValueError("tags: a delegated key must have exactly one tag of its own, which its parent does not have")
    line = [parent]
    while line[-1].parent is not None:
        line.append(ring.known(line[-1].parent))
    if len(line) > PARENTS_MAX:
        raise ConfigError(f"key {parent_id} is at the end of a line of {PARENTS_MAX} delegations", key="parent")
    return {**inherited, **own}


def _put_budget(store: Store, scope: dict[str, str], terms: dict[str, Any]) -> str:
    """The standing budget of these limits for this scope; one that exists with the same terms is shared."""
    whom = scope.get("user") or " ".join(
        f"{name} {value}" if name == "key" else f"{name}={value}" for name, value in scope.items()
    )
    name = whom if terms["per"] == "lifetime" else f"{whom} per {terms['per']}"
    try:
        set_budget(store, name, scope=scope, **terms)
    except ConfigError as error:
        known = store.catalogue().result().budgets.get(name)
        terms_text = "" if known is None else f" ({known.terms_text()})"
        raise ConfigError(
            f"budget {name!r} exists with other terms{terms_text}: make the key without a budget to share it, or "
            f"change it for everyone with `farthing budgets set {name!r} … --update`",
            key="budget",
        ) from error
    return name


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime_from_ms(at_ms).isoformat()
