"""``farthing agents``: a crew's figures, as people and as programs read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from farthing import hold, reset
from farthing.agents import BudgetManager

from .conftest import Run


@pytest.fixture
def path(farthing_isolated: None, tmp_path: Path) -> Path:
    path = tmp_path / "crew.db"
    manager = BudgetManager(f"sqlite:///{path}", "crew")
    manager.register_agent("planner", priority=3, max_tokens=1_000)
    manager.register_agent("critic", priority=1, max_tokens=2_000)
    manager.register_agent("accountant", priority=1, max_usd=5)
    with manager.agent("planner"), hold(tokens=1_500) as held:
        held.settle(tokens=1_200)
    manager.delegate("critic", "sub", max_tokens=300)
    reset()
    return path


def test_who_has_what_and_who_lent_to_whom(path: Path, run: Run) -> None:
    said = run("agents", "--ledger", str(path)).out
    planner = next(line for line in said.splitlines() if line.startswith("planner"))
    assert planner.split()[1:8] == ["3", "1,200", "1,200", "0", "0", "0", "200"]
    assert "critic → planner: 200 tokens" in said
    assert "sub of critic" in said
    assert "$5.00" in said


def test_json(path: Path, run: Run) -> None:
    answer = run("agents", "crew", "--json", "--ledger", path).json
    (crew,) = answer["crews"]
    assert crew["crew"] == "crew"
    by_name = {agent["name"]: agent for agent in crew["agents"]}
    assert by_name["critic"]["lent"] == 500
    assert by_name["sub"]["parent"] == "critic"
    assert by_name["accountant"]["allocated"] == "5"
    assert crew["lent"] == [{"from": "critic", "to": "planner", "unit": "tokens", "used": 200, "in_flight": 0}]


def test_mistakes(path: Path, run: Run) -> None:
    nobody = run("agents", "nobody", "--ledger", path)
    assert (nobody.code, "no crew is named 'nobody'" in nobody.err) == (2, True)
    both = run("agents", "--watch", "--json", "--ledger", path)
    assert (both.code, "either --watch or --json" in both.err) == (2, True)
    piped = run("agents", "--watch", "--ledger", path)
    assert (piped.code, "--watch is for a terminal" in piped.err) == (2, True)
