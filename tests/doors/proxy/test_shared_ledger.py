"""
A governed program that calls through a proxy on its own ledger: each call is held for once, counted once, and leaves
one row; every budget of either side binds it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

import farthing
from farthing import BudgetExceeded, BudgetManager, ProxyServer, budget, track
from farthing.admin.keys import create_key
from farthing.admin.standing import set_budget
from farthing.calls.call import OFFERED
from farthing.kernel.balances import Balance
from farthing.kernel.hold import HELD, SUSPECT, Entry
from farthing.kernel.money import nano_of_usd
from farthing.kernel.scope import read_account_key
from farthing.proxy.settings import Timeouts, Upstream
from farthing.runtime.default import runtime
from farthing.runtime.settings import Settings
from farthing.stores.sqlite import SQLiteStore
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, HI_TOKENS, async_openai_client, openai_client
from tests.doors.proxy.raw import ask, hang_up, send
from tests.doors.proxy.running import proxy_with, settings_for
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("farthing_isolated")

CEILING = 50
EACH = HI_TOKENS + CEILING
"""What a call holds, and costs: the provider fills what it is allowed."""
CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-4o-mini", "messages": HI, "max_completion_tokens": CEILING}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply(output_tokens=1_000_000)) as provider:
        yield provider


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


class Look(SQLiteStore):
    """Somebody else's look at the ledger."""

    proxy: ProxyServer | None = None

    def catch_up(self) -> None:
        """Wait until the proxy has written what it answered a moment ago."""
        if self.proxy is not None:
            self.proxy.runtime.main.store.add_denials({}).result()


@pytest.fixture
def store(path: Path) -> Iterator[Look]:
    store = Look(path)
    yield store
    store.close()


@pytest.fixture
def proxy(provider: FakeProvider, path: Path, store: Look) -> Iterator[ProxyServer]:
    farthing.configure(ledger=f"sqlite:///{path}")
    with proxy_with(settings_for(provider, calls=Settings(ledger=f"sqlite:///{path}"))) as server:
        store.proxy = server
        yield server


@contextmanager
def client_of(proxy: ProxyServer, **options: Any) -> Iterator[Any]:
    with openai_client(f"{proxy.url}/v1", **options) as client:
        yield client


def call(client: Any, **changes: Any) -> Any:
    return client.chat.completions.create(**{**BODY, **changes})


def standing(name: str, **terms: Any) -> None:
    """A budget that this program knows of at once, and everybody else by their next look at the ledger."""
    set_budget(runtime().main.store, name, **terms)
    runtime().main.refresh(runtime().main.store.catalogue().result())


def rows(store: Look) -> list[Entry]:
    store.catch_up()
    return list(store.entries().result())


def tokens(store: Look, name: str) -> Balance:
    """The one account of this budget."""
    store.catch_up()
    (found,) = [row.of("tokens") for key, row in store.balances().result().items() if f'"{name}"' in key]
    return found


def test_a_standing_budget_of_both_is_held_and_counted_once(
    proxy: ProxyServer, store: Look, provider: FakeProvider
) -> None:
    standing("everything", tokens=3 * EACH)
    with client_of(proxy) as client, track(feature="search"):
        for _ in range(3):
            call(client)
        # There is room for three, and no call needs twice its own.
        with pytest.raises(BudgetExceeded):
            call(client)
    assert provider.posts == 3
    assert tokens(store, "everything") == Balance(settled=3 * EACH)
    assert [(dict(row.facts.tags)["feature"], row.ending) for row in rows(store)] == [("search", "ok")] * 3
    assert farthing.report(group_by=["feature"]).to_dicts()[0]["calls"] == 3, "this process's own report has them too"
    assert nano_of_usd(farthing.report(since="all").total()) == sum(row.cost_nano or 0 for row in rows(store))


def test_the_last_room_of_a_limit_on_calls_at_once_is_enough(proxy: ProxyServer, store: Look) -> None:
    standing("one at a time", concurrency=1)
    with client_of(proxy) as client:
        for _ in range(3):
            call(client)
    assert len(rows(store)) == 3


def test_a_budget_that_only_the_program_knows_is_kept(proxy: ProxyServer, store: Look, provider: FakeProvider) -> None:
    standing("everything", tokens=100 * EACH)
    with client_of(proxy) as client:
        with budget("nightly", tokens=2 * EACH) as nightly:
            call(client)
            call(client)
            with pytest.raises(BudgetExceeded) as denied:
                call(client)
        assert denied.value.budget == "nightly"
        assert nightly.spent.tokens == 2 * EACH
        call(client)
    assert tokens(store, "nightly") == Balance(settled=2 * EACH)
    assert tokens(store, "everything") == Balance(settled=3 * EACH)
    assert [row.facts.budgets for row in rows(store)] == [("nightly", "everything")] * 2 + [("everything",)]
    assert provider.posts == 3


def test_a_budget_that_only_the_proxy_knows_is_kept(proxy: ProxyServer, store: Look, provider: FakeProvider) -> None:
    made = create_key(store, user="alice", budgets=[f"{EACH} tokens/day"])
    with client_of(proxy, api_key=made.text) as client, budget("nightly", tokens=100 * EACH) as nightly:
        call(client)
        with pytest.raises(openai.RateLimitError, match="alice per day"):
            call(client)
        assert nightly.spent.tokens == EACH
        assert nightly.held.tokens == 0
    assert tokens(store, "alice per day") == Balance(settled=EACH)
    (row, *refused) = rows(store)
    assert dict(row.facts.tags).items() >= {"user": "alice", "key": made.key.id}.items()
    assert [row.cost_nano for row in refused] == [0], "what the proxy refused cost the program nothing"
    assert provider.posts == 1


def test_streams_and_one_that_is_left(proxy: ProxyServer, store: Look, provider: FakeProvider) -> None:
    standing("everything", tokens=100 * EACH)
    with client_of(proxy) as client, budget("nightly", tokens=100 * EACH):
        list(call(client, stream=True))
        provider.reply = Reply(output_tokens=1_000_000, pause_after_chunks=3)
        stream = call(client, stream=True, max_completion_tokens=500)
        next(stream)
        stream.close()
        eventually(lambda: not store.holds(HELD).result())
        provider.wait_idle()
    eventually(lambda: len(rows(store)) == 2)
    whole, left = rows(store)
    assert (whole.ending, whole.tokens("input", "output")) == ("ok", EACH)
    assert left.ending == "client_gone"
    assert provider.billed_tokens - EACH <= left.tokens("input", "output") < HI_TOKENS + 500
    assert tokens(store, "nightly") == tokens(store, "everything")


def test_without_any_budget_there_is_one_row_all_the_same(proxy: ProxyServer, store: Look) -> None:
    with client_of(proxy) as client, track(feature="search"):
        call(client)
        list(call(client, stream=True))
    assert [row.ending for row in rows(store)] == ["ok", "ok"]


def test_an_answer_that_never_comes_is_suspect_once(proxy: ProxyServer, store: Look, provider: FakeProvider) -> None:
    standing("everything", tokens=100 * EACH)
    provider.reply = Reply(fault="close_before_answer")
    with client_of(proxy) as client, budget("nightly", tokens=100 * EACH), pytest.raises(openai.APIStatusError):
        call(client)
    (row,) = rows(store)
    assert row.suspect
    assert tokens(store, "nightly") == tokens(store, "everything") == Balance(suspect=EACH)
    assert len(store.holds(SUSPECT).result()) == 1


@pytest.mark.parametrize("fault", ["close_before_answer", "close_mid_body", "reset", "hang"])
def test_a_unit_of_work_counts_what_a_proxy_cannot_say(provider: FakeProvider, fault: str) -> None:
    """The proxy's answer says that the call may have been billed: so its program counts all that it held."""
    provider.reply = Reply(output_tokens=1_000_000, fault=fault)
    timeouts = Timeouts(idle_seconds=0.5 if fault == "hang" else 60)
    with proxy_with(settings_for(provider, timeouts=timeouts)) as server, client_of(server) as client:
        work = budget(tokens=2 * EACH)
        with work, pytest.raises(openai.APIStatusError) as lost:
            call(client)
    assert work.suspect.tokens == EACH
    assert lost.value.status_code == (504 if fault == "hang" else 502)


def test_what_a_proxy_cannot_say_another_before_it_says_too(provider: FakeProvider) -> None:
    provider.reply = Reply(fault="reset")
    with proxy_with(settings_for(provider)) as inner:
        before = settings_for(provider, upstreams=(Upstream("openai", f"{inner.url}/v1"),))
        with proxy_with(before) as outer, client_of(outer) as client:
            work = budget(tokens=2 * EACH)
            with work, pytest.raises(openai.InternalServerError):
                call(client)
            (row,) = outer.runtime.main.store.entries().result()
    assert work.suspect.tokens == EACH
    assert row.tokens("input", "output") == EACH


def test_another_ledger_counts_for_itself(provider: FakeProvider, path: Path, store: Look) -> None:
    farthing.configure(ledger=f"sqlite:///{path}")
    standing("everything", tokens=100 * EACH)
    with proxy_with(settings_for(provider)) as server, client_of(server) as client:
        call(client)
        assert len(server.runtime.main.store.entries().result()) == 1
    assert tokens(store, "everything") == Balance(settled=EACH)
    (row,) = rows(store)
    assert row.id.startswith(OFFERED)


def test_only_an_unknown_host_is_offered_a_hold(provider: FakeProvider, path: Path, store: Look) -> None:
    """It might be a proxy. What it hears is an id that nobody else can use; a known provider hears nothing."""
    farthing.configure(ledger=f"sqlite:///{path}")
    with openai_client(provider) as client:
        call(client)
    (request,) = provider.requests
    assert request.headers["x-farthing-hold"].startswith(OFFERED)
    assert len(request.headers["x-farthing-hold"]) == len(OFFERED) + 24
    heard: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        heard.append(request)
        return httpx2.Response(400, json={})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    with openai.OpenAI(api_key="x", max_retries=0, http_client=http) as known:
        farthing.instrument(known)
        with pytest.raises(openai.BadRequestError):
            call(known)
    assert heard[0].url.host == "api.openai.com"
    assert not [name for name in heard[0].headers if name.startswith("x-farthing")]


def test_many_threads_through_both_admit_exactly_what_fits(
    proxy: ProxyServer, store: Look, provider: FakeProvider
) -> None:
    standing("everything", tokens=13 * EACH + EACH // 2)
    denied = []
    gate = threading.Barrier(40)
    with client_of(proxy) as client:

        def run() -> None:
            gate.wait()
            try:
                call(client)
            except (BudgetExceeded, openai.RateLimitError) as error:
                denied.append(error)

        threads = [threading.Thread(target=run) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (provider.posts, len(denied)) == (13, 27)
    assert tokens(store, "everything") == Balance(settled=13 * EACH)
    assert len(rows(store)) == 13


def test_a_budget_on_what_the_program_says_of_itself_binds_through_the_proxy(
    proxy: ProxyServer, store: Look, provider: FakeProvider
) -> None:
    """The proxy believes no caller's tags. A governed program's own stand in the ledger, beside its hold."""
    standing("search", tokens=2 * EACH, scope={"feature": "search"})
    standing("each-run", tokens=EACH, each=["run"])
    with client_of(proxy) as client, track(feature="search"):
        for run in ("1", "2"):
            with track(run=run):
                call(client)
        with track(run="3"), pytest.raises(BudgetExceeded, match="search"):
            call(client)
    assert tokens(store, "search") == Balance(settled=2 * EACH)
    assert len(rows(store)) == provider.posts == 2


def test_where_program_and_key_disagree_on_who_pays_both_do(
    proxy: ProxyServer, store: Look, provider: FakeProvider
) -> None:
    """Neither account may be left out: so nothing is taken over."""
    made = create_key(store, user="alice")
    standing("each-user", tokens=2 * EACH, each=["user"])
    with client_of(proxy, api_key=made.text) as client, track(user="bob"):
        call(client)
    counted = {
        read_account_key(key)[1]["user"]: row.of("tokens")
        for key, row in store.balances().result().items()
        if "each-user" in key
    }
    assert counted == {"alice": Balance(settled=EACH), "bob": Balance(settled=EACH)}
    assert len(rows(store)) == 2


def test_a_budget_that_lets_the_crossing_call_finish(proxy: ProxyServer, provider: FakeProvider) -> None:
    with client_of(proxy) as client, budget("runaway", tokens=EACH - 1, on_exceed="raise"):
        with pytest.raises(BudgetExceeded) as crossed:
            call(client)
        assert crossed.value.result.usage.total_tokens == EACH
        with pytest.raises(BudgetExceeded):
            call(client)
    assert provider.posts == 1


@pytest.mark.parametrize("by_key", [False, True])
def test_the_work_of_a_delegated_agent(proxy: ProxyServer, store: Look, provider: FakeProvider, by_key: bool) -> None:
    """It never borrows, so its hold can be replaced as any other: also where it shows the key of its own budget."""
    manager = BudgetManager(name="crew")
    manager.register_agent("planner", max_tokens=100 * EACH)
    child = manager.delegate("planner", "sub", max_tokens=2 * EACH)
    key = {"api_key": child.key()} if by_key else {}
    with client_of(proxy, **key) as client, child.agent():
        call(client)
        list(call(client, stream=True))
        with pytest.raises(BudgetExceeded):
            call(client)
    assert (manager.ledger.consumed("sub"), provider.posts) == (2 * EACH, 2)
    assert [dict(row.facts.tags)["agent"] for row in rows(store) if row.facts.model] == ["sub", "sub"]
    child.close()
    assert manager.remaining("planner") == 98 * EACH


def test_the_work_of_an_agent_that_borrows(proxy: ProxyServer, store: Look, provider: FakeProvider) -> None:
    """What it is short of, others lend: for one hold, on both sides of the proxy."""
    manager = BudgetManager(name="crew")
    manager.register_agent("writer", max_tokens=EACH, priority=2)
    manager.register_agent("reader", max_tokens=9 * EACH, priority=1)
    standing("everything", tokens=3 * EACH)
    with client_of(proxy) as client, manager.agent("writer"):
        for _ in range(3):
            call(client)
        with pytest.raises(BudgetExceeded):
            call(client)
    assert (manager.ledger.consumed("writer"), provider.posts) == (3 * EACH, 3)
    assert tokens(store, "everything") == Balance(settled=3 * EACH)
    assert len([row for row in rows(store) if row.facts.model]) == 3
    assert not store.holds(HELD).result()


def test_async_clients(proxy: ProxyServer, store: Look, provider: FakeProvider) -> None:
    standing("one at a time", concurrency=1)

    async def run() -> None:
        async with async_openai_client(f"{proxy.url}/v1") as client:
            await client.chat.completions.create(**BODY)
            async for _ in await client.chat.completions.create(**BODY, stream=True):
                pass

    asyncio.run(run())
    assert [row.ending for row in rows(store)] == ["ok", "ok"]
    assert provider.posts == 2


# -- offers that are none ----------------------------------------------------------------------------------------------


def test_no_caller_can_use_the_hold_of_another_call(proxy: ProxyServer, store: Look, provider: FakeProvider) -> None:
    """Ids that callers are told, and ids that they make up, move nothing: the limit stays the limit."""
    made = create_key(store, user="alice", budgets=[f"{2 * EACH} tokens/day"])
    bearer = {"authorization": f"Bearer {made.text}"}
    provider.reply = Reply(output_tokens=1_000_000, pause_after_chunks=2)
    stream = send(proxy.url, CHAT, {**BODY, "stream": True}, headers=bearer)
    own = stream.getheader("x-farthing-call-id") or ""
    assert tokens(store, "alice per day") == Balance(held=EACH)
    second = send(proxy.url, CHAT, {**BODY, "stream": True}, headers={**bearer, "x-farthing-hold": own})
    assert tokens(store, "alice per day") == Balance(held=2 * EACH)
    for made_up in (own, second.getheader("x-farthing-call-id") or "", OFFERED, f"{OFFERED}{'0' * 24}", "x" * 500):
        answer = ask(proxy.url, CHAT, BODY, headers={**bearer, "x-farthing-hold": made_up})
        assert answer.status == 429
    assert tokens(store, "alice per day") == Balance(held=2 * EACH)
    provider.resume()
    for response in (stream, second):
        assert b"[DONE]" in response.read()
        hang_up(response)
    assert tokens(store, "alice per day") == Balance(settled=2 * EACH)
    assert not [of for request in provider.requests for of in request.headers if of.startswith("x-farthing")]


def test_no_caller_chooses_by_an_offer_what_its_budgets_match(
    proxy: ProxyServer, store: Look, provider: FakeProvider
) -> None:
    """What it says of itself is recorded. Were it matched, each call could have an account of its own."""
    standing("each run", tokens=EACH, each=["run"])
    statuses = []
    for number in range(2):
        offered = {"x-farthing-hold": f"{OFFERED}{number:024x}", "x-farthing-tags": f"run={number}"}
        statuses.append(ask(proxy.url, CHAT, BODY, headers=offered).status)
    assert statuses == [200, 429]
    assert tokens(store, "each run") == Balance(settled=EACH)
    assert [dict(row.facts.tags)["run"] for row in rows(store) if row.ending == "ok"] == ["0"]


def test_an_offer_that_would_paint_a_terminal_is_no_id(proxy: ProxyServer, store: Look) -> None:
    painted = f"{OFFERED}\x9b31m"
    assert ask(proxy.url, CHAT, BODY, headers={"x-farthing-hold": painted}).status == 200
    assert len(rows(store)) == 1
    assert store.find(painted).result() is None


def test_an_offer_is_good_once(proxy: ProxyServer, store: Look, provider: FakeProvider) -> None:
    """Somebody on the way sends the request again: two calls, and both are counted."""
    standing("everything", tokens=100 * EACH)
    offers: list[str] = []
    with client_of(proxy, governed=False) as client:
        hooks = client._client.event_hooks
        hooks["response"] = [lambda response: offers.append(response.request.headers["x-farthing-hold"])]
        client._client.event_hooks = hooks
        farthing.instrument(client)
        call(client)
    (offered,) = offers
    answer = ask(proxy.url, CHAT, BODY, headers={"x-farthing-hold": offered})
    assert answer.status == 200
    assert tokens(store, "everything") == Balance(settled=2 * EACH)
    assert len(rows(store)) == 2 == provider.posts
