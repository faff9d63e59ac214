"""
Which budget binds which call: units of work and shared accounts, functions and generators, tasks, threads and forks,
limits of every unit, and calls that nothing can measure.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

import farthing
from farthing.runtime.default import runtime
from farthing.runtime.threads import follow
from farthing.testing import FakeClock, FakeProvider, Reply
from tests.doors.clients import (
    HI,
    NOTHING,
    async_openai_client,
    chat,
    entries,
    holds,
    openai_client,
)

pytestmark = pytest.mark.usefixtures("farthing_isolated")

SIZE = 18


def calls_that_fit(client: OpenAI, most: int = 20) -> int:
    """How many calls are admitted until one is denied."""
    for number in range(most):
        try:
            chat(client)
        except farthing.BudgetExceeded:
            return number
    return most


# -- anonymous and named ---------------------------------------------------------------------------------------------


def test_an_anonymous_budget_is_one_unit_of_work(client: OpenAI) -> None:
    @farthing.budget(tokens=2 * SIZE)
    def work() -> int:
        return calls_that_fit(client)

    assert [work(), work()] == [2, 2]
    again = farthing.budget(tokens=3 * SIZE)
    for _ in range(2):
        with again:
            assert calls_that_fit(client) == 3


def test_a_named_budget_is_one_account(client: OpenAI) -> None:
    @farthing.budget("shared", tokens=3 * SIZE)
    def work() -> int:
        return calls_that_fit(client)

    assert [work(), work()] == [3, 0]
    with farthing.budget("shared", tokens=3 * SIZE) as same:
        assert calls_that_fit(client) == 0
    assert (same.spent.tokens, same.remaining.tokens) == (3 * SIZE, 0)


def test_a_named_budget_with_other_terms_is_an_error_unless_it_is_meant(client: OpenAI) -> None:
    with farthing.budget("shared", tokens=100):
        pass
    with pytest.raises(farthing.ConfigError), farthing.budget("shared", tokens=200):
        pass
    with farthing.budget("shared", tokens=2 * SIZE, update=True):
        assert calls_that_fit(client) == 2


def test_each_splits_a_budget_by_tag(client: OpenAI) -> None:
    budget = farthing.budget("each", tokens=2 * SIZE, each=["user"])
    for user in ("alice", "bob", None):
        with budget, farthing.track(**({"user": user} if user else {})):
            assert calls_that_fit(client) == 2
    with budget, farthing.track(user="bob"):
        assert calls_that_fit(client) == 0


def test_a_scope_binds_only_its_own_calls(client: OpenAI) -> None:
    with farthing.budget("search", tokens=SIZE, scope={"feature": "search"}):
        assert calls_that_fit(client, 3) == 3
        with farthing.track(feature="search"):
            assert calls_that_fit(client, 3) == 1
        with farthing.track(feature="chat"):
            assert calls_that_fit(client, 3) == 3


def test_a_frozen_budget_denies_at_once(client: OpenAI) -> None:
    with farthing.budget("shared", tokens=1_000) as budget:
        chat(client)
        budget.freeze()
        with pytest.raises(farthing.BudgetExceeded, match="frozen"):
            chat(client)
        budget.unfreeze()
        chat(client)


def test_a_grant_makes_room_in_its_window_and_no_other(client: OpenAI, fake_clock: FakeClock) -> None:
    budget = farthing.budget("shared", tokens=SIZE, per="day", each=["user"])
    with budget, farthing.track(user="alice"):
        assert calls_that_fit(client, 3) == 1
        budget.grant(tokens=2 * SIZE, scope={"user": "alice"}, reason="launch")
        assert calls_that_fit(client, 3) == 2
        with farthing.track(user="bob"):
            assert calls_that_fit(client, 3) == 1
        fake_clock.advance(days=1)
        assert calls_that_fit(client, 3) == 1


def test_a_grant_needs_a_budget_that_lasts_and_a_limit_to_raise() -> None:
    with pytest.raises(ValueError, match="only a named budget can be raised"):
        farthing.budget(tokens=1).grant(tokens=1)
    with pytest.raises(farthing.ConfigError, match="no limit in usd"):
        farthing.budget("shared", tokens=1).grant(usd=1)
    with pytest.raises(ValueError, match="needs an amount"):
        farthing.budget("shared", tokens=1).grant(reason="why not")


@pytest.mark.parametrize("limits", [{"requests": 3}, {"tokens": 3 * SIZE}, {"usd": Decimal("0.00036")}])
def test_each_unit_is_a_limit(client: OpenAI, limits: Any) -> None:
    with farthing.budget(**limits) as budget:
        assert calls_that_fit(client) == 3
    assert (budget.spent.tokens, budget.spent.usd, budget.spent.requests) == (3 * SIZE, Decimal("0.00036"), 3)


def test_per_request_checks_each_call_alone(client: OpenAI, provider: FakeProvider) -> None:
    with farthing.budget(tokens=SIZE, per="request"):
        assert calls_that_fit(client, 5) == 5
        with pytest.raises(farthing.BudgetExceeded):
            chat(client, 11)
    assert provider.posts == 5


def test_a_rolling_window_is_an_account(client: OpenAI) -> None:
    with farthing.budget("minute", tokens=2 * SIZE, per="rolling 60s"):
        assert calls_that_fit(client) == 2
        with pytest.raises(farthing.BudgetExceeded) as denied:
            chat(client)
    assert denied.value.resets_at is not None
    assert 0 < (denied.value.retry_after_seconds or 0) <= 66


def test_a_failed_request_counts_as_a_request_only(client: OpenAI, provider: FakeProvider) -> None:
    provider.reply = Reply(status=500)
    with farthing.budget(tokens=SIZE, requests=2) as budget:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError):
                chat(client)
        assert (budget.spent.tokens, budget.spent.requests) == (0, 2)
        with pytest.raises(farthing.BudgetExceeded) as denied:
            chat(client)
    assert denied.value.unit == "requests"


# -- functions -------------------------------------------------------------------------------------------------------


def test_a_generator_function_is_covered_in_its_body_and_only_there(client: OpenAI) -> None:
    @farthing.budget(tokens=2 * SIZE)
    def work() -> Iterator[bool]:
        for _ in range(4):
            try:
                chat(client)
            except farthing.BudgetExceeded:
                yield False
            else:
                yield True

    outside, seen = 0, []
    for admitted in work():
        chat(client)
        outside += 1
        seen.append(admitted)
    assert (outside, seen) == (4, [True, True, False, False])
    assert sum(bool(row.facts.budgets) for row in entries()) == 2


def test_an_async_generator_function_is_covered_in_its_body(provider: FakeProvider) -> None:
    async def main() -> list[bool]:
        async with async_openai_client(provider) as client:

            @farthing.budget(tokens=2 * SIZE)
            async def work() -> AsyncIterator[bool]:
                for _ in range(4):
                    try:
                        await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10)
                    except farthing.BudgetExceeded:
                        yield False
                    else:
                        yield True

            seen = []
            async for admitted in work():
                await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10)
                seen.append(admitted)
            return seen

    assert asyncio.run(main()) == [True, True, False, False]
    assert provider.posts == 6


def test_an_async_function_is_covered(provider: FakeProvider) -> None:
    async def main() -> list[Any]:
        async with async_openai_client(provider) as client:

            @farthing.budget(tokens=3 * SIZE)
            async def work() -> int:
                call = client.chat.completions.create
                done = await asyncio.gather(
                    *(call(model="gpt-4o", messages=HI, max_tokens=10) for _ in range(9)), return_exceptions=True
                )
                return sum(isinstance(answer, farthing.BudgetExceeded) for answer in done)

            return list(await asyncio.gather(work(), work()))

    assert asyncio.run(main()) == [6, 6]
    assert provider.posts == 6


def _hiding(function: Any) -> Any:
    """A decorator that hides what kind of function it wraps."""

    def wrapped(*args: Any) -> Any:
        return function(*args)

    return wrapped


def test_work_that_a_plain_function_returns_instead_of_doing_it_is_covered(
    provider: FakeProvider, client: OpenAI
) -> None:
    """Another decorator in between hides that a function is async, or a generator; its body is covered all the same."""

    @farthing.budget(tokens=2 * SIZE)
    @_hiding
    def generate() -> Iterator[bool]:
        yield calls_that_fit(client, 1) == 1
        yield calls_that_fit(client, 1) == 1
        yield calls_that_fit(client, 1) == 1

    assert list(generate()) == [True, True, False]

    async def main() -> None:
        async with async_openai_client(provider) as mine:

            @farthing.budget(tokens=SIZE)
            @_hiding
            async def ask() -> None:
                for _ in range(2):
                    await mine.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10)

            @farthing.budget(tokens=SIZE)
            @_hiding
            async def stream() -> AsyncIterator[int]:
                for number in range(2):
                    await mine.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10)
                    yield number

            with pytest.raises(farthing.BudgetExceeded):
                await ask()
            with pytest.raises(farthing.BudgetExceeded):
                async for _ in stream():
                    pass

    asyncio.run(main())
    assert provider.posts == 4
    assert all(row.facts.budgets for row in entries())
    chat(client)


def test_one_budget_object_entered_by_many_tasks(provider: FakeProvider) -> None:
    """Each task's ``with`` is a unit of work of its own; they leave in another order than they came."""
    budget = farthing.budget(tokens=2 * SIZE)

    async def main() -> list[int]:
        async with async_openai_client(provider) as client:
            entered = asyncio.Barrier(5)

            async def work(number: int) -> int:
                with budget:
                    await entered.wait()
                    for _ in range(number):
                        await asyncio.sleep(0)
                    done = 0
                    for _ in range(4):
                        try:
                            await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10)
                        except farthing.BudgetExceeded:
                            continue
                        done += 1
                    return done

            return list(await asyncio.gather(*(work(number) for number in range(5))))

    assert asyncio.run(main()) == [2] * 5
    assert provider.posts == 10


def test_a_budget_ends_where_its_with_ends(client: OpenAI) -> None:
    with pytest.raises(RuntimeError), farthing.budget(tokens=0):
        raise RuntimeError
    assert calls_that_fit(client, 2) == 2


# -- threads ---------------------------------------------------------------------------------------------------------


def test_a_thread_belongs_to_the_scope_it_was_started_in(client: OpenAI) -> None:
    go, done = threading.Event(), []
    with farthing.budget(tokens=2 * SIZE) as budget:

        def work() -> None:
            go.wait()
            done.append(calls_that_fit(client))

        thread = threading.Thread(target=work)
        thread.start()
    go.set()
    thread.join()
    assert done == [2]
    assert budget.spent.tokens == 2 * SIZE


def test_following_threads_can_be_switched_off(client: OpenAI) -> None:
    farthing.configure(follow_threads=False)
    try:
        done: list[int] = []
        with farthing.budget(tokens=0):
            thread = threading.Thread(target=lambda: done.append(calls_that_fit(client, 1)))
            thread.start()
            thread.join()
        assert done == [1]
    finally:
        follow()


# -- forks -----------------------------------------------------------------------------------------------------------


def _in_a_fork(work: Any) -> Any:
    """What *work* returned in a forked child, by a pipe."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", [None, "shared"])
def test_a_fork_does_not_double_a_budget_in_memory(provider: FakeProvider, client: OpenAI, name: str | None) -> None:
    def child() -> list[str]:
        with openai_client(provider) as mine:
            try:
                chat(mine)
            except farthing.BudgetExceeded as denied:
                return [denied.remedy, str(denied), str(isinstance(denied, openai.OpenAIError))]
        return []

    with farthing.budget(name, tokens=100) as budget:
        chat(client)
        remedy, message, in_family = _in_a_fork(child)
        assert "configure(ledger=" in remedy
        assert remedy in message
        assert in_family == "True"
        chat(client)
    assert provider.posts == 2
    assert budget.spent.tokens == 2 * SIZE


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_shares_a_named_budget_on_a_file(provider: FakeProvider, client: OpenAI, tmp_path: Any) -> None:
    farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")

    def child() -> int:
        with openai_client(provider) as mine:
            return calls_that_fit(mine)

    with farthing.budget("shared", tokens=3 * SIZE) as budget:
        chat(client)
        assert _in_a_fork(child) == 2
        assert calls_that_fit(client) == 0
    assert provider.posts == 3
    assert budget.spent.tokens == 3 * SIZE


# -- requests without a bound ----------------------------------------------------------------------------------------


def test_a_request_without_a_ceiling_is_given_one_under_a_hard_budget_only(
    provider: FakeProvider, client: OpenAI
) -> None:
    chat(client, None)
    assert "max_completion_tokens" not in provider.requests[-1].json
    with farthing.budget(tokens=1_000):
        chat(client, None)
    assert provider.requests[-1].json["max_completion_tokens"] == 992


def test_uncapped_reject(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=100_000, uncapped="reject"), pytest.raises(farthing.BudgetExceeded):
        chat(client, None)
    assert provider.posts == 0


@pytest.mark.parametrize("mode", ["block", "clamp", "raise", "warn"])
def test_whose_a_ceiling_was_is_kept(provider: FakeProvider, client: OpenAI, mode: Any) -> None:
    """Also under budgets that never lower one: replay asks what a hard one would have done."""
    with farthing.budget(tokens=100_000, on_exceed=mode):
        chat(client, None)
        chat(client, 20)
    assert [row.facts.ceiling_ours for row in entries()] == [True, False]


def test_open_bound(provider: FakeProvider, client: OpenAI) -> None:
    provider.reply = Reply(input_tokens=900)
    keywords: Any = {"model": "gpt-4o", "input": "hi", "max_output_tokens": 16, "previous_response_id": "resp_unknown"}
    with farthing.budget(tokens=10_000), pytest.raises(farthing.BudgetExceeded) as denied:
        client.responses.create(**keywords)
    assert denied.value.asked == 128_016
    lenient, strict = farthing.budget("lenient", tokens=9), farthing.budget("strict", tokens=9, open_bound="reject")
    with lenient, strict, pytest.raises(farthing.UnmeteredCall, match="budget 'strict' is in force") as refused:
        client.responses.create(**keywords)
    assert isinstance(refused.value, openai.OpenAIError)
    assert provider.posts == 0
    with farthing.budget(tokens=200, open_bound="overrun") as budget:
        client.responses.create(**keywords)
        (row,) = entries()
        assert dict(row.overrun)["tokens"] > 0
        assert budget.spent.tokens == 910
        with pytest.raises(farthing.BudgetExceeded) as over:
            chat(client)
        assert over.value.overrun == 710
        assert (over.value.remaining, budget.remaining.tokens) == (0, 0)


# -- unpriced --------------------------------------------------------------------------------------------------------


def test_an_unpriced_model_is_refused_under_a_budget_in_dollars(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(usd=1), pytest.raises(farthing.UnpricedModel) as refused:
        chat(client, model="nobody-knows-1")
    assert isinstance(refused.value, openai.OpenAIError)
    assert refused.value.model == "nobody-knows-1"
    assert provider.posts == 0
    with farthing.budget(tokens=100) as budget, pytest.warns(farthing.UnpricedModelWarning):
        chat(client, model="nobody-knows-1")
    assert budget.spent.tokens == provider.billed_tokens
    (row,) = entries()
    assert row.cost_nano is None
    assert farthing.report().totals()["unpriced_calls"] == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_a_warning_that_is_an_error_costs_nobody_a_paid_answer(
    provider: FakeProvider, client: OpenAI, streamed: bool
) -> None:
    """Outside of budgets a missing price is found at the end only, when the answer is paid for."""
    answer = chat(client, model="nobody-knows-1", stream=streamed)
    assert list(answer) if streamed else answer.choices
    (row,) = entries()
    assert (row.usage_source, row.cost_nano) == ("provider", None)
    assert farthing.report().totals()["unpriced_calls"] == 1


def test_unpriced_tokens_only_and_price_as(provider: FakeProvider, client: OpenAI) -> None:
    farthing.configure(unpriced="tokens_only")
    with farthing.budget(usd=1, tokens=1_000) as budget, pytest.warns(farthing.UnpricedModelWarning):
        chat(client, model="nobody-knows-1")
    assert (budget.spent.usd, budget.spent.tokens) == (Decimal(0), provider.billed_tokens)
    farthing.configure(unpriced="price_as:gpt-4o")
    with farthing.budget(usd=Decimal("0.00011")), pytest.raises(farthing.BudgetExceeded):
        chat(client, model="nobody-knows-2", max_completion_tokens=None)
    with farthing.budget(usd=1) as budget:
        chat(client, model="nobody-knows-2")
    assert budget.spent.usd == Decimal("0.00012")


# -- what nothing can measure ----------------------------------------------------------------------------------------

UNMETERED = {
    "batches": lambda client: client.batches.create(
        input_file_id="file", endpoint="/v1/chat/completions", completion_window="24h"
    ),
    "new endpoint": lambda client: client.post("/never/seen/before", body={"model": "gpt-9"}, cast_to=object),
    "odd spelling": lambda client: client.post("/chat//completions", body={"model": "gpt-4o"}, cast_to=object),
    "odd slash": lambda client: client.post("/chat/completions/", body={"model": "gpt-4o"}, cast_to=object),
    "not an object": lambda client: client.post("/chat/completions", body=[1, 2], cast_to=object),
    "no model": lambda client: client.post("/chat/completions", body={"messages": HI}, cast_to=object),
    "no messages": lambda client: client.post("/chat/completions", body={"model": "gpt-4o"}, cast_to=object),
    "negative ceiling": lambda client: client.post(
        "/chat/completions", body={"model": "gpt-4o", "messages": HI, "max_tokens": -5}, cast_to=object
    ),
    "ceiling as text": lambda client: client.post(
        "/chat/completions", body={"model": "gpt-4o", "messages": HI, "max_tokens": "10"}, cast_to=object
    ),
    "n as a list": lambda client: client.post(
        "/chat/completions", body={"model": "gpt-4o", "messages": HI, "n": [5]}, cast_to=object
    ),
}


@pytest.mark.parametrize("what", UNMETERED)
def test_what_nothing_can_measure_is_refused_under_a_hard_budget(
    provider: FakeProvider, client: OpenAI, what: str
) -> None:
    with farthing.budget(tokens=1_000_000), pytest.raises(farthing.UnmeteredCall) as refused:
        UNMETERED[what](client)
    assert isinstance(refused.value, openai.OpenAIError)
    assert refused.value.method == "POST"
    assert refused.value.url.startswith(provider.openai_url)
    assert provider.requests == []
    assert holds() == []


@pytest.mark.parametrize("what", ["batches", "new endpoint", "no model"])
def test_and_passes_with_a_loud_notice_once_without_one(provider: FakeProvider, client: OpenAI, what: str) -> None:
    for expect in (True, False):
        with farthing.budget(tokens=0, on_exceed="warn"):
            if expect:
                with pytest.warns(farthing.UnmeteredCallWarning):
                    _whatever_comes(UNMETERED[what], client)
            else:
                _whatever_comes(UNMETERED[what], client)
    assert provider.posts == 2


def _whatever_comes(call: Any, client: OpenAI) -> None:
    try:
        call(client)
    except openai.APIStatusError:
        pass  # the fake provider refuses some of these; that they were sent is what is shown


def test_anthropic_batches_and_legacy_completions(provider: FakeProvider, claude: Anthropic) -> None:
    with farthing.budget(tokens=1_000_000):
        with pytest.raises(farthing.UnmeteredCall):
            claude.messages.batches.create(
                requests=[{"custom_id": "1", "params": {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": HI}}]
            )
        with pytest.raises(farthing.UnmeteredCall):
            claude.post("/v1/complete", body={"model": "claude-2", "prompt": "hi"}, cast_to=object)
    assert provider.requests == []


def test_what_is_free_passes_a_budget_that_is_used_up(
    provider: FakeProvider, client: OpenAI, claude: Anthropic
) -> None:
    with farthing.budget(tokens=0, usd=0, requests=0):
        assert client.models.list().data
        assert claude.messages.count_tokens(model="claude-haiku-4-5", messages=HI).input_tokens == 8
    assert entries() == []


# -- agents that catch everything ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["block", "clamp", "raise"])
def test_a_loop_that_catches_everything_pays_for_nothing_more(
    provider: FakeProvider, client: OpenAI, mode: str
) -> None:
    with farthing.budget(tokens=2 * SIZE, on_exceed=mode):
        for _ in range(50):
            try:
                chat(client)
            except Exception:  # noqa: BLE001 - the very loop that this is about
                continue
    assert provider.posts <= 3
    assert provider.billed_tokens == 2 * SIZE + (SIZE if provider.posts == 3 else 0)
    if mode != "raise":
        assert provider.posts == 2


def test_a_client_that_is_not_governed_is_said(provider: FakeProvider) -> None:
    class Client:
        pass

    made = Client()
    with pytest.warns(farthing.UngovernedClientWarning):
        assert farthing.instrument(made) is made


def test_instrument_is_idempotent_and_keeps_the_object(provider: FakeProvider) -> None:
    with openai_client(provider, governed=False) as client:
        assert farthing.instrument(client) is client
        farthing.instrument(client)
        chat(client)
        assert len(entries()) == 1


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_hold_settle_void_and_leave() -> None:
    with farthing.budget(tokens=1_000) as budget:
        with farthing.hold(tokens=600) as held:
            assert budget.held.tokens == 600
            with pytest.raises(farthing.BudgetExceeded), farthing.hold(tokens=401):
                pass
            held.settle({"input_tokens": 100, "output_tokens": 50, "cached_tokens": 40})
        assert (budget.spent.tokens, budget.held.tokens) == (150, 0)
        with farthing.hold(tokens=850) as held:
            held.void()
        assert budget.spent.tokens == 150
        with pytest.raises(RuntimeError), farthing.hold(tokens=300):
            raise RuntimeError
        assert (budget.spent.tokens, budget.remaining.tokens) == (450, 550)
    assert [row.ending for row in entries()] == ["ok", "void", "ok"]


def test_record_counts_beyond_the_limit_and_is_never_forgotten(client: OpenAI) -> None:
    with farthing.budget(tokens=100, usd=1) as budget:
        farthing.record(farthing.Usage(input=400, output=100), model="gpt-4o", feature="elsewhere")
        assert (budget.spent.tokens, budget.spent.usd) == (500, Decimal("0.002"))
        with pytest.raises(farthing.BudgetExceeded) as denied:
            chat(client)
        assert denied.value.overrun == 400
    assert farthing.report(where={"feature": "elsewhere"}).total() == Decimal("0.002")


def test_estimate_is_what_is_held(client: OpenAI) -> None:
    most = farthing.estimate("gpt-4o", HI, max_output_tokens=10)
    assert most == Decimal("0.00012")
    with farthing.budget(usd=most):
        chat(client)
    with farthing.budget(usd=most - Decimal("0.000000001")), pytest.raises(farthing.BudgetExceeded):
        chat(client)
    with pytest.raises(farthing.UnpricedModel):
        farthing.estimate("nobody-knows-1", HI)


# -- reports ---------------------------------------------------------------------------------------------------------


def test_a_report_groups_by_tags_models_and_budgets(client: OpenAI, provider: FakeProvider) -> None:
    with farthing.budget("outer", tokens=70), farthing.track(feature="a", user="alice"):
        chat(client)
        with farthing.track(feature="b"), farthing.budget("inner", tokens=1_000):
            chat(client, model="gpt-4o-mini")
            with pytest.raises(farthing.BudgetExceeded):
                chat(client, 1_000)
    chat(client)
    by_feature = {row["tags"]["feature"]: row for row in farthing.report(group_by=["feature"])}
    assert {name: (row["calls"], row["denied"]) for name, row in by_feature.items()} == {
        "a": (1, 0),
        "b": (1, 1),
        None: (1, 0),
    }
    by_model = {row["tags"]["model"]: row["usd"] for row in farthing.report(group_by="model")}
    assert by_model == {"gpt-4o": Decimal("0.00024"), "gpt-4o-mini": Decimal("0.0000072")}
    by_budget = {row["tags"]["budget"]: row["calls"] for row in farthing.report(group_by=["budget"])}
    assert by_budget == {"outer": 2, "inner": 1, None: 1}
    whole = farthing.report()
    assert whole.total() == Decimal("0.0002472")
    assert whole.totals()["tokens"] == provider.billed_tokens
    whole.assert_under(usd=Decimal("0.0002472"))
    whole.assert_under(usd=Decimal("0.0000072"), feature="b")
    with pytest.raises(AssertionError, match=r"0\.0001"):
        whole.assert_under(usd=Decimal("0.0001"), user="alice")


def test_suspects_are_in_the_report_at_their_hold(client: OpenAI, provider: FakeProvider) -> None:
    provider.reply = Reply(status=504)
    with farthing.budget(tokens=100) as budget:
        with pytest.raises(openai.InternalServerError):
            chat(client)
        assert (budget.suspect.tokens, budget.remaining.tokens) == (SIZE, 100 - SIZE)
    totals = farthing.report().totals()
    assert (totals["calls"], totals["suspect"], totals["tokens"]) == (1, 1, SIZE)


# -- housekeeping ----------------------------------------------------------------------------------------------------


def test_units_of_work_leave_nothing_behind(client: OpenAI) -> None:
    for _ in range(50):
        with farthing.budget(tokens=100):
            chat(client)
    gc.collect()
    here = runtime()
    here.put_units_away(most=1_000)
    assert here.memory_store.balances().result() == {}
    assert holds() == []


def test_work_submitted_inside_a_budget_that_is_gone_is_still_under_it() -> None:
    """Their pool outlives the `with`, and nobody has the budget any more: its account stays while they may call."""

    def work() -> bool:
        left.wait(60)
        runtime().put_units_away(most=1_000)
        try:
            with farthing.hold(tokens=100):
                return True
        except farthing.BudgetExceeded:
            return False

    left = threading.Event()
    tasks = []
    with ThreadPoolExecutor(1) as pool:
        with farthing.budget(tokens=300):
            tasks += [pool.submit(work) for _ in range(5)]
        again = farthing.budget(tokens=300)
        for _ in range(2):
            with again:
                tasks += [pool.submit(work) for _ in range(5)]
        gc.collect()
        left.set()
    assert [task.result() for task in tasks] == [True, True, True, False, False] * 3
    del tasks, again
    gc.collect()
    runtime().put_units_away(most=1_000)
    assert runtime().memory_store.balances().result() == {}


def test_a_function_that_many_run_at_once_has_one_account_for_each_run() -> None:
    """One object behind all runs: entering it again must not end the accounts of those that are still inside."""
    begun, others = threading.Semaphore(0), threading.Event()

    @farthing.budget(tokens=1_000)
    def run() -> tuple[bool, int]:
        with farthing.hold(tokens=600):
            pass
        begun.release()
        others.wait(60)
        runtime().put_units_away(most=1_000)
        try:
            with farthing.hold(tokens=401):
                return True, run.budget.spent.tokens
        except farthing.BudgetExceeded:
            return False, run.budget.spent.tokens

    with ThreadPoolExecutor(8) as pool:
        tasks = [pool.submit(run) for _ in range(8)]
        for _ in tasks:
            assert begun.acquire(timeout=60)
        others.set()
    assert [task.result() for task in tasks] == [(False, 600)] * 8


def test_figures_before_and_after(client: OpenAI) -> None:
    budget = farthing.budget(tokens=100, usd=1)
    assert (budget.spent, budget.held) == (NOTHING, NOTHING)
    assert budget.remaining == farthing.Amounts(100, Decimal(1), None)
    with budget:
        chat(client)
    assert budget.remaining == farthing.Amounts(82, Decimal("0.99988"), None)


def test_a_cost_assertion_about_nothing_fails(client: OpenAI, provider: FakeProvider) -> None:
    """A misspelt tag would let it pass for ever."""
    with farthing.track(feature="search"):
        chat(client)
    made = farthing.report()
    with pytest.raises(AssertionError, match="no call carries feature='serach'"):
        made.assert_under(usd=1, feature="serach")
    made.assert_under(usd=0, feature="serach")
    made.assert_under(usd=1, feature="search")
    # Said of all calls it is true where none was made: a fixture may say it after each test.
    farthing.report(where={"feature": "other"}).assert_under(usd=1)


def test_an_unnamed_budget_is_called_by_its_terms(client: OpenAI, provider: FakeProvider) -> None:
    with farthing.budget(tokens=5, usd=1), pytest.raises(farthing.BudgetExceeded) as denied:
        chat(client)
    assert denied.value.budget == "unnamed ($1.00 and 5 tokens)"
    with farthing.budget(tokens=5, description="nightly run"), pytest.raises(farthing.BudgetExceeded) as described:
        chat(client)
    assert described.value.budget == "nightly run"
