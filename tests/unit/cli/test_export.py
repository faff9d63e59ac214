"""``farthing export``: every row once, with the report's figures, in a form that other programs read."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path

import pytest

import farthing
from farthing.reports import exporting
from farthing.reports.rows import COLUMNS
from tests.unit.cli.conftest import Run


def test_json_lines_add_up_to_the_report(run: Run, ledger: Path) -> None:
    ran = run("export", "--ledger", ledger)
    rows = [json.loads(line) for line in ran.out.splitlines()]
    total = run("report", "--json", "--ledger", ledger).json["total"]
    assert ran.code == 0
    assert ran.err == "", "to the screen go rows and nothing else"
    assert tuple(rows[0]) == COLUMNS
    assert len({row["id"] for row in rows}) == len(rows) == total["calls"]
    assert sum(Decimal(row["usd"] or 0) for row in rows) == Decimal(total["usd"])
    assert sum(row["usd"] is None for row in rows) == total["unpriced_calls"] == 1


def test_pages_do_not_show(run: Run, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("export", "--ledger", ledger).out
    monkeypatch.setattr(exporting, "PAGE_ROWS", 2)
    assert run("export", "--ledger", ledger).out == whole


def test_csv_to_a_file_with_a_column_for_a_tag(run: Run, ledger: Path, tmp_path: Path) -> None:
    file = tmp_path / "calls.csv"
    ran = run("export", "-o", file, "--column", "user,feature", "--where", "feature=search", "--ledger", ledger)
    assert ran.code == 0
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert {row["tag.feature"] for row in rows} == {"search"}
    assert sorted(row["tag.user"] for row in rows) == ["", "alice", "alice", "alice"]
    assert json.loads(rows[0]["tags"]) == {"feature": "search", "user": "alice"}
    assert f"{len(rows)} rows" in ran.out


@pytest.mark.parametrize("user", ['=HYPERLINK("x")', "-2+cmd|' /C calc'!A0", "+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_tag_is_no_formula(run: Run, tmp_path: Path, user: str) -> None:
    (row,) = exported(run, tmp_path, user)
    assert row["tag.user"] == f"'{user}"


@pytest.mark.parametrize("user", ["-2", "a\rb", "a\r\nb", "a\nb", 'a"b,c', "\u2028", "日本 😀"])
def test_a_tag_stays_what_it_is_in_one_row(run: Run, tmp_path: Path, user: str) -> None:
    (row,) = exported(run, tmp_path, user)
    assert row["tag.user"] == user
    assert json.loads(row["tags"]) == {"user": user}


def exported(run: Run, tmp_path: Path, user: str) -> list[dict[str, str]]:
    """What a program reads that was not told how lines end: a carriage return out of quotes ends one too."""
    farthing.reset()
    farthing.configure(ledger=f"sqlite:///{tmp_path}/ledger.db")
    farthing.record({"input_tokens": 1}, model="gpt-4o", user=user)
    farthing.reset()
    run("export", "-o", tmp_path / "calls.csv", "--column", "user", "--ledger", tmp_path / "ledger.db")
    with (tmp_path / "calls.csv").open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_times_narrow_it(run: Run, ledger: Path) -> None:
    assert run("export", "--until", "2020-01-01", "--ledger", ledger).out == ""
    assert len(run("export", "--since", "1h", "--ledger", ledger).out.splitlines()) == 6
    assert run("export", "--since", "1h", "--format", "csv", "--until", "2020-01-01", "--ledger", ledger).out == (
        ",".join(COLUMNS) + "\n"
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [(["--format", "xml"], "--format"), (["--since", "soon"], "--since"), (["--where", "x"], "--where")],
)
def test_words_that_mean_nothing_are_named(run: Run, ledger: Path, words: list[str], named: str) -> None:
    ran = run("export", *words, "--ledger", ledger)
    assert ran.code == 2
    assert named in ran.err
