"""
Every document does what it says.

Goal: the first program that people run is the one they read. Method: all Markdown files are found, not listed; each is
run from top to bottom in an empty directory, and what it prints is compared with what it says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.docs.markdown import blocks, prints_as, steps

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("driver.py")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])

_LINK_TO_HEADING = re.compile(r"\]\((?!\w+:)([^)#\s]*)#([^)\s]+)\)")
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fixtures_in_a_source_tree() -> dict[str, str]:
    """Where farthing is installed pytest finds its fixtures; this is the environment for where it is not."""
    installed = "farthing" in entry_points(group="pytest11").names
    return {} if installed else {"PYTEST_PLUGINS": "farthing.testing.pytest_plugin"}


def run_document(path: Path, directory: Path) -> None:
    """Run all steps of a document; fails with the document's own line and what was printed instead."""
    todo = steps(path.read_text("utf-8"))
    if not todo:
        return
    bin_directory = directory / "bin"
    work_directory = directory / "work"
    bin_directory.mkdir()
    work_directory.mkdir()
    # The command of the interpreter under test, also where the package runs from its source tree without a script.
    command = bin_directory / "farthing"
    command.write_text(
        f"#!/bin/sh\nexec '{sys.executable}' -c 'from farthing.cli import main; main()' \"$@\"\n", "utf-8"
    )
    command.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(DRIVER), name(path)],
        input=json.dumps([{"kind": step.kind, "line": step.line, "text": step.text} for step in todo]),
        cwd=work_directory,
        env={
            # A reader's terminal: some plugins of pytest print other things where CI is set, or beside other workers.
            **{name: value for name, value in os.environ.items() if name != "CI" and "XDIST" not in name},
            "COLUMNS": "120",
            "HOME": str(work_directory),
            "NO_COLOR": "1",
            "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
            "PYTHONIOENCODING": "utf-8",
            "XDG_DATA_HOME": str(work_directory / "share"),
            **fixtures_in_a_source_tree(),
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for step, answer in zip(todo, answers, strict=False):
        where = f"{name(path)}, line {step.line}"
        assert answer["exit_code"] == step.exit_code, f"{where}: exit code\n{answer['output']}\n{done.stderr}"
        if step.expected is not None and not prints_as(step.expected, answer["output"]):
            pytest.fail(f"{where} says:\n{step.expected}\n\nbut it prints:\n{answer['output']}\n{done.stderr}")
    if done.returncode or len(answers) < len(todo):
        pytest.fail(f"{name(path)}, line {todo[len(answers) if len(answers) < len(todo) else -1].line}:\n{done.stderr}")


def test_the_documents_are_found() -> None:
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} <= {name(path) for path in DOCUMENTS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_document_does_what_it_says(path: Path, tmp_path: Path) -> None:
    run_document(path, tmp_path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text("utf-8")
    for block in blocks(text):  # code may hold brackets that look like links
        text = text.replace(block.text, "")
    assert [link for link in _LINK.findall(text) if not (path.parent / link).exists()] == []
    to_headings = [(path.parent / (link or path.name), heading) for link, heading in _LINK_TO_HEADING.findall(text)]
    assert [of for of in to_headings if of[1] not in headings(of[0])] == []


def headings(path: Path) -> set[str]:
    """The anchors of a page, as the usual hosts make them of its headings."""
    text = path.read_text("utf-8")
    for block in blocks(text):
        text = text.replace(block.text, "")
    said = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in said}
