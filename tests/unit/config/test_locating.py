"""On which line each key stands: for every way to write one in TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from farthing.config.locating import Path, line_of, lines_of

TEXT = '''# a comment with a = 1
ledger = "x" # and [one] after
a.b."c d" = [1, # [
  { x = 1, 'y.z' = "}" },
  """several
lines ] " "" """,
  [[1], []],
]
empty = {}
"quo\\"ted\\u00e9" = 'a # b'
day = 1979-05-27 07:32:00

[upstreams.openai] # a header
base_url = 'https://h/#x'
trusted_tags = [
  "a",

  "b",
]
long = \'\'\'
[not.a.table]
\'\'\'
[ upstreams . "my.own" ]
base_url = "x"
[[budgets]]
name = "n"
[[budgets]]
name = "m"
downgrade = { "gpt-4o" = "mini", b = "c" }
[budgets.scope]
team = "x"
[[budgets.parts]]
one = 1
[[budgets.parts]]
two = 2
'''


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n"), TEXT.rstrip("\n")])
def test_every_key_has_its_line(text: str) -> None:
    lines = lines_of(text)
    assert set(leaves(tomllib.loads(text))) <= {*lines, ("upstreams",)}
    rows = text.splitlines()
    for path, line in lines.items():
        last = next((part for part in reversed(path) if isinstance(part, str)), "")
        if isinstance(path[-1], str) and '"' not in last:
            assert last in rows[line - 1]


def test_some_lines_by_number() -> None:
    lines = lines_of(TEXT)
    assert lines["ledger",] == 2
    assert lines["a", "b", "c d", 1, "y.z"] == 4
    assert lines["a", "b", "c d", 2] == 5
    assert lines['quo"tedé',] == 10
    assert lines["upstreams", "openai"] == 13
    assert lines["upstreams", "openai", "trusted_tags", 1] == 18
    assert lines["upstreams", "my.own", "base_url"] == 24
    assert lines["budgets", 1, "downgrade", "b"] == 29
    assert lines["budgets", 1, "scope", "team"] == 31
    assert lines["budgets", 1, "parts", 1, "two"] == 35


def test_a_missing_key_is_on_the_line_of_its_table() -> None:
    lines = lines_of(TEXT)
    assert line_of(lines, ("budgets", 0, "usd")) == 25
    assert line_of(lines, ("nothing",)) is None


def test_an_empty_text() -> None:
    assert lines_of("") == {}
    assert lines_of("# only a comment") == {}
