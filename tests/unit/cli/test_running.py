"""What command lines end with: exit codes, one line an error, no traceback; and which ledger they work on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import farthing
from farthing.cli.app import app
from farthing.cli.failing import EXIT_CODES
from farthing.cli.running import run as run_command_line
from farthing.kernel.decision import refusal
from tests.unit.cli.conftest import Run

COMMAND = [sys.executable, "-c", "from farthing.cli import main; main()"]
SOURCE = str(Path(farthing.__file__).resolve().parents[1])
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([SOURCE, os.environ.get("PYTHONPATH", "")])}


def commands(group: Any = None, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every command and group, with the words that lead to it."""
    group = group or get_command(app)
    found = [(path, group)]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


@pytest.mark.parametrize(
    ("path", "command"), commands(), ids=lambda part: "-".join(part) if type(part) is tuple else ""
)
def test_every_command_and_option_has_help(run: Run, path: tuple[str, ...], command: Any) -> None:
    ran = run(*path, "--help")
    assert ran.code == 0
    assert command.help, f"{path} says nothing about itself"
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name} has no help"
    assert "3 a budget said no" in " ".join(ran.out.replace("│", " ").split())
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_commands_are_those_of_the_design() -> None:
    words = {" ".join(path) for path, command in commands() if not hasattr(command, "commands")}
    assert words >= {
        "demo",
        "doctor",
        "serve",
        "report",
        "estimate",
        "explain",
        "export",
        "replay",
        *(f"budgets {verb}" for verb in ("list", "show", "set", "grant", "freeze", "unfreeze", "remove", "apply")),
        *(f"keys {verb}" for verb in ("create", "list", "revoke", "rotate")),
        "holds list",
        "holds resolve",
        "prices explain",
        "prices list",
    }


def test_version(run: Run) -> None:
    assert run("--version").out == f"farthing {farthing.__version__}\n"


def test_help_starts_without_sdk_prices_tokenisers_or_server() -> None:
    heavy = ["openai", "anthropic", "genai_prices", "quicktok", "splintr", "httptools", "httpx", "httpx2", "numpy"]
    heavy += ["aiohttp", "uvicorn", "uvloop"]
    script = (
        "import sys\nfrom farthing.cli.running import run\nassert run(['--help']) == 0\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENV, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_budgets_no_is_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def deny(**_: object) -> None:
        raise farthing.BudgetExceeded(refusal(budget="nightly", remedy="Wait."))

    monkeypatch.setattr("farthing.cli.running.app", deny)
    assert run_command_line(["anything", "--json"]) == 3
    assert json.loads(capsys.readouterr().err)["budget"] == "nightly"
    assert "3 a budget said no" in EXIT_CODES


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("farthing.cli.running.app", broken)
    with pytest.raises(ZeroDivisionError):
        run_command_line(["anything"])


@pytest.mark.parametrize("words", [["report"], ["budgets", "list"], ["holds", "list"], ["budgets", "freeze", "x"]])
def test_a_ledger_that_is_not_there_is_not_made(run: Run, tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "nowhere" / "ledger.db"
    ran = run(*words, "--ledger", path)
    assert ran.code == 1
    assert f"no ledger at {path}" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_errors_are_json_when_asked(run: Run, tmp_path: Path) -> None:
    missing = json.loads(run("report", "--json", "--ledger", tmp_path / "no.db").err)
    assert "no ledger at" in missing["message"]
    mistaken = json.loads(run("report", "--json", "--ledger", "redis://elsewhere").err)
    assert (mistaken["error"], mistaken["key"]) == ("ConfigError", "--ledger")


def test_what_is_no_ledger_is_said_and_left_alone(run: Run, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be looked at" * 40, "utf-8")
    before = text.read_bytes()
    ran = run("report", "--ledger", text)
    assert (ran.code, text.read_bytes()) == (1, before)
    assert "not a database" in ran.err
    assert run("report", "--ledger", tmp_path).code == 2, "a directory"
    assert run("report", "--ledger", "memory:").code == 2


def test_the_ledger_is_named_except_in_json(run: Run, empty: Path) -> None:
    assert str(empty) in run("report", "--ledger", empty).err
    quiet = run("report", "--json", "--ledger", empty)
    assert quiet.err == ""


def test_ledger_by_url_path_environment_and_default(
    run: Run, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("report", "--ledger", f"sqlite:///{empty}").code == 0
    assert run("report", "--ledger", "empty.db").code == 0
    assert run("report", "--ledger", "sqlite:///empty.db").code == 0
    monkeypatch.setenv("FARTHING_LEDGER", str(empty))
    assert str(empty) in run("report").err
    monkeypatch.delenv("FARTHING_LEDGER")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    if sys.platform == "linux":
        assert run("report").code == 1
        assert run("budgets", "set", "b", "--tokens", 1).code == 0
        assert (tmp_path / "share" / "farthing" / "ledger.db").exists()
        assert run("report").code == 0


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [*COMMAND, "prices", "list"], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert said == ""


def test_ctrl_c_prints_no_traceback(tmp_path: Path) -> None:
    fifo = tmp_path / "prompt"
    os.mkfifo(fifo)
    # As in a terminal: what was started in the background ignores Ctrl-C, and so do its children.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    process = subprocess.Popen(
        [sys.executable, "-c", heeding + COMMAND[-1], "estimate", "gpt-4o", "--file", str(fifo)],
        env=ENV,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Opening a pipe for writing waits for its reader: the command is then inside of its work, reading.
    with fifo.open("w"):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in said


def test_no_colour_and_plain_terminals(ledger: Path) -> None:
    def shown(**settings: str) -> str:
        done = subprocess.run(
            [*COMMAND, "budgets", "list", "--ledger", str(ledger)],
            env={**ENV, "COLUMNS": "80", **settings},
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("utf-8")

    coloured = shown(FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b[32m" in coloured
    assert "\x1b[3" not in shown(FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1")
    plain = shown(PYTHONIOENCODING="ascii")
    assert plain.isascii()
    assert "#" in plain


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_each_shell(shell: str) -> None:
    """What ``--install-completion`` writes, and what it answers when the shell asks."""
    environ = {**ENV, "_FARTHING_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "farthing bud"}
    environ |= {"COMP_WORDS": "farthing bud", "COMP_CWORD": "1", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=environ, timeout=60, check=False)
    assert "budgets" in done.stdout
    assert "holds" not in done.stdout
    assert (
        "--install-completion"
        in subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=60, check=False).stdout
    )


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="where a user's data lies is told otherwise there")
@pytest.mark.parametrize("named", [False, True])
def test_the_users_own_ledger_cannot_be_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """Nobody typed its path, so it is said how to name another."""
    monkeypatch.delenv("FARTHING_LEDGER", raising=False)
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(in_the_way if not named else tmp_path))
    option = ("--ledger", in_the_way / "ledger.db") if named else ()
    ran = run("budgets", "set", "x", "--tokens", 1, *option)
    assert ran.code == 2
    assert ("--ledger, or FARTHING_LEDGER, names another" in ran.err) is not named
    assert len(ran.err.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("words", [["prices", "list"], ["prices", "list", "--json"], ["--help"]])
def test_what_cannot_be_written_is_said_in_one_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run([*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, env=ENV, check=False)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1)
    assert "the output cannot be written: No space left on device" in ran.stderr


@pytest.mark.skipif(os.name == "nt", reason="closes a descriptor in a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_nobody_has_to_listen(closed: str, tmp_path: Path) -> None:
    set_budget = ["budgets", "set", "all", "--tokens", "5", "--ledger", str(tmp_path / "ledger.db")]
    ran = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *set_budget],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENV,
        check=False,
    )
    assert (ran.returncode, "Traceback" in ran.stdout) == (0, False)
