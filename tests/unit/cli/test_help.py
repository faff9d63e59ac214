"""What a newcomer reads and types first: help that reads well, examples that run, mistakes that are said in one way."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.cli.helping import EXAMPLES
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_running import commands

LEAVES = [(path, command) for path, command in commands() if path and not hasattr(command, "commands")]


def examples_of(command: Any) -> list[str]:
    first = command.epilog.split("\n\n")[0]
    assert first.startswith(f"{EXAMPLES}\n")
    return [line.strip() for line in first.splitlines()[1:]]


ALL_EXAMPLES = [(path, example) for path, command in LEAVES for example in examples_of(command)]
NOT_TO_THE_END = ("serve", "demo", "--watch")
"""They go on until they are stopped, or have tests of their own: here their words are only read."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """A folder with what examples name: a ledger with calls, budgets, keys and a crew, a configuration, a prompt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARTHING_LEDGER", str(tmp_path / "ledger.db"))
    (tmp_path / "prompt.txt").write_text("What is a farthing?")
    (tmp_path / "farthing.toml").write_text(
        '[[budgets]]\nname = "from-the-file"\nusd = 5\nper = "day"\neach = ["user"]\n'
        '[upstreams.openai]\nbase_url = "http://127.0.0.1:9/v1"\n'
    )
    assert run("budgets", "set", "each-user", "--usd", "2", "--per", "day", "--each", "user").code == 0
    farthing.reset()
    farthing.configure(ledger=str(tmp_path / "ledger.db"))
    manager = farthing.BudgetManager(name="newsroom")
    manager.register_agent("writer", max_tokens=100)
    with farthing.budget("search", usd=5, per="day"), farthing.track(feature="search", user="alice"):
        farthing.record({"input_tokens": 4_000, "output_tokens": 500}, model="gpt-4o")
    farthing.reset()
    return tmp_path


@pytest.mark.parametrize(("path", "example"), ALL_EXAMPLES, ids=[example for _, example in ALL_EXAMPLES])
def test_every_example_runs(run: Run, place: Path, after_a_kill: Path, path: tuple[str, ...], example: str) -> None:
    program, *words = shlex.split(example)
    assert program == "farthing"
    assert tuple(words[: len(path)]) == path
    if path[0] == "holds":
        words += ["--ledger", str(after_a_kill)]
    if "ID" in words:
        words[words.index("ID")] = an_id(run, path, after_a_kill)
    if not set(words).isdisjoint(NOT_TO_THE_END):
        words.append("--help")  # what stands before it is read first, and an unknown option is a mistake
    ran = run(*words, stdin="y\n")
    # Doctor fails here rightly: the upstream of this folder's configuration cannot be reached.
    assert ran.code == (1 if "doctor" in words and "--config" in words else 0), ran.err


def an_id(run: Run, path: tuple[str, ...], after_a_kill: Path) -> str:
    if path[0] == "keys":
        assert run("keys", "create", "--user", "alice").code == 0
        (key,) = run("keys", "list", "--json").json["keys"]
        return str(key["id"])
    return str(run("holds", "list", "--json", "--ledger", after_a_kill).json["holds"][0]["id"])


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(path) for path, _ in LEAVES])
def test_help_reads_well_in_a_terminal(run: Run, path: tuple[str, ...], command: Any) -> None:
    shown = run(*path, "--help").out
    assert "<bool>" not in shown, "a flag takes no word"
    assert "<str>" not in shown, "an argument has a name"
    assert "{" not in shown.partition("\n\n")[0], "braces are for a choice"
    for example in examples_of(command):
        assert example in shown, "an example is on one line, to be copied"
    for parameter in command.params:
        assert parameter.help.rstrip().endswith("."), f"{parameter.name}: a help is a sentence"
    first = command.short_help
    assert len(first) <= 140
    assert first.endswith((".", "?"))


def test_options_of_one_name_have_one_form() -> None:
    """The same word means the same thing and takes the same form wherever it stands."""
    forms: dict[str, set[str]] = {}
    for path, command in LEAVES:
        for option in command.params:
            if option.param_type_name == "option" and not option.is_flag:
                forms.setdefault(option.opts[0], set()).add(option.metavar or f"none at {path}")
    differing = {name: found for name, found in forms.items() if len(found) > 1}
    # A program names a budget; a key is made with a limit.
    assert differing == {"--budget": {"NAME", "LIMIT"}}


def test_json_and_ledger_come_last() -> None:
    for path, command in LEAVES:
        names = [option.opts[0] for option in command.params if option.param_type_name == "option"]
        shared = [name for name in names if name in ("--json", "--ledger")]
        assert shared == [name for name in ("--json", "--ledger") if name in names], path
        if path != ("serve",):
            assert names[len(names) - len(shared) :] == shared, path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["budget"], "no such command 'budget'. Did you mean 'budgets'? `farthing --help` shows what there is"),
        (["budgets", "set"], "missing argument 'NAME'; `farthing budgets set --help` shows what there is"),
        (["report", "--sort", "cost"], "no such option: --sort"),
        (["replay"], "missing option '--config'; `farthing replay --help`"),
        (["budgets", "set", "b", "--tokens", "many"], "--tokens takes a whole number such as 4096 or 100k, not 'many'"),
        (["budgets", "set", "b", "--tokens", "1.5"], "--tokens takes a whole number"),
        (["budgets", "set", "b"], "a budget needs a limit: --usd, --tokens, --requests or --concurrency"),
        (["report", "--limit", "0"], "--limit takes at least 1, not '0'"),
        (["demo", "--calls", "3"], "--calls takes 10 to 1000, not '3'"),
        (["serve", "--port", "http"], "--port takes a whole number, not 'http'"),
        (["serve", "--upstream", "ftp://x"], "--upstream: must be an http:// or https:// URL"),
        (["estimate", "gpt-4o", "--file", "nowhere.txt"], "'nowhere.txt': No such file or directory"),
        (["export", "--output", "nowhere/calls.csv"], "nowhere/calls.csv cannot be written: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line(run: Run, place: Path, words: list[str], said: str) -> None:
    ran = run(*words)
    assert ran.code == (1 if words[0] == "export" else 2)
    (line,) = [line for line in ran.err.splitlines() if not line.startswith("ledger ")]
    assert line.startswith("farthing: ")
    assert said in line


def test_a_mistake_is_json_where_that_was_asked_for(run: Run, place: Path) -> None:
    assert '"error": "UsageMistake"' in run("report", "--json", "--sort", "cost").err


def test_a_question_without_an_answer_changes_nothing(run: Run, place: Path) -> None:
    for answer in ("", "n\n"):
        ran = run("budgets", "remove", "search", stdin=answer)
        assert (ran.code, "nothing was changed; --yes answers" in ran.err) == (1, True)
    assert run("budgets", "show", "search").code == 0


def test_whole_numbers_as_people_write_them(run: Run, place: Path) -> None:
    for text, tokens in (("1M", 1_000_000), ("100k", 100_000), ("1.5k", 1_500), ("4,096", 4_096), ("4_096", 4_096)):
        assert run("budgets", "set", "b", "--tokens", text, "--update", "--json").json["now"]["tokens"] == tokens


def test_no_figure_is_cut_in_a_narrow_terminal(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = (
        ("report", "--group-by", "feature,user,model"),
        ("agents",),
        ("replay", "--config", "farthing.toml"),
        ("budgets", "list"),
        ("prices", "list", "gpt-4o"),
    )
    for words in commands:
        monkeypatch.setenv("COLUMNS", "200")
        figures = re.findall(r"\$?\d[\d,.]*", run(*words).out)
        monkeypatch.setenv("COLUMNS", "30")
        narrow = run(*words).out
        assert [figure for figure in figures if figure not in narrow.replace("\n", " ")] == [], words


def test_agents_are_not_listed_as_if_they_had_spent_what_they_lent(run: Run, place: Path) -> None:
    shown = run("budgets", "list").out
    assert "newsroom" not in shown
    assert "1 agent with a budget: see `farthing agents`" in shown
    assert any(row["name"] == "newsroom/writer" for row in run("budgets", "list", "--json").json["budgets"])
