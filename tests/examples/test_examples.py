"""
Every example does what its own docstring says.

Goal: a program that people copy is one that runs. Method: the examples are found, not listed; each runs in a process
and a directory of its own, and what it prints is compared with the ``Output::`` of its docstring, where ``…`` stands
for the rest of anything on a line.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.docs.markdown import prints_as
from tests.docs.test_docs import fixtures_in_a_source_tree

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
CODE_LINES_MAX = 40
"""An example shows one thing, so it fits on one screen. Its docstring is not counted."""


def expected_output(source: str) -> str:
    """What the docstring says after ``Output::``."""
    docstring = ast.get_docstring(ast.parse(source)) or ""
    _, mark, output = docstring.partition("Output::\n")
    assert mark, "the docstring ends with `Output::`"
    assert output.strip(), "after `Output::` comes what the program prints"
    return textwrap.dedent(output)


def command(program: Path) -> list[str]:
    """How a reader runs it: as a program, or by pytest if it is a test."""
    if not program.name.startswith("test_"):
        return [sys.executable, str(program)]
    return [sys.executable, "-m", "pytest", "-q", str(program)]


def test_the_examples_are_found() -> None:
    assert {"first_budget.py", "test_helpdesk.py"} <= {program.name for program in PROGRAMS}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_example_prints_what_it_says(program: Path, tmp_path: Path) -> None:
    # A copy, so that no configuration of this repository is found above it.
    copy = Path(shutil.copy(program, tmp_path))
    done = subprocess.run(
        command(copy),
        cwd=tmp_path,
        env={
            # A reader's terminal: some plugins of pytest print other things where CI is set, or beside other workers.
            **{name: value for name, value in os.environ.items() if name != "CI" and "XDIST" not in name},
            "HOME": str(tmp_path),
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "80",
            **fixtures_in_a_source_tree(),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    expected = expected_output(program.read_text("utf-8"))
    if not prints_as(expected, done.stdout):
        pytest.fail(f"{program.name} says:\n{expected}\n\nbut it prints:\n{done.stdout}\n{done.stderr}")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_example_fits_on_a_screen_and_is_listed(program: Path) -> None:
    source = program.read_text("utf-8")
    docstring = re.match(r'""".*?"""\n', source, re.DOTALL)
    assert docstring is not None
    assert source.removeprefix(docstring[0]).strip().count("\n") < CODE_LINES_MAX
    assert f"]({program.name})" in (EXAMPLES / "README.md").read_text("utf-8")
