"""
What the contents and tools of a Gemini request bring to its tokeniser.

The API takes every field in camel case and in snake case, one object where a list is due, and whole numbers as text
(the JSON mapping of protocol buffers): all of that is read here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from ..images import size_of_base64
from ..reading import MAX_COUNT, Gathering

CONTENT_OVERHEAD = 5
PART_OVERHEAD = 16
"""Around a call, its result, or a piece of code."""
TOOL_OVERHEAD = 16
TOOLS_OVERHEAD = 64
_MAX_DEPTH = 8
_WHOLE = re.compile(r"-?\d{1,18}")
_TEXT_PARTS: dict[str, tuple[str, ...]] = {
    "functionCall": ("name", "args", "partialArgs", "partial_args"),
    "functionResponse": ("name", "response"),
    "executableCode": ("code",),
    "codeExecutionResult": ("output",),
}
_SNAKE = {
    "functionCall": "function_call",
    "functionResponse": "function_response",
    "executableCode": "executable_code",
    "codeExecutionResult": "code_execution_result",
}
_PART_FIELDS = frozenset(
    {
        "text", "thought", "thoughtSignature", "thought_signature", "inlineData", "inline_data", "fileData",
        "file_data", "videoMetadata", "video_metadata", "mediaResolution", "media_resolution", "partMetadata",
        "part_metadata", *_SNAKE, *_SNAKE.values(),
    }
)  # fmt: skip
_CONTENT_FIELDS = frozenset({"role", "parts"})
_TEXT_FIELDS = frozenset({"text", "thought"})


def either(holder: object, *names: str) -> Any:
    """A field under any of its spellings; None where it is absent. Raises ValueError if it is given twice."""
    if not isinstance(holder, dict) or holder.keys().isdisjoint(names):
        return None
    found = [holder[name] for name in names if holder.get(name) is not None]
    if len(found) > 1:
        raise ValueError(f"{names[0]} is given twice")
    return found[0] if found else None


def whole_in(holder: object, *names: str, least: int) -> int | None:
    """A whole number of at least *least*, as a number or as text; None where it is absent."""
    value = either(holder, *names)
    if value is None:
        return None
    if (isinstance(value, str) and _WHOLE.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if type(value) is not int or not least <= value <= MAX_COUNT:
        raise ValueError(f"{names[0]} must be a whole number of at least {least}, not {value!r:.80}")
    return value


def word(value: object) -> str | None:
    """A word of an answer; or its number, which clients may ask for (``$alt=json;enum-encoding=int``), as text."""
    return value if isinstance(value, str) else str(value) if type(value) is int and value else None


def several(holder: Mapping[str, Any], *names: str) -> list[dict[str, Any]]:
    """A list of objects, where one object alone is a list too; empty where it is absent."""
    value = either(holder, *names)
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) for item in values):
        raise ValueError(f"{names[0]} must be a list of objects")
    return values


def read_content(content: Mapping[str, Any], found: Gathering, *, resolution: object = None) -> None:
    """One turn, or the system instruction: its parts."""
    found.overhead_tokens += CONTENT_OVERHEAD
    for part in several(content, "parts"):
        _read_part(part, found, resolution=resolution, depth=0)
    found.rest(content, known=_CONTENT_FIELDS)


def _read_part(part: Mapping[str, Any], found: Gathering, *, resolution: object, depth: int) -> None:
    if depth >= _MAX_DEPTH:
        found.open_unknown("nesting", None, part)
        return
    found.add(part.get("text"))
    if _TEXT_FIELDS.issuperset(part):
        return
    # A signature is the encrypted thinking: longer than the thinking in it.
    found.add(either(part, "thoughtSignature", "thought_signature"))
    found.add(either(part, "partMetadata", "part_metadata"))
    for kind, fields in _TEXT_PARTS.items():
        inner = either(part, kind, _SNAKE[kind])
        if isinstance(inner, dict):
            found.overhead_tokens += PART_OVERHEAD
            for field in fields:
                found.add(inner.get(field))
            for nested in several(inner, "parts"):
                _read_part(nested, found, resolution=resolution, depth=depth + 1)
        elif inner is not None:
            found.add(inner)
    own = either(part, "mediaResolution", "media_resolution")
    inline = either(part, "inlineData", "inline_data")
    if inline is not None:
        _read_inline(inline, found, resolution=own if own is not None else resolution)
    if either(part, "fileData", "file_data") is not None:
        found.open("file by URI")
    for field, value in part.items():
        if field not in _PART_FIELDS and value is not None:
            found.overhead_tokens += PART_OVERHEAD
            found.open_unknown("part", field, value)


def _read_inline(inline: object, found: Gathering, *, resolution: object) -> None:
    kind = either(inline, "mimeType", "mime_type")
    data = either(inline, "data")
    family = kind.lower().partition("/")[0] if isinstance(kind, str) else ""
    if family == "image" and isinstance(data, str):
        found.add_image(size_of_base64(data), detail=_detail(resolution, found))
    elif family == "text" and isinstance(data, str):
        found.overhead_tokens += PART_OVERHEAD
        found.add(_decoded(data))
    else:
        found.open(f"inline {kind or 'data'!s:.40}")


def _detail(resolution: object, found: Gathering) -> str:
    """The highest resolution costs twice the default one; the lower ones no more than it."""
    if isinstance(resolution, dict):
        if either(resolution, "numTokens", "num_tokens") is not None:
            found.open("an image with a number of tokens of its own")
        resolution = resolution.get("level")
    known = ("MEDIA_RESOLUTION_UNSPECIFIED", "MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_HIGH")
    return "auto" if resolution is None or resolution in known else "original"


def _decoded(data: str) -> str:
    """The text in base64, either alphabet; data that is none is counted as it stands."""
    plain = "".join(data.translate(_STANDARD).split()).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode()
    except ValueError:  # of base64 or of UTF-8
        return data


_STANDARD = str.maketrans("-_", "+/")


def read_tools(request: Mapping[str, Any], found: Gathering) -> None:
    """Declared functions are text; every other tool is one that the provider runs."""
    tools = several(request, "tools")
    for tool in tools:
        functions = several(tool, "functionDeclarations", "function_declarations")
        for function in functions:
            found.overhead_tokens += TOOL_OVERHEAD
            found.add(function)
        for field, value in tool.items():
            if field not in ("functionDeclarations", "function_declarations") and value is not None:
                found.overhead_tokens += TOOL_OVERHEAD
                found.add(value)
                found.open(f"hosted tool {field:.60}")
    if tools:
        found.overhead_tokens += TOOLS_OVERHEAD
    found.add(either(request, "toolConfig", "tool_config"))
