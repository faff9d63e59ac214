"""``farthing holds``: what nobody knows the outcome of is seen, and ended by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

import farthing
from tests.unit.cli.conftest import Run


def nightly(run: Run, path: Path) -> dict[str, int]:
    (row,) = run("budgets", "list", "--json", "--ledger", path).json["budgets"]
    tokens: dict[str, int] = row["tokens"]
    return tokens


def test_holds_of_a_killed_process_are_suspect(run: Run, after_a_kill: Path) -> None:
    found = run("holds", "list", "--json", "--ledger", after_a_kill).json["holds"]
    assert [(hold["state"], hold["tokens"], hold["budgets"]) for hold in found] == [
        ("suspect", 2_000, ["nightly"]),
        ("suspect", 1_000, ["nightly"]),
    ]
    text = run("holds", "list", "--ledger", after_a_kill).out
    assert all(hold["id"] in text for hold in found)
    assert "farthing holds resolve" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_call_in_flight_is_held_and_looking_leaves_it_alone(run: Run, ledger: Path) -> None:
    farthing.configure(ledger=f"sqlite:///{ledger}")
    with farthing.budget("nightly", tokens=10_000), farthing.hold(tokens=70, model="gpt-4o-mini") as held:
        (found,) = run("holds", "list", "--json", "--ledger", ledger).json["holds"]
        assert (found["state"], found["tokens"]) == ("held", 70)
        refused = run("holds", "resolve", found["id"], "--release", "--ledger", ledger)
        assert refused.code == 1
        assert "not suspect" in refused.err
        held.settle(tokens=7)
    farthing.reset()
    assert nightly(run, ledger)["spent"] == 3_017


def test_settle_at_hold_counts_it_and_release_gives_it_back(run: Run, after_a_kill: Path) -> None:
    first, second = (hold["id"] for hold in run("holds", "list", "--json", "--ledger", after_a_kill).json["holds"])
    ran = run("holds", "resolve", first, "--settle-at-hold", "--note", "on the invoice", "--ledger", after_a_kill)
    assert ran.code == 0
    assert "2,000 tokens" in ran.out
    assert run("holds", "resolve", second, "--release", "--json", "--ledger", after_a_kill).json["resolved"] == [second]
    tokens = nightly(run, after_a_kill)
    assert (tokens["spent"], tokens["suspect"], tokens["remaining"]) == (2_000, 0, 8_000)
    assert run("report", "--json", "--ledger", after_a_kill).json["total"]["suspect"] == 0


def test_all_suspects_at_once_after_a_question(run: Run, after_a_kill: Path) -> None:
    resolve = ("holds", "resolve", "--all-suspect", "--settle-at-hold", "--ledger", after_a_kill)
    asked = run(*resolve, stdin="n\n")
    assert asked.code == 1
    assert "2 suspect calls" in asked.err
    assert nightly(run, after_a_kill)["suspect"] == 3_000
    assert run(*resolve, "--yes").code == 0
    assert nightly(run, after_a_kill)["spent"] == 3_000
    assert "nothing to resolve" in run(*resolve).out, "without a suspect there is nothing to ask"


def test_nothing_held_is_said(run: Run, empty: Path) -> None:
    assert "Nothing is held" in run("holds", "list", "--ledger", empty).out
    assert run("holds", "list", "--json", "--ledger", empty).json == {"holds": []}


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["some-id"], 2, "either --settle-at-hold (it was billed) or --release"),
        (["some-id", "--settle-at-hold", "--release"], 2, "either --settle-at-hold (it was billed) or --release"),
        (["--release"], 2, "--all-suspect"),
        (["some-id", "--all-suspect", "--release"], 2, "--all-suspect"),
        (["some-id", "--release"], 2, "no hold has the id 'some-id'"),
    ],
)
def test_what_cannot_be_resolved_is_said(run: Run, ledger: Path, words: list[str], code: int, named: str) -> None:
    ran = run("holds", "resolve", *words, "--ledger", ledger)
    assert ran.code == code
    assert named in ran.err
