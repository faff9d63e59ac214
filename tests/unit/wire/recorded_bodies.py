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
COMPLETIONS = body(model="gpt-3.5-turbo-instruct", prompt="hi", stream=True)
EMBEDDINGS = body(model="text-embedding-3-small", input="hi")
IMAGES = body(model="gpt-image-1-mini", prompt="a coin", stream=True)
GEMINI = body(contents=[{"role": "user", "parts": [{"text": "hi"}]}])
GEMINI_PATH = "/v1beta/models/gemini-2.5-flash:generateContent"
GEMINI_SSE = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
GEMINI_ARRAY = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
GEMINI_EMBEDDINGS = body(content={"parts": [{"text": "hi"}]})
GEMINI_EMBEDDINGS_PATH = "/v1beta/models/gemini-embedding-001:embedContent"
RESPONSES = body(model="gpt-5", input="hi", stream=True)
COHERE = body(model="command-a-03-2025", messages=[{"role": "user", "content": "hi"}], stream=True)
MESSAGES = body(model="claude-sonnet-4-5", max_tokens=64, messages=[{"role": "user", "content": "hi"}], stream=True)
