"""``kill -9`` of a proxy, a worker or the whole tree: what reached the provider is in the ledger, and stays counted."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from farthing.kernel.hold import HELD, SUSPECT
from farthing.stores import open_store
from farthing.stores.contract import Store
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI_TOKENS, RATES
from tests.doors.proxy.process import served
from tests.race.test_proxy_workers import CEILING, EACH_NANO, burst
from tests.waiting import eventually

FITS = 30
CAP_NANO = EACH_NANO * FITS


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


def arguments(provider: FakeProvider, ledger: str, *more: str) -> tuple[str, ...]:
    cap = ("--max-usd-total", f"{CAP_NANO / 10**9:.9f}", "--session", "nightly", "--quiet")
    return ("--port", "0", "--upstream", provider.openai_url, "--ledger", ledger, *cap, *more)


def counted_nano(store: Store, cap_nano: int = CAP_NANO) -> tuple[int, int]:
    """What the session's total has settled, and what is suspect."""
    totals = [row.of("usd") for key, row in store.balances().result().items() if "max-usd-total" in key]
    (total,) = totals
    assert total.held == 0
    assert total.settled + total.suspect <= cap_nano
    return total.settled, total.suspect


async def burst_while(url: str, calls: int, then: object) -> Counter[int]:
    """So many calls at once, and meanwhile, in a thread, this."""
    running = asyncio.create_task(burst(url, calls))
    await asyncio.to_thread(then)  # type: ignore[arg-type]
    return await running


def test_a_worker_that_is_killed_is_replaced_and_its_calls_stay_counted(ledger: str) -> None:
    with (
        FakeProvider(Reply(output_tokens=1_000_000, pause_after_chunks=1)) as provider,
        served(*arguments(provider, ledger, "--workers", "2")) as proxy,
    ):
        url = proxy.ready(workers=2)

        def kill_one() -> None:
            provider.wait_in_flight(FITS, timeout=60)
            os.kill(random.choice(proxy.worker_pids()), signal.SIGKILL)
            proxy.wait_for(r"Worker (\d+) is ready", times=3)
            provider.resume()

        statuses = asyncio.run(burst_while(url, FITS, kill_one))
        provider.wait_idle()
        assert set(statuses) <= {200, 0}
        store = open_store(ledger)
        eventually(lambda: not [hold for hold in store.holds().result() if hold.state == HELD])
        settled, suspect = counted_nano(store)
        assert settled == EACH_NANO * statuses[200]
        assert suspect == EACH_NANO * statuses[0]
        assert settled + suspect == provider.billed_nano(RATES)
        assert len(store.entries().result()) == provider.calls == FITS
        # The budget is used up, by what is settled and by what may have been billed.
        assert asyncio.run(burst(url, 3)) == Counter({429: 3})
        assert proxy.stop() == 0, proxy.said
        store.close()


def test_the_whole_tree_is_killed_and_the_next_start_goes_on(ledger: str) -> None:
    spent = 11
    with FakeProvider(Reply(output_tokens=1_000_000)) as provider:
        with served(*arguments(provider, ledger, "--workers", "2")) as proxy:
            url = proxy.ready(workers=2)
            assert asyncio.run(burst(url, spent)) == Counter({200: spent})
            provider.reply = Reply(output_tokens=1_000_000, pause_after_chunks=1)

            def kill_all() -> None:
                provider.wait_in_flight(FITS - spent, timeout=60)
                proxy.kill_tree()
                provider.resume()

            assert asyncio.run(burst_while(url, FITS - spent, kill_all)) == Counter({0: FITS - spent})
        provider.wait_idle()
        assert provider.calls == FITS
        provider.reply = Reply(output_tokens=1_000_000)
        with served(*arguments(provider, ledger)) as proxy:
            url = proxy.ready()
            proxy.wait_for("Session nightly goes on")
            store = open_store(ledger)
            assert counted_nano(store) == (EACH_NANO * spent, EACH_NANO * (FITS - spent))
            assert sum(counted_nano(store)) == provider.billed_nano(RATES)
            assert len(store.entries().result()) == FITS
            assert len([hold for hold in store.holds().result() if hold.state == SUSPECT]) == FITS - spent
            assert asyncio.run(burst(url, 2)) == Counter({429: 2})
            assert provider.calls == FITS
            store.close()
            assert proxy.stop() == 0, proxy.said


def test_workers_stop_when_their_watcher_was_killed(ledger: str) -> None:
    with FakeProvider() as provider, served(*arguments(provider, ledger, "--workers", "2")) as proxy:
        proxy.ready(workers=2)
        pids = proxy.worker_pids()
        os.kill(proxy.process.pid, signal.SIGKILL)
        eventually(lambda: not any(map(alive, pids)))


def test_a_clean_stop_lets_calls_in_flight_end(ledger: str) -> None:
    with FakeProvider(Reply(output_tokens=5, pause_after_chunks=1)) as provider:
        with served(*arguments(provider, ledger)) as proxy:
            url = proxy.ready()

            def stop() -> None:
                provider.wait_in_flight(2)
                proxy.process.send_signal(signal.SIGTERM)
                eventually(lambda: refuses_connections(url))
                provider.resume()

            assert asyncio.run(burst_while(url, 2, stop)) == Counter({200: 2})
            assert proxy.ended() == 0
            assert "Stopping: 2 calls in flight have 30 s to end" in proxy.said
            assert "Stopped after 2 requests: 2 forwarded, 0 blocked, 0 refused; 26 tokens" in proxy.said
        store = open_store(ledger)
        assert [entry.ending for entry in store.entries().result()] == ["ok", "ok"]
        store.close()


def test_a_second_signal_does_not_wait_and_the_calls_are_suspect(ledger: str) -> None:
    with FakeProvider(Reply(pause_after_chunks=1)) as provider:
        with served(*arguments(provider, ledger)) as proxy:
            url = proxy.ready()

            def stop() -> None:
                provider.wait_in_flight(2)
                proxy.process.send_signal(signal.SIGTERM)
                eventually(lambda: refuses_connections(url))
                proxy.process.send_signal(signal.SIGTERM)

            assert asyncio.run(burst_while(url, 2, stop)) == Counter({503: 2})
            assert proxy.ended() == 0
            assert "Stopped with 2 calls in flight: they are suspect" in proxy.said
            assert "Traceback" not in proxy.said
        store = open_store(ledger)
        assert [(entry.ending, entry.suspect) for entry in store.entries().result()] == [("cancelled", True)] * 2
        (settled, suspect) = counted_nano(store)
        assert (settled, suspect) == (0, 2 * EACH_NANO)
        store.close()


def test_a_session_without_a_name_begins_anew_after_a_clean_stop(ledger: str) -> None:
    with FakeProvider(Reply(output_tokens=5)) as provider:
        flags = ("--upstream", provider.openai_url, "--ledger", ledger, "--max-tokens-total", str(HI_TOKENS + CEILING))
        port = steady_port()
        with served("--port", port, *flags) as proxy:
            url = proxy.ready()
            assert asyncio.run(burst(url, 1)) == Counter({200: 1})
            assert asyncio.run(burst(url, 1)) == Counter({429: 1})
            assert proxy.stop() == 0
        with served("--port", port, *flags) as proxy:
            assert asyncio.run(burst(proxy.ready(), 1)) == Counter({200: 1})
            assert "goes on" not in proxy.said
            proxy.kill_tree()
        with served("--port", port, *flags) as proxy:
            url = proxy.ready()
            proxy.wait_for("goes on")
            assert asyncio.run(burst(url, 1)) == Counter({429: 1})


def steady_port() -> str:
    """One that the system gives to nobody who takes any: it is free again whenever its proxy has stopped."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return str(port)


def refuses_connections(url: str) -> bool:
    where = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((where.hostname, where.port)) != 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):  # the latter: it ended between these two
        return False
