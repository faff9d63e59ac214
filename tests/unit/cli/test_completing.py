"""What a shell is offered: asked as bash asks, through the parser, on a real ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(run: Run, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """The words offered behind a line that is being typed; nothing else is said."""

    def completing(line: str) -> list[str]:
        monkeypatch.setenv("_FARTHING_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        ran = run()
        monkeypatch.delenv("_FARTHING_COMPLETE")
        assert (ran.code, ran.err) == (0, "")
        return ran.out.split()

    return completing


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("farthing budgets f", ["freeze"]),
        ("farthing budgets set x --on-exceed d", ["downgrade"]),
        ("farthing budgets set x --uncapped ", ["reject", "inject", "watch"]),
        ("farthing budgets set x --per m", ["minute", "month"]),
        ("farthing export --format ", ["csv", "jsonl"]),
        ("farthing serve --deny-status 40", ["400", "402", "403"]),
        ("farthing estimate gpt-4o --provider anth", ["anthropic"]),
    ],
)
def test_words_of_an_option(complete: Complete, line: str, offered: list[str]) -> None:
    assert complete(line) == offered


def test_models_by_their_first_letters(complete: Complete) -> None:
    assert "gpt-4o-mini" in complete("farthing explain gpt-4o")
    assert complete("farthing explain ") == []


def test_names_of_the_ledger(complete: Complete, run: Run, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete(f"farthing budgets show --ledger {ledger} ") == ["nightly"]
    monkeypatch.setenv("FARTHING_LEDGER", str(ledger))
    assert complete("farthing budgets grant n") == ["nightly"]
    assert complete("farthing report --group-by model,f") == ["model,feature"]
    key = run("keys", "create", "--user", "alice", "--json").json["id"]
    assert complete("farthing keys revoke ") == [key]


def test_suspects(complete: Complete, run: Run, after_a_kill: Path) -> None:
    known = [hold["id"] for hold in run("holds", "list", "--json", "--ledger", after_a_kill).json["holds"]]
    assert sorted(complete(f"farthing holds resolve --ledger {after_a_kill} ")) == sorted(known)


def test_without_a_ledger_there_are_no_names_and_no_words_about_it(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"not a ledger" * 1_000)
    for name in ("none.db", "broken.db", ".", "long" * 1_000):
        assert complete(f"farthing budgets show --ledger {tmp_path / name} ") == []
    assert not (tmp_path / "none.db").exists()
