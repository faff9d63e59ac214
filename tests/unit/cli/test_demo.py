"""
``farthing demo``: its promise holds whenever it runs, and nothing stays behind.

Its figures are measured, so they are compared with arithmetic: a budget B and calls of one size s admit ⌊B / s⌋.
"""

from __future__ import annotations

import importlib.util
import tempfile
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.runtime import default
from tests.unit.cli.conftest import Run

SCENES = ("50 calls at once", "20 streams at once", "20 through the proxy", "kill -9, restarted")


def rows_of(answer: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["scene"], row["way"]): row for row in answer["rows"]}


def check(answer: dict[str, Any], scenes: tuple[str, ...]) -> None:
    rows = rows_of(answer)
    assert {scene for scene, _ in rows} == set(scenes)
    size = Decimal(answer["call_usd"])
    for scene in scenes:
        ours, naive = rows[scene, "farthing"], rows[scene, "check, then record"]
        assert ours["sent"] == Decimal(ours["budget_usd"]) // size
        assert Decimal(ours["billed_usd"]) == ours["sent"] * size
        assert ours["over_usd"] == "0"
        assert ours["denied"] == ours["tried"] - ours["sent"]
        assert ours["denied_with_room"] == 0
        assert Decimal(naive["over_usd"]) > 0
    killed = answer["killed"]
    assert killed["billed_usd"] == killed["suspect_usd"]
    assert Decimal(killed["billed_usd"]) == killed["in_flight"] * size


@pytest.fixture
def nothing_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """No thread, no file; and the user's own ledger is neither read nor written."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    own = tmp_path / "own.db"
    farthing.reset()
    before = set(threading.enumerate())
    farthing.configure(ledger=f"sqlite:///{own}")
    runtime = default.runtime()
    yield
    assert list(temporary.iterdir()) == []
    assert default.runtime() is runtime
    assert len(farthing.report(since="all")) == 0
    farthing.reset()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), f"{thread.name} still runs"


@pytest.mark.usefixtures("nothing_left_behind")
def test_budgets_hold_with_the_sdk(run: Run) -> None:
    ran = run("demo", "--quick", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["client"].startswith("openai ")
    check(ran.json, SCENES)


@pytest.mark.usefixtures("nothing_left_behind")
def test_budgets_hold_without_an_sdk_and_that_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openai" else find_spec(name))
    ran = run("demo", "--quick", "--json", "--calls", 20)
    assert ran.code == 0, ran.err
    assert ran.json["client"] == "http.client"
    check(ran.json, ("20 calls at once", "20 through the proxy", "kill -9, restarted"))


@pytest.mark.usefixtures("nothing_left_behind")
def test_what_people_see(run: Run) -> None:
    ran = run("demo", "--quick", "--calls", 10)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    for line in lines:
        if line.startswith("  farthing "):
            assert line.split()[-1] == "0", "the last column says by how much the budget was passed"
    assert "with budget(usd=0.05):" in ran.out
    assert lines[-1].endswith("docs/tutorial.md")


def test_no_line_of_a_pipe_is_filled_up_with_blanks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or another program has no edge, and a line up to it would have thousands of them."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert max(map(len, run("demo", "--quick", "--calls", 10).out.splitlines())) < 400


@pytest.mark.filterwarnings("ignore::farthing.UngovernedClientWarning")
def test_a_budget_that_is_not_kept_fails_loudly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from farthing.cli.demo import scenes

    class Ungoverned(scenes.SDKCaller):
        def __init__(self, openai_url: str, *, governed: bool) -> None:
            super().__init__(openai_url, governed=False)

    monkeypatch.setattr(
        scenes, "make_caller", lambda url, *, governed, call_usd=None: Ungoverned(url, governed=governed)
    )
    ran = run("demo", "--quick", "--calls", 10, "--json")
    assert ran.code == 1
    assert "bug of ours" in ran.err


@pytest.mark.parametrize("calls", ["9", "1001", "many"])
def test_too_few_or_too_many_calls_are_a_mistake_in_usage(run: Run, calls: str) -> None:
    assert run("demo", "--calls", calls).code == 2
