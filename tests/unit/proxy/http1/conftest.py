from __future__ import annotations

import sys

import pytest

from tests.unit.proxy.http1.hostile import LOOPS

# The client runs wherever the proxy does; what is held here of descriptors and of TCP is Linux's way to ask for it.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]


@pytest.fixture(params=sorted(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
