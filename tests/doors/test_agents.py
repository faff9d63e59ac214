"""Real SDKs inside of agents' work: charged exactly, in exchange for the estimate, borrowing before they are sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI, OpenAIError

from farthing import BudgetExceeded, instrument
from farthing.agents import BudgetExceededError, BudgetManager
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, async_openai_client, chat

pytestmark = pytest.mark.usefixtures("farthing_isolated")

IN = 8
"""What the provider bills for ``hi``."""


def crew(**agents: int) -> BudgetManager:
    """The first is the most important; the others lend down to nothing."""
    manager = BudgetManager()
    for priority, (name, limit) in zip(range(len(agents), 0, -1), agents.items(), strict=True):
        manager.register_agent(name, priority, limit, 0)
    return manager


def figures(manager: BudgetManager, agent: str) -> tuple[int, int, int]:
    of = manager.report(detail=True)[agent]
    return of["consumed"], of["held"], of["remaining"]


def test_a_call_inside_is_charged_exactly_and_the_estimate_is_not(provider: FakeProvider, client: OpenAI) -> None:
    manager = crew(a=2_000)
    held: list[int] = []

    @manager.govern("a")
    def ask(prompt: str) -> str:
        answer = chat(client, 100)
        held.append(manager.report(detail=True)["a"]["held"])
        chat(client, 50)
        return str(answer.choices[0].message.content) * 50

    ask("a prompt that is not counted " * 20)
    assert held == [0], "the first call took the place of the estimate"
    assert figures(manager, "a") == (2 * IN + 150, 0, 2_000 - 2 * IN - 150)
    assert provider.billed_tokens == 2 * IN + 150


@pytest.mark.parametrize("inner", ["a", "b"])
def test_a_scope_inside_takes_the_estimates_place(provider: FakeProvider, client: OpenAI, inner: str) -> None:
    """A governed function names the agent of its call once more, or another one: the call is counted, and only it."""
    manager = crew(a=1_000, b=1_000)

    @manager.govern("a")
    def ask(prompt: str) -> str:
        with manager.agent(inner):
            return chat(client, 100).choices[0].message.content

    assert ask("a prompt that is not counted " * 20)
    other = "b" if inner == "a" else "a"
    assert figures(manager, inner) == (IN + 100, 0, 1_000 - IN - 100)
    assert figures(manager, other) == (0, 0, 1_000)
    assert provider.billed_tokens == IN + 100


def test_a_function_around_another_agents_counts_no_text_of_its_calls(provider: FakeProvider, client: OpenAI) -> None:
    manager = crew(planner=1_000, researcher=1_000)

    @manager.govern("researcher")
    def research(topic: str) -> str:
        return str(chat(client, 100).choices[0].message.content)

    @manager.govern("planner")
    def plan(topic: str) -> str:
        return research(topic) + research(topic)

    plan("farthings")
    assert figures(manager, "researcher")[:2] == (provider.billed_tokens, 0) == (2 * IN + 200, 0)
    assert figures(manager, "planner") == (0, 0, 1_000)


def test_a_call_that_fits_only_without_the_estimate_fits(provider: FakeProvider, client: OpenAI) -> None:
    manager = crew(a=1_000)
    ask = manager.govern("a")(lambda prompt: chat(client, 1_000 - IN))
    ask("hi")
    assert figures(manager, "a") == (1_000, 0, 0)


def test_it_borrows_before_it_is_sent(provider: FakeProvider, client: OpenAI) -> None:
    manager = crew(a=50, b=500, c=500)
    with manager.agent("a"):
        chat(client, 300)
    assert manager.report() == {
        "a": {"allocated": IN + 300, "consumed": IN + 300, "remaining": 0},
        "b": {"allocated": 500, "consumed": 0, "remaining": 500},
        "c": {"allocated": 500 - IN - 250, "consumed": 0, "remaining": 500 - IN - 250},
    }


def test_what_it_did_not_use_goes_back(client: OpenAI, provider: FakeProvider) -> None:
    provider.respond(lambda request: Reply(output_tokens=70))
    manager = crew(a=50, b=500, c=30)
    with manager.agent("a"):
        chat(client, 400)
    detail = manager.report(detail=True)
    assert [detail[name]["lent"] for name in "abc"] == [0, 0, IN + 70 - 50]
    assert detail["a"]["consumed"] == IN + 70


def test_without_a_ceiling_it_borrows_for_what_it_may_be_expected_to_say(
    client: OpenAI, provider: FakeProvider
) -> None:
    manager = crew(a=50, b=100_000)
    with manager.agent("a"):
        chat(client, None)
    assert provider.requests[-1].json["max_completion_tokens"] == 1_024
    assert manager.report(detail=True)["b"]["lent"] == IN + 1_024 - 50


def test_its_own_budget_may_go_further_than_what_it_borrows(client: OpenAI, provider: FakeProvider) -> None:
    manager = crew(a=3_000, b=100_000)
    with manager.agent("a"):
        chat(client, None)
    assert figures(manager, "a") == (3_000, 0, 0)
    assert manager.report(detail=True)["b"]["lent"] == 0


def test_a_refusal_is_the_agents_own_error_and_nothing_is_sent(client: OpenAI, provider: FakeProvider) -> None:
    manager = crew(a=50, b=30)
    ask = manager.govern("a")(lambda prompt: chat(client, 300))
    with pytest.raises(BudgetExceededError) as caught:
        ask("hi")
    assert isinstance(caught.value, OpenAIError)
    assert isinstance(caught.value, BudgetExceeded)
    assert (caught.value.agent_name, caught.value.requested, caught.value.available) == ("a", IN + 300, 80)
    assert provider.calls == 0
    assert [figures(manager, name) for name in "ab"] == [(0, 0, 50), (0, 0, 30)]


def test_streams_are_charged_where_they_were_started(client: OpenAI, provider: FakeProvider) -> None:
    manager = crew(a=2_000)

    @manager.govern("a")
    def ask(prompt: str) -> Any:
        for chunk in chat(client, 40, stream=True):
            yield chunk.choices[0].delta.content or "" if chunk.choices else ""

    list(ask("hi"))
    assert figures(manager, "a")[:2] == (IN + 40, 0)


def test_tasks_inside_share_one_estimate(provider: FakeProvider) -> None:
    manager = crew(a=2_000)

    async def run() -> None:
        async with async_openai_client(provider) as client:

            async def once() -> Any:
                return await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=60)

            @manager.govern("a")
            async def ask(prompt: str) -> str:
                await asyncio.gather(*(once() for _ in range(5)))
                return "much text that nobody counts"

            await ask("hi")

    asyncio.run(run())
    assert figures(manager, "a")[:2] == (5 * (IN + 60), 0)


def test_fifty_tasks_of_a_crew_never_pass_what_it_has(provider: FakeProvider) -> None:
    manager = crew(a=500, b=1_000, c=1_000)

    async def run() -> int:
        async with async_openai_client(provider) as made:
            client: AsyncOpenAI = instrument(made)

            async def once(agent: str) -> bool:
                try:
                    async with manager.agent(agent):
                        await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=92)
                except BudgetExceededError:
                    return False
                return True

            done = await asyncio.gather(*(once("abc"[number % 3]) for number in range(50)))
            return sum(done)

    admitted = asyncio.run(run())
    assert provider.calls == admitted
    total = sum(of["consumed"] for of in manager.report().values())
    assert total == provider.billed_tokens == admitted * 100
    assert admitted <= 25
    assert sum(of["allocated"] for of in manager.report().values()) == 2_500
    assert all(of["overrun"] == 0 for of in manager.report(detail=True).values())
