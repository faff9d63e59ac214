"""
How a stream of OpenAI Responses is ended in order by somebody else than its provider.

Such a stream is a tree that grows: a response of items, an item of parts, a part of text. Every branch that is still
open is ended from the tip down, each with its own events, and the last event has the whole response, marked incomplete.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...kernel.usage import Usage
from ..cut import event_bytes
from ..metering import mapping


class _Text(NamedTuple):
    """What ends a text: its event, the field that holds the whole, and the part it belongs to (None: the item)."""

    done: str
    field: str
    part: dict[str, Any] | None = None


_TEXTS = {
    "response.output_text.delta": _Text(
        "response.output_text.done", "text", {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    ),
    "response.refusal.delta": _Text("response.refusal.done", "refusal", {"type": "refusal", "refusal": ""}),
    "response.reasoning_text.delta": _Text(
        "response.reasoning_text.done", "text", {"type": "reasoning_text", "text": ""}
    ),
    "response.reasoning_summary_text.delta": _Text(
        "response.reasoning_summary_text.done", "text", {"type": "summary_text", "text": ""}
    ),
    "response.function_call_arguments.delta": _Text("response.function_call_arguments.done", "arguments"),
    "response.mcp_call_arguments.delta": _Text("response.mcp_call_arguments.done", "arguments"),
    "response.custom_tool_call_input.delta": _Text("response.custom_tool_call_input.done", "input"),
    "response.code_interpreter_call_code.delta": _Text("response.code_interpreter_call_code.done", "code"),
}
_PARTS = {"response.content_part": "content_index", "response.reasoning_summary_part": "summary_index"}
_LISTS = {"content_index": "content", "summary_index": "summary"}
"""Where the parts of an item stand in it, by the field that numbers them."""
_PLACE = ("item_id", "output_index", "content_index", "summary_index")


class ResponsesCloser:
    """Keeps the tree of one response as it grows."""

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._items: dict[object, dict[str, Any]] = {}
        self._open_items: dict[object, None] = {}
        self._parts: dict[tuple[object, str, object], dict[str, Any]] = {}
        self._open_parts: dict[tuple[object, str, object], tuple[str, dict[str, Any]]] = {}
        self._open_texts: dict[tuple[object, ...], tuple[str, dict[str, Any], list[str]]] = {}
        self._number = -1

    def see(self, data: dict[str, Any]) -> None:
        kind = str(data.get("type"))
        number = data.get("sequence_number")
        self._number = number if isinstance(number, int) else self._number + 1
        if isinstance(data.get("response"), dict):
            self._response = data["response"]
        elif kind.startswith("response.output_item."):
            self._see_item(data, added=kind.endswith(".added"))
        elif kind in _TEXTS:
            place = {field: data[field] for field in _PLACE if field in data}
            key = (kind.removesuffix(".delta"), *place.values())
            self._open_texts.setdefault(key, (kind, place, []))[2].append(str(data.get("delta") or ""))
        elif kind.endswith(".done") and f"{kind.removesuffix('.done')}.delta" in _TEXTS:
            self._see_text_done(kind.removesuffix(".done"), data)
        else:
            self._see_part(kind, data)

    def close(self, usage: Usage) -> list[bytes]:
        events: list[dict[str, Any]] = []
        for kind, place, deltas in self._open_texts.values():
            text = _TEXTS[kind]
            whole = "".join(deltas)
            self._put(place, text, whole)
            extra: dict[str, Any] = {"logprobs": []} if kind == "response.output_text.delta" else {}
            name = mapping(self._items.get(place.get("output_index"))).get("name")
            named = {"name": name} if kind == "response.function_call_arguments.delta" and name else {}
            events.append({"type": text.done, **place, text.field: whole, **extra, **named})
        for key, (kind, place) in self._open_parts.items():
            events.append({"type": f"{kind}.done", **place, "part": self._parts[key]})
        for index in self._items:
            self._gather(index)
        for index in self._open_items:
            item = self._items[index]
            item["status"] = "incomplete"
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        events.append({"type": "response.incomplete", "response": self._incomplete(usage)})
        return [
            event_bytes({**event, "sequence_number": self._number + place}, event["type"])
            for place, event in enumerate(events, start=1)
        ]

    def _see_item(self, data: dict[str, Any], *, added: bool) -> None:
        index = data.get("output_index")
        self._items[index] = dict(mapping(data.get("item")))
        if added:
            self._open_items[index] = None
        else:
            self._open_items.pop(index, None)
            # It is whole now, with everything in it, whether its parts were ended or not.
            self._parts = {key: part for key, part in self._parts.items() if key[0] != index}
            self._open_parts = {key: part for key, part in self._open_parts.items() if key[0] != index}
            self._open_texts = {
                key: text for key, text in self._open_texts.items() if text[1].get("output_index") != index
            }

    def _see_part(self, kind: str, data: dict[str, Any]) -> None:
        holder, _, what = kind.rpartition(".")
        number = _PARTS.get(holder)
        if number is None or what not in ("added", "done"):
            return
        key = (data.get("output_index"), number, data.get(number))
        self._parts[key] = dict(mapping(data.get("part")))
        if what == "added":
            self._open_parts[key] = (holder, {field: data[field] for field in _PLACE if field in data})
        else:
            self._open_parts.pop(key, None)

    def _see_text_done(self, kind: str, data: dict[str, Any]) -> None:
        place = {field: data[field] for field in _PLACE if field in data}
        self._open_texts.pop((kind, *place.values()), None)
        text = _TEXTS[f"{kind}.delta"]
        self._put(place, text, str(data.get(text.field) or ""))

    def _put(self, place: dict[str, Any], text: _Text, whole: str) -> None:
        """The text goes where it belongs: into its part, or into the item itself."""
        index = place.get("output_index")
        if text.part is None:
            if index in self._items:
                self._items[index][text.field] = whole
            return
        number = "summary_index" if "summary_index" in place else "content_index"
        self._parts.setdefault((index, number, place.get(number)), dict(text.part))[text.field] = whole

    def _gather(self, index: object) -> None:
        for number, field in _LISTS.items():
            parts = [part for (of, kind, _), part in self._parts.items() if (of, kind) == (index, number)]
            if parts:
                self._items[index][field] = parts

    def _incomplete(self, usage: Usage) -> dict[str, Any]:
        return {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [self._items[index] for index in sorted(self._items, key=_number)],
            "usage": {
                "input_tokens": usage.input_tokens,
                "input_tokens_details": {
                    "cached_tokens": usage.cached_tokens,
                    "cache_write_tokens": usage.cache_write_tokens,
                },
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.total_tokens,
            },
        }


def _number(index: object) -> int:
    return index if isinstance(index, int) else -1
