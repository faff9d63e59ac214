"""Every error carries its evidence: as attributes, as JSON, and through pickle and copy."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from farthing import errors
from farthing.errors import (
    AgentFunctionError,
    BudgetExceeded,
    BudgetExceededError,
    ConfidenceReached,
    ConfigError,
    FarthingError,
    HoldConflict,
    HoldError,
    HoldNotFound,
    InvariantError,
    StoreUnavailable,
    TBCError,
    UnknownAgent,
    UnmeteredCall,
    UnpricedModel,
)
from farthing.kernel.balances import Balance
from farthing.kernel.budget import make_budget
from farthing.kernel.decision import Decision, denial, refusal
from farthing.kernel.plan import Formula, Line, LineResult

BUDGET = make_budget("team", usd=5, per="day")
LINE = Line(BUDGET, (("team", "a"),), "usd", ("k",), 5_000_000_000, ends_ms=86_400_000)
DENIED: Decision = denial((LineResult(LINE, (Balance(5_000_000_000),), 10, Formula(10)),), now_ms=0)

ERRORS: list[tuple[FarthingError, dict[str, Any]]] = [
    (FarthingError("a message"), {}),
    (BudgetExceeded(DENIED), {"budget": "team", "unit": "usd", "limit": DENIED.limit, "overrun": 0}),
    (BudgetExceeded(refusal(budget="b", remedy="Do this.")), {"budget": "b", "remedy": "Do this."}),
    (BudgetExceededError("a", 5, 3), {"agent_name": "a", "requested": 5, "available": 3}),
    (
        BudgetExceededError("a", 5, 3, decision=DENIED, ended=True),
        {"agent_name": "a", "requested": 5, "available": 3, "budget": "team"},
    ),
    (
        ConfidenceReached("a", task="t", confidence=0.9, available=7),
        {"agent_name": "a", "task": "t", "confidence": 0.9, "requested": 0, "available": 7},
    ),
    (TBCError("a message"), {}),
    (
        AgentFunctionError("usage_fn", "a", "raised KeyError: 'usage'"),
        {"function": "usage_fn", "agent_name": "a", "problem": "raised KeyError: 'usage'"},
    ),
    (UnknownAgent("a", known=("b",)), {"agent_name": "a"}),
    (UnpricedModel("m-1"), {"model": "m-1", "provider": None, "budget": None}),
    (UnpricedModel("m-1", provider="p", budget="b"), {"model": "m-1", "provider": "p", "budget": "b"}),
    (UnmeteredCall("POST", "https://h/v1/x"), {"method": "POST", "url": "https://h/v1/x", "budget": None}),
    (
        UnmeteredCall("POST", "https://h/v1/x", budget="b", reason="why"),
        {"method": "POST", "url": "https://h/v1/x", "budget": "b", "reason": "why"},
    ),
    (HoldError("a message", hold_id="h"), {"hold_id": "h"}),
    (HoldNotFound("a message", hold_id="h"), {"hold_id": "h"}),
    (HoldConflict("a message", hold_id="h"), {"hold_id": "h"}),
    (StoreUnavailable("memory", "locked"), {"store": "memory", "reason": "locked"}),
    (ConfigError("a message", key="usd"), {"key": "usd", "file": None, "line": None}),
    (ConfigError("a message", key="usd", file="f.toml", line=3), {"key": "usd", "file": "f.toml", "line": 3}),
    (
        ConfigError("one", key="a", file="f", line=1, others=(ConfigError("two", key="b", file="f", line=2),)),
        {"key": "a", "line": 1},
    ),
    (InvariantError("a message"), {}),
]
EACH = pytest.mark.parametrize(("error", "evidence"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])


def test_this_list_is_the_whole_tree() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FarthingError)}
    assert {type(error) for error, _ in ERRORS} == kinds


@EACH
def test_the_evidence_is_on_the_error(error: FarthingError, evidence: dict[str, Any]) -> None:
    for name, value in evidence.items():
        assert getattr(error, name) == value
    assert str(error)


@EACH
def test_the_evidence_is_ready_for_json(error: FarthingError, evidence: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(error.to_dict()))
    assert plain["error"] == type(error).__name__
    assert plain["message"] == str(error)
    assert evidence.keys() <= plain.keys()


@EACH
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_errors_cross_process_pools(error: FarthingError, evidence: dict[str, Any], protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.to_dict() == error.to_dict()
    for name, value in evidence.items():
        assert getattr(again, name) == value


@EACH
def test_errors_can_be_copied(error: FarthingError, evidence: dict[str, Any]) -> None:
    assert copy.copy(error).to_dict() == copy.deepcopy(error).to_dict() == error.to_dict()


def test_one_except_catches_all_and_the_usual_ones_catch_theirs() -> None:
    assert issubclass(HoldNotFound, LookupError)
    assert issubclass(ConfigError, ValueError)
    assert not issubclass(BudgetExceeded, ValueError)


def test_what_users_of_the_predecessor_catch() -> None:
    for kind in (BudgetExceededError, ConfidenceReached, UnknownAgent, AgentFunctionError):
        assert issubclass(kind, TBCError)
    assert issubclass(BudgetExceededError, BudgetExceeded)
    assert issubclass(UnknownAgent, KeyError)
    assert errors.UnknownAgentError is UnknownAgent
    assert str(UnknownAgent("a", known=("b", "c"))) == "no agent is named 'a'; registered are b, c"


def test_budget_exceeded_repeats_its_decision() -> None:
    error = BudgetExceeded(DENIED, result={"paid": "answer"})
    shown = "budget scope unit limit spent held suspect asked remaining overrun resets_at retry_after_seconds remedy"
    for name in [*shown.split(), "failed"]:
        assert getattr(error, name) == getattr(DENIED, name)
    assert error.decision is DENIED
    assert error.result == {"paid": "answer"}
    assert BudgetExceeded(DENIED).result is None


def test_a_subclass_made_for_one_sdk_travels_as_its_picklable_base() -> None:
    local = type("BudgetExceeded", (BudgetExceeded,), {})
    again = pickle.loads(pickle.dumps(local(DENIED)))
    assert type(again) is BudgetExceeded
    assert again.decision == DENIED


def test_a_config_error_says_where() -> None:
    assert (
        str(ConfigError("must be a number", key="usd", file="f.toml", line=3))
        == "f.toml: line 3: usd: must be a number"
    )
    assert str(ConfigError("must be a number", key="usd")) == "usd: must be a number"


def test_an_unpriced_model_names_the_budget_and_what_to_do() -> None:
    text = str(UnpricedModel("m-1", provider="p", budget="b"))
    assert "'b'" in text
    assert "prices.register('m-1'" in text


def test_a_paid_answer_crosses_process_pools() -> None:
    error = BudgetExceeded(DENIED, result={"paid": "answer"}, truncates=frozenset({"unit-1"}))
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert again.result == {"paid": "answer"}
        assert again.truncates == {"unit-1"}
        assert again.decision == DENIED
    failed = AgentFunctionError("usage_fn", "critic", "raised KeyError", result={"paid": "answer"})
    for same in (pickle.loads(pickle.dumps(failed)), copy.copy(failed)):
        assert same.result == {"paid": "answer"}


def test_an_answer_that_cannot_be_pickled_stays_behind_and_its_error_does_not() -> None:
    """Better an error without its answer than a process pool that breaks for want of one."""
    error = BudgetExceeded(DENIED, result=lambda: "a lambda has no name to be found by")
    again = pickle.loads(pickle.dumps(error))
    assert again.result is None
    assert again.decision == DENIED
    assert copy.copy(error).result is error.result


# -- as they are read ------------------------------------------------------------------------------------------------


def test_what_a_configuration_error_begins_with_is_not_said_twice() -> None:
    assert str(ConfigError("budget 'b' exists with other terms", key="budget")) == "budget 'b' exists with other terms"
    assert str(ConfigError("no budget is named 'b'", key="budget")) == "no budget is named 'b'"
    assert str(ConfigError("must be text", key="ledger")) == "ledger: must be text"
    in_a_file = ConfigError("the configuration cannot be read", key="configuration", file="f.toml")
    assert str(in_a_file) == "f.toml: the configuration cannot be read"
    assert (in_a_file.key, in_a_file.reason) == ("configuration", "the configuration cannot be read")


def test_one_of_a_thing_is_not_many() -> None:
    budget = make_budget("b", requests=1)
    line = Line(budget, (), "requests", ("k",), 1)
    said = denial((LineResult(line, (Balance(1),), 1, Formula(1)),), now_ms=0).message()
    assert "limit 1 request, spent 1 request, held 0 requests, asked 1 request; 0 requests remain." in said
    at_once = Line(make_budget("b", concurrency=1), (), "concurrency", ("k",), 1)
    assert (
        "limit 1 call at once, 1 in flight."
        in denial((LineResult(at_once, (Balance(0, 1),), 1, Formula(1)),), now_ms=0).message()
    )
    assert make_budget("b", requests=1, tokens=1).terms_text() == "1 token and 1 request"


def test_another_remedy_is_said_in_the_message_too() -> None:
    again = DENIED.with_remedy("Do this.")
    assert again.message().endswith("Do this.")
    assert (again.remedy, again.failed[0].remedy) == ("Do this.", "Do this.")
    assert (again.limit, again.resets_at) == (DENIED.limit, DENIED.resets_at)
