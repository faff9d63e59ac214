"""Whether what is being sent right now is sent for a governed call: what is below it must not look at it again."""

from __future__ import annotations

from contextvars import ContextVar

INSIDE: ContextVar[bool] = ContextVar("farthing_inside", default=False)
