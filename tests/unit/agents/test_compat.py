"""
What programs written for the Token Budget Contracts package rely on: its names, signatures, errors and figures, on
agents of ours.
"""

from __future__ import annotations

from typing import Any

import pytest

import farthing
from farthing import agents
from farthing.agents import (
    BudgetContract,
    BudgetExceededError,
    BudgetManager,
    ConfidenceGate,
    Ledger,
    Reallocator,
    TBCError,
    UnknownAgentError,
)
from farthing.agents.tokenizer import _count, estimate_tokens

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def test_the_names_are_there() -> None:
    for name in agents.__all__:
        assert getattr(agents, name) is not None
    for name in (
        *("BudgetManager", "BudgetContract", "BudgetExceededError", "UnknownAgentError", "TBCError"),
        *("ConfidenceGate", "Ledger", "Reallocator"),
    ):
        assert getattr(farthing, name) is getattr(agents, name)


# -- contracts ---------------------------------------------------------------------------------------------------------


def test_a_contract_has_defaults() -> None:
    contract = BudgetContract("a")
    assert (contract.priority, contract.max_tokens, contract.min_reserve) == (1, 1000, 100)
    assert (contract.confidence_threshold, contract.last_confidence) == (None, None)
    assert contract.created_at > 0
    assert "last_confidence" not in repr(contract)
    contract.last_confidence = 0.5
    assert contract.last_confidence == 0.5
    assert BudgetContract("a", max_tokens=19).min_reserve == 1, "a tenth, rounded down"
    assert BudgetContract("a", max_tokens=0).min_reserve == 0


@pytest.mark.parametrize(
    ("field", "terms"),
    [
        ("priority", {"priority": 0}),
        ("priority", {"priority": 1.5}),
        ("max_tokens", {"max_tokens": -1}),
        ("max_tokens", {"max_tokens": float("nan")}),
        ("max_tokens", {"max_tokens": "10"}),
        ("min_reserve", {"min_reserve": -1}),
        ("min_reserve", {"min_reserve": 1001}),
        ("confidence_threshold", {"confidence_threshold": -0.1}),
        ("confidence_threshold", {"confidence_threshold": 1.1}),
        ("confidence_threshold", {"confidence_threshold": float("nan")}),
        ("confidence_threshold", {"confidence_threshold": "high"}),
        ("max_usd", {"max_usd": -1}),
        ("min_reserve_usd", {"max_usd": 1, "min_reserve_usd": 2}),
        ("agent_name", {"agent_name": " "}),
    ],
)
def test_wrong_terms_are_value_errors_that_name_the_field(field: str, terms: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=field):
        BudgetContract(**{"agent_name": "a", **terms})
    with pytest.raises(ValueError, match=field):
        BudgetManager().register_agent(**{"agent_name": "a", **terms})


def test_the_gate() -> None:
    allow = ConfidenceGate.allow_further_retrieval
    assert allow(BudgetContract("a"), 0.99), "no threshold"
    gated = BudgetContract("a", confidence_threshold=0.8)
    assert allow(gated, None), "no confidence is known"
    assert allow(gated, 0.79)
    assert not allow(gated, 0.8), "equal closes it"
    assert not allow(gated, 0.81)


# -- the ledger --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.register("a", 100)
    ledger.register("b", 50)
    return ledger


def test_a_ledger_counts(ledger: Ledger) -> None:
    ledger.record("a", 30)
    ledger.record("a", 5, note="second")
    assert (ledger.allocated("a"), ledger.consumed("a"), ledger.remaining("a")) == (100, 35, 65)
    assert ledger.snapshot() == {
        "a": {"allocated": 100, "consumed": 35, "remaining": 65},
        "b": {"allocated": 50, "consumed": 0, "remaining": 50},
    }
    assert [(entry.agent_name, entry.tokens, entry.note) for entry in ledger.history()] == [
        ("a", 30, ""),
        ("a", 5, "second"),
    ]
    assert ledger.history("b") == []
    assert ledger.history("a")[0].timestamp > 0


def test_registering_again_changes_the_allocation_and_keeps_what_was_used(ledger: Ledger) -> None:
    ledger.record("a", 30)
    ledger.register("a", 200)
    assert ledger.snapshot()["a"] == {"allocated": 200, "consumed": 30, "remaining": 170}


def test_allocations_are_adjusted(ledger: Ledger) -> None:
    ledger.adjust_allocation("a", 25)
    ledger.adjust_allocation("b", -50)
    assert (ledger.allocated("a"), ledger.allocated("b")) == (125, 0)
    with pytest.raises(ValueError, match="delta"):
        ledger.adjust_allocation("b", -1)


@pytest.mark.parametrize("verb", ["remaining", "consumed", "allocated"])
def test_unknown_agents_are_key_errors(ledger: Ledger, verb: str) -> None:
    with pytest.raises(KeyError):
        getattr(ledger, verb)("nobody")


def test_unknown_agents_are_key_errors_elsewhere_too(ledger: Ledger) -> None:
    with pytest.raises(KeyError):
        ledger.record("nobody", 1)
    with pytest.raises(KeyError):
        ledger.adjust_allocation("nobody", 1)
    with pytest.raises(KeyError):
        ledger.history("nobody")


def test_two_ledgers_have_nothing_to_do_with_each_other(ledger: Ledger) -> None:
    other = Ledger()
    other.register("a", 7)
    assert (ledger.allocated("a"), other.allocated("a")) == (100, 7)


# -- the reallocator ---------------------------------------------------------------------------------------------------


def reallocator(*agents_: tuple[str, int, int, int | None]) -> Reallocator:
    ledger, contracts = Ledger(), {}
    for name, priority, tokens, reserve in agents_:
        contracts[name] = BudgetContract(name, priority, tokens, reserve)
        ledger.register(name, tokens)
    return Reallocator(contracts, ledger)


def test_donors_are_found_in_order() -> None:
    of = reallocator(
        ("needy", 3, 10, 0), ("rich", 2, 900, 0), ("low", 1, 500, 50), ("tie", 1, 500, 50), ("dry", 1, 5, 5)
    )
    assert of.find_donors("needy") == ["low", "tie", "rich"]
    assert of.find_donors(exclude="low") == ["tie", "rich", "needy"]
    of.ledger.record("low", 100)
    assert of.find_donors("needy") == ["tie", "low", "rich"], "who has most left comes first"


def test_tokens_are_moved_and_none_are_made() -> None:
    of = reallocator(("needy", 3, 10, 0), ("low", 1, 100, 10), ("high", 5, 1000, 0))
    assert of.reallocate("needy", 40) == 40
    assert (of.ledger.allocated("needy"), of.ledger.allocated("low")) == (50, 60)
    assert of.reallocate("needy", 500) == 50, "as much as can be had: the reserve stays, and nothing flows uphill"
    assert {name: of.ledger.allocated(name) for name in of.contracts} == {"needy": 100, "low": 10, "high": 1000}
    assert of.reallocate("needy", 0) == of.reallocate("needy", -5) == 0
    with pytest.raises(KeyError):
        of.reallocate("nobody", 5)


def test_equal_priority_may_donate() -> None:
    of = reallocator(("needy", 1, 10, 0), ("peer", 1, 100, 0))
    assert of.reallocate("needy", 30) == 30


# -- the manager -------------------------------------------------------------------------------------------------------


def test_the_program_of_its_page() -> None:
    manager = BudgetManager()
    manager.register_agent("researcher", priority=3, max_tokens=4000)
    manager.register_agent("critic", priority=1, max_tokens=2000)

    @manager.govern("researcher")
    def call_researcher(prompt: str) -> str:
        return f"Results for {prompt}"

    @manager.govern("critic")
    def call_critic(prompt: str) -> str:
        return "Looks right."

    assert call_researcher("find the latest figures on X") == "Results for find the latest figures on X"
    assert call_critic("check the researcher's claims") == "Looks right."
    report = manager.report()
    assert list(report) == ["researcher", "critic"]
    for name, allocated in (("researcher", 4000), ("critic", 2000)):
        assert set(report[name]) == {"allocated", "consumed", "remaining"}
        assert report[name]["allocated"] == allocated
        assert 0 < report[name]["consumed"] < 40
        assert report[name]["remaining"] == allocated - report[name]["consumed"]
    assert call_researcher.__name__ == "call_researcher"


def test_registering_gives_a_contract() -> None:
    manager = BudgetManager()
    contract = manager.register_agent("a", priority=2, max_tokens=500, min_reserve=20, confidence_threshold=0.85)
    assert isinstance(contract, BudgetContract)
    assert manager.contracts["a"] is contract
    assert (contract.agent_name, contract.priority, contract.min_reserve) == ("a", 2, 20)
    assert contract.confidence_threshold == 0.85


def test_an_unknown_agent_is_said_when_a_function_is_decorated() -> None:
    with pytest.raises(UnknownAgentError, match="nobody"):
        BudgetManager().govern("nobody")
    assert issubclass(UnknownAgentError, TBCError)


def test_what_is_short_is_pulled_from_others() -> None:
    manager = BudgetManager()
    manager.register_agent("researcher", priority=3, max_tokens=10)
    manager.register_agent("critic", priority=1, max_tokens=2000)

    @manager.govern("researcher")
    def call(prompt: str) -> str:
        return "word " * 300

    call("hi")
    report = manager.report()
    used = report["researcher"]["consumed"]
    assert report["researcher"] == {"allocated": used, "consumed": used, "remaining": 0}
    assert report["critic"] == {"allocated": 2010 - used, "consumed": 0, "remaining": 2010 - used}


def test_the_error_has_its_figures() -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=10)

    @manager.govern("a")
    def call(prompt: str) -> str:
        raise AssertionError("never called")

    with pytest.raises(BudgetExceededError) as caught:
        call("word " * 300)
    error = caught.value
    assert (error.agent_name, error.available) == ("a", 10)
    assert isinstance(error.requested, int)
    assert error.requested > 300
    assert str(error).startswith(f"Agent 'a' requested {error.requested} tokens, but only 10 tokens were available")
    by_hand = BudgetExceededError("x", 101, 100)
    assert (by_hand.agent_name, by_hand.requested, by_hand.available) == ("x", 101, 100)
    assert isinstance(by_hand, TBCError)


def test_exact_accounting() -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=1000)
    manager.ledger.record("a", 312)
    assert manager.report() == {"a": {"allocated": 1000, "consumed": 312, "remaining": 688}}
    assert manager.remaining("a") == 688


def test_confidence_closes_and_none_opens() -> None:
    manager = BudgetManager()
    contract = manager.register_agent("checker", max_tokens=3000, confidence_threshold=0.85)
    calls = []

    @manager.govern("checker", confidence_fn=lambda result: result["confidence"])
    def check(claim: str) -> dict[str, Any]:
        calls.append(claim)
        return {"answer": "yes", "confidence": 0.9}

    assert check("one")["confidence"] == 0.9
    assert contract.last_confidence == 0.9
    with pytest.raises(BudgetExceededError):
        check("two")
    assert calls == ["one"]
    manager.contracts["checker"].last_confidence = None
    check("three")
    assert calls == ["one", "three"]


def test_exactly_at_the_budget_is_allowed() -> None:
    used = estimate_tokens(("hello there",), {}, "general")
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=used)
    call = manager.govern("a")(lambda prompt: "general")
    assert call("hello there") == "general"
    assert manager.report()["a"] == {"allocated": used, "consumed": used, "remaining": 0}


def test_tokens_are_estimated_from_everything_textual() -> None:
    text = estimate_tokens(("hello there",), {"more": "words here"}, "general")
    assert text == estimate_tokens(("hello there",), {}, None) + estimate_tokens((), {"x": "words here"}, "general")
    assert estimate_tokens((1, None), {}, object()) == 0
    assert estimate_tokens(("hello there",), {}, None) == _count("hello there")
