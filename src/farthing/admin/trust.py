"""
Which tags a proxy's budgets may name.

Those that come from a caller's key, those that every call has by itself, and those that an operator trusts callers
with. A budget on any other tag could be escaped by not sending it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..kernel.keys import KeyRing

IDENTITY_TAGS = ("org", "team", "user", "key", "agent")
"""What keys are about; ``keys create --tag`` gives them others."""
OWN_TAGS = ("model", "provider", "proxy")
"""What every call through a proxy has by itself."""


def known_tags(trusted: Iterable[str] = (), ring: KeyRing | None = None) -> frozenset[str]:
    """The tags that nobody chooses for themselves, and those that callers are trusted with."""
    carried = () if ring is None else (name for key in ring.keys.values() for name, _ in key.tags)
    return frozenset((*IDENTITY_TAGS, *OWN_TAGS, *trusted, *carried))


def escapable(scope: Iterable[str], each: Iterable[str], known: frozenset[str]) -> list[tuple[str, str]]:
    """The tags of a budget that its callers choose themselves, each with the field that names it."""
    return [(field, tag) for field, tags in (("scope", scope), ("each", each)) for tag in tags if tag not in known]
