"""Many clients, several workers, one budget in USD on one ledger: what is admitted is exactly what fits."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from farthing.kernel.hold import HELD
from farthing.stores import open_store
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, HI_TOKENS, RATES
from tests.doors.proxy.process import served

CEILING = 50
EACH_NANO = HI_TOKENS * 150 + CEILING * 600
"""What each call holds, and costs: the provider fills what it is allowed."""
CLIENTS = 1_000
FITS = 137


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(Reply(output_tokens=1_000_000))


def test_a_thousand_clients_and_four_workers(provider: FakeProvider, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    cap_nano = EACH_NANO * FITS + EACH_NANO // 2
    flags = ("--max-usd-total", f"{cap_nano / 10**9:.9f}", "--quiet", "--workers", "4")
    with provider:
        with served("--port", "0", "--upstream", provider.openai_url, "--ledger", ledger, *flags) as proxy:
            url = proxy.ready(workers=4)
            statuses = asyncio.run(burst(url, CLIENTS))
            assert proxy.stop() == 0, proxy.said
        assert statuses == Counter({200: FITS, 429: CLIENTS - FITS})
        assert provider.posts == FITS
        store = open_store(ledger)
        entries = store.entries().result()
        assert len(entries) == FITS
        assert not [entry for entry in entries if entry.ending != "ok" or entry.overrun]
        total_nano = sum(entry.cost_nano or 0 for entry in entries)
        assert total_nano == provider.billed_nano(RATES) == EACH_NANO * FITS <= cap_nano
        assert not [hold for hold in store.holds().result() if hold.state == HELD]
        store.close()


async def burst(url: str, clients: int) -> Counter[int]:
    """So many calls at once, each on a connection of its own; how they were answered, 0 for not at all."""
    return Counter(await asyncio.gather(*(one(url) for _ in range(clients))))


async def one(url: str, user: str | None = None) -> int:
    where = urlsplit(url)
    asked = {"model": "gpt-4o-mini", "messages": HI, "max_completion_tokens": CEILING}
    body = json.dumps(asked if user is None else {**asked, "user": user}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
    except OSError:
        return 0
    try:
        writer.write(head.encode() + body)
        answer = await reader.read()
    except OSError:
        return 0
    finally:
        writer.close()
    return int(answer.split(b" ", 2)[1]) if answer else 0
