"""
Fixtures for pytest, found by pytest itself once farthing is installed.

``fake_provider``
    A running :class:`~farthing.testing.FakeProvider`, fresh for each test.
``fake_clock``
    A :class:`~farthing.testing.FakeClock` that farthing goes by during the test; it isolates as well.
``farthing_isolated``
    No budget, configuration or record of another test is seen, and none is left behind.

::

    def test_stops_in_time(fake_provider, farthing_isolated):
        client = farthing.instrument(OpenAI(base_url=fake_provider.openai_url, api_key="fake"))
        with pytest.raises(farthing.BudgetExceeded):
            run_my_agent(client)
        assert fake_provider.billed_tokens <= 10_000
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from . import FakeClock, FakeProvider

# pytest loads this file in every project that has farthing installed: everything else is imported when it is used.


@pytest.fixture
def fake_provider() -> Iterator[FakeProvider]:
    """A running fake provider of this test's own."""
    from . import FakeProvider

    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """A clock that stands at 2026-01-01 00:00 UTC until it is moved; farthing goes by it, from a fresh start."""
    from . import FakeClock

    with FakeClock() as clock:
        yield clock


@pytest.fixture
def farthing_isolated(request: pytest.FixtureRequest) -> Iterator[None]:
    """farthing's own state in this process is new before the test, and new again after it."""
    import farthing

    if "fake_clock" in request.fixturenames:
        # It isolates by itself; starting over within would put the machine's clock back.
        request.getfixturevalue("fake_clock")
        yield
        return
    farthing.reset()
    yield
    farthing.reset()
