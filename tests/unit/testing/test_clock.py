"""The fake clock stands still, and moves exactly as far as it is told."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from farthing import budget, hold, report
from farthing.testing import FakeClock

START_MS = 1_767_225_600_000
"""2026-01-01 00:00 UTC."""


def test_stands_still_until_it_is_moved() -> None:
    clock = FakeClock()
    assert clock() == clock() == START_MS
    assert clock.now == datetime(2026, 1, 1, tzinfo=UTC)


def test_advances_by_the_sum_of_its_steps() -> None:
    clock = FakeClock(0)
    assert clock.advance(days=1, hours=1, minutes=1, seconds=1.5, milliseconds=1) == clock() == 90_061_501


def test_jumps_back_and_is_set_either_way() -> None:
    clock = FakeClock()
    assert clock.jump_back(hours=1) == START_MS - 3_600_000
    berlin = timezone(timedelta(hours=1))
    assert clock.set(datetime(2026, 1, 1, 1, tzinfo=berlin)) == START_MS
    assert clock.set(5) == clock() == 5


@pytest.mark.parametrize("start", [datetime(2026, 1, 1), 1.5, "now", True])  # noqa: DTZ001 - a naive time is the point
def test_refuses_a_time_that_is_none(start: object) -> None:
    with pytest.raises(ValueError, match="the time must"):
        FakeClock(start)  # type: ignore[arg-type]


def test_refuses_to_advance_backwards_and_to_jump_forwards() -> None:
    with pytest.raises(ValueError, match="jump_back"):
        FakeClock().advance(seconds=-1)
    with pytest.raises(ValueError, match="jump_back"):
        FakeClock().jump_back(seconds=-1)


def test_loses_no_step_between_threads() -> None:
    clock = FakeClock(0)
    threads = [threading.Thread(target=lambda: [clock.advance(milliseconds=1) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock() == 4000


def test_farthing_goes_by_it_and_starts_afresh_inside() -> None:
    daily = budget("daily", requests=1, per="day")
    with FakeClock() as clock:
        for _ in range(2):
            with daily, hold():
                pass
            assert daily.remaining.requests == 0
            clock.advance(hours=24)
        assert [row["tags"]["day"] for row in report(group_by="day")] == ["2026-01-01", "2026-01-02"]
        with FakeClock(0):
            assert report().totals()["calls"] == 0
        assert report().totals()["calls"] == 2
    assert daily.remaining.requests == 1
