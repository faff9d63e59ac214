"""Budgets that did not mean what their users thought: nesting, modes, validation, prices, messages, memory."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest
from openai import OpenAI

import farthing
from farthing.runtime.default import runtime
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, NOTHING, async_openai_client, entries
from tests.museum.calls import LONG_SIZE, admitted, chat

pytestmark = pytest.mark.usefixtures("farthing_isolated")


# -- an agent that catches everything --------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "paid"), [("block", 1), ("clamp", 2), ("raise", 2)])
def test_r1_a_loop_that_catches_everything(provider: FakeProvider, client: OpenAI, mode: str, paid: int) -> None:
    """predecessors R1: raise, ``except Exception`` × 100: 100 calls made, +49,800; the error had no attributes."""
    errors: list[farthing.BudgetExceeded] = []
    with farthing.budget("agent", tokens=1_000, on_exceed=mode) as budget:
        for _ in range(100):
            try:
                chat(client)
            except Exception as error:  # noqa: BLE001 - the very loop that this is about
                assert isinstance(error, farthing.BudgetExceeded)  # noqa: PT017 - which error it caught is the point
                errors.append(error)
    assert provider.posts == paid
    assert budget.spent.tokens == provider.billed_tokens
    last = errors[-1]
    assert (last.budget, last.unit, last.limit, last.spent) == ("agent", "tokens", 1_000, provider.billed_tokens)
    if mode == "raise":
        assert errors[0].result.usage.total_tokens == LONG_SIZE
        assert errors[0].overrun == 2 * LONG_SIZE - 1_000
    else:
        assert provider.billed_tokens <= 1_000


def test_an_error_names_its_budget_its_unit_and_a_remedy(client: OpenAI) -> None:
    """predecessors 5 (1.6.2): "cap $None" for a token cap, advice to use the mode in use. Users: names no budget."""
    with farthing.budget("search", tokens=100, usd=5), pytest.raises(farthing.BudgetExceeded) as denied:
        chat(client)
    message = str(denied.value)
    assert "'search'" in message
    assert "100 tokens" in message
    assert "$" not in message
    assert denied.value.remedy in message
    told = denied.value.to_dict()
    assert (told["budget"], told["unit"], told["limit"], told["asked"]) == ("search", "tokens", 100, LONG_SIZE)


# -- nesting ---------------------------------------------------------------------------------------------------------


def test_n1_an_outer_clamp_binds_inside_an_inner_one(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors N1: outer clamp 500 + inner clamp 5,000: only the inner ceiling was sent: +2,508."""
    with farthing.budget(tokens=500, on_exceed="clamp") as outer, farthing.budget(tokens=5_000, on_exceed="clamp"):
        chat(client, 5_000)
    assert provider.requests[0].json["max_tokens"] == 492
    assert outer.spent.tokens == provider.billed_tokens == 500


@pytest.mark.parametrize("inner", ["clamp", "downgrade"])
def test_n2_an_outer_block_is_not_skipped(provider: FakeProvider, client: OpenAI, inner: str) -> None:
    """predecessors N2: outer block 500 + inner clamp or downgrade: the outer check was skipped, 3,008 paid."""
    terms: Any = {"tokens": 5_000} if inner == "clamp" else {"usd": 5, "downgrade": {"gpt-4o": "gpt-4o-mini"}}
    with farthing.budget(tokens=500), farthing.budget(on_exceed=inner, **terms):
        assert not admitted(lambda: chat(client, 3_000))
    assert provider.posts == 0


@pytest.mark.parametrize("inner", ["warn", "raise"])
def test_n3_a_lenient_inner_budget_masks_nothing(provider: FakeProvider, client: OpenAI, inner: str) -> None:
    """predecessors N3: an inner budget that lets everything pass masked the outer hard cap: 10,160 spent of 1,000."""
    with farthing.budget(tokens=1_000) as outer, farthing.budget(tokens=1, on_exceed=inner):
        for _ in range(20):
            admitted(lambda: chat(client))
    assert provider.billed_tokens == outer.spent.tokens == LONG_SIZE


def test_n3_a_function_that_says_nothing_denies(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors N3: an inner callable that returned None let the call pass, and hid the outer cap: 10,160."""
    asked: list[farthing.Decision] = []
    with (
        farthing.budget(tokens=1_000, on_exceed="raise") as outer,
        farthing.budget(tokens=600, on_exceed=asked.append),
    ):
        allowed = [admitted(lambda: chat(client)) for _ in range(20)]
    assert allowed == [True, *[False] * 19]
    assert len(asked) == 19
    assert provider.billed_tokens == outer.spent.tokens == LONG_SIZE


def test_n4_downgrade_has_a_floor(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors N4: downgrade with a cap of $0.01, 100 calls: $0.2256 (22 times)."""
    cheaper = {"gpt-4o": "gpt-4o-mini"}
    with farthing.budget(usd=Decimal("0.01"), on_exceed="downgrade", downgrade=cheaper) as budget:
        number = sum(admitted(lambda: chat(client)) for _ in range(100))
    assert number == provider.calls
    billed = provider.billed_usd({"gpt-4o": ("2.5", "10"), "gpt-4o-mini": ("0.15", "0.60")})
    assert budget.spent.usd == billed <= Decimal("0.01")
    assert {line.model for line in provider.bill} == {"gpt-4o", "gpt-4o-mini"}


# -- what a decorator covers -----------------------------------------------------------------------------------------


def test_d1_a_budget_that_accumulates_where_the_user_means_it_to(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors D1: ``@budget(tokens=1000)`` called 100 times: 50,800; there was no cumulative form."""

    @farthing.budget("all of it", tokens=1_000)
    def ask() -> bool:
        return admitted(lambda: chat(client))

    assert sum(ask() for _ in range(100)) == 1
    again = farthing.budget("entered again", tokens=1_000)
    for _ in range(10):
        with again:
            admitted(lambda: chat(client))
    assert provider.billed_tokens == 2 * LONG_SIZE


def test_d1_and_an_anonymous_one_says_that_it_is_one_unit_of_work(client: OpenAI) -> None:
    """predecessors D1, the other half: fresh at every call is what an anonymous budget is, and its denial says so."""

    @farthing.budget(tokens=1_000)
    def ask() -> None:
        chat(client)
        chat(client)

    with pytest.raises(farthing.BudgetExceeded, match="unit of work"):
        ask()


def test_d2_a_generator_function(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors D2, T5: a budget on a generator function was closed before its body ran: 5,080 of 1,000."""

    @farthing.budget(tokens=1_000)
    def work() -> Iterator[bool]:
        for _ in range(10):
            yield admitted(lambda: chat(client))

    assert list(work()) == [True, *[False] * 9]
    assert provider.billed_tokens == LONG_SIZE


def test_d2_an_async_generator_function(provider: FakeProvider) -> None:
    """predecessors D2: the same for an async generator function."""

    async def main() -> list[bool]:
        async with async_openai_client(provider) as client:

            @farthing.budget(tokens=1_000)
            async def work() -> AsyncIterator[bool]:
                for _ in range(10):
                    try:
                        await client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=500)
                    except farthing.BudgetExceeded:
                        yield False
                    else:
                        yield True

            return [allowed async for allowed in work()]

    assert asyncio.run(main()) == [True, *[False] * 9]
    assert provider.billed_tokens == LONG_SIZE


# -- prices ----------------------------------------------------------------------------------------------------------


def test_u1_an_unpriced_model_is_not_free(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors U1: unpriced model under a USD budget: 10,000,080 tokens for $0, a warning only."""
    with farthing.budget(usd=1):
        for _ in range(10):
            with pytest.raises(farthing.UnpricedModel):
                chat(client, model="new-model-2027")
    assert provider.posts == 0
    farthing.prices.register("new-model-2027", input=3, output=15)
    with farthing.budget(usd=Decimal("0.01")) as budget:
        assert sum(admitted(lambda: chat(client, model="new-model-2027")) for _ in range(10)) == 1
    farthing.prices.unregister("new-model-2027")
    assert budget.spent.usd == Decimal(8 * 3_000 + 500 * 15_000).scaleb(-9)


# -- validation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "terms"),
    [
        ("tokens", {"tokens": -5}),
        ("tokens", {"tokens": 1.5}),
        ("tokens", {"tokens": "10"}),
        ("tokens", {"tokens": True}),
        ("tokens", {"tokens": float("nan")}),
        ("usd", {"usd": -1}),
        ("usd", {"usd": float("nan")}),
        ("usd", {"usd": float("inf")}),
        ("usd", {"usd": "ten"}),
        ("usd", {"usd": True}),
        ("requests", {"requests": -1}),
        ("concurrency", {"concurrency": 0.5}),
        ("min_output_tokens", {"tokens": 10, "min_output_tokens": -1_000}),
        ("default_output_tokens", {"tokens": 10, "default_output_tokens": -1}),
        ("on_exceed", {"tokens": 10, "on_exceed": "blok"}),
        ("downgrade", {"tokens": 10, "on_exceed": "downgrade"}),
        ("downgrade", {"usd": 1, "on_exceed": "downgrade", "downgrade": {"gpt-4o": "gpt-4o"}}),
        ("downgrade", {"usd": 1, "downgrade": {"gpt-4o": "gpt-4o-mini"}}),
        ("per", {"tokens": 10, "per": "fortnight"}),
        ("per", {"tokens": 10, "per": "day Middle/Earth"}),
        ("uncapped", {"tokens": 10, "uncapped": "maybe"}),
        ("uncapped", {"tokens": 10, "uncapped": "unlimited"}),
        ("open_bound", {"tokens": 10, "open_bound": "hope"}),
        ("on_exceed", {"requests": 5, "on_exceed": "clamp"}),
        ("limit", {}),
    ],
    ids=str,
)
def test_v1_terms_that_make_no_sense(named: str, terms: dict[str, Any]) -> None:
    """predecessors V1: tokens=-5, usd=-1, usd=nan, tokens=1.5, tokens="10", output_reserve=-1000: all accepted."""
    with pytest.raises(ValueError, match=named):
        farthing.budget(**terms)


@pytest.mark.parametrize(
    "usage",
    [{"input_tokens": -5}, {"input_tokens": "10"}, {"input_tokens": 1.5}, {"input_tokens": 5, "cached_tokens": 9}],
)
def test_v1_usage_that_makes_no_sense(usage: dict[str, Any]) -> None:
    """predecessors T11: ``record`` took −700 after 500, and what remained was above the cap."""
    with farthing.budget(tokens=100) as budget, pytest.raises(ValueError, match="token"):
        farthing.record(usage)
    assert budget.spent == NOTHING


def test_t11_recorded_usage_is_enforced(client: OpenAI) -> None:
    """predecessors T11: ``ledger.record`` of 500 on a cap of 100 had no consequence."""
    with farthing.budget(tokens=100):
        farthing.record({"input_tokens": 400, "output_tokens": 100})
        assert not admitted(lambda: chat(client, 1))


# -- memory ----------------------------------------------------------------------------------------------------------


def test_l1_memory_does_not_grow_with_history(provider: FakeProvider, client: OpenAI) -> None:
    """predecessors L1, T16: 5,000 clamped calls, 5,000 list entries for ever; a history of 60,000 never trimmed."""
    provider.reply = Reply(output_tokens=1)
    farthing.configure(max_records=50)
    store = runtime().memory_store

    def sizes() -> dict[str, int]:
        return {name: len(value) for name, value in vars(store).items() if hasattr(value, "__len__")}

    def put_away() -> None:
        gc.collect()
        runtime().put_units_away(most=10_000)

    with farthing.budget("all", tokens=10_000_000, on_exceed="clamp") as budget:
        for _ in range(100):
            with farthing.budget(tokens=500, on_exceed="clamp"):
                chat(client, 5_000)
        put_away()
        before = sizes()
        for _ in range(100):
            with farthing.budget(tokens=500, on_exceed="clamp"):
                chat(client, 5_000)
                assert not admitted(lambda: chat(client, 1, n=128, tools=[_tool()] * 20))
        put_away()
    after = sizes()
    assert len(entries()) == 50
    assert budget.spent.tokens == provider.billed_tokens
    # Ended holds are kept for repetitions of their ids, up to a stated number; nothing else may have grown.
    bounded = {"_holds", "_ended", "_denials"}
    assert {name: after[name] for name in after if name not in bounded} == {
        name: before[name] for name in before if name not in bounded
    }


def _tool() -> Any:
    return {"type": "function", "function": {"name": "x", "description": "A tool of some length. " * 20}}


def test_importing_farthing_loads_no_sdk() -> None:
    """clients, fact 20: a budget decorator that costs seconds to import."""
    program = """
        import sys
        import farthing
        print([name for name in ("openai", "anthropic", "genai_prices", "numpy") if name in sys.modules])
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "[]"
