"""Virtual keys and metrics over the worker processes of one proxy: what one of them is told, all of them know."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
from tests.doors.proxy.process import SOURCE
from tests.doors.proxy.test_configured import serving

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="its helper speaks to the process by SIGHUP")

WORKERS = 2
FILE = """
ledger = "ledger.db"
[upstreams.openai]
base_url = "{url}"
api_key = "env:TEST_PROVIDER_KEY"
"""


def post(url: str, key: str) -> httpx2.Response:
    """On a connection of its own, which any worker may take. (Reading authorities would take longer than the call.)"""
    return httpx2.post(f"{url}{CHAT}", headers=bearer(key), json=BODY, timeout=60, verify=False)


def at_the_command_line(*arguments: str) -> str:
    """The first line of what ``farthing keys …`` prints: the key."""
    path = os.pathsep.join([SOURCE, *filter(None, [os.environ.get("PYTHONPATH", "")])])
    ran = subprocess.run(
        [sys.executable, "-m", "farthing", "keys", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.partition("\n")[0]


def scrape(url: str, admin: Made) -> dict[str, float]:
    """The ledger's figures; not those of the worker that was asked."""
    answer = httpx2.get(f"{url}/metrics", headers=bearer(admin.text), timeout=60, verify=False)
    assert answer.status_code == 200, answer.text
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {series: float(number) for series, _, number in lines if not series.startswith("farthing_worker_")}


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
                answers += pool.map(lambda _: post(proxy.url, alice.text), range(16))
                assert len(answers) < 1_000, "one worker takes every connection"
            assert {answer.status_code for answer in answers} == {200}
            said = httpx2.post(f"{proxy.url}/admin/keys", headers=bearer(admin.text), json={"user": "bob"}, timeout=60)
            made = said.json()["key"]
            bobs = list(pool.map(lambda _: post(proxy.url, made), range(16)))
            assert {answer.status_code for answer in bobs} == {200}, "every worker knows a new key at once"
            revoke_key(store, alice.key.id)
            time.sleep(1.0)  # the second that a revocation may take
            refused = list(pool.map(lambda _: post(proxy.url, alice.text), range(16)))
            assert {answer.status_code for answer in refused} == {401}
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


def test_a_new_key_is_good_at_once_whoever_made_it(tmp_path: Path) -> None:
    """Not a second later, and not only at the worker that made it, while others try keys that they have made up."""
    with FakeProvider(Reply(output_tokens=50)) as provider:
        file = tmp_path / "farthing.toml"
        file.write_text(FILE.format(url=provider.openai_url))
        ledger = str(tmp_path / "ledger.db")
        store = open_store(ledger)
        with serving(file, "--workers", str(WORKERS)) as proxy, ThreadPoolExecutor(8) as pool:
            assert post(proxy.url, made_up(0)).status_code == 401, "nor is the first key of a ledger a provider's"
            alice = at_the_command_line("create", "--user", "alice", "--ledger", ledger)
            assert {answer.status_code for answer in pool.map(lambda _: post(proxy.url, alice), range(8))} == {200}
            flood = [pool.submit(post, proxy.url, made_up(number)) for number in range(100)]
            for number in range(5):
                bob = create_key(store, user=f"bob {number}", budgets=["1 tokens/day"])
                # It is known, and with its budget: which has no room for this call.
                assert [post(proxy.url, bob.text).status_code for _ in range(4)] == [429] * 4
            admin = create_key(store, admin=True)
            assert httpx2.get(f"{proxy.url}/metrics", headers=bearer(admin.text), timeout=60).status_code == 200
            again = at_the_command_line("rotate", alice.split("_")[1], "--ledger", ledger)
            assert again != alice
            assert {answer.status_code for answer in pool.map(lambda _: post(proxy.url, again), range(8))} == {200}
            assert {answer.result().status_code for answer in flood} == {401}
        store.close()


def made_up(number: int) -> str:
    """A key that has the right shape, and no more."""
    return f"fk_{number:012x}_{number:064x}"
