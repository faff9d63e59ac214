"""
Windows: over what span of time a budget counts. Written ``per=``.

============================  ==========================================================================
``lifetime`` (default)        for ever
``minute hour day week month``  calendar, in UTC or a named zone: ``"day Europe/Berlin"``; weeks start on Monday
``rolling 60s``               any span of that length (s, m, h, d): no 60 seconds ever exceed the limit
``request``                   a check of one call alone; nothing is kept
============================  ==========================================================================

All instants are integer milliseconds since the Unix epoch. Nothing resets: a window's start is part of the account's
identity, so a new window is a new account and the old one keeps its figures.

A rolling window is a row of small buckets. What was placed within the last ``length`` lies in the current bucket and
the ``ROLLING_BUCKETS`` before it; summing all of these counts up to one bucket too much, never too little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .money import div_ceil

ROLLING_BUCKETS = 12
ROLLING_MIN_MS = 1_000
ROLLING_MAX_MS = 400 * 86_400_000
CALENDAR = ("minute", "hour", "day", "week", "month")
_ROLLING = re.compile(r"rolling ([0-9]{1,12}) ?([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Window:
    """A parsed ``per=``. ``kind`` is ``lifetime``, ``request``, ``rolling`` or one of :data:`CALENDAR`."""

    kind: str
    zone: str = "UTC"
    length_ms: int = 0

    @property
    def bucket_ms(self) -> int:
        """Rolling: the length of one bucket; twelve of them are at least the window's length."""
        return div_ceil(self.length_ms, ROLLING_BUCKETS)

    def __str__(self) -> str:
        if self.kind == "rolling":
            return f"rolling {_length_text(self.length_ms)}"
        return self.kind if self.zone == "UTC" or self.kind not in CALENDAR else f"{self.kind} {self.zone}"

    def span(self, now_ms: int) -> tuple[int | None, int | None]:
        """
        Start and end of the window that *now_ms* lies in: ``start <= now < end``; None where there is none.

        Rolling: the current bucket (``start`` is the bucket's, ``end`` the next one's).
        """
        if self.kind in ("lifetime", "request"):
            return None, None
        if self.kind == "rolling":
            start = now_ms - now_ms % self.bucket_ms
            return start, start + self.bucket_ms
        zone = _zone(self.zone)
        if self.kind in ("minute", "hour"):
            return _short_span(self.kind, now_ms, zone)
        return _long_span(self.kind, now_ms, zone)


def parse_window(per: object, *, field: str = "per") -> Window:
    """Raises ValueError naming *field* for anything that is not a window, or a zone that this machine does not know."""
    if per is None:
        return Window("lifetime")
    if not isinstance(per, str):
        raise ValueError(f"{field} must be text such as 'day' or 'rolling 60s', not {per!r}")
    text = " ".join(per.split())
    if rolling := _ROLLING.fullmatch(text):
        length_ms = int(rolling[1]) * _UNIT_MS[rolling[2]]
        if not ROLLING_MIN_MS <= length_ms <= ROLLING_MAX_MS:
            raise ValueError(f"{field}={per!r}: a rolling window is between one second and 400 days long")
        return Window("rolling", length_ms=length_ms)
    kind, _, zone = text.partition(" ")
    if kind in ("lifetime", "request") and not zone:
        return Window(kind)
    if kind in CALENDAR:
        _zone(zone or "UTC", field=field)
        return Window(kind, zone or "UTC")
    raise ValueError(
        f"{field}={per!r} is not a window; known are lifetime, request, {', '.join(CALENDAR)} "
        "(a time zone may follow: 'day Europe/Berlin') and 'rolling 60s' (s, m, h, d)"
    )


CLOCK_AHEAD_MAX_MS = 3_600_000


def steady_now(now_ms: int, last_seen_ms: int) -> int:
    """
    The time that windows and deadlines go by: never before the ledger's last-seen time, so that a clock that jumps
    back opens no window twice. A last-seen time more than an hour ahead was a wrong clock, and is not followed.
    """
    if now_ms < last_seen_ms <= now_ms + CLOCK_AHEAD_MAX_MS:
        return last_seen_ms
    return now_ms


LOOK_MS = 1_800_000


class Looks(NamedTuple):
    """
    Two earlier looks at the clock: what tells time that has passed from a clock that leapt ahead.

    A ledger that forgets by its clock alone forgets this month's figures when the clock is wrong for a minute, and has
    a second budget for the month when it is right again. So what is over for good is asked of :meth:`certain_ms`.
    """

    before_ms: int = 0
    last_ms: int = 0
    """At least ``LOOK_MS`` after the one before."""

    def at(self, now_ms: int) -> Looks:
        """With a look at this instant."""
        if now_ms < self.last_ms:
            # The clock was wrong then: nothing that it said counts.
            return Looks(min(self.before_ms, now_ms), now_ms)
        return self if now_ms - self.last_ms < LOOK_MS else Looks(self.last_ms, now_ms)

    def certain_ms(self, now_ms: int) -> int:
        """How far time has come for certain: until now, or, after a leap, until before it, for another half an hour."""
        return now_ms if now_ms - self.before_ms <= 3 * LOOK_MS else self.before_ms


def datetime_from_ms(at_ms: int) -> datetime:
    """The instant as an aware UTC datetime, exact."""
    return _EPOCH + at_ms * _MS


def ms_from_datetime(instant: datetime) -> int:
    """Milliseconds since the epoch of an aware datetime, rounded down."""
    return (instant - _EPOCH) // _MS


def _zone(name: str, *, field: str = "per") -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{field}: unknown time zone {name!r} (use a name such as 'Europe/Berlin')") from error


def _short_span(kind: str, now_ms: int, zone: tzinfo) -> tuple[int, int]:
    """
    Minutes and hours: counted back in elapsed time, so that an hour that a clock change repeats is two windows. A
    change by less than an hour (Lord Howe: 30 minutes) cuts the hour that it falls into.
    """
    local = datetime_from_ms(now_ms).astimezone(zone)
    into_ms = local.second * 1_000 + local.microsecond // 1_000
    length_ms = 60_000
    if kind == "hour":
        into_ms += local.minute * 60_000
        length_ms = 3_600_000
    start_ms = now_ms - into_ms
    end_ms = start_ms + length_ms
    if zone is not UTC:
        offset = local.utcoffset()
        if _offset(zone, start_ms) != offset:
            start_ms = _clock_change_ms(zone, start_ms, now_ms)
        if _offset(zone, end_ms - 1) != offset:
            end_ms = _clock_change_ms(zone, now_ms, end_ms - 1)
    return start_ms, end_ms


def _long_span(kind: str, now_ms: int, zone: tzinfo) -> tuple[int, int]:
    """Days, weeks, months: from local midnight to local midnight, however many hours lie between."""
    first, following = _dates(kind, datetime_from_ms(now_ms).astimezone(zone).replace(tzinfo=None))
    end_ms = _begins_ms(following, zone)
    if now_ms >= end_ms:
        # The clock was put back over midnight: the next day had begun already, and no day begins twice.
        return end_ms, _begins_ms(_dates(kind, following)[1], zone)
    return _begins_ms(first, zone), end_ms


def _dates(kind: str, local: datetime) -> tuple[datetime, datetime]:
    """The first day of the local day, week or month, and that of the one that follows: midnights without a zone."""
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if kind == "month":
        first = first.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)
    if kind == "week":
        first -= timedelta(days=first.weekday())
        return first, first + timedelta(days=7)
    return first, first + timedelta(days=1)


def _begins_ms(midnight: datetime, zone: tzinfo) -> int:
    """When the clocks of this zone first show *midnight*; if they skip it: when they skip it."""
    begins_ms = ms_from_datetime(midnight.replace(tzinfo=zone))
    if zone is UTC or datetime_from_ms(begins_ms).astimezone(zone).replace(tzinfo=None, fold=0) == midnight:
        return begins_ms
    return _clock_change_ms(zone, ms_from_datetime(midnight.replace(tzinfo=zone, fold=1)), begins_ms)


def _clock_change_ms(zone: tzinfo, before_ms: int, after_ms: int) -> int:
    """The instant in ``before < instant <= after`` from which on the zone's offset is that of *after_ms*."""
    offset = _offset(zone, after_ms)
    while after_ms - before_ms > 1:
        middle_ms = (before_ms + after_ms) // 2
        if _offset(zone, middle_ms) == offset:
            after_ms = middle_ms
        else:
            before_ms = middle_ms
    return after_ms


def _offset(zone: tzinfo, at_ms: int) -> timedelta | None:
    return datetime_from_ms(at_ms).astimezone(zone).utcoffset()


def _length_text(length_ms: int) -> str:
    for unit in ("d", "h", "m"):
        if length_ms % _UNIT_MS[unit] == 0 and length_ms > _UNIT_MS[unit]:
            return f"{length_ms // _UNIT_MS[unit]}{unit}"
    return f"{length_ms // 1_000}s"
