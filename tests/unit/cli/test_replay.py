"""``farthing replay``: on a ledger that programs wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run

CONFIG = """
[[budgets]]
name = "each-feature"
each = ["feature"]
usd = "0.02"
[[budgets]]
name = "shadow"
requests = 2
on_exceed = "warn"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "new.toml"
    path.write_text(CONFIG)
    return path


def test_what_would_have_been(run: Run, ledger: Path, config: Path) -> None:
    ran = run("replay", "--config", config, "--ledger", ledger)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith("6 calls, ")
    assert lines[1] == "under these budgets: $0.015456; 4 denied"
    assert [line.split()[0] for line in lines if line.startswith(("search", "support"))] == ["search", "support"]
    assert "5 calls had no budget" in ran.out
    assert "1 call denied at the time cannot be made again." in ran.out
    assert max(map(len, lines)) <= 80


def test_as_json_and_the_ledger_stays_as_it_is(run: Run, ledger: Path, config: Path) -> None:
    before = run("report", "--json", "--ledger", ledger).out
    found = json.loads(
        run("replay", "--config", config, "--group-by", "model,feature", "--json", "--ledger", ledger).out
    )
    assert found["calls"] == 6
    assert found["denied_then"] == 1
    assert {row["budget"] for row in found["budgets"]} == {"each-feature", "shadow", "no known price"}
    assert {row["tag"] for row in found["tags"]} == {"model", "feature"}
    assert sum(row["denied"] for row in found["tags"] if row["tag"] == "model") == found["denied"]
    assert run("report", "--json", "--ledger", ledger).out == before
    assert json.loads(run("budgets", "list", "--json", "--ledger", ledger).out)["budgets"][0]["name"] == "nightly"


def test_a_time_without_calls(run: Run, ledger: Path, config: Path) -> None:
    ran = run("replay", "--config", config, "--until", "2020-01-01", "--ledger", ledger)
    assert (ran.code, ran.out) == (0, "There is no call to make again in this ledger, or none in this span of time.\n")


def test_mistakes(run: Run, ledger: Path, config: Path, tmp_path: Path) -> None:
    ran = run("replay", "--config", config, "--since", "soon", "--ledger", ledger)
    assert (ran.code, "--since='soon' is not a time" in ran.err) == (2, True)
    config.write_text("[[budgets]]\nname = 'b'\ntokns = 5\n")
    ran = run("replay", "--config", config, "--ledger", ledger)
    assert (ran.code, "line 3: budgets.b.tokns: unknown key; did you mean 'tokens'?" in ran.err) == (2, True)
    assert run("replay", "--ledger", ledger).code == 2
