"""
Goal: with msgspec and without it, the same texts are read, to the same values, and the same are refused.
"""

from __future__ import annotations

import json as standard
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.wire import json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@pytest.fixture(params=["msgspec", "standard"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "standard":
            patch.setattr(json, "_decode", json._decode_plain)
            patch.setattr(json, "_encode", json._encode_plain)
        yield request.param


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_round_trip(backend: str, value: object) -> None:
    assert json.decode(json.encode(value)) == value
    assert standard.loads(json.encode(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"NaN",
        b"Infinity",
        b"1e400",
        b'"\\ud800"',
        b'{"a":"\\udc00x"}',
        b'"\xff"',
        b"[" * 100_000,
        b"{} x",
        b"'a'",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_not_json_is_a_value_error(backend: str, text: bytes) -> None:
    with pytest.raises(ValueError):
        json.decode(text)


def test_order_and_numbers_stay(backend: str) -> None:
    text = b'{"z":1,"a":12345678901234567890123,"m":[1.5,true,null,"\xe6\x9d\xb1"]}'
    assert json.encode(json.decode(text)) == text


@pytest.mark.parametrize("text", [b"[]", b"1", b'"a"', b"null"])
def test_a_body_must_be_an_object(text: bytes) -> None:
    with pytest.raises(ValueError, match="body must be a JSON object"):
        json.decode_object(text)
