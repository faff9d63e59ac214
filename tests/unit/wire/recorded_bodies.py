"""The recorded bodies beside this file, and requests to read them against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "recorded"


def recorded(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


def recorded_object(name: str) -> dict[str, Any]:
    value = json.loads(recorded(name))
    assert isinstance(value, dict)
    return value


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


CHAT = body(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
CHAT_STREAM = body(model="gpt-4o", messages=[{"role": "user", "content": "hi"}], stream=True)
RESPONSES = body(model="gpt-5", input="hi", stream=True)
MESSAGES = body(model="claude-sonnet-4-5", max_tokens=64, messages=[{"role": "user", "content": "hi"}], stream=True)
