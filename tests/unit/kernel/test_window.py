"""
Windows tile time: every instant lies in exactly one, they meet without gap or overlap, and they begin when the clocks
of their zone say so, whatever those clocks do.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from farthing.kernel.window import (
    CALENDAR,
    CLOCK_AHEAD_MAX_MS,
    ROLLING_BUCKETS,
    ROLLING_MAX_MS,
    Window,
    datetime_from_ms,
    ms_from_datetime,
    parse_window,
    steady_now,
)

ZONES = sorted(available_timezones() - {"Factory", "localtime"})
INSTANTS = st.integers(0, 4_102_444_800_000)  # 1970 to 2100
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def ms(text: str) -> int:
    return ms_from_datetime(datetime.fromisoformat(text))


def span(per: str, now_ms: int) -> tuple[int, int]:
    start, end = parse_window(per).span(now_ms)
    assert start is not None
    assert end is not None
    return start, end


def check_tile(per: str, now_ms: int) -> tuple[int, int]:
    """What must hold of the window around any instant."""
    start, end = span(per, now_ms)
    assert start <= now_ms < end
    assert span(per, start) == (start, end)
    assert span(per, end - 1) == (start, end)
    assert span(per, end)[0] == end
    assert span(per, start - 1)[1] == start
    return start, end


@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), INSTANTS)
def test_windows_tile_time_in_every_zone(kind: str, zone: str, now_ms: int) -> None:
    check_tile(f"{kind} {zone}", now_ms)


# Clock changes, each with the odd thing about it. Around every one, minute by minute would be slow and say no more.
CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00Z", "spring, 02:00 becomes 03:00"),
    ("Europe/Berlin", "2026-10-25T01:00Z", "autumn, 03:00 becomes 02:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00Z", "back by 30 minutes: 02:00 becomes 01:30"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z", "forward by 30 minutes: 02:00 becomes 02:30"),
    ("America/Santiago", "2026-04-05T03:00Z", "24:00 becomes 23:00 of the same day"),
    ("America/Santiago", "2026-09-06T04:00Z", "midnight does not exist: 00:00 becomes 01:00"),
    ("America/Havana", "2026-11-01T05:00Z", "01:00 becomes 00:00: midnight comes twice"),
    ("Africa/Cairo", "2026-04-23T22:00Z", "midnight does not exist"),
    ("America/Scoresbysund", "2026-03-29T01:00Z", "23:00 becomes 24:00"),
    ("Antarctica/Troll", "2026-03-29T01:00Z", "forward by two hours"),
    ("Pacific/Apia", "2011-12-30T10:00Z", "30 December 2011 does not exist"),
    ("Pacific/Kwajalein", "1993-08-21T12:00Z", "21 August 1993 does not exist"),
    ("Pacific/Enderbury", "1994-12-31T11:00Z", "31 December 1994 does not exist: the month ends a day early"),
    ("America/St_Johns", "2010-11-07T02:31Z", "00:01 becomes 23:01 of the day before"),
    ("America/Goose_Bay", "2009-11-01T03:01Z", "00:01 on the first becomes 23:01 of the month before"),
    ("Antarctica/Casey", "2010-03-04T15:00Z", "02:00 becomes 23:00 of the day before"),
    ("America/Caracas", "2007-12-09T07:00Z", "03:00 becomes 02:30"),
    ("America/Caracas", "2016-05-01T07:00Z", "02:30 becomes 03:00, in the middle of an hour"),
    ("Asia/Pyongyang", "2018-05-04T15:00Z", "23:30 becomes 24:00"),
]


@pytest.mark.parametrize("kind", CALENDAR)
@pytest.mark.parametrize(("zone", "at", "what"), CHANGES, ids=[f"{zone} {at}" for zone, at, _ in CHANGES])
def test_windows_tile_time_around_clock_changes(kind: str, zone: str, at: str, what: str) -> None:
    change_ms = ms(at)
    before, after = (datetime_from_ms(change_ms + d).astimezone(ZoneInfo(zone)).utcoffset() for d in (-1, 0))
    assert before != after, f"no clock change here: {what}"
    around_ms = {change_ms + side * minutes * 60_000 for side in (-1, 1) for minutes in (0, 1, 15, 29, 30, 31, 59, 60)}
    for now_ms in sorted(around_ms | {change_ms - 1, change_ms + DAY_MS, change_ms - DAY_MS}):
        check_tile(f"{kind} {zone}", now_ms)


@given(st.sampled_from(ZONES), INSTANTS, st.sampled_from(["day", "week", "month"]))
def test_long_windows_begin_at_local_midnight_or_where_the_clocks_skip_it(zone: str, now_ms: int, kind: str) -> None:
    start, _ = span(f"{kind} {zone}", now_ms)
    local = datetime_from_ms(start).astimezone(ZoneInfo(zone))
    just_before = datetime_from_ms(start - 1).astimezone(ZoneInfo(zone))
    assert just_before.date() < local.date()
    if local.utcoffset() == just_before.utcoffset():
        assert (local.hour, local.minute, local.second, local.microsecond) == (0, 0, 0, 0)
        if kind == "week":
            assert local.weekday() == 0
        if kind == "month":
            assert local.day == 1


@given(st.sampled_from(ZONES), INSTANTS)
def test_an_hour_is_never_longer_than_an_hour(zone: str, now_ms: int) -> None:
    start, end = span(f"hour {zone}", now_ms)
    assert 0 < end - start <= HOUR_MS
    local = [datetime_from_ms(at).astimezone(ZoneInfo(zone)).hour for at in (start, now_ms, end - 1)]
    assert len(set(local)) == 1


@pytest.mark.parametrize(
    ("per", "now", "start", "end"),
    [
        ("minute", "2026-11-22T10:11:12.345Z", "2026-11-22T10:11Z", "2026-11-22T10:12Z"),
        ("hour", "2026-11-22T10:11:12Z", "2026-11-22T10:00Z", "2026-11-22T11:00Z"),
        ("hour Asia/Kolkata", "2026-11-22T10:11:12Z", "2026-11-22T09:30Z", "2026-11-22T10:30Z"),
        ("day", "2026-11-22T00:00Z", "2026-11-22T00:00Z", "2026-11-23T00:00Z"),
        ("day Europe/Berlin", "2026-03-29T12:00Z", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),  # 23 hours
        ("day Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),  # 25 hours
        ("day Pacific/Apia", "2011-12-30T09:59Z", "2011-12-29T10:00Z", "2011-12-30T10:00Z"),  # the 29th, then the 31st
        ("day Pacific/Apia", "2011-12-30T10:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z"),
        ("week", "2026-11-22T23:59Z", "2026-11-16T00:00Z", "2026-11-23T00:00Z"),  # a Sunday
        ("week", "2026-11-23T00:00Z", "2026-11-23T00:00Z", "2026-11-30T00:00Z"),  # a Monday
        ("week", "2027-01-01T00:00Z", "2026-12-28T00:00Z", "2027-01-04T00:00Z"),
        ("month", "2028-02-29T23:59Z", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        ("month", "2026-02-28T00:00Z", "2026-02-01T00:00Z", "2026-03-01T00:00Z"),
        ("month", "2100-02-28T23:59Z", "2100-02-01T00:00Z", "2100-03-01T00:00Z"),  # not a leap year
        ("month", "2026-12-31T23:59:59.999Z", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("month Europe/Berlin", "2026-10-31T23:30Z", "2026-10-31T23:00Z", "2026-11-30T23:00Z"),
    ],
)
def test_examples(per: str, now: str, start: str, end: str) -> None:
    assert span(per, ms(now)) == (ms(start), ms(end))


@given(st.integers(1_000, ROLLING_MAX_MS), INSTANTS)
@example(1_001, 0)
def test_the_buckets_of_a_rolling_window_cover_its_length_and_at_most_one_bucket_more(
    length_ms: int, now_ms: int
) -> None:
    window = Window("rolling", length_ms=length_ms)
    start, end = window.span(now_ms)
    assert start is not None
    assert end is not None
    assert start <= now_ms < end == start + window.bucket_ms
    oldest = start - ROLLING_BUCKETS * window.bucket_ms
    assert oldest <= now_ms - length_ms + 1, "something placed within the length would not be counted"
    assert ROLLING_BUCKETS * window.bucket_ms < length_ms + ROLLING_BUCKETS


@pytest.mark.parametrize("per", ["lifetime", "request", None])
def test_windows_without_an_end(per: str | None) -> None:
    assert parse_window(per).span(ms("2026-11-22T10:11Z")) == (None, None)


@given(
    st.sampled_from([*CALENDAR, "lifetime", "request"])
    | st.builds(lambda zone, kind: f"{kind} {zone}", st.sampled_from(ZONES), st.sampled_from(CALENDAR))
    | st.builds(lambda n, unit: f"rolling {n}{unit}", st.integers(1, 400), st.sampled_from("smhd"))
)
def test_a_window_is_read_back_from_its_text(per: str) -> None:
    window = parse_window(per)
    assert parse_window(str(window)) == window


def test_spelling_that_people_use() -> None:
    assert parse_window("  day   Europe/Berlin ") == Window("day", "Europe/Berlin")
    assert parse_window("day UTC") == parse_window("day") == Window("day", "UTC")
    assert parse_window("rolling 60s") == parse_window("rolling 1m") == parse_window("rolling  60 s")
    assert str(parse_window("rolling 90m")) == "rolling 90m"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        " ",
        "daily",
        "Day",
        "days",
        "day Europe/Nowhere",
        "day Europe",
        "day ../../etc/passwd",
        "day /etc/passwd",
        "day a\0b",
        "day \udcff",
        "day Europe/Berlin UTC",
        "lifetime UTC",
        "request UTC",
        "rolling",
        "rolling 60",
        "rolling 0s",
        "rolling -5s",
        "rolling 1.5h",
        "rolling 401d",
        "rolling 5w",
        "rolling 60s UTC",
        "rolling " + "9" * 5000 + "s",
        "rolling ٦٠s",
        "year",
        60,
        60.0,
        True,
        b"day",
        ["day"],
        timedelta(days=1),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_not_a_window_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"^my_per"):
        parse_window(wrong, field="my_per")


@given(INSTANTS, INSTANTS)
def test_time_never_runs_back_unless_it_was_wrong(now_ms: int, last_ms: int) -> None:
    steady = steady_now(now_ms, last_ms)
    assert steady >= now_ms
    assert steady == (last_ms if now_ms < last_ms <= now_ms + CLOCK_AHEAD_MAX_MS else now_ms)


def test_a_last_seen_time_just_an_hour_ahead_counts_and_one_further_does_not() -> None:
    assert steady_now(0, CLOCK_AHEAD_MAX_MS) == CLOCK_AHEAD_MAX_MS
    assert steady_now(0, CLOCK_AHEAD_MAX_MS + 1) == 0


@given(INSTANTS)
def test_instants_survive_datetimes(at_ms: int) -> None:
    instant = datetime_from_ms(at_ms)
    assert instant.tzinfo is UTC
    assert ms_from_datetime(instant) == at_ms
    assume(at_ms > 0)
    assert ms_from_datetime(instant - timedelta(microseconds=1)) == at_ms - 1
