"""Is it there, is it ready, and what do the figures say: the same from every worker, whatever the ledger does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from farthing.admin.standing import set_budget
from farthing.proxy.pages import health, metrics
from farthing.proxy.pages.health import ledger_trouble
from farthing.proxy.settings import Bounds
from farthing.stores.contract import Store
from farthing.stores.sqlite.files import FileLock
from farthing.testing import FakeProvider, Reply

from .keyed import CALL_TOKENS, Desk, bearer, workers

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply(output_tokens=50)) as provider:
        yield provider


def scrape(desk: Desk, text: str, worker: int = 0) -> Samples:
    answer = desk.clients[worker].get("/metrics", headers=bearer(text))
    assert answer.status_code == 200, answer.text
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.name.startswith("farthing_") for family in families)
    assert all(family.documentation for family in families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def of_the_ledger(samples: Samples) -> Samples:
    """Without what is of one worker only."""
    return {of: number for of, number in samples.items() if not of[0].startswith("farthing_worker_")}


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of all series of this name with these labels."""
    found = [
        number
        for (of, has), number in samples.items()
        if of == f"farthing_{name}" and labels.items() <= dict(has).items()
    ]
    assert found, (name, labels)
    return sum(found)


def test_metrics_of_two_workers_are_one_sum_whichever_is_asked(tmp_path: Path, provider: FakeProvider) -> None:
    with workers(tmp_path, provider, count=2) as desk:
        admin, made = desk.key(admin=True), desk.key(user="alice", budgets=[f"{7 * CALL_TOKENS} tokens/day"])
        for number in range(9):
            assert desk.post(made, worker=number % 2).status_code == (200 if number < 7 else 429)
        for server in desk.servers:
            server.runtime.housekeeper.flush_denials(server.runtime.main.store)
        first, second = scrape(desk, admin.text, 0), scrape(desk, admin.text, 1)
        assert of_the_ledger(first) == of_the_ledger(second)
        assert value(first, "calls_total", ending="ok", model="gpt-4o-mini", provider="openai") == 7
        assert value(first, "tokens_total") == provider.billed_tokens == 7 * CALL_TOKENS
        cost_nano = sum(entry.cost_nano or 0 for entry in desk.entries())
        assert value(first, "cost_usd_total") == cost_nano / 10**9
        assert value(first, "denials_total", budget="alice per day", unit="tokens", shadow="false") == 2
        alice = {"budget": "alice per day", "account": "user=alice", "unit": "tokens"}
        assert value(first, "budget_spent", **alice) == value(first, "budget_limit", **alice) == 7 * CALL_TOKENS
        assert value(first, "budget_remaining", **alice) == 0
        assert value(first, "ledger_up") == 1
        # Both go on from where they were.
        set_budget(desk.store, "alice per day", tokens=8 * CALL_TOKENS, update=True)
        desk.settle_in()
        assert desk.post(made).status_code == 200
        first, second = scrape(desk, admin.text, 0), scrape(desk, admin.text, 1)
        assert of_the_ledger(first) == of_the_ledger(second)
        assert value(first, "calls_total") == 8
        assert value(first, "denials_total") == 2


def test_counters_only_grow_and_corrections_are_told_apart(tmp_path: Path, provider: FakeProvider) -> None:
    with workers(tmp_path, provider) as desk:
        admin, made = desk.key(admin=True), desk.key(user="alice", budgets=["1k tokens/day"])
        provider.script([Reply(fault="reset")])
        assert desk.post(made).status_code == 502
        before = scrape(desk, admin.text)
        assert value(before, "holds", state="suspect") == 1
        assert value(before, "budget_suspect", unit="tokens") == CALL_TOKENS
        (hold,) = desk.store.holds("suspect").result()
        desk.store.resolve(hold.id, "release").result()
        after = scrape(desk, admin.text)
        assert value(after, "holds", state="suspect") == 0
        for name in ("tokens_total", "cost_usd_total", "calls_total"):
            assert value(after, name) == value(before, name) > 0
        assert value(after, "tokens_total") + value(after, "corrections_tokens") == 0
        assert value(after, "cost_usd_total") + value(after, "corrections_cost_usd") == 0


def test_no_more_models_have_series_than_prometheus_can_take(
    tmp_path: Path, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller may name a new model in every request, at an upstream that answers 404 to each, say."""
    monkeypatch.setattr(metrics, "MODELS_MAX", 2)
    with workers(tmp_path, provider) as desk:
        admin, made = desk.key(admin=True), desk.key(user="alice")
        for count, model in enumerate(["gpt-4o", "gpt-4o-mini", "o3-mini", "gpt-4.1"]):
            for _ in range(2 + count):
                assert desk.post(made, model=model).status_code == 200
        provider.reply = Reply(status=404)
        for number in range(3):
            assert desk.post(made, model=f"none-{number}").status_code == 404
        samples = scrape(desk, admin.text)
        assert {dict(has).get("model") for _, has in samples} == {None, "o3-mini", "gpt-4.1", metrics.OTHERS}
        assert value(samples, "models_omitted") == 5
        assert value(samples, "calls_total") == 17
        assert value(samples, "calls_total", model=metrics.OTHERS, ending="http_404") == 3
        assert value(samples, "tokens_total") == provider.billed_tokens


def test_no_two_accounts_have_one_label(tmp_path: Path, provider: FakeProvider) -> None:
    upstream = {"trusted_tags": ("feature", "run")}
    said = ["run=1", "feature=,run=1", 'feature="",run=1', "feature=a", "feature=a,run=", "feature=run=,run=1"]
    with workers(tmp_path, provider, upstream=upstream) as desk:
        admin, made = desk.key(admin=True), desk.key(user="alice")
        set_budget(desk.store, "each", tokens=1_000, each=["feature", "run"])
        desk.settle_in()
        for tags in said:
            assert desk.post(made, headers={"x-farthing-tags": tags}).status_code == 200
        answer = desk.client.get("/metrics", headers=bearer(admin.text)).text
    of = [line for line in answer.splitlines() if line.startswith("farthing_budget_limit{")]
    assert len({line.rpartition(" ")[0] for line in of}) == len(of) == len(said)
    assert 'account="feature=a,run="' in answer


def test_metrics_without_keys_are_for_this_machine_and_with_one_for_admins(
    tmp_path: Path, provider: FakeProvider
) -> None:
    with workers(tmp_path, provider) as desk:
        assert desk.client.get("/metrics").status_code == 200
        assert desk.client.get("/metrics", headers={"host": "farthing.example"}).status_code == 403
        made = desk.key(user="alice")
        assert desk.client.get("/metrics").status_code == 401
        assert desk.client.get("/metrics", headers=bearer(made.text)).status_code == 401
        admin = desk.key(admin=True)
        assert desk.client.get("/metrics", headers=bearer(made.text)).status_code == 403
        openmetrics = {"accept": "application/openmetrics-text; version=1.0.0"}
        answer = desk.client.get("/metrics", headers=bearer(admin.text) | openmetrics)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


async def hasty(store: Store, seconds: float) -> str | None:
    """Asks the ledger for 50 ms, not for the two seconds that a busy machine may need."""
    assert seconds == health.READY_SECONDS
    return await ledger_trouble(store, 0.05)


def test_a_ledger_that_is_locked_is_seen_and_one_that_comes_back_too(
    tmp_path: Path, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workers(tmp_path, provider) as desk:
        assert desk.client.get("/healthz").json() == {"status": "ok"}
        assert desk.client.get("/readyz").json() == {"status": "ready", "ledger": "ok"}
        assert desk.client.head("/readyz").status_code == 200
        lock = FileLock(desk.path.with_name(f"{desk.path.name}-lock"))
        lock.acquire()
        try:
            with monkeypatch.context() as patch:
                patch.setattr(health, "ledger_trouble", hasty)
                unready = desk.client.get("/readyz")
            assert (unready.status_code, unready.json()["status"]) == (503, "not ready")
            assert "no answer within 0.05 s" in unready.json()["ledger"]
            assert str(tmp_path) not in unready.text
            assert desk.client.get("/healthz").status_code == 200
        finally:
            lock.release()
            lock.drop()
        assert desk.client.get("/readyz").status_code == 200


def test_health_is_open_and_says_nothing_else(tmp_path: Path, provider: FakeProvider) -> None:
    with workers(tmp_path, provider) as desk:
        desk.key(user="alice")
        assert desk.client.get("/healthz").status_code == 200
        assert desk.client.get("/readyz").status_code == 200
        assert desk.client.post("/readyz").status_code == 405
        assert provider.requests == []
        assert health.READY_SECONDS < 5


def test_scrapes_say_so_while_the_ledger_is_down(
    tmp_path: Path, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workers(tmp_path, provider) as desk:
        assert desk.client.get("/metrics").status_code == 200
        lock = FileLock(desk.path.with_name(f"{desk.path.name}-lock"))
        lock.acquire()
        monkeypatch.setattr(metrics, "ledger_trouble", hasty)
        try:
            text = desk.client.get("/metrics").text
        finally:
            lock.release()
            lock.drop()
        families = {family.name: family.samples[0].value for family in text_string_to_metric_families(text)}
        assert families.pop("farthing_ledger_up") == 0
        assert all(name.startswith("farthing_worker_") for name in families), families


def test_a_worker_says_what_it_has_in_hand(tmp_path: Path) -> None:
    with (
        FakeProvider(Reply(output_tokens=5, pause_after_chunks=1)) as provider,
        workers(tmp_path, provider) as desk,
        ThreadPoolExecutor() as callers,
    ):
        admin, made = desk.key(admin=True), desk.key(user="alice")
        before = scrape(desk, admin.text)
        names = ("worker_connections", "worker_calls_in_flight", "worker_tasks")
        of = {"worker": str(os.getpid())}
        idle = {name: value(before, name, **of) for name in names}
        assert (idle["worker_connections"], idle["worker_calls_in_flight"]) == (1, 0)
        asked = [callers.submit(desk.post, made) for _ in range(3)]
        provider.wait_in_flight(3)
        busy = scrape(desk, admin.text)
        assert value(busy, "worker_calls_in_flight", **of) == 3
        assert value(busy, "worker_connections", **of) >= 4
        assert value(busy, "worker_tasks", **of) >= idle["worker_tasks"] + 3
        provider.resume()
        assert [call.result().status_code for call in asked] == [200, 200, 200]
        after = scrape(desk, admin.text)
        assert value(after, "worker_calls_in_flight", **of) == 0
        assert value(after, "worker_tasks", **of) == idle["worker_tasks"]


def test_a_page_takes_no_more_body_than_a_call(tmp_path: Path, provider: FakeProvider) -> None:
    with workers(tmp_path, provider, bounds=Bounds(max_body_bytes=1_000)) as desk:
        refused = desk.client.post("/v1/explain?route=/v1/chat/completions", content=b"x" * 1_001)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
