"""Instants as people write them."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from farthing.kernel.instants import instant_ms

NOW = 1_795_000_000_000
DAY = 86_400_000


@pytest.mark.parametrize(
    ("text", "span"), [("7d", 7 * DAY), ("12h", DAY // 2), ("90m", 90 * 60_000), ("2w", 14 * DAY), (" 1 d ", DAY)]
)
def test_spans_count_from_now(text: str, span: int) -> None:
    assert instant_ms(text, NOW, argument="since") == NOW - span
    assert instant_ms(text, NOW, argument="until", ahead=True) == NOW + span


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22",
        "2026-11-22T00:00",
        "2026-11-22T01:00+01:00",
        "2026-11-22 00:00:00Z",
        date(2026, 11, 22),
        datetime(2026, 11, 22, tzinfo=UTC),
        datetime(2026, 11, 22, 2, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_dates_are_midnights_and_utc_unless_they_say_otherwise(value: object) -> None:
    assert instant_ms(value, NOW, argument="since") == 1_795_305_600_000


def test_a_datetime_without_a_zone_is_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert instant_ms(datetime(2026, 11, 22), NOW, argument="since") == 1_795_305_600_000  # noqa: DTZ001 - the point
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("value", ["", "yesterday", "7", "-7d", "7 years", "2026-02-30", 7, None, True])
def test_anything_else_names_the_argument(value: object) -> None:
    with pytest.raises(ValueError, match="--since"):
        instant_ms(value, NOW, argument="--since")
