"""``farthing report``: the figures are those of the ledger, and what they leave out is said."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

import farthing
from farthing.admin.standing import set_budget
from farthing.stores.sqlite import SQLiteStore
from farthing.testing import FakeClock
from tests.unit.cli.conftest import Run


def test_figures_are_those_of_the_library(run: Run, ledger: Path) -> None:
    answer = run("report", "--group-by", "feature,model", "--json", "--ledger", ledger).json
    farthing.configure(ledger=f"sqlite:///{ledger}")
    expected = farthing.report(["feature", "model"], since="all")
    assert [{**row, "usd": Decimal(row["usd"])} for row in answer["rows"]] == expected.to_dicts()
    assert Decimal(answer["total"]["usd"]) == expected.total() > 0
    assert answer["group_by"] == ["feature", "model"]


def test_json_has_integers_and_decimal_texts(run: Run, ledger: Path) -> None:
    (row,) = run("report", "--where", "model=gpt-4o", "--json", "--ledger", ledger).json["rows"]
    # Three calls at $2.50 and $10.00 per million.
    assert row["usd"] == "0.045"
    assert row["input_tokens"] == 12_000
    assert row["output_tokens"] == 1_500
    assert row["calls"] == 3


def test_table_marks_what_is_unpriced_and_denied(run: Run, ledger: Path) -> None:
    ran = run("report", "--ledger", ledger)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    (own,) = [line for line in lines if line.startswith("my-own-model")]
    assert "unknown" in own
    assert "$" not in own
    (mini,) = [line for line in lines if line.startswith("gpt-4o-mini")]
    assert mini.split()[-2] == "1" or mini.split()[-1] == "1"
    assert "denied" in lines[0]
    assert "1 call without a known price" in ran.out
    assert "*" in next(line for line in lines if line.startswith("total"))


def test_suspects_are_said(run: Run, after_a_kill: Path) -> None:
    ran = run("report", "--ledger", after_a_kill)
    assert "2 calls with an unknown outcome, counted at all that was held" in " ".join(ran.out.split())
    assert run("report", "--json", "--ledger", after_a_kill).json["total"]["suspect"] == 2


def test_where_and_time_narrow_it(run: Run, ledger: Path) -> None:
    assert run("report", "--where", "user=bob", "--json", "--ledger", ledger).json["total"]["calls"] == 2
    assert run("report", "--since", "1h", "--json", "--ledger", ledger).json["total"]["calls"] == 6
    assert run("report", "--until", "2020-01-01", "--json", "--ledger", ledger).json["total"]["calls"] == 0


def test_a_group_that_a_call_does_not_have_is_named(run: Run, ledger: Path) -> None:
    assert "(no user)" in run("report", "--group-by", "user", "--ledger", ledger).out


def test_an_empty_ledger_says_what_to_do(run: Run, empty: Path) -> None:
    ran = run("report", "--ledger", empty)
    assert ran.code == 0
    assert "instrument(OpenAI())" in ran.out
    assert str(empty) in ran.out
    assert run("report", "--json", "--ledger", empty).json["rows"] == []


def test_nothing_matched_is_not_an_empty_ledger(run: Run, ledger: Path) -> None:
    ran = run("report", "--where", "user=nobody", "--ledger", ledger)
    assert ran.code == 0
    assert "matches" in ran.out
    assert "instrument" not in ran.out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--since", "tomorrow"], "--since='tomorrow'"),
        (["--until", "2026-13-01"], "--until"),
        (["--where", "user"], "--where takes KEY=VALUE"),
    ],
)
def test_words_that_mean_nothing_are_named(run: Run, ledger: Path, words: list[str], named: str) -> None:
    ran = run("report", *words, "--ledger", ledger)
    assert ran.code == 2
    assert named in ran.err
    assert len(ran.err.strip().splitlines()) <= 2  # the ledger's name, and the mistake


def test_narrow_and_wide_terminals(run: Run, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("60", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        ran = run("report", "--group-by", "feature,model", "--ledger", ledger)
        assert max(map(len, ran.out.splitlines())) <= int(columns)
        assert ("█" in ran.out) == (columns == "200"), "bars take what room the figures leave"
        assert "search" in ran.out


def test_days_come_in_their_order_and_rows_can_be_limited(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with FakeClock() as clock:
        farthing.configure(ledger=f"sqlite:///{path}")
        for tokens in (1_000, 9_000, 4_000):
            farthing.record({"input_tokens": tokens}, model="gpt-4o")
            clock.advance(days=1)
    answer = run("report", "--group-by", "day", "--json", "--ledger", path).json
    assert [row["tags"]["day"] for row in answer["rows"]] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    ran = run("report", "--group-by", "day", "--limit", 1, "--ledger", path)
    assert "2026-01-01" in ran.out
    assert "2026-01-02" not in ran.out
    assert "2 more rows, not shown but in the total" in ran.out
    assert answer["total"]["input_tokens"] == 14_000


def test_what_a_shadow_budget_would_deny_has_a_column(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    farthing.reset()
    farthing.configure(ledger=f"sqlite:///{path}")
    with farthing.budget("trial", tokens=10, on_exceed="warn"):
        for _ in range(3):
            with farthing.hold(tokens=20, model="gpt-4o"):
                pass
    farthing.reset()
    ran = run("report", "--group-by", "budget", "--ledger", path)
    assert "would deny" in ran.out.splitlines()[0]
    assert run("report", "--json", "--ledger", path).json["total"]["shadow_denied"] == 3


def test_a_pipe_has_no_edge_to_wrap_at(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to a file or to grep has a row on one line, whole names, and no blanks behind it."""
    path, name = tmp_path / "long.db", "a-model-" + "with-a-long-name-" * 8
    farthing.reset()
    farthing.configure(ledger=str(path))
    farthing.prices.register(name, input=1, output=1)
    farthing.record({"input_tokens": 1_000}, model=name)
    farthing.record({"input_tokens": 1_000}, model="gpt-4o")
    farthing.prices.unregister(name)
    farthing.reset()
    assert name not in run("report", "--ledger", path).out
    monkeypatch.delenv("COLUMNS")
    lines = run("report", "--ledger", path).out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "gpt-4o", name, "total"]
    assert not any(line.endswith(" ") for line in lines)


def test_a_tag_that_no_call_carries_is_said(run: Run, ledger: Path) -> None:
    assert "No call here has the tag 'feautre'" in run("report", "--group-by", "feautre", "--ledger", ledger).out
    assert "No call here" not in run("report", "--group-by", "feature,day,budget", "--ledger", ledger).out


def test_what_callers_say_neither_paints_the_terminal_nor_forges_a_row(run: Run, tmp_path: Path) -> None:
    """A tag may come from anybody who calls through a proxy."""
    said = "ada\x1b[2J\x1b]0;owned\x07\ntotal  $0.00\u202e\x9b31m"
    with closing(SQLiteStore(tmp_path / "ledger.db")) as store:
        set_budget(store, "each", tokens=1_000, each=["user"])
    farthing.configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
    with farthing.track(user=said):
        farthing.record({"input_tokens": 10}, model="gpt-4o")
        with farthing.hold(tokens=5) as held:
            held.settle(tokens=5)
    shown = ("report --group-by user", "budgets list", "budgets show each", "holds list")
    printed = [str(farthing.report(group_by=["user"], since="all"))]
    printed += [run(*words.split(), "--ledger", tmp_path / "ledger.db").out for words in shown]
    as_json = [run(*words.split(), "--json", "--ledger", tmp_path / "ledger.db") for words in shown]
    assert as_json[0].json["rows"][0]["tags"] == {"user": said}
    for text in (*printed, *(of.out for of in as_json)):
        assert not [sign for sign in text if not sign.isprintable() and sign != "\n"], repr(text)
    assert [text.count("ada\\x1b[2J") for text in printed[:2]] == [1, 1]
    assert not [line for text in printed[:2] for line in text.splitlines() if line.startswith("total  $0.00")]


def test_names_are_said_as_they_are_on_one_line_each(run: Run, tmp_path: Path) -> None:
    """``dependabot[bot]`` is no markup, nor is ``[/x]``, at which every table that took it for some broke down."""
    name, path = "dependabot[bot][/x]\nforged", tmp_path / "ledger.db"
    wanted = tmp_path / "new.toml"
    wanted.write_text('[[budgets]]\nname = "[/n]"\neach = ["user"]\ntokens = 3\n')
    run("keys", "create", "--user", name, "--ledger", path)
    run("budgets", "set", name, "--tokens", 5000, "--each", "user", "--description", name, "--ledger", path)
    run("budgets", "grant", name, "--tokens", 5, "--reason", name, "--ledger", path)
    farthing.configure(ledger=f"sqlite:///{path}")
    farthing.BudgetManager(f"sqlite:///{path}", name=name).register_agent(name, max_tokens=1_000)
    with farthing.track(**{"user": name, name: "v"}):
        with farthing.hold(tokens=5, model="gpt-4o") as held:
            held.settle(tokens=5)
        with farthing.hold(tokens=7, model="gpt-4o"):
            shown = {
                words: run(*words, "--ledger", path)
                for words in (
                    ("report", "--group-by", "user"),
                    ("report", "--group-by", name),
                    ("budgets", "list"),
                    ("budgets", "show", name),
                    ("holds", "list"),
                    ("keys", "list"),
                    ("agents",),
                    ("replay", "--config", str(wanted)),
                )
            }
    for words, ran in shown.items():
        assert ran.code == 0, (words, ran.err)
        said = "dependabot[bot][/x]\\nforged"
        assert said in ran.out, words
        assert not [line for line in ran.out.splitlines() if line.startswith("forged")], words
