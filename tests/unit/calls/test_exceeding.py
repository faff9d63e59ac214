"""
Goal: what several failing budgets say together is what the design says, for every mode beside every other.
Method: every multiset of one, two and three modes, in every order, against the rules written as a list of precedence;
nothing but the failing lines is given, so it is the whole input.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations

import pytest

from farthing.calls.exceeding import Consult, Deny, Downgrade, Wait, next_step
from farthing.kernel.balances import Balance
from farthing.kernel.budget import Budget, make_budget
from farthing.kernel.plan import Formula, Line, LineResult

MAP = {"gpt-4o": "gpt-4o-mini", "gpt-4o-mini": "gpt-4.1-nano"}
MODES = ("block", "clamp", "downgrade", "wait", "break", "truncate", "raise", "callable")
"""Those whose lines can fail; ``warn`` never objects."""


def budget(mode: str, number: int = 0) -> Budget:
    name = f"{mode}-{number}"
    if mode == "callable":
        return make_budget(name, tokens=100, on_exceed=lambda decision: None)
    return make_budget(name, tokens=100, on_exceed=mode, downgrade=MAP if mode == "downgrade" else None)


def failing(budget: Budget, *, held: int = 50, frozen: bool = False) -> LineResult:
    """A line that fails now, and would hold once what is held comes back."""
    line = Line(budget, (), "tokens", ("k",), 100, frozen=frozen)
    return LineResult(line, (Balance(40, held),), 30, Formula(30))


def expected(modes: tuple[str, ...]) -> str:
    """The rules, the strongest first."""
    if all(mode == "truncate" for mode in modes):
        return "quiet"
    for blocks in ("block", "raise", "truncate"):
        if blocks in modes:
            return "denied"
    for tried in ("callable", "downgrade"):
        if tried in modes:
            return tried
    for shrunk in ("clamp", "break"):
        # Such a line has shrunk the call as far as it may before it fails.
        if shrunk in modes:
            return "denied"
    return "wait"


@pytest.mark.parametrize("together", [1, 2, 3])
def test_every_mode_beside_every_other(together: int) -> None:
    for chosen in combinations_with_replacement(MODES, together):
        for modes in set(permutations(chosen)):
            lines = tuple(failing(budget(mode, number)) for number, mode in enumerate(modes))
            step = next_step(lines, model="gpt-4o", now_ms=0)
            match expected(modes):
                case "quiet":
                    assert step == Deny(frozenset(line.line.budget.name for line in lines)), modes
                case "denied":
                    assert step == Deny(), modes
                case "callable":
                    assert step == Consult(f"callable-{modes.index('callable')}"), modes
                case "downgrade":
                    by = lines[modes.index("downgrade")].line.budget
                    assert step == Downgrade("gpt-4o-mini", by), modes
                case "wait":
                    queues = frozenset((line.line.budget.name,) for line in lines)
                    assert step == Wait(queues, 30), modes


@pytest.mark.parametrize("mode", MODES)
def test_a_frozen_budget_denies_whatever_another_says(mode: str) -> None:
    lines = (failing(budget("wait"), frozen=True), failing(budget(mode, 1)))
    assert next_step(lines, model="gpt-4o", now_ms=0) == Deny()


@pytest.mark.parametrize("mode", ["downgrade", "wait", "clamp"])
def test_a_callable_is_asked_once(mode: str) -> None:
    lines = (failing(budget("callable")), failing(budget(mode, 1)))
    assert next_step(lines, model="gpt-4o", consulted=["callable-0"], now_ms=0) == Deny()


def test_each_callable_is_asked() -> None:
    lines = (failing(budget("callable")), failing(budget("callable", 1)))
    assert next_step(lines, model="gpt-4o", consulted=["callable-0"], now_ms=0) == Consult("callable-1")
    assert next_step(lines, model="gpt-4o", consulted=["callable-0", "callable-1"], now_ms=0) == Deny()


def test_no_model_is_tried_twice() -> None:
    """Two maps, each without a ring, may make one."""
    assert next_step((failing(budget("downgrade")),), model="gpt-4o", tried=["gpt-4o-mini"], now_ms=0) == Deny()


@pytest.mark.parametrize("mode", ["downgrade", "wait", "clamp", "break"])
def test_where_no_cheaper_model_is_named_the_call_is_denied(mode: str) -> None:
    lines = (failing(budget("downgrade")), failing(budget(mode, 1)))
    assert next_step(lines, model="gpt-4.1-nano", now_ms=0) == Deny()


def test_each_budget_that_downgrades_has_to_name_a_cheaper_model() -> None:
    other = make_budget("other", tokens=100, on_exceed="downgrade", downgrade={"gpt-5": "gpt-5-mini"})
    lines = (failing(budget("downgrade")), failing(other))
    assert next_step(lines, model="gpt-4o", now_ms=0) == Deny()


def test_waiting_is_as_long_as_the_most_impatient_waits() -> None:
    patient = make_budget("patient", tokens=100, on_exceed="wait", wait_seconds=60)
    hasty = make_budget("hasty", tokens=100, on_exceed="wait", wait_seconds=2)
    step = next_step((failing(patient), failing(hasty)), model="m", now_ms=0)
    assert step == Wait(frozenset({("patient",), ("hasty",)}), 2)


def test_nobody_waits_for_what_one_budget_can_never_give() -> None:
    lines = (failing(budget("wait")), failing(budget("wait", 1), held=0))
    assert next_step(lines, model="m", now_ms=0) == Deny()
