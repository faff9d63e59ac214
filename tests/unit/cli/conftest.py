"""
Command lines run in this process, on real ledger files that the library itself wrote.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.cli import main


@dataclass(frozen=True)
class Ran:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]

KILLED = """
import os, signal, sys
from farthing import budget, configure, hold
configure(ledger=sys.argv[1])
with budget("nightly", tokens=10_000):
    for tokens in (2_000, 1_000):
        hold(tokens=tokens, model="gpt-4o-mini").__enter__()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def running(*argv: object, stdin: str | None = None) -> Ran:
        if stdin is not None:
            import io

            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in argv])
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ran(end.value.code, captured.out, captured.err)

    return running


@pytest.fixture
def empty(tmp_path: Path, run: Run) -> Path:
    """A ledger without a call or a budget."""
    path = tmp_path / "empty.db"
    assert run("budgets", "set", "x", "--tokens", 1, "--ledger", path).code == 0
    assert run("budgets", "remove", "x", "--yes", "--ledger", path).code == 0
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Path]:
    """A ledger with calls of two features, a denied one, one without a price; and the budgets they were made under."""
    path = tmp_path / "ledger.db"
    farthing.reset()
    farthing.configure(ledger=f"sqlite:///{path}", unpriced="tokens_only")
    with farthing.track(feature="search", user="alice"):
        for _ in range(3):
            farthing.record({"input_tokens": 4_000, "output_tokens": 500}, model="gpt-4o")
    with farthing.track(feature="support", user="bob"):
        farthing.record({"input_tokens": 10_000, "output_tokens": 1_000}, model="claude-sonnet-4-5")
        with pytest.warns(farthing.UnpricedModelWarning):
            farthing.record({"input_tokens": 700}, model="my-own-model")
    with farthing.budget("nightly", tokens=10_000), farthing.track(feature="search"):
        with farthing.hold(tokens=4_000, model="gpt-4o-mini") as held:
            held.settle({"input_tokens": 3_000, "output_tokens": 10})
        with pytest.raises(farthing.BudgetExceeded), farthing.hold(tokens=9_000, model="gpt-4o-mini"):
            pass
    farthing.reset()
    yield path
    farthing.reset()


@pytest.fixture
def after_a_kill(tmp_path: Path) -> Path:
    """A ledger whose process was killed with two holds open on the budget ``nightly``: 3,000 of 10,000 tokens."""
    path = tmp_path / "killed.db"
    source = str(Path(farthing.__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, f"sqlite:///{path}"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    return path
