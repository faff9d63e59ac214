"""
``explain``: the same answer as admission gives, without placing anything.

Method: the oracle is admission itself. Whatever the budgets, their modes and what is spent, explaining a call and then
admitting it on the same ledger must agree on the answer, the model, the output and the failing lines; and the ledger
must be the same after explaining as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import farthing
from farthing import BudgetExceeded, budget, explain, hold, track
from farthing.admin.standing import grant_more, set_budget
from farthing.calls.admission import admit
from farthing.calls.call import Call
from farthing.calls.steps import Pause
from farthing.errors import FarthingError
from farthing.kernel.budget import make_budget
from farthing.kernel.hold import Outcome
from farthing.kernel.plan import Ask, CallFacts, make_plan
from farthing.reports.explaining import explain_async, explain_call
from farthing.runtime import default
from farthing.runtime.ambient import NOWHERE, Ambient, Binding
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores.contract import Store
from farthing.testing import FakeClock
from farthing.wire import json
from farthing.wire.openai.chat import OpenAIChat

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
HI_TOKENS = 8
"""What "hi" as one message comes to for gpt-4o."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture(autouse=True)
def here(clock: FakeClock) -> Iterator[Runtime]:
    runtime = Runtime(Settings(), clock=clock)
    before = default.use(runtime)
    yield runtime
    default.use(before)
    runtime.close()


def state(store: Store) -> object:
    return store.balances().result(), store.holds().result(), store.denials().result(), store.journal().result()


def chat(here: Runtime, ambient: Ambient = NOWHERE, *, most: int | None = 100, **fields: Any) -> Call:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **fields}
    if most is not None:
        body["max_completion_tokens"] = most
    dialect = OpenAIChat()
    return Call(here, dialect, dialect.read_request(json.encode(body)), ambient, "test")


def test_without_a_budget_it_passes() -> None:
    found = explain("gpt-4o", "hi")
    assert (found.allowed, found.budgets, found.tightest) == (True, (), None)
    assert str(found) == "allowed\nNo budget binds it: it would pass."


def test_it_names_the_binding_budget_and_its_figures() -> None:
    with budget("day", tokens=100, per="day"), budget("month", tokens=1_000, per="month"):
        with hold(tokens=60) as h:
            h.settle(tokens=60)
        found = explain("gpt-4o", "hi", max_tokens=50)
    assert not found.allowed
    assert found.refused_by == "BudgetExceeded"
    assert (found.decision.budget, found.decision.limit, found.decision.spent, found.decision.asked) == (
        "day",
        100,
        60,
        HI_TOKENS + 50,
    )
    assert found.passes_at == datetime(2026, 11, 23, tzinfo=UTC)
    assert found.passes == "It would pass at 2026-11-23 00:00:00 UTC, if nothing else is spent until then."
    assert found.to_dict()["decision"]["failed"][0]["resets_at"] == "2026-11-23T00:00:00+00:00"


def test_all_failing_lines_are_named_and_the_last_of_them_says_when() -> None:
    with budget("day", tokens=100, per="day"), budget("month", tokens=120, usd=1, per="month"):
        with hold(tokens=90, usd=1) as h:
            h.settle(tokens=90, usd=1)
        found = explain("gpt-4o", "hi", max_tokens=50)
    assert {(line.budget, line.unit) for line in found.decision.failed} == {
        ("day", "tokens"),
        ("month", "tokens"),
        ("month", "usd"),
    }
    assert found.passes_at == datetime(2026, 12, 1, tzinfo=UTC)


def test_a_call_in_flight_is_told_from_what_is_spent() -> None:
    with budget("b", tokens=100), hold(tokens=90):
        found = explain("gpt-4o", "hi", max_tokens=50)
    assert (found.passes_at, found.passes) == (None, "It would pass once calls in flight have settled.")


def test_a_call_that_never_fits_says_so(here: Runtime) -> None:
    set_budget(here.memory_store, "b", tokens=50, per="day")
    here.memory.refresh(here.memory_store.catalogue().result())
    found = explain("gpt-4o", "hi", max_tokens=50)
    assert found.passes_at is None
    assert found.passes.startswith("It would not pass by itself. This call alone asks for more than the whole limit")


def test_a_frozen_budget_does_not_pass_by_itself(here: Runtime) -> None:
    with budget("b", tokens=1_000, per="day") as b:
        b.freeze()
        found = explain("gpt-4o", "hi", max_tokens=50)
    assert "unfreeze budget 'b'" in found.passes


def test_what_each_mode_would_do() -> None:
    with budget("small", tokens=60, on_exceed="clamp"):
        found = explain("gpt-4o", "hi", max_tokens=500)
        assert (found.allowed, found.output_tokens) == (True, 60 - HI_TOKENS)
        assert found.steps == ("clamped to 52 tokens: all that fits in budget 'small'",)
        found = explain("gpt-4o", "hi")
        assert found.steps == ("given an output ceiling of 52 tokens: all that fits in budget 'small'",)
    with budget("cheap", usd=0.001, on_exceed="downgrade", downgrade={"gpt-4o": "gpt-4o-mini"}):
        found = explain("gpt-4o", "hi", max_tokens=500)
        assert (found.allowed, found.model) == (True, "gpt-4o-mini")
        assert found.steps == ("downgraded: gpt-4o → gpt-4o-mini, by budget 'cheap'",)
    with budget("line", tokens=100, on_exceed="wait", wait_seconds=7), hold(tokens=90):
        found = explain("gpt-4o", "hi", max_tokens=50)
        assert (found.allowed, found.steps) == (False, ("waits in the line of budget 'line', at most 7 s",))
    with budget("shadow", tokens=1, on_exceed="warn"):
        found = explain("gpt-4o", "hi", max_tokens=50)
        assert (found.allowed, [line.budget for line in found.shadow]) == (True, ["shadow"])


def test_a_callable_is_named_and_not_called() -> None:
    called = []
    with budget("asks", tokens=10, on_exceed=called.append):
        found = explain("gpt-4o", "hi", max_tokens=50)
    assert (found.allowed, found.steps, called) == (False, ("asks the function of budget 'asks'",), [])


def test_what_is_refused_by_a_policy_names_its_error() -> None:
    with budget("b", usd=1):
        found = explain("no-such-model", "hi", max_tokens=50)
        assert (found.refused_by, found.decision.budget) == ("UnpricedModel", "b")
        assert "no price is known" in str(found)
    with budget("b2", tokens=1_000, uncapped="reject"):
        found = explain("gpt-4o", "hi")
        assert (found.allowed, found.refused_by) == (False, "BudgetExceeded")
        assert "without an output ceiling" in str(found)
    with budget("b3", tokens=1_000, open_bound="reject"):
        found = explain("gpt-4o", "hi", max_tokens=5, web_search_options={"search_context_size": "low"})
        assert found.refused_by == "UnmeteredCall"


@pytest.mark.parametrize("model", ["gpt-4o", "claude-haiku-4-5", "gemini-2.5-flash", "llama-3.3-70b-versatile"])
def test_it_speaks_every_chat_dialect(model: str) -> None:
    with budget(tokens=1_000):
        found = explain(model, "hi", max_output_tokens=50)
    assert (found.allowed, found.output_tokens) == (True, 50)
    assert found.input_tokens is not None


def test_tags_choose_the_account(here: Runtime) -> None:
    set_budget(here.memory_store, "each", tokens=100, each=["user"])
    grant_more(here.memory_store, "each", tokens=400, scope={"user": "alice"})
    here.memory.refresh(here.memory_store.catalogue().result())
    with track(user="alice"):
        assert explain("gpt-4o", "hi", max_tokens=400).allowed
    with track(user="bob"):
        found = explain("gpt-4o", "hi", max_tokens=400)
    assert (found.allowed, found.decision.scope) == (False, {"user": "bob"})


def test_the_held_cost_is_exact() -> None:
    with budget(usd=1):
        found = explain("gpt-4o", "hi", max_tokens=100)
    assert found.usd == Decimal("0.00102")  # 8 × $2.50 and 100 × $10 a million


@pytest.mark.parametrize("most", [0, -1, 1.5, True])
def test_an_unusable_ceiling_is_a_value_error(most: Any) -> None:
    with pytest.raises(ValueError, match="max_output_tokens"):
        explain("gpt-4o", "hi", max_output_tokens=most)


def test_explain_is_a_public_name() -> None:
    assert farthing.explain is explain


# -- the oracle ------------------------------------------------------------------------------------------------------

MODES: list[dict[str, Any]] = [
    {"on_exceed": "block"},
    {"on_exceed": "clamp"},
    {"on_exceed": "downgrade", "downgrade": {"gpt-4o": "gpt-4o-mini"}},
    {"on_exceed": "downgrade", "downgrade": {"gpt-4o": "gpt-4o-mini", "gpt-4o-mini": "gpt-4.1-nano"}},
    {"on_exceed": "wait"},
    {"on_exceed": "truncate"},
    {"on_exceed": "raise"},
    {"on_exceed": "warn"},
]
BUDGETS = st.lists(
    st.fixed_dictionaries(
        {
            "tokens": st.one_of(st.none(), st.integers(0, 400)),
            "usd": st.sampled_from([None, 0.0005, 0.001, 0.01]),
            "requests": st.sampled_from([None, 1, 3]),
            "per": st.sampled_from(["lifetime", "day", "rolling 60s", "request"]),
            "mode": st.sampled_from(MODES),
            "spent": st.integers(0, 200),
            "in_flight": st.integers(0, 200),
            "frozen": st.booleans(),
        }
    ),
    min_size=1,
    max_size=3,
)


def made(here: Runtime, wanted: list[dict[str, Any]]) -> Ambient:
    """An ambient with these budgets, and with what is spent and in flight on each."""
    ambient = NOWHERE
    for number, given_terms in enumerate(wanted):
        terms = dict(given_terms)
        mode, spent, in_flight, frozen = (terms.pop(name) for name in ("mode", "spent", "in_flight", "frozen"))
        if terms["tokens"] is None and terms["usd"] is None:
            terms["tokens"] = 300
        if terms["per"] == "request" and mode["on_exceed"] == "raise":
            terms["per"] = "lifetime"
        named = here.put_budget(make_budget(f"b{number}", **terms, **mode))
        account = replace(here.memory.accounts([named], {}, here.memory_store.now())[0], limits=())
        for index, amount in enumerate((spent, in_flight)):
            facts = CallFacts(model="m", input_tokens=amount)
            ask = Ask(f"{number}-{index}", facts, 0, 0, here.memory_store.now() + 10_000)
            here.memory_store.place(make_plan(ask, [account], catalogue_version=here.memory.catalogue.version)).result()
            if index == 0:
                here.memory_store.settle(ask.id, Outcome((amount, amount * 1_000, 0, 0))).result()
        if frozen and number == 0:
            here.memory.refresh(here.memory_store.freeze(named.name, frozen=True).result())
        ambient = ambient.with_binding(Binding(named, 0))
    return ambient


def admitted(call: Call) -> tuple[Any, ...]:
    steps = admit(call)
    try:
        ticket = next(steps)
        while True:
            if isinstance(ticket, Pause):
                steps.close()
                return ("waits",)
            ticket = steps.send(ticket.result())
    except StopIteration as stop:
        found = stop.value
        return (True, found.model, found.granted.x)
    except BudgetExceeded as error:
        return (False, error.decision)
    except FarthingError as error:
        return (False, type(error).__name__)


@settings(max_examples=150, deadline=None)
@given(wanted=BUDGETS, most=st.one_of(st.none(), st.integers(1, 500)))
def test_admission_agrees(wanted: list[dict[str, Any]], most: int | None) -> None:
    here = Runtime(Settings(), clock=FakeClock(START))
    here.inherited = lambda *_: None  # type: ignore[method-assign]
    ambient = made(here, wanted)
    before = state(here.memory_store)
    found = explain_call(chat(here, ambient, most=most))
    assert state(here.memory_store) == before
    really = admitted(chat(here, ambient, most=most))
    if really == ("waits",):
        assert not found.allowed
        assert found.steps[-1].startswith("waits in the line")
    elif really[0]:
        assert (found.allowed, found.model, found.output_tokens) == really
    else:
        assert not found.allowed
        assert found.decision == really[1]
    here.close()


def test_in_an_event_loop_and_over_a_file(tmp_path: Any, clock: FakeClock) -> None:
    here = Runtime(Settings(ledger=f"sqlite:///{tmp_path / 'ledger.db'}"), clock=clock)
    named = here.put_budget(make_budget("b", tokens=100))
    unit = make_budget(tokens=80)
    ambient = NOWHERE.with_binding(Binding(named, 0)).with_binding(Binding(unit, 0))
    here.inherited = lambda *_: None  # type: ignore[method-assign]
    found = asyncio.run(explain_async(chat(here, ambient, most=None)))
    assert found == explain_call(chat(here, ambient, most=None))
    assert (found.allowed, found.output_tokens) == (True, 80 - HI_TOKENS)
    found = asyncio.run(explain_async(chat(here, ambient, most=100)))
    assert not found.allowed
    assert {line.limit for line in found.decision.failed} == {100, 80}
    here.close()
