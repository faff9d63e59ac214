"""
``kill -9`` in the middle of a burst: a thousand clients on one budget in USD, four workers. When the signal comes, some
calls are settled, some wait at the provider, and hundreds of clients are knocking.

Every client gives its call a name that the provider hears too. So what the ledger says of each call is compared with
what that call was billed, not only the sums.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from farthing.kernel.hold import HELD, SUSPECT, Entry
from farthing.stores import open_store
from farthing.stores.contract import Store
from farthing.testing import FakeProvider, RecordedRequest, Reply
from farthing.testing.bill import total_nano
from tests.contract.conftest import check_books
from tests.crash.test_proxy_crash import counted_nano
from tests.doors.clients import RATES
from tests.doors.proxy.process import served
from tests.race.test_proxy_workers import CEILING, CLIENTS, EACH_NANO, burst, one
from tests.waiting import eventually

WORKERS = 4
CAP_NANO = EACH_NANO * 137 + EACH_NANO // 2
RAISED_NANO = CAP_NANO + EACH_NANO * 20
"""The limit after the whole tree was killed: what was in flight may have used up the first one."""
FIRST = 100
"""So many clients come first, and all fit. The others come when those that are answered at once have their answers."""
PROMPT = 40
"""So many calls are answered at once; those after them, up to the signal, wait for ``resume()``."""
KILLED_AT = 110
"""The request on which the provider has somebody killed: one of the flood's."""
LAST = 100
"""So many clients come after that: one worker may have had all connections before."""

FULL = Reply(output_tokens=1_000_000)
"""Fills what a request allows: then a call costs what it holds."""


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


def arguments(provider: FakeProvider, ledger: str, workers: int, cap_nano: int) -> tuple[str, ...]:
    cap = ("--max-usd-total", f"{cap_nano / 10**9:.9f}", "--session", "nightly", "--quiet", "--workers", str(workers))
    return ("--port", "0", "--upstream", provider.openai_url, "--ledger", ledger, *cap)


def test_a_worker_is_killed_in_the_middle_of_a_burst(ledger: str) -> None:
    with (
        FakeProvider(FULL) as provider,
        served(*arguments(provider, ledger, WORKERS, CAP_NANO)) as proxy,
    ):
        url = proxy.ready(workers=WORKERS)
        store = open_store(ledger)
        victims: list[str] = []

        def kill_the_busiest() -> None:
            ((owner, _),) = Counter(hold.owner for hold in store.holds(HELD).result()).most_common(1)
            victims.append(owner)
            os.kill(int(owner.partition("-")[0]), signal.SIGKILL)

        def then() -> None:
            proxy.wait_for(r"Worker (\d+) is ready", times=WORKERS + 1)
            provider.resume()

        statuses = asyncio.run(burst_broken(provider, url, kill_the_busiest, then))
        provider.wait_idle()
        assert len(provider.requests) > KILLED_AT, "the other workers go on"
        eventually(lambda: not store.holds(HELD).result())
        entries = check(store, provider, statuses)
        # What is unknown is the dead worker's, and its alone; some of it had reached the provider.
        assert {hold.owner for hold in store.holds(SUSPECT).result()} == set(victims)
        assert names(provider) & {name for name, entry in entries.items() if entry.suspect}
        use_the_rest(store, provider, url, CAP_NANO)
        assert proxy.stop() == 0, proxy.said
        store.close()


def test_the_whole_tree_is_killed_in_the_middle_of_a_burst(ledger: str) -> None:
    with FakeProvider(FULL) as provider:
        with served(*arguments(provider, ledger, WORKERS, CAP_NANO)) as proxy:
            url = proxy.ready(workers=WORKERS)
            kill_all = partial(os.killpg, proxy.process.pid, signal.SIGKILL)
            statuses = asyncio.run(burst_broken(provider, url, kill_all, provider.resume))
            assert proxy.process.wait(60) == -signal.SIGKILL
        provider.wait_idle()
        with served(*arguments(provider, ledger, 1, RAISED_NANO)) as proxy:
            url = proxy.ready()
            proxy.wait_for("Session nightly goes on")
            store = open_store(ledger)
            assert not store.holds(HELD).result(), "the next start resolves what the dead held"
            entries = check(store, provider, statuses)
            waited = KILLED_AT - PROMPT
            assert len(names(provider) & {name for name, entry in entries.items() if entry.suspect}) >= waited
            use_the_rest(store, provider, url, RAISED_NANO)
            assert proxy.stop() == 0, proxy.said
            store.close()


async def burst_broken(
    provider: FakeProvider, url: str, kill: Callable[[], None], then: Callable[[], None]
) -> dict[str, int]:
    """
    A thousand clients. *kill* is called by the provider in the middle of a request, *then* in a thread after it. How
    each client was answered, by its name; 0 for not at all.
    """
    seen = answered = 0
    loop = asyncio.get_running_loop()
    flood, after = asyncio.Event(), asyncio.Event()
    killed = threading.Event()

    def pace(request: RecordedRequest) -> Reply:
        """Calls cost less than they hold, each something else, so that room comes back while the burst goes on."""
        nonlocal seen
        seen += 1
        if seen == KILLED_AT:
            kill()
            killed.set()
            loop.call_soon_threadsafe(after.set)
        waits = PROMPT < seen <= KILLED_AT
        return Reply(output_tokens=1 + seen * 7 % CEILING, pause_after_chunks=1 if waits else None)

    async def client(number: int) -> tuple[str, int]:
        nonlocal answered
        if number >= CLIENTS - LAST:
            await after.wait()
        elif number >= FIRST:
            await flood.wait()
        name = f"client-{number}"
        status = await one(url, name)
        answered += 1
        if answered == PROMPT:
            flood.set()
        return name, status

    def go_on() -> None:
        assert killed.wait(60), f"the provider saw {seen} requests, and {answered} were answered"
        then()

    provider.respond(pace)
    clients = asyncio.gather(*map(client, range(CLIENTS)))
    said, _ = await asyncio.gather(clients, asyncio.to_thread(go_on))
    provider.respond(None)
    return dict(said)


def check(store: Store, provider: FakeProvider, statuses: dict[str, int]) -> dict[str, Entry]:
    """
    What must hold once nobody runs any more who ran at the signal, call by call. Returns each call's entry by name.
    """
    rows = store.entries().result()
    entries = {dict(row.facts.tags)["user"]: row for row in rows}
    billed = {line.request.json["user"]: total_nano([line], RATES) for line in provider.bill}
    answered = {name for name, status in statuses.items() if status == 200}
    assert len(rows) == len(entries), "each call has one row"
    assert len(provider.requests) == len(names(provider)) == len(billed)
    assert {200, 0} <= set(statuses.values()) <= {200, 429, 0}
    assert answered <= names(provider) <= set(entries), "what reached the provider is not missing"
    for name, entry in entries.items():
        if entry.suspect:
            assert entry.cost_nano == EACH_NANO >= billed.get(name, 0)
        else:
            assert (entry.ending, entry.cost_nano, entry.overrun) == ("ok", billed[name], ())
    settled, suspect = counted_nano(store, CAP_NANO)
    assert settled == sum(entry.cost_nano or 0 for entry in entries.values() if not entry.suspect)
    assert suspect == sum(EACH_NANO for entry in entries.values() if entry.suspect)
    assert sum(billed.values()) == provider.billed_nano(RATES) <= settled + suspect <= CAP_NANO
    check_books(store)
    return entries


def use_the_rest(store: Store, provider: FakeProvider, url: str, cap_nano: int) -> None:
    """What is left is all there to be used, to the last call that fits."""
    left = (cap_nano - sum(counted_nano(store, cap_nano))) // EACH_NANO
    before = len(provider.requests)
    assert asyncio.run(burst(url, left + 20)) == Counter({200: left, 429: 20})
    assert len(provider.requests) - before == left
    assert cap_nano - EACH_NANO < sum(counted_nano(store, cap_nano)) <= cap_nano


def names(provider: FakeProvider) -> set[str]:
    """Of every call that reached the provider."""
    return {request.json["user"] for request in provider.requests if "user" in request.json}
