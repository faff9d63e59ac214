"""
Forecasts: at this rate, when is a limit used up?

The method, in full: what was spent lately, over the time in which it was spent, is the rate; what is left of the limit
lasts as long as that rate takes to use it up. *Lately* is seven days for limits over a week, a month or for ever, a day
for daily ones, an hour for hourly ones, and never longer than since the first call. It knows nothing of weekends, and
says so by being simple.

A rolling window empties as it fills, so there is no such instant; neither is there in a minute, or in a single call.
"""

from __future__ import annotations

from .money import div_ceil
from .window import Window

LEAST_MS = 300_000
"""With less than five minutes of calls nothing is said."""
_HOUR_MS = 3_600_000
LOOKBACK_MS = {
    "hour": _HOUR_MS,
    "day": 24 * _HOUR_MS,
    "week": 168 * _HOUR_MS,
    "month": 168 * _HOUR_MS,
    "lifetime": 168 * _HOUR_MS,
}


def lookback_ms(window: Window) -> int | None:
    """How far back the rate is measured; None where nothing is forecast."""
    return LOOKBACK_MS.get(window.kind)


def exhausted_ms(
    *, remaining: int, recent: int, recent_ms: int, now_ms: int, resets_ms: int | None = None
) -> int | None:
    """
    The instant at which *remaining* is used up, if *recent* went in the last *recent_ms* and it goes on like that.

    Now if nothing remains. None if it lasts: nothing was spent, too little time has passed to tell, or the window
    resets first. Amounts are of one unit.
    """
    if remaining <= 0:
        return now_ms
    if recent <= 0 or recent_ms < LEAST_MS:
        return None
    at_ms = now_ms + div_ceil(remaining * recent_ms, recent)
    return None if resets_ms is not None and at_ms >= resets_ms else at_ms
