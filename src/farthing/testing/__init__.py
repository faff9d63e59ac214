"""
Test what your program does when money runs out: offline, exactly, without waiting.

- :class:`FakeProvider` is a real HTTP server that answers as OpenAI, Anthropic and Gemini do, as :class:`Reply` tells
  it, and keeps its own account of what it charged.
- :class:`FakeClock` is a clock that you move.
- ``farthing.testing.pytest_plugin`` has the fixtures ``fake_provider``, ``fake_clock`` and ``farthing_isolated``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bill import Billed, Rates, RecordedRequest
    from .clock import FakeClock
    from .provider import FakeProvider
    from .reply import Fault, Reply, ToolCall, UsageReport

__all__ = [
    "Billed",
    "FakeClock",
    "FakeProvider",
    "Fault",
    "Rates",
    "RecordedRequest",
    "Reply",
    "ToolCall",
    "UsageReport",
]

_HOMES = {
    "Billed": "bill",
    "FakeClock": "clock",
    "FakeProvider": "provider",
    "Fault": "reply",
    "Rates": "bill",
    "RecordedRequest": "bill",
    "Reply": "reply",
    "ToolCall": "reply",
    "UsageReport": "reply",
}
# pytest imports this package in every project that has farthing installed, to find the plugin: the server and its
# parser are loaded when a name is first used.


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
