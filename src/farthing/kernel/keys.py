"""
Virtual keys: who a caller is, without the provider's own key.

A key's text is ``fk_<id>_<secret>``. The id is public: it is shown in lists and entries. The secret is 256 random bits
that are shown once and never kept: the ledger has the SHA-256 of the whole text. (A slow hash is for words that people
choose; nobody tries 2**256 secrets.) The text is hexadecimal with a fixed prefix, so that scanners for leaked secrets
can find it.

The ring is an immutable snapshot of all keys, with a version, as the catalogue is of budgets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

from ..errors import ConfigError

PREFIX = "fk_"
ID_BYTES = 6
SECRET_BYTES = 32
PARENTS_MAX = 8
"""How long a line of delegation may be."""
DENY_STATUSES = (400, 402, 403, 429)
_TEXT = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * ID_BYTES}}})_[0-9a-f]{{{2 * SECRET_BYTES}}}")
_NOBODY = "0" * 64


class Key(NamedTuple):
    """One virtual key as the ledger keeps it. Times are milliseconds since the epoch."""

    id: str
    hash: str
    """SHA-256 of the key's text, hexadecimal."""
    tags: tuple[tuple[str, str], ...] = ()
    """
    The identity of whoever shows it: ``user``, ``team``, any other, and ``key`` (its id, or that of the key at the head
    of its line of delegation). What a request says never changes these.
    """
    admin: bool = False
    """Opens the admin API, and nothing else: it makes no model calls."""
    deny_status: int | None = None
    """The status of a refusal that suits this key's client; None: the proxy's."""
    label: str | None = None
    budgets: tuple[str, ...] = ()
    """The budgets that were made with it."""
    parent: str | None = None
    """The key that this one was delegated from: it ends with it."""
    created_ms: int = 0
    expires_ms: int | None = None
    revoked_ms: int | None = None
    previous_hash: str | None = None
    """The text before the last rotation, which is good until *previous_until_ms*."""
    previous_until_ms: int | None = None

    @property
    def shown(self) -> str:
        """As much of its text as may be seen."""
        return f"{PREFIX}{self.id}_…"

    def opens_with(self, text_hash: str, now_ms: int) -> bool:
        """Whether this is the hash of the key's text, or of the text before a rotation that still overlaps."""
        good = compare_digest(self.hash, text_hash)
        if self.previous_hash is None or self.previous_until_ms is None or now_ms >= self.previous_until_ms:
            return good
        return good | compare_digest(self.previous_hash, text_hash)


class Refused(NamedTuple):
    """Why a key opens nothing: ``reason`` is ``unknown``, ``revoked`` or ``expired``; ``shown`` what may be said."""

    reason: str
    shown: str | None = None


UNKNOWN = Refused("unknown")


class KeyRing(NamedTuple):
    """An immutable snapshot of a ledger's keys, by id."""

    version: int = 0
    keys: Mapping[str, Key] = {}

    def recognise(self, text: str, now_ms: int) -> Key | Refused:
        """Whose key this text is, if it is good at this instant."""
        shaped = _TEXT.fullmatch(text)
        text_hash = hash_of(text)
        key = None if shaped is None else self.keys.get(shaped[1])
        if key is None:
            # The same work as for a known id; which ids exist is no secret, but costs nothing to keep.
            compare_digest(_NOBODY, text_hash)
            return UNKNOWN
        if not key.opens_with(text_hash, now_ms):
            return UNKNOWN
        ended = self.ended(key, now_ms)
        return key if ended is None else Refused(ended, key.shown)

    def ended(self, key: Key, now_ms: int) -> str | None:
        """``revoked`` or ``expired``, by itself or with the key it was delegated from; None while it is good."""
        for _ in range(PARENTS_MAX + 1):
            if key.revoked_ms is not None:
                return "revoked"
            if key.expires_ms is not None and now_ms >= key.expires_ms:
                return "expired"
            if key.parent is None:
                return None
            above = self.keys.get(key.parent)
            if above is None:
                return "revoked"
            key = above
        return "revoked"

    def good_until_ms(self, key: Key, now_ms: int) -> int | None:
        """Until when what is known of a key that is good now stays so, if the ring does; None: for ever."""
        ends = [key.previous_until_ms]
        for _ in range(PARENTS_MAX + 1):
            ends.append(key.expires_ms)
            above = None if key.parent is None else self.keys.get(key.parent)
            if above is None:
                break
            key = above
        return min((end_ms for end_ms in ends if end_ms is not None and end_ms > now_ms), default=None)

    def with_key(self, key: Key) -> KeyRing:
        """Raises ConfigError if there is a key with this id; ids are random, so that is a mistake of the caller's."""
        if key.id in self.keys:
            raise ConfigError(f"a key with id {key.id!r} exists", key="key")
        return KeyRing(self.version + 1, {**self.keys, key.id: key})

    def with_secret(self, key_id: str, text_hash: str, *, now_ms: int, overlap_ms: int) -> KeyRing:
        """With another secret for this key; the one before is good for *overlap_ms* more. Raises ConfigError."""
        key = self.known(key_id)
        ended = self.ended(key, now_ms)
        if ended is not None:
            raise ConfigError(f"key {key_id} is {ended}: create another key", key="key")
        rotated = key._replace(
            hash=text_hash,
            previous_hash=key.hash if overlap_ms else None,
            previous_until_ms=now_ms + overlap_ms if overlap_ms else None,
        )
        return KeyRing(self.version + 1, {**self.keys, key_id: rotated})

    def without_key(self, key_id: str, *, now_ms: int) -> KeyRing:
        """With this key revoked, for good; the same ring if it is already. Raises ConfigError for an unknown one."""
        key = self.known(key_id)
        if key.revoked_ms is not None:
            return self
        return KeyRing(self.version + 1, {**self.keys, key_id: key._replace(revoked_ms=now_ms)})

    def known(self, key_id: str) -> Key:
        """Raises ConfigError if there is none of this id."""
        key = self.keys.get(key_id)
        if key is None:
            raise ConfigError(f"no key has the id {key_id!r}; `farthing keys list` shows them", key="key")
        return key


def is_key(text: str) -> bool:
    """Whether this has the shape of a key's text; only a ring knows whether it is one."""
    return _TEXT.fullmatch(text) is not None


def hash_of(text: str) -> str:
    """What is kept of a key's text."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
