"""``@track``: the calls of a function's body carry the tags, of whatever kind it is, and nobody else's do."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

import farthing

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def spend(tokens: int) -> None:
    farthing.record({"input_tokens": tokens}, model="gpt-4o")


def by_feature() -> dict[str | None, int]:
    return {row["tags"]["feature"]: row["tokens"] for row in farthing.report(group_by=["feature"])}


@farthing.track(feature="plain")
def plain() -> int:
    spend(1)
    return 5


@farthing.track(feature="async")
async def asynchronous() -> int:
    await asyncio.sleep(0)
    spend(2)
    return 6


@farthing.track(feature="generator")
def generator() -> Iterator[int]:
    for number in range(3):
        spend(10)
        yield number


@farthing.track(feature="async generator")
async def async_generator() -> AsyncIterator[int]:
    for number in range(3):
        await asyncio.sleep(0)
        spend(20)
        yield number


def test_every_kind_of_function() -> None:
    async def main() -> None:
        assert await asynchronous() == 6
        async for _ in async_generator():
            spend(100)

    assert plain() == 5
    for _ in generator():
        spend(100)
    asyncio.run(main())
    assert by_feature() == {"plain": 1, "async": 2, "generator": 30, "async generator": 60, None: 600}


def test_a_function_stays_what_it_was() -> None:
    assert inspect.iscoroutinefunction(asynchronous)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert (plain.__name__, plain.__wrapped__) == ("plain", inspect.unwrap(plain))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="track decorates a function, not 5"):
        farthing.track(feature="x")(5)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="track takes tags by name"):
        farthing.track(plain)


def test_a_coroutine_that_a_plain_function_hands_out() -> None:
    """Another decorator may hide that the function is async."""

    def hidden(function: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
        def plain_looking() -> Awaitable[int]:
            return function()

        return plain_looking

    @hidden
    async def inner() -> int:
        spend(3)
        return 7

    assert asyncio.run(farthing.track(feature="hidden")(inner)()) == 7
    assert by_feature() == {"hidden": 3}


def test_a_quiet_denial_ends_the_budget_and_not_the_tagged_function() -> None:
    done: list[str] = []

    @farthing.track(feature="steps")
    def steps() -> str:
        with farthing.hold(tokens=5):
            done.append("first")
        with farthing.hold(tokens=50):
            done.append("second")
        return "all"

    with farthing.budget(tokens=10, on_exceed="truncate"):
        done.append(str(steps()))
    assert done == ["first"]
