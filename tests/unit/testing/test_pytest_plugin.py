"""The fixtures that users get with farthing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import farthing
import farthing.testing
from farthing.testing import FakeClock, FakeProvider
from farthing.testing.pytest_plugin import fake_clock, fake_provider, farthing_isolated

__all__ = ["fake_clock", "fake_provider", "farthing_isolated"]  # fixtures, also where the plugin is not installed


def test_fake_provider_runs_and_is_fresh(fake_provider: FakeProvider) -> None:
    assert fake_provider.url.startswith("http://127.0.0.1:")
    assert fake_provider.requests == []


def test_fake_clock_stands_at_new_year(fake_clock: FakeClock) -> None:
    assert fake_clock.now.isoformat() == "2026-01-01T00:00:00+00:00"


def test_farthing_goes_by_the_fake_clock_whatever_else_isolates(fake_clock: FakeClock, farthing_isolated: None) -> None:
    farthing.record(farthing.Usage(input=1))
    (row,) = farthing.report(group_by="day")
    assert row["tags"] == {"day": "2026-01-01"}


@pytest.fixture
def resets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Records farthing.reset(); checked after farthing_isolated, which a test names after it, has ended."""
    calls: list[str] = []
    monkeypatch.setattr(farthing, "reset", lambda: calls.append("reset"), raising=False)
    yield calls
    assert calls == ["reset", "reset"]


def test_isolation_resets_before_and_after(resets: list[str], farthing_isolated: None) -> None:
    assert resets == ["reset"]


def test_isolation_leaves_what_another_test_has_entered() -> None:
    """One that failed in the middle of a generator, say: its budget is in force in this thread for ever after."""
    farthing.reset()
    farthing.budget("left", tokens=5).__enter__()
    farthing.track(feature="left").__enter__()
    with FakeClock() as clock:
        with farthing.hold(tokens=100):
            clock.advance(hours=1)
        assert farthing.report(where={"feature": "left"}).totals()["calls"] == 0
    with pytest.raises(farthing.BudgetExceeded), farthing.hold(tokens=100):
        pass
    farthing.reset()
    with farthing.hold(tokens=100):
        pass
    farthing.reset()


def test_pytest_starts_no_slower_for_the_plugin() -> None:
    """Where farthing is installed pytest loads the plugin in every project: the server must not follow it."""
    program = (
        "import sys, farthing.testing.pytest_plugin\n"
        "print([name for name in sys.modules if name in ('asyncio', 'httptools', 'farthing.testing.provider')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in farthing.testing.__all__:
        assert getattr(farthing.testing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        farthing.testing.nothing  # noqa: B018 - reading it is what fails
