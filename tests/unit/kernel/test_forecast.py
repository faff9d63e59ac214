"""Forecasts: at a steady rate they are right, and where nobody can tell they say nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.forecast import LEAST_MS, exhausted_ms, lookback_ms
from farthing.kernel.window import parse_window

HOUR_MS = 3_600_000
NOW_MS = 1_800_000_000_000
amounts = st.integers(1, 10**12)


@given(rate=st.integers(1, 10**9), hours=st.integers(1, 168), left_hours=st.integers(1, 10_000))
def test_a_steady_rate_ends_when_it_ends(rate: int, hours: int, left_hours: int) -> None:
    at_ms = exhausted_ms(
        remaining=rate * left_hours, recent=rate * hours, recent_ms=hours * HOUR_MS, now_ms=NOW_MS, resets_ms=None
    )
    assert at_ms == NOW_MS + left_hours * HOUR_MS


@given(remaining=amounts, recent=amounts, recent_ms=st.integers(LEAST_MS, 168 * HOUR_MS))
def test_never_in_the_past_and_never_after_the_reset(remaining: int, recent: int, recent_ms: int) -> None:
    at_ms = exhausted_ms(remaining=remaining, recent=recent, recent_ms=recent_ms, now_ms=NOW_MS)
    assert at_ms is not None
    assert at_ms > NOW_MS
    before = exhausted_ms(remaining=remaining, recent=recent, recent_ms=recent_ms, now_ms=NOW_MS, resets_ms=at_ms)
    assert before is None
    assert at_ms == exhausted_ms(
        remaining=remaining, recent=recent, recent_ms=recent_ms, now_ms=NOW_MS, resets_ms=at_ms + 1
    )


def test_what_cannot_be_told_is_not() -> None:
    assert exhausted_ms(remaining=10, recent=0, recent_ms=HOUR_MS, now_ms=NOW_MS) is None
    assert exhausted_ms(remaining=10, recent=5, recent_ms=LEAST_MS - 1, now_ms=NOW_MS) is None
    assert exhausted_ms(remaining=0, recent=0, recent_ms=0, now_ms=NOW_MS) == NOW_MS
    assert [lookback_ms(parse_window(per)) for per in ("rolling 60s", "minute", "request")] == [None] * 3
    assert lookback_ms(parse_window("day Europe/Berlin")) == 24 * HOUR_MS
    assert lookback_ms(parse_window(None)) == 168 * HOUR_MS
