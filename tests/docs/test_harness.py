"""The docs harness can fail: a document that lies is caught, and a block that would not be run is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import test_docs
from tests.docs.markdown import DocsError, Step, prints_as, steps

TWO_BLOCKS = """
```python
total = 2
```

Then:

```python
print(total + 1)
```

```output
3
```
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(test_docs, "ROOT", tmp_path)

    def run_text(text: str) -> None:
        document = tmp_path / "page.md"
        document.write_text(text, "utf-8")
        test_docs.run_document(document, tmp_path)

    return run_text


def test_blocks_of_one_file_share_a_namespace(run) -> None:
    run(TWO_BLOCKS)


def test_a_wrong_output_fails_and_names_the_line(run) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"page\.md, line 9 says:\n4\n\nbut it prints:\n3"):
        run(TWO_BLOCKS.replace("```output\n3", "```output\n4"))


def test_a_block_that_raises_fails_with_the_line_of_the_document(run) -> None:
    with pytest.raises(pytest.fail.Exception, match=r'(?s)page\.md, line 9:.*File "page\.md", line 9.*NameError'):
        run(TWO_BLOCKS.replace("total = 2", "pass"))


def test_a_command_is_run_and_its_exit_code_counts(run) -> None:
    wrong = "```console\n$ farthing no-such-command 2>/dev/null\n```\n"
    with pytest.raises(AssertionError, match=r"page\.md, line 2: exit code"):
        run(wrong)


def test_a_marked_text_block_is_an_output() -> None:
    (step,) = steps("```python\nprint(1)\n```\n<!-- output -->\n```text\n1\n```\n")
    assert step == Step("python", 2, "print(1)", expected="1")


def test_commands_of_a_console_block() -> None:
    text = "```console\n$ pip install farthing\nlots of lines\n$ A=1 farthing x \\\n    --json\n{}\n\n$ farthing y\n"
    assert steps(text + "$ echo $?\n3\n$ farthing z\n```\n") == [
        Step("shell", 4, "A=1 farthing x --json", expected="{}\n"),
        Step("shell", 8, "farthing y", exit_code=3),
        Step("shell", 11, "farthing z"),
    ]


def test_indented_blocks_are_read_without_their_indent() -> None:
    (step,) = steps("1. First:\n\n   ```python\n   if True:\n       x = 1\n   ```\n")
    assert step.text == "if True:\n    x = 1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```\nx\n```\n", "say what this block is"),
        ("```pycon\n>>> 1\n```\n", "say what this block is"),
        ("```output\n1\n```\n", "an output without a python block"),
        ("```python\n1\n```\n\nprose\n\n```output\n1\n```\n", "an output without a python block"),
        ("```sh\nfarthing demo\n```\n", "begin each command"),
        ("```python\n1\n", "never closed"),
    ],
)
def test_a_block_that_would_not_be_run_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(DocsError, match=complaint):
        steps(text)


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("a\nb", "a  \nb\n", True),
        ("a\nb", "a\nc\n", False),
        ("took … ms", "took 12.5 ms\n", True),
        ("took … ms", "took\n12 ms\n", False),
        ("a\n…\nb", "a\nx\ny\nb\n", True),
        ("a\n…\nb", "a\nb\n", True),
        ("a\n…\nb", "a\nx\n", False),
        ("a\n…", "a\nx\n", True),
        ("a", "a\nb\n", False),
        ("", "a\n", False),
        ("$5.00 (100%)", "$5.00 (100%)\n", True),
    ],
)
def test_what_counts_as_the_same_output(expected: str, actual: str, same: bool) -> None:
    assert prints_as(expected, actual) is same
