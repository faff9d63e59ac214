"""The fixtures that users get with farthing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import farthing
from farthing.testing import FakeClock, FakeProvider
from farthing.testing.pytest_plugin import fake_clock, fake_provider, farthing_isolated

__all__ = ["fake_clock", "fake_provider", "farthing_isolated"]  # fixtures, also where the plugin is not installed


def test_fake_provider_runs_and_is_fresh(fake_provider: FakeProvider) -> None:
    assert fake_provider.url.startswith("http://127.0.0.1:")
    assert fake_provider.requests == []


def test_fake_clock_stands_at_new_year(fake_clock: FakeClock) -> None:
    assert fake_clock.now.isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.fixture
def resets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Records farthing.reset(); checked after farthing_isolated, which a test names after it, has ended."""
    calls: list[str] = []
    monkeypatch.setattr(farthing, "reset", lambda: calls.append("reset"), raising=False)
    yield calls
    assert calls == ["reset", "reset"]


def test_isolation_resets_before_and_after(resets: list[str], farthing_isolated: None) -> None:
    assert resets == ["reset"]
