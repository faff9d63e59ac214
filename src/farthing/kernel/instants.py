"""Instants as people write them: a date, an ISO time, or a span from now (``7d``, ``12h``)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from .window import ms_from_datetime

_SPAN = re.compile(r"(\d{1,9})\s*([mhdw])")
_SPAN_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}


def instant_ms(value: object, now_ms: int, *, argument: str, ahead: bool = False) -> int:
    """
    Milliseconds since the epoch. A span (or timedelta) counts back from *now_ms*, or forward if *ahead*; what has no
    time zone is UTC, and a date is its midnight.

    Raises ValueError naming *argument*.
    """
    if isinstance(value, datetime):
        return ms_from_datetime(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, date):
        return ms_from_datetime(datetime.combine(value, time(), UTC))
    if isinstance(value, timedelta):
        length_ms = value // timedelta(milliseconds=1)
        return now_ms + length_ms if ahead else now_ms - length_ms
    if isinstance(value, str):
        if span := _SPAN.fullmatch(value.strip()):
            length_ms = int(span[1]) * _SPAN_MS[span[2]]
            return now_ms + length_ms if ahead else now_ms - length_ms
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(
                f"{argument}={value!r} is not a time: use a date such as 2026-12-31, an ISO time, or a span such as 7d"
            ) from error
        return ms_from_datetime(parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC))
    raise ValueError(f"{argument} must be a date, a datetime or text, not {value!r}")
