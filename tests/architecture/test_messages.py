"""
What people are told is said in one way: the same word for the same idea, the same form for the same mistake.

Goal: a message is judged when it is written, not when a user meets it. Method: every text that is raised, warned of or
logged is found in the source itself.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import farthing

PACKAGE = Path(farthing.__file__).parent
LOGGED = {"debug", "info", "warning", "error", "exception", "critical"}
RAISED = re.compile(r"\w*(Error|Mistake|Failure|Unavailable|Conflict|NotFound|Exceeded|Model|Call)|warn|warn_once")


def texts(node: ast.expr) -> Iterator[str]:
    """Its texts, a field in braces for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(of.value) if isinstance(of, ast.Constant) else "{}" for of in node.values)


def messages(*, logged: bool = True) -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "testing" in path.parts:
            continue  # the fake provider speaks as the real ones do
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if (logged and name in LOGGED) or RAISED.fullmatch(name):
                    where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
                    yield from ((where, text) for given in node.args for text in texts(given) if " " in text)


ALL = list(messages())


def test_they_are_found() -> None:
    assert len(ALL) > 250


@pytest.mark.parametrize(
    ("never", "such_as", "instead"),
    [
        (
            r"\b(reserv(e|ed|es|ing) |commit(s|ted|ting)?\b|charg(e|ed|es|ing)\b|refund)",
            "is committed",
            "hold, settle, void",
        ),
        (r", got \{\}|but got|\bgot '", "must be a text, got {}", "must be X, not {value}"),
        (r">= ?\d|<= ?\d", "must be >= 1", "of at least N"),
        (r"(?i)\b(invalid|illegal|bad) (value|argument|parameter)", "Invalid value", "what it must be"),
        (r"(?<!there )\bis no \w+", "is no number", "is not a"),
        (r"!$", "no budget!", "no exclamation"),
    ],
)
def test_words_that_are_not_used(never: str, such_as: str, instead: str) -> None:
    assert re.search(never, such_as), "it would find nothing"
    found = [(where, text) for where, text in ALL if re.search(never, text)]
    assert found == [], f"say: {instead}"


def test_errors_begin_as_one_sentence_goes_on() -> None:
    """After "farthing: " and "ValueError: " a message goes on in lower case; names of people's things as they are."""
    # The agents' messages are those that programs of the predecessor may match.
    as_they_are = ("Agent ", "OTelSink", "Allow:", "BudgetManager")
    capital = [(where, text) for where, text in messages(logged=False) if re.match("[A-Z][a-z]", text)]
    assert [(where, text) for where, text in capital if not text.startswith(as_they_are)] == []
