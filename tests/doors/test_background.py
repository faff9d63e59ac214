"""
Responses that run in the background, and requests that go on from an earlier answer: what is held for them, and what
settles them, in this process and in another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import beta_tool
from openai import OpenAI

import farthing
from farthing.runtime.default import use
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.testing import FakeProvider, Reply, ToolCall
from farthing.testing.bill import cost_nano
from tests.doors.clients import (
    HI,
    NOTHING,
    RATES,
    anthropic_client,
    async_openai_client,
    entries,
    holds,
    openai_client,
)
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("farthing_isolated")

MODEL = "gpt-4o"
ROOM = 1_000_000


@pytest.fixture
def client(fake_provider: FakeProvider) -> Iterator[OpenAI]:
    with openai_client(fake_provider) as client:
        yield client


def begin(client: OpenAI, **more: Any) -> Any:
    return client.responses.create(model=MODEL, input="Count to ten", max_output_tokens=100, background=True, **more)


@pytest.mark.parametrize("durable", [False, True])
def test_a_background_call_is_suspect_until_it_is_asked_for(
    fake_provider: FakeProvider, client: OpenAI, tmp_path: Path, durable: bool
) -> None:
    if durable:
        farthing.configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
    fake_provider.reply = Reply(output_tokens=40, background_polls=2)
    with farthing.budget("jobs", tokens=ROOM, usd=10, requests=5) as budget:
        response = begin(client)
        assert response.status == "queued"
        held = budget.suspect.tokens or 0
        assert (budget.held.tokens, budget.spent.tokens) == (0, 0)
        assert held >= 100
        for status in ("in_progress", "in_progress"):
            assert client.responses.retrieve(response.id).status == status
        assert (budget.suspect.tokens, len(entries())) == (held, 1)
        for _ in range(3):  # once it is over, it may be asked for as often as one likes
            assert client.responses.retrieve(response.id).status == "completed"
        assert (budget.suspect, budget.held) == (NOTHING, NOTHING)
        assert budget.spent.tokens == fake_provider.billed_tokens
        (line,) = fake_provider.bill
    first, correction = entries()
    assert (first.ending, first.suspect, first.usage_source) == ("background", True, "estimate")
    assert (correction.kind, correction.ending, correction.usage_source) == ("correction", "ok", "provider")
    assert correction.resolves_suspect
    assert (first.cost_nano or 0) + (correction.cost_nano or 0) == cost_nano(line.usage, RATES[MODEL])
    (row,) = farthing.report()
    assert (row["calls"], row["suspect"], row["tokens"]) == (1, 0, fake_provider.billed_tokens)
    assert holds() == []


def test_another_process_may_ask(fake_provider: FakeProvider, client: OpenAI, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    farthing.configure(ledger=url)
    other = Runtime(Settings(ledger=url))
    with farthing.budget("jobs", tokens=ROOM) as budget:
        response = begin(client)
        # Nobody waits for the name of an answer to be in the file.
        eventually(lambda: other.main.store.answered(response.id).result())
        here = use(other)
        try:
            client.responses.retrieve(response.id)
        finally:
            use(here)
        assert budget.spent.tokens == fake_provider.billed_tokens
        client.responses.retrieve(response.id)
        assert budget.spent.tokens == fake_provider.billed_tokens
        assert budget.suspect == NOTHING
    assert here.durable is not None
    assert len(here.durable.store.entries().result()) == 2
    # Our own record of it had to be told too.
    assert len(entries()) == 2
    other.close()


def test_without_a_budget_it_is_still_settled(fake_provider: FakeProvider, client: OpenAI) -> None:
    response = begin(client)
    assert entries()[0].suspect
    client.responses.retrieve(response.id)
    (row,) = farthing.report()
    assert (row["tokens"], row["calls"], row["suspect"]) == (fake_provider.billed_tokens, 1, 0)


def test_one_that_ends_at_its_ceiling(fake_provider: FakeProvider, client: OpenAI) -> None:
    fake_provider.reply = Reply(output_tokens=10_000)
    with farthing.budget(tokens=ROOM) as budget:
        assert client.responses.retrieve(begin(client).id).status == "incomplete"
        assert budget.spent.tokens == fake_provider.billed_tokens
    assert entries()[-1].usage_source == "provider"


def test_one_that_fails_costs_nothing(fake_provider: FakeProvider, client: OpenAI) -> None:
    fake_provider.reply = Reply(fault="error_mid_stream")
    with farthing.budget(tokens=ROOM) as budget:
        assert client.responses.retrieve(begin(client).id).status == "failed"
        assert (budget.spent.tokens, budget.suspect) == (0, NOTHING)
        assert budget.spent.requests == 1
    assert fake_provider.billed_tokens == 0


@pytest.mark.parametrize("model", [MODEL, "gpt-5"])
def test_one_that_is_cancelled_covers_what_may_be_billed(
    fake_provider: FakeProvider, client: OpenAI, model: str
) -> None:
    fake_provider.reply = Reply(output_tokens=80, background_polls=5)
    with farthing.budget(tokens=ROOM) as budget:
        response = client.responses.create(model=model, input="Hi", max_output_tokens=100, background=True)
        assert client.responses.cancel(response.id).status == "cancelled"
        assert budget.suspect == NOTHING
        assert fake_provider.billed_tokens <= (budget.spent.tokens or 0)
    assert entries()[-1].ending == "cancelled"


def test_async_clients_too(fake_provider: FakeProvider) -> None:
    async def main() -> None:
        async with async_openai_client(fake_provider) as client:
            response = await client.responses.create(model=MODEL, input="Hi", max_output_tokens=50, background=True)
            await client.responses.retrieve(response.id)

    with farthing.budget(tokens=ROOM) as budget:
        asyncio.run(main())
    assert budget.spent.tokens == fake_provider.billed_tokens
    assert budget.suspect == NOTHING


def test_an_answer_of_nobodys_passes_by(fake_provider: FakeProvider, client: OpenAI) -> None:
    from openai import NotFoundError

    with farthing.budget(tokens=0), pytest.raises(NotFoundError):
        client.responses.retrieve("resp_of_somebody_else")
    assert entries() == []


def test_a_background_stream_that_is_left_goes_on(fake_provider: FakeProvider, client: OpenAI) -> None:
    fake_provider.reply = Reply(output_tokens=60, pause_after_chunks=3)
    with farthing.budget(tokens=ROOM) as budget:
        stream = begin(client, stream=True)
        for event in stream:
            if event.type == "response.output_text.delta":
                break
        stream.close()
        assert (budget.suspect.tokens or 0) >= 100
    assert (entries()[-1].ending, entries()[-1].suspect) == ("background", True)


# -- going on from an earlier answer ---------------------------------------------------------------------------------


def test_a_known_answer_bounds_the_next_request(fake_provider: FakeProvider, client: OpenAI) -> None:
    fake_provider.reply = Reply(input_tokens=900, output_tokens=60)
    with farthing.budget(tokens=5_000, open_bound="reject"):
        first = client.responses.create(model=MODEL, input="Hi", max_output_tokens=100)
        fake_provider.reply = Reply(input_tokens=960 + 5, output_tokens=10)
        client.responses.create(model=MODEL, input="On", max_output_tokens=100, previous_response_id=first.id)
    row = entries()[-1]
    assert row.facts.bound == "proven"
    assert 965 <= row.facts.input_tokens <= 960 + 20
    assert row.overrun == ()


def test_a_chain_streamed_and_in_a_durable_ledger(fake_provider: FakeProvider, client: OpenAI, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    farthing.configure(ledger=url)
    chat: Any = {"name": "chat", "tokens": 50_000, "open_bound": "reject"}
    hi: Any = {"model": MODEL, "input": "Hi", "max_output_tokens": 50}
    with farthing.budget(**chat), client.responses.stream(**hi) as stream:
        first = stream.get_final_response()
    # Another process goes on from it.
    farthing.reset()
    farthing.configure(ledger=url)
    with farthing.budget(**chat):
        second = client.responses.create(**hi, previous_response_id=first.id)
        client.responses.create(**hi, previous_response_id=second.id)
    assert [row.facts.bound for row in entries()] == ["proven", "proven"]


@beta_tool
def look(at: str) -> str:
    """
    Look at it.

    Args:
        at: what to look at.
    """
    return f"there is nothing at {at}"


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_tool_runner_goes_on_in_a_thread(fake_provider: FakeProvider, stream: bool) -> None:
    """It sends a tool's result alone: the conversation before it is kept by Anthropic, and is input again."""
    asks = Reply("I look.", tool_calls=[ToolCall("look", {"at": "it"})], input_tokens=700, output_tokens=40)
    fake_provider.script([asks, Reply("Nothing.", input_tokens=770)])
    with anthropic_client(fake_provider) as claude:
        chat: Any = {"name": "chat", "tokens": 8_000, "open_bound": "reject"}
        with farthing.budget(**chat):
            runner = claude.beta.messages.tool_runner(
                model="claude-haiku-4-5", max_tokens=100, tools=[look], messages=HI, stream=stream
            )
            if stream:
                for turn in runner:
                    list(turn)
            else:
                runner.until_done()
    first, second = entries()
    assert fake_provider.requests[-1].json["thread"]["type"] == "continue"
    assert (first.facts.bound, second.facts.bound) == ("proven", "proven")
    assert second.facts.input_tokens >= 770
    assert second.overrun == ()


@pytest.mark.parametrize("why", ["unknown", "another model"])
def test_an_unknown_answer_stays_open(fake_provider: FakeProvider, client: OpenAI, why: str) -> None:
    with farthing.budget(tokens=50_000, open_bound="reject"):
        first = client.responses.create(model="gpt-4o-mini", input="Hi", max_output_tokens=50)
        before = "resp_unknown" if why == "unknown" else first.id
        with pytest.raises(farthing.UnmeteredCall, match="previous_response_id"):
            client.responses.create(model=MODEL, input="On", max_output_tokens=50, previous_response_id=before)


def test_the_answer_of_a_background_call_is_known_once_it_was_asked_for(
    fake_provider: FakeProvider, client: OpenAI
) -> None:
    with farthing.budget(tokens=ROOM):
        first = begin(client)
    with farthing.budget(tokens=ROOM, open_bound="reject"):
        more: Any = {"model": MODEL, "input": "On", "max_output_tokens": 50, "previous_response_id": first.id}
        with pytest.raises(farthing.UnmeteredCall):
            client.responses.create(**more)
        client.responses.retrieve(first.id)
        client.responses.create(**more)
