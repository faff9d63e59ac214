"""
What is tested is what is shipped.

Goal: a file that is missing from the wheel (a .sql, a table of facts, py.typed) fails here and not at a user's desk.
`make test` installs the built wheel and sets FARTHING_TEST_WHEEL=1; without it the same tests say that the source tree
is what runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import farthing

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "farthing"
PACKAGE = Path(farthing.__file__).resolve().parent
TESTING_THE_WHEEL = os.environ.get("FARTHING_TEST_WHEEL") == "1"


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_package_under_test_is_the_one_that_was_asked_for() -> None:
    if TESTING_THE_WHEEL:
        assert PACKAGE.parent.name == "site-packages"
    else:
        assert PACKAGE == SOURCE


def test_the_package_has_every_file_of_the_source_tree() -> None:
    assert "py.typed" in files(PACKAGE)
    assert files(PACKAGE) == files(SOURCE)


def test_the_metadata_says_what_pyproject_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert farthing.__version__ == project["version"]
    if TESTING_THE_WHEEL:
        assert metadata.version("farthing") == project["version"]
        assert metadata.metadata("farthing")["License-Expression"] == "Apache-2.0"
        assert [entry.name for entry in metadata.entry_points(group="console_scripts") if entry.dist.name == "farthing"]


def test_the_command_runs() -> None:
    script = Path(sys.executable).with_name("farthing")
    start = [str(script)] if TESTING_THE_WHEEL else [sys.executable, "-c", "from farthing.cli import main; main()"]
    done = subprocess.run([*start, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
