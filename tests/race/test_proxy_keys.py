"""Virtual keys and metrics over the worker processes of one proxy: what one of them is told, all of them know."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from farthing.admin.keys import Made, create_key, revoke_key
from farthing.stores.contract import Store
from farthing.stores.urls import open_store
from farthing.testing import FakeProvider, Reply
from tests.doors.proxy.keyed import BODY, CALL_TOKENS, CHAT, bearer
from tests.doors.proxy.test_configured import serving

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="its helper speaks to the process by SIGHUP")

WORKERS = 2
FILE = """
ledger = "ledger.db"
[upstreams.openai]
base_url = "{url}"
api_key = "env:TEST_PROVIDER_KEY"
"""


def post(url: str, made: Made) -> httpx2.Response:
    """On a connection of its own, which any worker may take."""
    return httpx2.post(f"{url}{CHAT}", headers=bearer(made.text), json=BODY, timeout=60)


def scrape(url: str, admin: Made) -> dict[str, float]:
    answer = httpx2.get(f"{url}/metrics", headers=bearer(admin.text), timeout=60)
    assert answer.status_code == 200, answer.text
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {series: float(number) for series, _, number in lines}


def owners(store: Store, answers: list[httpx2.Response]) -> set[str]:
    """The processes that held for these calls."""
    holds = [store.find(answer.headers["x-farthing-call-id"]).result() for answer in answers]
    return {hold.owner for hold in holds if hold is not None}


def test_a_revocation_and_the_sums_are_those_of_every_worker(tmp_path: Path) -> None:
    with FakeProvider(Reply(output_tokens=50)) as provider:
        file = tmp_path / "farthing.toml"
        file.write_text(FILE.format(url=provider.openai_url))
        store = open_store(str(tmp_path / "ledger.db"))
        admin = create_key(store, admin=True)
        alice = create_key(store, user="alice", budgets=["1M tokens/day"])
        with serving(file, "--workers", str(WORKERS)) as proxy, ThreadPoolExecutor(8) as pool:
            answers: list[httpx2.Response] = []
            while len(owners(store, answers)) < WORKERS:
                answers += pool.map(lambda _: post(proxy.url, alice), range(16))
                assert len(answers) < 1_000, "one worker takes every connection"
            assert {answer.status_code for answer in answers} == {200}
            made = httpx2.post(f"{proxy.url}/admin/keys", headers=bearer(admin.text), json={"user": "bob"}).json()[
                "key"
            ]
            revoke_key(store, alice.key.id)
            time.sleep(1.0)  # the second that a change may take
            refused = list(pool.map(lambda _: post(proxy.url, alice), range(16)))
            assert {answer.status_code for answer in refused} == {401}
            bobs = list(
                pool.map(
                    lambda _: httpx2.post(f"{proxy.url}{CHAT}", headers=bearer(made), json=BODY, timeout=60), range(16)
                )
            )
            assert {answer.status_code for answer in bobs} == {200}
            calls = len(answers) + len(bobs)
            scrapes: list[dict[str, Any]] = list(pool.map(lambda _: scrape(proxy.url, admin), range(8)))
        assert all(of == scrapes[0] for of in scrapes)
        counted = {name: number for name, number in scrapes[0].items() if name.startswith("farthing_calls_total")}
        assert sum(counted.values()) == calls == provider.calls
        spent = {name: number for name, number in scrapes[0].items() if name.startswith("farthing_tokens_total")}
        assert sum(spent.values()) == provider.billed_tokens == calls * CALL_TOKENS
        kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        said = "".join(proxy.lines)
        for text in (alice.text, admin.text, made):
            assert text.rpartition("_")[2].encode() not in kept
            assert text.rpartition("_")[2] not in said
        store.close()
