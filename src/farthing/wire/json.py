"""
JSON text to plain dicts and lists, and back: ``msgspec`` where it is installed, else the standard library.

Both ways accept and refuse the same texts, strictly: no NaN or infinity, no lone surrogate (providers refuse it, and
no tokeniser could read it), UTF-8 only. Every refusal is a ValueError, too deep a nesting included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


def decode(text: bytes) -> Any:
    """The value of one JSON text: dict, list, str, int, float, bool or None. Raises ValueError."""
    try:
        return _decode(text)
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def encode(value: Any) -> bytes:
    """Compact JSON, UTF-8, keys in their order. Raises ValueError on what JSON cannot say."""
    try:
        return _encode(value)
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def text_of(value: Any) -> str:
    """The value as compact JSON text, the way schemas and tool arguments are counted."""
    return encode(value).decode()


def decode_object(text: bytes) -> dict[str, Any]:
    """The value of a JSON object. Raises ValueError on any other text."""
    value = decode(text)
    if not isinstance(value, dict):
        raise ValueError(f"body must be a JSON object, not {type(value).__name__}")
    return value


def _decode_plain(text: bytes) -> Any:
    value = json.loads(text.decode(), parse_float=_finite, parse_constant=_refuse)
    if b"\\u" in text:
        _encode_plain(value)  # a lone surrogate cannot be encoded: raises UnicodeEncodeError, a ValueError
    return value


def _encode_plain(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"number out of range: {text}")
    return number


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_decode: Callable[[bytes], Any] = _decode_plain
_encode: Callable[[Any], bytes] = _encode_plain
try:
    import msgspec
except ImportError:  # it is the fast way, not the only one: token budgets work on the standard library alone
    pass
else:
    _decode, _encode = msgspec.json.decode, msgspec.json.encode
