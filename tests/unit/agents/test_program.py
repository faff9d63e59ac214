"""The program of the design's page on agents, as it is written there: sync and async, offline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from farthing import BudgetExceededError, BudgetManager, instrument
from farthing.testing import FakeProvider, Reply

pytestmark = pytest.mark.usefixtures("farthing_isolated")


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply(output_tokens=100)) as running:
        yield running


def crew() -> BudgetManager:
    manager = BudgetManager()
    manager.register_agent("researcher", priority=3, max_tokens=4000)
    manager.register_agent("critic", priority=1, max_tokens=2000, min_reserve=200, confidence_threshold=0.85)
    return manager


def check(manager: BudgetManager, total_tokens: int, provider: FakeProvider) -> None:
    manager.ledger.record("researcher", total_tokens)
    report = manager.report()
    assert report["researcher"] == {
        "allocated": 4000,
        "consumed": provider.billed_tokens + total_tokens,
        "remaining": 4000 - provider.billed_tokens - total_tokens,
    }
    assert report["critic"]["consumed"] > 0


def test_sync(provider: FakeProvider) -> None:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))
    manager = crew()
    answers: list[Any] = []

    @manager.govern("researcher")
    def call_researcher(prompt: str) -> str:
        response = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": prompt}], max_tokens=100
        )
        answers.append(response)
        return response.choices[0].message.content or ""

    @manager.govern("critic", confidence_fn=lambda r: r["confidence"])
    def judge(claim: str) -> dict[str, Any]:
        return {"claim": claim, "confidence": 0.9}

    assert judge(call_researcher("What is a farthing?"))["confidence"] == 0.9
    with pytest.raises(BudgetExceededError):
        judge("and again")
    check(manager, answers[0].usage.total_tokens, provider)
    client.close()


def test_async(provider: FakeProvider) -> None:
    manager = crew()

    async def run() -> int:
        client = instrument(AsyncOpenAI(base_url=provider.openai_url, api_key="offline"))

        @manager.govern("researcher")
        async def call_researcher(prompt: str) -> Any:
            return await client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": prompt}], max_tokens=100
            )

        @manager.govern("critic", confidence_fn=lambda r: r["confidence"])
        async def judge(claim: str) -> dict[str, Any]:
            return {"claim": claim, "confidence": 0.9}

        response = await call_researcher("What is a farthing?")
        await judge(response.choices[0].message.content)
        with pytest.raises(BudgetExceededError):
            await judge("and again")
        await client.close()
        return int(response.usage.total_tokens)

    check(manager, asyncio.run(run()), provider)
