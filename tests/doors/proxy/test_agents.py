"""A planner delegates to workers outside of its process: through the proxy they spend what they were given, no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from farthing import BudgetConfig, BudgetManager, ConfigError, start_proxy
from farthing.proxy.process.server import ProxyServer
from farthing.testing import FakeProvider, Reply
from tests.doors.proxy.keyed import BODY, CALL_TOKENS, CHAT

pytestmark = pytest.mark.usefixtures("farthing_isolated")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def proxy(url: str) -> Iterator[ProxyServer]:
    with FakeProvider(Reply(output_tokens=50)) as provider:
        config = BudgetConfig(upstream_url=provider.openai_url, upstream_api_key="sk-real", ledger=url, quiet=True)
        server = start_proxy(config, port=0, block=False)
        try:
            yield server
        finally:
            server.stop()


def test_a_worker_spends_what_it_was_given(url: str, proxy: ProxyServer) -> None:
    manager = BudgetManager(url, "crew", wait_seconds=0)
    manager.register_agent("planner", max_tokens=10_000)
    manager.register_agent("idler", max_tokens=10_000)
    child = manager.delegate("planner", "sub-1", max_tokens=3 * CALL_TOKENS + 5)
    key = child.key()

    def post() -> int:
        answer = httpx2.post(f"{proxy.url}{CHAT}", headers={"authorization": f"Bearer {key}"}, json=BODY, timeout=30)
        return answer.status_code

    assert [post() for _ in range(5)] == [200, 200, 200, 429, 429]
    assert manager.remaining("sub-1") == 5
    assert manager.remaining("planner") == 10_000 - 3 * CALL_TOKENS - 5
    child.close()
    assert manager.remaining("planner") == 10_000 - 3 * CALL_TOKENS
    assert post() in (401, 429), "its budget ended at once, its key within a second"


def test_a_key_needs_a_ledger_that_the_proxy_has() -> None:
    manager = BudgetManager()
    manager.register_agent("planner", max_tokens=100)
    with pytest.raises(ConfigError, match="ledger"):
        manager.delegate("planner", "sub", max_tokens=10).key()
