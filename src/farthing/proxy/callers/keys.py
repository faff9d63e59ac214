"""
Who calls, by virtual key.

The keys are the store's last known ring, which is never older than 0.9 s; only where nothing has looked at the ledger
for so long does a call wait for a look. So a revocation is in force everywhere within a second, and no call on a busy
proxy asks the store for it. A key that the ring does not know is refused after one more look: it may be a new one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import TypeVar

from ...errors import StoreUnavailable
from ...kernel.keys import PREFIX, Key, KeyRing, is_key
from ...kernel.keys import Refused as KeyRefused
from ...runtime.runtime import Runtime
from ...stores.contract import Ready, Ticket
from ..headers import credential_of
from ..pages.page import Request
from .identity import Caller, Identity, Loopback, Refused
from .looking import Looks

T = TypeVar("T")

log = logging.getLogger("farthing.proxy")
HOW_TO_SEND = "send a key of this proxy as your SDK sends its API key (Authorization: Bearer fk_…)"
UNKNOWN_KEY = "unknown_key"
NO_ADMIN = "admin_key_needed"
_WORDS = {
    "unknown": (UNKNOWN_KEY, "this key is not known here"),
    "revoked": ("revoked_key", "key {} was revoked"),
    "expired": ("expired_key", "key {} has expired"),
}


class KeyIdentify:
    """
    Identity from the caller's key. As long as the ledger has no key for calls, whoever is on this machine may call.

    Tells apart what keys are for: those for calls make calls and ask about themselves, admin keys open ``/admin/`` and
    ``/metrics``, and neither does the other's.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._without_keys = Loopback()
        self._ring = KeyRing(version=-1)
        self._for_calls = False
        self._looks = Looks(lambda: self._read(runtime.main.store.keys(fresh=True)))
        self._known: dict[bytes, tuple[Identity, int | None]] = {}
        """
        By the hash of a text that this ring has recognised: whose it is, and until when. (Its place in a table tells
        nobody anything about the text.)
        """

    def __call__(self, caller: Caller) -> Identity | Awaitable[Identity]:
        """
        Raises Refused. Answers at once, unless nothing has looked at the ledger for almost a second, or the key is one
        that nobody knows yet.
        """
        store = self._runtime.main.store
        ticket = store.keys()
        if not isinstance(ticket, Ready):
            return self._judge(ticket, caller, self._identify)
        ring = ticket.result()
        if ring is not self._ring:
            # A key's budgets are written before the key: whoever knows the key has to know them.
            budgets = store.catalogue()
            if not isinstance(budgets, Ready):
                return self._judge(ticket, caller, self._identify)
            self._runtime.main.refresh(budgets.result())
        elif self._for_calls and caller.credential is not None:
            known = self._known.get(sha256(caller.credential.encode("utf-8", "surrogatepass")).digest())
            if known is not None:
                identity, until_ms = known
                if until_ms is None or store.now() < until_ms:
                    return identity
        try:
            return self._identify(ring, caller)
        except Refused as refused:
            if not self._may_be_new(caller, refused):
                raise
        return self._identify_new(caller)

    async def caller_of(self, request: Request) -> Identity:
        """Who asks for a page about their own calls. Raises Refused."""
        return await self._judge(self._runtime.main.store.keys(), _caller(request), self._identify)

    async def caller_or_admin(self, request: Request) -> Identity:
        """The same, where an admin may ask about everybody: then the identity has no tags. Raises Refused."""

        def judge(ring: KeyRing, caller: Caller) -> Identity:
            if caller.credential is not None:
                found = ring.recognise(caller.credential, self._now())
                if isinstance(found, Key) and found.admin:
                    return Identity()
            return self._identify(ring, caller)

        return await self._judge(self._runtime.main.store.keys(), _caller(request), judge)

    async def check_admin(self, request: Request) -> Key:
        """The admin key of a request. There is no admin without one, on no address. Raises Refused."""
        return await self._judge(self._runtime.main.store.keys(), _caller(request), self._admin)

    async def check_reader(self, request: Request) -> None:
        """Who may read figures of the whole ledger: an admin key; without any key, whoever is on this machine."""

        def judge(ring: KeyRing, caller: Caller) -> None:
            if ring.keys:
                self._admin(ring, caller)
            else:
                self._identify(ring, caller)

        await self._judge(self._runtime.main.store.keys(), _caller(request), judge)

    async def _judge(self, ticket: Ticket[KeyRing], caller: Caller, judge: Callable[[KeyRing, Caller], T]) -> T:
        """What *judge* says of a caller; of a key that nobody knows, after a fresh look at the ledger."""
        ring = await self._read(ticket)
        try:
            return judge(ring, caller)
        except Refused as refused:
            if not self._may_be_new(caller, refused):
                raise
        return judge(await self._looks.ring(), caller)

    async def _identify_new(self, caller: Caller) -> Identity:
        return self._identify(await self._looks.ring(), caller)

    def _may_be_new(self, caller: Caller, refused: Refused) -> bool:
        """Whether another process may have made this key, or rotated it, since this one looked at the ledger."""
        if refused.code not in (UNKNOWN_KEY, NO_ADMIN) or caller.credential is None or not is_key(caller.credential):
            return False
        # A ledger in memory is this process's own.
        return self._runtime.main.store.durable

    async def _read(self, ticket: Ticket[KeyRing]) -> KeyRing:
        """The ring, and with a new one the budgets that were made before its keys. Raises StoreUnavailable."""
        ring = await self._fresh(ticket)
        if ring is not self._ring:
            main = self._runtime.main
            main.refresh(await main.store.catalogue())
        return ring

    async def _fresh(self, ticket: Ticket[KeyRing]) -> KeyRing:
        try:
            return await ticket
        except StoreUnavailable as error:
            if self._runtime.settings.on_store_failure != "allow" or self._ring.version < 0:
                raise
            log.error("%s; callers are known by the keys as they last were (on_store_failure='allow')", error)
            return self._ring

    def _identify(self, ring: KeyRing, caller: Caller) -> Identity:
        if ring is not self._ring:
            self._ring = ring
            self._known = {}
            self._for_calls = any(not key.admin for key in ring.keys.values())
        if not self._for_calls:
            if caller.credential is not None and caller.credential.startswith(PREFIX):
                # It would go to the provider as if it were one of theirs.
                raise _refused(ring, caller.credential, self._now())
            if not _is_here(caller.address):
                raise Refused(
                    401, "missing_key", f"without keys this proxy answers on this machine only; {HOW_TO_SEND}"
                )
            return self._without_keys(caller)
        key = self._key(ring, caller)
        if key.admin:
            raise Refused(403, "admin_key", f"key {key.shown} is for the admin API: it makes no model calls")
        identity = Identity(key.tags, key.id, key.deny_status)
        if caller.credential is not None:
            text_hash = sha256(caller.credential.encode("utf-8", "surrogatepass")).digest()
            self._known[text_hash] = identity, ring.good_until_ms(key, self._now())
        return identity

    def _admin(self, ring: KeyRing, caller: Caller) -> Key:
        if not any(key.admin for key in ring.keys.values()):
            raise Refused(401, NO_ADMIN, "no admin key is in this ledger; make one: farthing keys create --admin")
        key = self._key(ring, caller)
        if not key.admin:
            raise Refused(403, "not_an_admin_key", f"key {key.shown} makes model calls; this needs an admin key")
        return key

    def _key(self, ring: KeyRing, caller: Caller) -> Key:
        if caller.credential is None:
            raise Refused(401, "missing_key", f"no key was sent: {HOW_TO_SEND}")
        found = ring.recognise(caller.credential, self._now())
        if isinstance(found, KeyRefused):
            raise _said(found)
        return found

    def _now(self) -> int:
        return self._runtime.main.store.now()


def _refused(ring: KeyRing, text: str, now_ms: int) -> Refused:
    found = ring.recognise(text, now_ms)
    if isinstance(found, KeyRefused):
        return _said(found)
    return Refused(403, "admin_key", f"key {found.shown} is for the admin API: it makes no model calls")


def _said(why: KeyRefused) -> Refused:
    code, text = _WORDS[why.reason]
    return Refused(
        401, code, f"{text.format(why.shown)}; {HOW_TO_SEND}" if why.shown is None else text.format(why.shown)
    )


def _caller(request: Request) -> Caller:
    headers: Mapping[bytes, bytes] = request.headers
    return Caller(credential_of(headers, request.query), headers, request.address)


@lru_cache(maxsize=256)
def _is_here(address: str | None) -> bool:
    """Whether a connection comes from this machine; None: over a Unix socket."""
    return address is None or address == "::1" or address.removeprefix("::ffff:").startswith("127.")
