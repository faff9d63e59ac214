"""
Goal: several budgets that a call does not fit, each with another mode, do together what the design says; limits on
calls and on calls at once work under every mode.
Method: every pair of modes, both ways round, through the real SDK; then the pairs in which a remedy of one has to hold
on the lines of the other.
"""

from __future__ import annotations

import threading
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from openai import OpenAI

import farthing
from farthing import Allow, BudgetExceeded, Decision
from farthing.testing import FakeProvider, Reply
from tests.doors import clients
from tests.doors.clients import HI, entries, holds

pytestmark = pytest.mark.usefixtures("farthing_isolated")
MODES = ("block", "clamp", "downgrade", "wait", "break", "truncate", "raise", "warn", "callable")
MINI = {"gpt-4o": "gpt-4o-mini"}


def chat(client: OpenAI, ceiling: int = 100, **keywords: Any) -> Any:
    return clients.chat(client, ceiling, **keywords)


def purse(mode: str, name: str | None = None, **limits: Any) -> farthing.BudgetHandle:
    mode_given: Any = {"on_exceed": mode}
    if mode == "downgrade":
        mode_given["downgrade"] = MINI
    if mode == "callable":
        mode_given["on_exceed"] = lambda decision: None
    return farthing.budget(name, **{"tokens": 10, **limits}, **mode_given)


@pytest.mark.parametrize("stream", [False, True])
def test_every_pair_of_modes_that_a_call_of_108_tokens_does_not_fit(
    provider: FakeProvider, client: OpenAI, stream: bool
) -> None:
    def outcome_of(outer: str, inner: str) -> str:
        before, seen = provider.posts, []
        try:
            with purse(outer), purse(inner):
                answer = chat(client, stream=stream)
                seen += list(answer) if stream else [answer]
        except BudgetExceeded:
            return "crossed" if provider.posts > before else "denied"
        assert len(seen) == 0 or provider.posts == before + 1
        return "sent" if seen else "quiet"

    for outer, inner in product(MODES, repeat=2):
        hard = {outer, inner} - {"raise", "warn"}
        if not hard:
            wanted = "crossed" if "raise" in (outer, inner) else "sent"
        else:
            wanted = "quiet" if hard == {"truncate"} else "denied"
        assert outcome_of(outer, inner) == wanted, (outer, inner)
    assert holds() == []


def test_a_callable_goes_before_a_downgrade(provider: FakeProvider, client: OpenAI) -> None:
    asked: list[Decision] = []

    def decide(decision: Decision) -> Allow | None:
        asked.append(decision)
        return Allow(model="gpt-4o-mini", max_output_tokens=20)

    usd = Decimal("0.0005")
    with farthing.budget(usd=usd, on_exceed="downgrade", downgrade=MINI), farthing.budget(tokens=50, on_exceed=decide):
        answer = chat(client)
    assert answer.usage.completion_tokens == 20
    assert provider.requests[-1].json["model"] == "gpt-4o-mini"
    assert [len(decision.failed) for decision in asked] == [2]


def test_an_anonymous_budgets_own_model_is_said_under_its_title(provider: FakeProvider, client: OpenAI) -> None:
    with farthing.budget(tokens=1_000), farthing.budget(usd=0.0005, on_exceed=lambda _: Allow(model="gpt-4o-mini")):
        chat(client)
    (event,) = farthing.downgrades()
    assert (event.name, event.to_model, event.limit) == ("unnamed ($0.0005)", "gpt-4o-mini", Decimal("0.0005"))


def test_a_callable_that_makes_room_has_the_call_tried_once_more(provider: FakeProvider, client: OpenAI) -> None:
    """What was set aside for something else is given up: the call goes out as it is. Without room it stays denied."""
    asked: list[Decision] = []

    def give_up(decision: Decision) -> Allow:
        asked.append(decision)
        spare.void()
        return Allow()

    with farthing.budget(tokens=200, on_exceed=give_up), farthing.hold(tokens=150) as spare:
        chat(client)
        with pytest.raises(BudgetExceeded):
            chat(client, 5_000)
    assert (provider.posts, [decision.held for decision in asked]) == (1, [150, 0])
    assert [*farthing.clamps(), *farthing.downgrades()] == []


def test_a_downgrade_goes_before_waiting(provider: FakeProvider, client: OpenAI) -> None:
    """What would come back in time is not waited for where a cheaper model fits now."""
    usd = Decimal("0.0015")
    waits = farthing.budget("waits", usd=usd, on_exceed="wait", wait_seconds=60)
    mini = farthing.budget("mini", usd=usd, on_exceed="downgrade", downgrade=MINI)
    with waits, mini, farthing.hold(usd=Decimal("0.0007")):
        chat(client)
    assert provider.requests[-1].json["model"] == "gpt-4o-mini"


def test_a_downgrade_whose_cheaper_model_another_budget_refuses(provider: FakeProvider, client: OpenAI) -> None:
    """The remedy is checked on all lines, those too that had nothing against the first model."""
    no_mini = farthing.budget("no-mini", tokens=0, scope={"model": "gpt-4o-mini"})
    cheap = farthing.budget(usd=Decimal("0.0005"), on_exceed="downgrade", downgrade=MINI)
    with no_mini, cheap, pytest.raises(BudgetExceeded) as denied:
        chat(client)
    assert denied.value.budget == "no-mini"
    assert provider.posts == 0


def test_downgrades_that_point_at_each_other_end(provider: FakeProvider, client: OpenAI) -> None:
    """Each map alone is a chain; together they are a ring. No model is tried twice."""
    there = farthing.budget(
        "there", tokens=10, scope={"model": "gpt-4o"}, on_exceed="downgrade", downgrade={"gpt-4o": "gpt-4o-mini"}
    )
    back = farthing.budget(
        "back", tokens=10, scope={"model": "gpt-4o-mini"}, on_exceed="downgrade", downgrade={"gpt-4o-mini": "gpt-4o"}
    )
    with there, back, pytest.raises(BudgetExceeded) as denied:
        chat(client)
    assert denied.value.budget == "back"
    assert provider.posts == 0


def test_a_chain_of_downgrades_over_several_budgets(provider: FakeProvider, client: OpenAI) -> None:
    """The first budget's cheaper model is too dear for the second, which names a cheaper one yet."""
    first = farthing.budget(usd=Decimal("0.0008"), on_exceed="downgrade", downgrade={"gpt-4o": "gpt-4.1-mini"})
    chain = {"gpt-4o": "gpt-4.1-mini", "gpt-4.1-mini": "gpt-4.1-nano"}
    second = farthing.budget(usd=Decimal("0.0001"), on_exceed="downgrade", downgrade=chain)
    with first, second:
        chat(client)
    assert provider.requests[-1].json["model"] == "gpt-4.1-nano"
    (entry,) = entries()
    assert (entry.facts.model, entry.facts.asked_model) == ("gpt-4.1-nano", "gpt-4o")


def test_a_clamp_inside_a_downgrade(provider: FakeProvider, client: OpenAI) -> None:
    """The clamp shrinks what it may; the downgrade asks for all that was asked, and only then is it all."""
    with (
        farthing.budget(usd=Decimal("0.0005"), on_exceed="downgrade", downgrade=MINI),
        farthing.budget(tokens=58, on_exceed="clamp"),
    ):
        chat(client)
    body = provider.requests[-1].json
    assert (body["model"], body["max_tokens"]) == ("gpt-4o-mini", 50)


def test_a_waiter_is_denied_when_a_budget_that_blocks_fills_up(provider: FakeProvider, client: OpenAI) -> None:
    """Every look is on all lines: what blocks in the meantime ends the wait."""
    block = farthing.budget("block", tokens=200)
    wait = farthing.budget("wait", concurrency=1, on_exceed="wait", wait_seconds=60)
    denied: list[BudgetExceeded] = []

    def waiting() -> None:
        with block, wait, pytest.raises(BudgetExceeded) as raised:
            chat(client)
        denied.append(raised.value)

    with wait, farthing.hold(tokens=1):
        thread = threading.Thread(target=waiting)
        thread.start()
        with block:
            farthing.record({"input_tokens": 150})
        thread.join()
    assert {line.budget for line in denied[0].failed} == {"block", "wait"}
    assert provider.posts == 0


@pytest.mark.parametrize("limit", ["requests", "concurrency"])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("clamp", "break")])
def test_limits_on_calls_under_every_mode(provider: FakeProvider, client: OpenAI, mode: str, limit: str) -> None:
    """One call is allowed, or one at a time; a second is made while the first is in flight."""
    if (limit, mode) == ("concurrency", "raise"):
        pytest.skip("refused when the budget is made: tests/unit/kernel/test_budget.py")
    more = {"wait_seconds": 0.2} if mode == "wait" else {}
    provider.script([Reply("one", pause_after_chunks=0), Reply("two")])
    budget = purse(mode, "calls", tokens=None, **{limit: 1}, **more)
    with budget:
        stream = chat(client, stream=True)
    assert len(holds()) == 1
    if mode in ("warn", "raise"):
        # The one never objects, the other looks at what is spent: a guard, not a cap.
        with budget:
            assert chat(client).choices[0].message.content == "two"
    elif mode == "truncate":
        with budget:
            chat(client)
            pytest.fail("the with block went on")
    else:
        with pytest.raises(BudgetExceeded) as denied, budget:
            chat(client)
        assert denied.value.unit == limit
    provider.resume()
    if mode == "raise":
        with pytest.raises(BudgetExceeded) as crossed:
            list(stream)
        assert (crossed.value.spent, crossed.value.asked) == (2, 1)
    else:
        assert len(list(stream)) > 1
    assert holds() == []


def test_a_limit_on_calls_with_a_clamp_or_a_break_beside_it(provider: FakeProvider, client: OpenAI) -> None:
    """They shrink outputs, never the number of calls: that part of the budget blocks."""
    for mode in ("clamp", "break"):
        with farthing.budget(tokens=1_000, requests=1, on_exceed=mode):
            chat(client)
            with pytest.raises(BudgetExceeded) as denied:
                chat(client)
        assert denied.value.unit == "requests"


def test_settings_of_several_budgets_combine_to_the_strictest(provider: FakeProvider, client: OpenAI) -> None:
    """The largest least output, the smallest default, and reject before inject before watch."""
    with (
        farthing.budget(tokens=60, on_exceed="clamp", min_output_tokens=20),
        farthing.budget(tokens=1_000, min_output_tokens=60),
        pytest.raises(BudgetExceeded),
    ):
        chat(client)
    with (
        farthing.budget(tokens=5_000, default_output_tokens=300),
        farthing.budget(tokens=5_000, default_output_tokens=70),
    ):
        client.chat.completions.create(model="gpt-4o", messages=HI)
    assert provider.requests[-1].json["max_completion_tokens"] == 70
    for outer, inner in product(("reject", "inject", "watch"), repeat=2):
        with farthing.budget(tokens=5_000, uncapped=outer), farthing.budget(tokens=5_000, uncapped=inner):
            if "reject" in (outer, inner):
                with pytest.raises(BudgetExceeded):
                    client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
                continue
            list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
        injected = "max_completion_tokens" in provider.requests[-1].json
        assert injected == ("inject" in (outer, inner))
