"""
Reads the runnable blocks of a Markdown file.

- A ``python`` block is run. All blocks of one file share one namespace, in order.
- In a ``console`` or ``sh`` block each ``$ farthing …`` line is run by a shell; the lines below it are its output, and
  a following ``$ echo $?`` with a number says how it exits (otherwise it must exit 0). Other commands are only shown.
- An ``output`` block directly below a python block, or a ``text`` block marked with ``<!-- output -->``, is what that
  block prints.

In an output ``…`` stands for the rest of anything on a line, and on a line of its own for any number of lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

RUN_AS_PYTHON = "python"
RUN_AS_SHELL = frozenset({"console", "sh"})
ONLY_SHOWN = frozenset({"text", "toml", "json", "sql", "diff", "ini", "make", "yaml", "http", "mermaid", "dockerfile"})
OUTPUT_MARK = "<!-- output -->"

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>```+|~~~+) *(?P<info>[^`]*)")
_COMMAND = re.compile(r"(?:\w+=\S* +)*farthing(?:\s|$)")


class DocsError(Exception):
    """A block that the harness cannot place: it would silently not be run."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; ``line`` is the number (from 1) of its first line of content, ``above`` what stands over it."""

    info: str
    line: int
    text: str
    above: str
    below_previous: bool
    """Nothing but blank lines stands between the previous block and this one (or its output mark)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to run. ``expected`` is None where the document does not say what is printed."""

    kind: Literal["python", "shell"]
    line: int
    text: str
    expected: str | None = None
    exit_code: int = 0


def blocks(markdown: str) -> list[Block]:
    found: list[Block] = []
    lines = markdown.splitlines()
    number = 0
    between: list[str] = []
    while number < len(lines):
        opening = _FENCE.fullmatch(lines[number].rstrip())
        number += 1
        if opening is None:
            if lines[number - 1].strip():
                between.append(lines[number - 1].strip())
            continue
        start = number
        while number < len(lines) and not _closes(lines[number], opening["fence"]):
            number += 1
        if number == len(lines):
            raise DocsError(f"line {start}: this block is never closed")
        indent = len(opening["indent"])
        text = "\n".join(line[min(indent, len(line) - len(line.lstrip())) :] for line in lines[start:number])
        above = between[-1] if between else ""
        adjacent = bool(found) and (not between or between == [OUTPUT_MARK])
        found.append(Block(opening["info"].strip(), start + 1, text, above, adjacent))
        between = []
        number += 1
    return found


def steps(markdown: str) -> list[Step]:
    """Everything in the document that is run, in order, with what it should print."""
    found: list[Step] = []
    previous = ""
    for block in blocks(markdown):
        if block.info == RUN_AS_PYTHON:
            found.append(Step("python", block.line, block.text))
        elif block.info in RUN_AS_SHELL:
            found.extend(_commands(block))
        elif block.info == "output" or (block.info == "text" and block.above == OUTPUT_MARK):
            if previous != RUN_AS_PYTHON or not block.below_previous:
                raise DocsError(f"line {block.line}: an output without a python block directly above it")
            found[-1] = replace(found[-1], expected=block.text)
        elif block.info not in ONLY_SHOWN:
            raise DocsError(f"line {block.line}: say what this block is; {block.info!r} is neither run nor only shown")
        previous = block.info
    return found


def prints_as(expected: str, actual: str) -> bool:
    """Whether *actual* is what a document says, its wildcards and blanks at line ends aside."""
    pattern = ""
    for line in expected.strip("\n").splitlines():
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*".join(re.escape(part) for part in line.rstrip().split("…")) + r"\n"
    shown = "".join(line.rstrip() + "\n" for line in actual.strip("\n").splitlines())
    return re.fullmatch(pattern, shown) is not None


def _closes(line: str, fence: str) -> bool:
    stripped = line.strip()
    return stripped.startswith(fence) and not stripped.strip(fence[0])


def _commands(block: Block) -> list[Step]:
    """The farthing commands of one console block, each with the output shown below it."""
    found: list[Step] = []
    shown: list[str] = []
    current: Step | None = None

    def close() -> None:
        if current is not None:
            found.append(replace(current, expected="\n".join(shown) if any(map(str.strip, shown)) else None))

    lines = block.text.splitlines()
    if not any(line.startswith("$ ") for line in lines) and any(_COMMAND.match(line) for line in lines):
        raise DocsError(f"line {block.line}: begin each command with `$ `, or it is not run")
    number = 0
    while number < len(lines):
        line = lines[number]
        position = block.line + number
        number += 1
        if not line.startswith("$ "):
            shown.append(line)
            continue
        command = line[2:]
        while command.endswith("\\") and number < len(lines):
            command = command[:-1] + lines[number].strip()
            number += 1
        if command == "echo $?" and current is not None and number < len(lines):
            current = replace(current, exit_code=int(lines[number]))
            number += 1
            continue
        close()
        current = Step("shell", position, command) if _COMMAND.match(command) else None
        shown = []
    close()
    return found
