"""``farthing explain``: what a person is told, what a program is, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import farthing
from tests.unit.cli.conftest import Run


@pytest.fixture
def ledger(run: Run, tmp_path: Path) -> str:
    path = str(tmp_path / "ledger.db")
    for name, *terms in (("each-user", "--tokens", "500", "--per", "day", "--each", "user"), ("all", "--usd", "1")):
        assert run("budgets", "set", name, *terms, "--ledger", path).code == 0
    return path


def test_a_call_that_passes(run: Run, ledger: str) -> None:
    ran = run("explain", "gpt-4o", "--text", "hi", "--ledger", ledger)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "allowed"
    assert "given an output ceiling of 492 tokens: all that fits in budget 'each-user'" in ran.out
    assert lines[-1] == "It would pass now."


def test_a_call_that_does_not_is_exit_code_3(run: Run, ledger: str) -> None:
    options = ["--input-tokens", "100", "--max-output-tokens", "1000", "--tag", "user=alice", "--ledger", ledger]
    ran = run("explain", "gpt-4o", *options)
    assert ran.code == 3
    said = " ".join(ran.out.split())
    assert "budget 'each-user' for user=alice: limit 500 tokens, spent 0 tokens, held 0 tokens, asked 1,100" in said
    ran = run("explain", "gpt-4o", *options, "--json")
    assert (ran.code, ran.err) == (3, "")
    found = json.loads(ran.out)
    assert (found["allowed"], found["decision"]["budget"], found["decision"]["asked"]) == (False, "each-user", 1100)


def test_nothing_is_held_or_counted(run: Run, ledger: str) -> None:
    run("explain", "gpt-4o", "--input-tokens", "9999", "--ledger", ledger)
    figures = json.loads(run("budgets", "list", "--json", "--ledger", ledger).out)["budgets"]
    assert {row[unit]["held"] for row in figures for unit in ("tokens", "usd") if "held" in row.get(unit, {})} <= {
        0,
        "0",
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--text", "a", "--input-tokens", "5"], "give only one of --text, --file and --input-tokens"),
        (["--input-tokens", "-1"], "--input-tokens must be"),
        (["--max-output-tokens", "0"], "--max-output-tokens must be"),
        (["--budget", "alll"], "no budget is named 'alll'"),
        (["--tag", "user"], "--tag takes TAG=VALUE"),
    ],
)
def test_mistakes(run: Run, ledger: str, options: list[str], says: str) -> None:
    ran = run("explain", "gpt-4o", *options, "--ledger", ledger)
    assert (ran.code, says in ran.err) == (2, True)


def test_a_newcomer_is_told_of_the_budgets_that_programs_name(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    farthing.reset()
    farthing.configure(ledger=path)
    with farthing.budget("search", tokens=100), farthing.hold(tokens=10):
        pass
    farthing.reset()
    ran = run("explain", "gpt-4o", "--text", "hi", "--ledger", path)
    assert "bind only where a program names them: search." in " ".join(ran.out.split())
    assert "search" not in run("explain", "gpt-4o", "--text", "hi", "--budget", "search", "--ledger", path).err
    assert "--budget NAME" not in run("explain", "gpt-4o", "--text", "hi", "--budget", "search", "--ledger", path).out


def test_a_budget_that_was_asked_about_and_binds_other_calls_says_so(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    farthing.reset()
    farthing.configure(ledger=path)
    with farthing.track(team="s"), farthing.budget("search", tokens=100, scope={"team": "s"}), farthing.hold(tokens=10):
        pass
    farthing.reset()
    out = run("explain", "gpt-4o", "--text", "hi", "--budget", "search", "--tag", "user=bob", "--ledger", path).out
    assert "budget 'search' binds only calls of its scope, so ask with --tag team=s" in " ".join(out.split())
    assert "--budget NAME" not in out
