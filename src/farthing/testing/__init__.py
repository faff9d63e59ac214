"""
Test what your program does when money runs out: offline, exactly, without waiting.

- :class:`FakeProvider` is a real HTTP server that answers as OpenAI and Anthropic do, as :class:`Reply` tells it, and
  keeps its own account of what it charged.
- :class:`FakeClock` is a clock that you move.
- ``farthing.testing.pytest_plugin`` has the fixtures ``fake_provider``, ``fake_clock`` and ``farthing_isolated``.
"""

from __future__ import annotations

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
