"""
Goal: what a test suite written for cendor-tokenguard asserts holds here, once it is ported as docs/migration says.
Method: predecessors.md 3.1 to 3.3, name by name and meaning by meaning, through the real SDK. Where the migration page
says that something means something else, that is what is asserted.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import farthing
from farthing import (
    BudgetEvent,
    BudgetExceeded,
    Report,
    StalePriceTableWarning,
    UnpricedModelWarning,
    budget,
    clamps,
    configure,
    downgrades,
    dropped,
    estimate,
    record,
    report,
    reset,
    sinks,
    track,
    unpriced_calls,
    use_sink,
)
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, HI_TOKENS

pytestmark = pytest.mark.usefixtures("farthing_isolated")
OUTPUT = 500
SIZE = HI_TOKENS + OUTPUT
COST = HI_TOKENS * Decimal("0.0000025") + OUTPUT * Decimal("0.00001")


@pytest.fixture
def ask(provider: FakeProvider, client: OpenAI) -> Any:
    provider.reply = Reply(output_tokens=OUTPUT)

    def call(model: str = "gpt-4o", **more: Any) -> Any:
        return client.chat.completions.create(model=model, messages=HI, **{"max_tokens": OUTPUT, **more})

    return call


# -- budget: creation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"usd": 1, "on_exceed": "explode"},
        {"usd": 1, "on_exceed": "downgrade"},
        {"requests": 1, "on_exceed": "clamp"},
    ],
)
def test_a_wrong_budget_is_refused_when_it_is_made(terms: Any) -> None:
    with pytest.raises(ValueError):
        budget(**terms)


def test_a_cap_is_read_as_it_was_written() -> None:
    with budget(usd=0.1) as purse:
        assert purse.remaining.usd == Decimal("0.1")


def test_it_is_decorator_and_context_manager_and_fresh_each_time(ask: Any, provider: FakeProvider) -> None:
    purse = budget(tokens=SIZE)

    @budget(tokens=SIZE)
    def answer() -> str:
        return str(ask().choices[0].finish_reason)

    for _ in range(3):
        assert answer() == "stop"
        with purse:
            ask()
        assert purse.spent.tokens == SIZE
    assert provider.calls == 6
    assert (answer.__name__, inspect.iscoroutinefunction(answer)) == ("answer", False)


# -- budget: modes ---------------------------------------------------------------------------------------------------


def test_raise_is_over_only_if_strictly_greater(ask: Any, provider: FakeProvider) -> None:
    with budget(tokens=2 * SIZE, on_exceed="raise"):
        ask()
        ask()
    with pytest.raises(BudgetExceeded) as crossed, budget(tokens=2 * SIZE - 1, on_exceed="raise"):  # noqa: PT012 - a loop
        for _ in range(100):
            ask()
    assert provider.calls == 4
    assert crossed.value.result.usage.total_tokens == SIZE, "there its response was lost"


def test_block_in_tokens_and_in_usd(ask: Any, provider: FakeProvider) -> None:
    for unit, most in (("tokens", 3 * SIZE), ("usd", 3 * COST)):
        terms: Any = {unit: most}
        with budget(**terms) as purse, pytest.raises(BudgetExceeded) as denied:  # noqa: PT012 - the fourth is refused
            for _ in range(4):
                ask()
        assert (denied.value.unit, denied.value.limit, denied.value.spent) == (unit, most, most)
        assert getattr(purse.spent, unit) == most
        assert "None" not in str(denied.value)
    assert provider.calls == 6


def test_clamp_leaves_a_lower_ceiling_alone_and_says_what_it_lowered(ask: Any, provider: FakeProvider) -> None:
    with budget("cap", tokens=2 * SIZE, on_exceed="clamp", description="of the demo"):
        ask()
        assert clamps() == []
        ask(max_tokens=50_000)
    (event,) = clamps()
    assert (event.action, event.name, event.description, event.model) == ("clamped", "cap", "of the demo", "gpt-4o")
    assert provider.requests[-1].json["max_tokens"] == OUTPUT
    assert "max_completion_tokens" not in provider.requests[-1].json


def test_downgrade(ask: Any, provider: FakeProvider) -> None:
    with budget(usd=COST / 2, on_exceed="downgrade", downgrade={"gpt-4o": "gpt-4o-mini"}):
        assert ask().model == "gpt-4o-mini"
    (event,) = downgrades()
    assert isinstance(event, BudgetEvent)
    assert (event.action, event.model, event.to_model, event.limit) == ("downgraded", "gpt-4o", "gpt-4o-mini", COST / 2)
    assert event.asked == COST
    assert event.ts > 0


def test_truncate_returns_none_or_leaves_the_block(ask: Any, provider: FakeProvider) -> None:
    @budget(tokens=SIZE, on_exceed="truncate")
    def loop() -> str:
        while True:
            ask()

    assert loop() is None
    with budget(tokens=SIZE, on_exceed="truncate"):
        ask()
        ask()
        pytest.fail("the block goes on")
    assert provider.calls == 2


def test_generators_and_async_functions_are_covered(ask: Any) -> None:
    @budget(tokens=SIZE)
    def steps() -> Iterator[int]:
        for number in range(3):
            ask()
            yield number

    @budget(tokens=SIZE)
    async def async_steps() -> AsyncIterator[int]:
        for number in range(3):
            ask()
            yield number

    async def drain() -> list[int]:
        return [number async for number in async_steps()]

    with pytest.raises(BudgetExceeded):
        list(steps())
    with pytest.raises(BudgetExceeded):
        asyncio.run(drain())


def test_a_stream_that_is_drained_outside_charges_where_it_was_started(ask: Any) -> None:
    with budget(tokens=SIZE) as purse, track(feature="late"):
        stream = ask(stream=True)
    assert len(list(stream)) > OUTPUT
    assert purse.spent.tokens == SIZE
    assert report(group_by=["feature"])[0]["tags"] == {"feature": "late"}


# -- attribution, reports, configuration ------------------------------------------------------------------------------


def spend(model: str = "gpt-4o", **tags: Any) -> None:
    record({"input_tokens": 100, "output_tokens": 50, "reasoning_tokens": 20}, model=model, **tags)


def test_rows_totals_and_cost_as_an_assertion() -> None:
    with track(feature="search", user_id="alice"):
        spend()
        with track(user_id="bob"):
            spend()
            spend()
    found = track.report(group_by=["feature", "user_id"])
    assert isinstance(found, Report)
    cost = Decimal("0.00075")
    by_user = {row["tags"]["user_id"]: (row["usd"], row["calls"]) for row in found}
    assert by_user == {"bob": (2 * cost, 2), "alice": (cost, 1)}
    wanted = {"tags", "usd", "tokens", "input_tokens", "output_tokens", "reasoning_tokens", "calls", "unpriced_calls"}
    assert wanted <= found[0].keys()
    assert found.total() == 3 * cost
    found.assert_under(3 * cost, feature="search")
    with pytest.raises(AssertionError, match="bob"):
        found.assert_under(usd=cost, user_id="bob")


def test_estimate_is_a_decimal_and_an_unknown_model_a_key_error() -> None:
    assert estimate("gpt-4o", HI, max_output_tokens=OUTPUT) == COST
    with pytest.raises(KeyError):
        estimate("of-nobody", HI)


def test_counters_and_reset() -> None:
    configure(max_records=10)
    with pytest.warns(UnpricedModelWarning):
        spend("of-nobody")
    spend("of-nobody")  # and no other warning: the test run makes those errors
    assert unpriced_calls() == 2
    for _ in range(15):
        spend()
    assert dropped() == 7
    reset()
    assert (dropped(), unpriced_calls(), list(report())) == (0, 0, [])


def test_stale_prices_warn(ask: Any) -> None:
    configure(stale_prices_after_days=0)
    with pytest.warns(StalePriceTableWarning), budget(usd=1):
        ask()


def test_the_sqlite_sink_and_its_six_columns(tmp_path: Path) -> None:
    subscription = use_sink(sinks.QueueSink(sinks.SQLiteSink(tmp_path / "spend.db"), max_queue=100))
    assert subscription is not None
    with track(feature="search"):
        spend()
    assert subscription.flush(60)
    with sqlite3.connect(tmp_path / "spend.db") as file:
        (row,) = file.execute("SELECT tags, usd, input_tokens, output_tokens, reasoning_tokens, model FROM spend")
    file.close()
    assert (json.loads(row[0]), *row[1:]) == ({"feature": "search"}, "0.00075", 100, 50, 20, "gpt-4o")


def test_every_name_is_there() -> None:
    names = """
    budget track estimate report downgrades clamps use_sink configure dropped unpriced_calls Report BudgetEvent
    BudgetExceeded StalePriceTableWarning UnpricedModelWarning reset sinks instrument prices tokens
    """
    assert [name for name in names.split() if not hasattr(farthing, name)] == []
