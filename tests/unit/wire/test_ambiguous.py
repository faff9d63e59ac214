"""A request is sent as it was read: where two readers could differ, there is one reading left, or it is refused."""

from __future__ import annotations

import json as plain_json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.wire import json
from farthing.wire.ambiguous import CONTROLS, check_spelling, said_once

NAMES = st.one_of(st.sampled_from(["n", "max_tokens", "a", ""]), st.text(st.sampled_from('ab":\\ :'), max_size=4))
SPACE = st.sampled_from(["", "", "", " ", "\n", " \t "])
SCALARS = st.one_of(st.integers(0, 9), st.booleans(), st.none(), NAMES)


class Pairs(list[tuple[str, Any]]):
    """An object as its text has it, field by field."""


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(st.tuples(NAMES, inner), max_size=4).map(Pairs)),
    max_leaves=12,
)
OBJECTS = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(Pairs)


def written(value: Any, draw: Any) -> str:
    """JSON text with spaces and escapes where JSON allows them."""
    between = lambda mark: f"{draw(SPACE)}{mark}{draw(SPACE)}"  # noqa: E731 - short, and only here
    if isinstance(value, Pairs):
        fields = [f"{written(name, draw)}{between(':')}{written(of, draw)}" for name, of in value]
        return "{" + between(",").join(fields) + "}"
    if isinstance(value, list):
        return "[" + between(",").join(written(of, draw) for of in value) + "]"
    text = plain_json.dumps(value)
    if isinstance(value, str) and draw(st.booleans()):
        text = '"' + "".join(f"\\u{ord(letter):04{draw(st.sampled_from('xX'))}}" for letter in value) + '"'
    return text


def readings(text: bytes) -> list[Any]:
    """What readers make of it that take the last of equal fields, or the first."""
    first = lambda pairs: dict(reversed(pairs))  # noqa: E731 - short, and only here
    return [plain_json.loads(text), plain_json.loads(text, object_pairs_hook=first)]


@given(pairs=OBJECTS, data=st.data())
def test_every_reader_reads_what_we_read(pairs: Pairs, data: st.DataObject) -> None:
    text = written(pairs, data.draw).encode()
    ours = json.decode_object(text)
    last, first = readings(said_once(text, ours))
    assert last == first == ours
    if readings(text) == [ours, ours] and not repeats(text):
        assert said_once(text, ours) is text, "what is clear stays as it is, byte for byte"


def repeats(text: bytes) -> bool:
    """Whether an object of it has two equal fields, be it with one value."""
    found: list[bool] = []
    plain_json.loads(text, object_pairs_hook=lambda pairs: found.append(len(dict(pairs)) != len(pairs)))
    return any(found)


@pytest.mark.parametrize(
    "text",
    [
        b'{"n":1,"n":50}',
        b'{"n":1, "n" :50}',
        b'{"n":1,"\\u006e":50}',
        b'{"a":{"n":1,"n":50}}',
        b'{"a":[{"n":1,"n":50}]}',
        b'{"n":1,"x":"\\u0022:","n":50}',
        b'{"n":1,"x":"\\"\\u003a","n":50}',
        b'{"n":1,"x":"\\"\\u003A","n":50}',
        b'{"n":1,"n":1}',
    ],
)
def test_a_field_that_stands_twice_stands_once_then(text: bytes) -> None:
    ours = json.decode_object(text)
    again = said_once(text, ours)
    assert again == json.encode(ours)
    assert not repeats(again)


def test_of_two_equal_fields_the_last_counts() -> None:
    assert said_once(b'{"max_tokens": 100000, "max_tokens": 1}', {"max_tokens": 1}) == b'{"max_tokens":1}'


@pytest.mark.parametrize("name", ["MAX_TOKENS", "Max_Tokens", "N", "Model", "\u017ftream", "STREAM"])
def test_a_control_in_another_case_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="some servers would take it for that"):
        check_spelling({"model": "m", name: 1})


@pytest.mark.parametrize("name", [*sorted(CONTROLS), "generationConfig", "X-Other", "safetySettings", "", "messages"])
def test_other_fields_are_as_they_are(name: str) -> None:
    check_spelling({"model": "m", name: 1})
