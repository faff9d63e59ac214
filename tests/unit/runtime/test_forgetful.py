"""A calendar window in memory ends with its process: that is said, once, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

import farthing

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "from 0 again" in record.getMessage()]


def test_a_calendar_window_in_memory_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with farthing.budget("life", tokens=10), farthing.budget("minute", tokens=10, per="rolling 60s"):
        assert said(caplog) == []
    for name in ("one", "two"):
        with farthing.budget(name, tokens=10, per="month"):
            pass
    (message,) = said(caplog)
    assert "'one'" in message
    assert "per month" in message
    assert "configure(ledger=" in message


def test_a_durable_one_is_not(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
    with farthing.budget("one", tokens=10, per="day"):
        pass
    assert said(caplog) == []
