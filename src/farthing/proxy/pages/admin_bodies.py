"""What the admin API takes: each body's fields, strictly. A field that is not known is an error, never ignored."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from msgspec import Struct


class Terms(Struct, forbid_unknown_fields=True):
    """A budget's terms, as `farthing budgets set` takes them. USD is a number or decimal text."""

    usd: Decimal | None = None
    tokens: int | None = None
    requests: int | None = None
    concurrency: int | None = None
    per: str | None = None
    on_exceed: str | None = None
    downgrade: dict[str, str] | None = None
    scope: dict[str, str] | None = None
    each: list[str] | None = None
    description: str | None = None
    min_output_tokens: int | None = None
    default_output_tokens: int | None = None
    wait_seconds: float | None = None
    uncapped: str | None = None
    open_bound: str | None = None
    update: bool = False
    """Change a budget that exists; what is not given stays as it is."""


class Grant(Struct, forbid_unknown_fields=True):
    """How much more, until when (a date, an ISO time or a span such as "7d"; else the window), for whom, and why."""

    usd: Decimal | None = None
    tokens: int | None = None
    requests: int | None = None
    until: str | None = None
    scope: dict[str, str] | None = None
    reason: str | None = None


class Resolution(Struct, forbid_unknown_fields=True):
    """Count all that was held as spent, or give it back; the note is kept with the correction."""

    policy: Literal["settle_at_hold", "release"]
    note: str | None = None


class NewKey(Struct, forbid_unknown_fields=True):
    """A key, as `farthing keys create` makes it. A key with a parent is delegated from it: one tag more, and an end."""

    user: str | None = None
    team: str | None = None
    tags: dict[str, str] | None = None
    budgets: list[str] = []
    """Limits such as "$5/day" or "100k tokens/hour"."""
    expires: str | None = None
    deny_status: int | None = None
    admin: bool = False
    label: str | None = None
    parent: str | None = None


class Rotation(Struct, forbid_unknown_fields=True):
    """How long the old secret stays good ("1h"); not at all if this is not given."""

    overlap: str | None = None
