"""What happens when a call does not fit, mode by mode, as a program with a real SDK sees it."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from openai.types.chat import ChatCompletion

import farthing
from farthing.sdk import results
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import (
    HI,
    HI_TOKENS,
    NOTHING,
    anthropic_client,
    async_anthropic_client,
    async_openai_client,
    chat,
    entries,
    openai_client,
)

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def wire(provider: FakeProvider) -> Any:
    """The body of the last request that arrived."""
    return provider.requests[-1].json


# -- block -----------------------------------------------------------------------------------------------------------


def test_block_exactly_at_the_limit_is_allowed_and_one_over_is_not(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=18):
        chat(client)
    with farthing.budget(tokens=17), pytest.raises(farthing.BudgetExceeded) as denied:
        chat(client)
    assert (denied.value.limit, denied.value.spent, denied.value.asked, denied.value.unit) == (17, 0, 18, "tokens")
    assert provider.posts == 1


def test_block_leaves_the_request_as_it_is(provider: FakeProvider, client: OpenAI) -> None:
    with openai_client(provider, governed=False) as untouched:
        chat(untouched)
    with farthing.budget(tokens=1_000):
        chat(client)
    assert provider.requests[0].body == provider.requests[1].body


def test_zero_denies_everything(provider: FakeProvider, client: OpenAI) -> None:
    for limit in ({"tokens": 0}, {"usd": 0}, {"requests": 0}):
        with farthing.budget(**limit), pytest.raises(farthing.BudgetExceeded):  # type: ignore[arg-type]
            chat(client)
    assert provider.posts == 0


@pytest.mark.parametrize("streamed", [False, True])
def test_a_denied_call_is_not_retried_nor_wrapped(provider: FakeProvider, streamed: bool) -> None:
    with openai_client(provider, max_retries=3) as client, farthing.budget(tokens=5):
        with pytest.raises(openai.OpenAIError) as denied:
            chat(client, stream=streamed)
        assert isinstance(denied.value, farthing.BudgetExceeded)
    with anthropic_client(provider, max_retries=3) as claude, farthing.budget(tokens=5):
        with pytest.raises(anthropic.AnthropicError) as refused:
            claude.messages.create(model="claude-haiku-4-5", max_tokens=10, messages=HI, stream=streamed)
        assert isinstance(refused.value, farthing.BudgetExceeded)
        assert not isinstance(refused.value, anthropic.APIConnectionError)
    assert provider.requests == []
    assert entries() == []
    assert farthing.report().totals()["denied"] == 2


def test_a_denied_async_call_is_not_retried_nor_wrapped(provider: FakeProvider) -> None:
    async def main() -> None:
        async with async_openai_client(provider, max_retries=3) as client:
            with pytest.raises(openai.OpenAIError) as denied:
                await client.responses.create(model="gpt-4o", input="hi", max_output_tokens=10)
            assert isinstance(denied.value, farthing.BudgetExceeded)
        async with async_anthropic_client(provider, max_retries=3) as claude:
            with pytest.raises(anthropic.AnthropicError) as refused:
                async with claude.messages.stream(model="claude-haiku-4-5", max_tokens=10, messages=HI):
                    pass
            assert isinstance(refused.value, farthing.BudgetExceeded)

    with farthing.budget(tokens=5):
        asyncio.run(main())
    assert provider.requests == []


def test_one_http_client_under_two_sdks(provider: FakeProvider) -> None:
    """Each SDK is told in its own family, whichever of the two was instrumented first."""
    with openai.DefaultHttpxClient() as http, farthing.budget(tokens=5):
        client = farthing.instrument(OpenAI(base_url=provider.openai_url, api_key="fake", http_client=http))
        claude = farthing.instrument(Anthropic(base_url=provider.anthropic_url, api_key="fake", http_client=http))
        with pytest.raises(openai.OpenAIError) as denied:
            chat(client)
        assert isinstance(denied.value, farthing.BudgetExceeded)
        with pytest.raises(anthropic.AnthropicError) as refused:
            claude.messages.create(model="claude-haiku-4-5", max_tokens=10, messages=HI)
        assert isinstance(refused.value, farthing.BudgetExceeded)
    assert farthing.report().totals()["denied"] == 2


# -- clamp -----------------------------------------------------------------------------------------------------------

OPENAI_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def _ceilings(body: Any) -> dict[str, int]:
    return {name: body[name] for name in OPENAI_FIELDS if name in body}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_tokens": 900}, {"max_tokens": 92}),
        ({"max_completion_tokens": 900}, {"max_completion_tokens": 92}),
        ({}, {"max_completion_tokens": 92}),
        ({"max_tokens": 50}, {"max_tokens": 50}),
    ],
    ids=["max_tokens", "max_completion_tokens", "none", "fits"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_clamp_sends_what_fits_in_the_callers_own_field(
    provider: FakeProvider, client: OpenAI, given: dict[str, int], sent: dict[str, int], streamed: bool
) -> None:
    with farthing.budget(tokens=100, on_exceed="clamp") as budget:
        answer = chat(client, None, stream=streamed, **given)
        if streamed:
            list(answer)
    assert _ceilings(wire(provider)) == sent
    assert provider.billed_tokens == budget.spent.tokens == HI_TOKENS + next(iter(sent.values()))


@pytest.mark.parametrize("given", [{"max_output_tokens": 900}, {}], ids=["caller's", "none"])
def test_clamp_on_responses(provider: FakeProvider, client: OpenAI, given: Any) -> None:
    with farthing.budget(tokens=100, on_exceed="clamp") as budget:
        client.responses.create(model="gpt-4o", input="hi", **given)
    assert list(_ceilings(wire(provider))) == ["max_output_tokens"]
    assert provider.billed_tokens <= 100
    assert budget.spent.tokens == provider.billed_tokens


def test_clamp_on_messages(provider: FakeProvider, claude: Anthropic) -> None:
    with farthing.budget(tokens=100, on_exceed="clamp") as budget:
        claude.messages.create(model="claude-haiku-4-5", max_tokens=900, messages=HI)
    assert 16 <= wire(provider)["max_tokens"] < 100
    assert budget.spent.tokens == provider.billed_tokens <= 100


def test_clamp_by_money(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(usd=Decimal("0.001"), on_exceed="clamp") as budget:
        chat(client, 900)
    assert wire(provider)["max_tokens"] == 98
    assert budget.spent.usd == Decimal("0.001")


def test_clamp_divides_by_the_number_of_choices(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=108, on_exceed="clamp") as budget:
        chat(client, 900, n=5)
    assert wire(provider)["max_tokens"] == 20
    assert budget.spent.tokens == provider.billed_tokens == 108


def test_clamp_never_goes_below_the_least_useful_answer(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=HI_TOKENS + 15, on_exceed="clamp"), pytest.raises(farthing.BudgetExceeded):
        chat(client, 900)
    with farthing.budget(tokens=HI_TOKENS + 15, on_exceed="clamp", min_output_tokens=15):
        chat(client, 900)
    assert (provider.posts, wire(provider)["max_tokens"]) == (1, 15)


def test_an_answer_that_our_ceiling_ended_is_said_loudly(
    provider: FakeProvider, client: OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "farthing"), farthing.budget(tokens=100, on_exceed="clamp"):
        chat(client, 50)
        assert caplog.text == ""
        chat(client, 900)
    assert "cut off at 34 output tokens" in caplog.text


# -- downgrade -------------------------------------------------------------------------------------------------------


def test_downgrade_takes_the_cheaper_model_and_pays_its_price(provider: FakeProvider, client: OpenAI) -> None:
    cheaper = {"gpt-4o": "gpt-4o-mini"}
    with farthing.budget(usd=Decimal("0.0005"), on_exceed="downgrade", downgrade=cheaper) as budget:
        answer = chat(client, 100)
    assert (wire(provider)["model"], answer.model) == ("gpt-4o-mini", "gpt-4o-mini")
    assert wire(provider)["max_tokens"] == 100
    assert budget.spent.usd == Decimal(8 * 150 + 100 * 600).scaleb(-9)
    (row,) = entries()
    assert (row.facts.model, row.facts.asked_model) == ("gpt-4o-mini", "gpt-4o")


def test_downgrade_follows_a_chain_and_ends_in_a_denial(provider: FakeProvider, client: OpenAI) -> None:
    chain = {"gpt-4.1": "gpt-4o", "gpt-4o": "gpt-4o-mini"}
    with farthing.budget(usd=Decimal("0.0001"), on_exceed="downgrade", downgrade=chain):
        answer = chat(client, 100, model="gpt-4.1")
        assert answer.model == "gpt-4o-mini"
        with pytest.raises(farthing.BudgetExceeded):
            chat(client, 100, model="gpt-4.1")
    assert provider.posts == 1


def test_downgrade_leaves_what_fits_alone(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(usd=1, on_exceed="downgrade", downgrade={"gpt-4o": "gpt-4o-mini"}):
        assert chat(client, 100).model == "gpt-4o"


def test_downgraded_streams_and_responses(provider: FakeProvider, client: OpenAI) -> None:
    cheaper = {"gpt-4o": "gpt-4o-mini"}
    with farthing.budget(usd=Decimal("0.0005"), on_exceed="downgrade", downgrade=cheaper) as budget:
        list(chat(client, 100, stream=True))
        client.responses.create(model="gpt-4o", input="hi", max_output_tokens=100)
    assert [line.model for line in provider.bill] == ["gpt-4o-mini"] * 2
    assert budget.spent.usd == provider.billed_usd({"gpt-4o-mini": ("0.15", "0.60")})


# -- raise -----------------------------------------------------------------------------------------------------------


def test_raise_lets_the_crossing_call_finish_and_blocks_the_next(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=30, on_exceed="raise") as budget:
        chat(client)
        with pytest.raises(farthing.BudgetExceeded) as crossed:
            chat(client)
        result = crossed.value.result
        assert isinstance(result, ChatCompletion)
        assert result.choices[0].message.content
        assert result.usage is not None
        assert result.usage.total_tokens == 18
        assert crossed.value.overrun == 6
        with pytest.raises(farthing.BudgetExceeded) as blocked:
            chat(client)
        assert blocked.value.result is None
    assert provider.posts == 2
    assert budget.spent.tokens == 36


def test_raise_at_exactly_the_limit_does_not_raise(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=36, on_exceed="raise"):
        chat(client)
        chat(client)
        with pytest.raises(farthing.BudgetExceeded):
            chat(client)
    assert provider.posts == 2


def test_raise_carries_each_sdks_own_type(provider: FakeProvider, client: OpenAI, claude: Anthropic) -> None:
    with farthing.budget(tokens=1, on_exceed="raise"), pytest.raises(farthing.BudgetExceeded) as crossed:
        client.responses.create(model="gpt-4o", input="hi", max_output_tokens=20)
    assert isinstance(crossed.value.result, openai.types.responses.Response)
    assert crossed.value.result.output_text
    with farthing.budget(tokens=1, on_exceed="raise"), pytest.raises(anthropic.AnthropicError) as refused:
        claude.messages.create(model="claude-haiku-4-5", max_tokens=20, messages=HI)
    assert isinstance(refused.value, farthing.BudgetExceeded)
    assert isinstance(refused.value.result, anthropic.types.Message)


def test_raise_keeps_the_answer_where_the_sdk_has_its_type_elsewhere(
    provider: FakeProvider, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version may: what is paid for is not lost for that."""
    monkeypatch.setitem(results.TYPES, "openai.chat", ("openai.types.chat", "RenamedSince"))
    with farthing.budget(tokens=1, on_exceed="raise"), pytest.raises(farthing.BudgetExceeded) as crossed:
        chat(client)
    assert crossed.value.result["choices"][0]["message"]["content"]


def test_raise_at_the_end_of_a_crossing_stream(provider: FakeProvider, client: OpenAI) -> None:
    """The whole stream is delivered first; what is raised comes where the caller would see its end."""
    seen = []
    with farthing.budget(tokens=10, on_exceed="raise") as budget:
        with pytest.raises(farthing.BudgetExceeded):  # noqa: PT012 - raised by the loop itself
            for chunk in chat(client, 10, stream=True):
                seen.append(chunk.choices[0].delta.content)  # noqa: PERF401 - what was seen before the error counts
        with pytest.raises(farthing.BudgetExceeded):
            chat(client)
    assert sum(bool(text) for text in seen) == 10
    assert budget.spent.tokens == 18
    assert provider.posts == 1


# -- warn ------------------------------------------------------------------------------------------------------------


def test_warn_never_objects_and_counts_what_it_would_have_denied(
    provider: FakeProvider, client: OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "farthing"), farthing.budget(tokens=20, on_exceed="warn") as budget:
        chat(client)
        assert caplog.text == ""
        chat(client)
        chat(client)
    assert "would have denied" in caplog.text
    assert budget.spent.tokens == 54
    assert (budget.remaining.tokens, budget.held) == (0, NOTHING)
    totals = farthing.report().totals()
    assert (totals["denied"], totals["shadow_denied"], totals["calls"]) == (0, 2, 3)


def test_warn_sets_no_ceiling_of_its_own(provider: FakeProvider, client: OpenAI) -> None:
    provider.reply = Reply()
    with farthing.budget(tokens=20, on_exceed="warn"):
        chat(client, None)
    assert _ceilings(wire(provider)) == {}


# -- several at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["clamp", "warn", "raise", "downgrade", "block"])
@pytest.mark.parametrize("outer", ["clamp", "block", "downgrade"])
def test_an_inner_budget_never_masks_an_outer_one(
    provider: FakeProvider, client: OpenAI, inner: str, outer: str
) -> None:
    chain = {"gpt-4o": "gpt-4o-mini"}
    limits: set[int | Decimal] = set()
    with (
        farthing.budget(tokens=500, on_exceed=outer, downgrade=chain if outer == "downgrade" else None) as hard,
        farthing.budget(tokens=5_000, on_exceed=inner, downgrade=chain if inner == "downgrade" else None),
    ):
        for _ in range(3):
            try:
                chat(client, 4_000)
            except farthing.BudgetExceeded as denied:
                limits.update(line.limit for line in denied.failed)
    provider.wait_idle()
    assert limits == {500}
    assert provider.billed_tokens <= 500
    assert (hard.spent.tokens or 0) <= 500
    assert (provider.posts > 0) is (outer == "clamp")


def test_block_beside_clamp_is_block(provider: FakeProvider, client: OpenAI) -> None:
    with (
        farthing.budget(tokens=3_000),
        farthing.budget(tokens=2_000, on_exceed="clamp"),
        pytest.raises(farthing.BudgetExceeded),
    ):
        chat(client, 4_000)
    assert provider.posts == 0


def test_the_tightest_ceiling_goes_on_the_wire(provider: FakeProvider, client: OpenAI) -> None:
    with (
        farthing.budget(tokens=500, on_exceed="clamp"),
        farthing.budget(tokens=5_000, on_exceed="clamp"),
        farthing.budget(tokens=300, on_exceed="clamp"),
        farthing.budget(usd=1, on_exceed="clamp"),
    ):
        chat(client, 10_000)
    assert wire(provider)["max_tokens"] == 292


def test_all_failing_lines_are_reported_tightest_first(provider: FakeProvider, client: OpenAI) -> None:
    with (
        farthing.budget("outer", tokens=100, usd=1),
        farthing.budget("middle", usd=Decimal("0.0002")),
        farthing.budget("inner", tokens=50, requests=9),
        pytest.raises(farthing.BudgetExceeded) as denied,
    ):
        chat(client, 1_000)
    assert [(line.budget, line.unit) for line in denied.value.failed] == [
        ("middle", "usd"),
        ("inner", "tokens"),
        ("outer", "tokens"),
    ]
    assert (denied.value.budget, denied.value.unit) == ("middle", "usd")
    assert all(name in str(denied.value) for name in ("middle", "inner", "outer"))
    for name, limit in (("outer", {"tokens": 100, "usd": 1}), ("inner", {"tokens": 50, "requests": 9})):
        assert farthing.budget(name, **limit).held == NOTHING  # type: ignore[arg-type]


def test_downgrade_inside_a_token_budget_that_no_model_fits(provider: FakeProvider, client: OpenAI) -> None:
    with (
        farthing.budget(tokens=50),
        farthing.budget(usd=Decimal("0.0005"), on_exceed="downgrade", downgrade={"gpt-4o": "gpt-4o-mini"}),
        pytest.raises(farthing.BudgetExceeded),
    ):
        chat(client, 100)
    assert provider.posts == 0


def test_settings_combine_to_the_strictest(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=10_000), farthing.budget(tokens=10_000, uncapped="reject"):
        with pytest.raises(farthing.BudgetExceeded, match="max_completion_tokens"):
            chat(client, None)
        chat(client, 10)
    with (
        farthing.budget(tokens=10_000, default_output_tokens=300),
        farthing.budget(tokens=10_000, default_output_tokens=40),
    ):
        chat(client, None)
    assert provider.posts == 2
    assert _ceilings(wire(provider)) == {"max_completion_tokens": 40}
