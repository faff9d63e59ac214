"""
What the fake provider answers: a :class:`Reply` says how much is generated, how it travels, and what goes wrong.

A reply is neutral: the same one is rendered for whichever endpoint is called, plain or streamed, as the request asks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, get_args

from ..kernel.usage import Usage

Fault = Literal[
    "reset",
    "close_before_answer",
    "close_mid_body",
    "hang",
    "garbage",
    "error_first_event",
    "error_mid_stream",
]
"""What goes wrong with an answer; :class:`Reply` says what each one does."""

UsageReport = Literal["reported", "absent", "zero"] | Usage
"""What the answer says about usage: the truth, nothing, zeros, or a figure of your own (a lie, if you like)."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool: its name, and its arguments as a mapping or as JSON text."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    @property
    def arguments_text(self) -> str:
        """The arguments as the provider writes them: compact JSON."""
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.arguments, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Reply:
    """
    One answer of the fake provider. Token counts are per choice; times are in seconds.

    What is generated. Like a real model, it stops at the request's own output ceiling, hidden reasoning included.

    Args:
        text: the visible text. None: filler of exactly as many o200k tokens as are to be shown (10 by default).
        chunks: the text in pieces: a stream sends each as one chunk, as it stands.
        tool_calls: calls of tools, after the text if there is any; streamed as argument deltas.
        output_tokens: everything generated and billed as output, reasoning included. None: what the text, the tool
            calls and the reasoning come to. A very large number fills whatever the request allows.
        reasoning_tokens: the hidden part of the output: billed, not shown (Anthropic with thinking on: shown as
            thinking). It is generated first.
        keeps_ceiling: False ignores the request's own ceiling, as some compatible servers do.
        finish: the finish or stop reason, word for word. None: the right one for the endpoint.

    What is billed and said.

    Args:
        input_tokens: all of the input, cached part included. None: counted from the request.
        cached_tokens: the part of the input that was read from the cache.
        cache_write_tokens: the part of the input that was written to the cache.
        usage: what the answer says: ``"reported"`` (the truth), ``"absent"``, ``"zero"``, or a ``Usage``.
        bill_anyway: bill an answer in full although it never arrives or is an error (as a 504 may be).

    How it travels.

    Args:
        status: an error status sends an error body in the endpoint's own shape, and bills nothing.
        body: sent in place of that (any status): a mapping (as JSON), text or bytes.
        headers: added to the answer's headers.
        latency_seconds: time before the first byte.
        chunk_delay_seconds: time before each further chunk of a stream. Without it (or a pause) a stream is generated
            as fast as it can be sent, so that a client which leaves it early is billed for all that was on its way.
        tokens_per_chunk: how many tokens one chunk of a stream carries.
        pause_after_chunks: stop after so many chunks until ``provider.resume()``, or until the client goes away.
            A plain call pauses before it is answered. This makes a test exact where a delay only makes it likely.
        split_bytes: send the body in pieces of so many bytes, wherever that cuts it.
        gzip: compress the answer, if the client accepts it.
        background_polls: how often a response that was created in the background, when it is asked for, is still in
            progress. With ``fault="error_mid_stream"`` it fails then, unbilled.

    What goes wrong.

    Args:
        fault: ``"reset"`` (TCP reset) and ``"close_before_answer"`` come before the first byte, and bill nothing.
            ``"hang"`` never answers; it ends when the client leaves, and bills nothing.
            ``"close_mid_body"`` closes the connection half way, ``"error_mid_stream"`` sends an error event half way.
            ``"garbage"`` is a 200 that cannot be parsed, billed in full.
            ``"error_first_event"`` is a 200 stream that begins with an error, and bills nothing.
            A plain call has no events: there both stream errors are a status 500.
        cut_after_chunks: where "half way" is, in chunks; alone it means ``fault="close_mid_body"``.
    """

    text: str | None = None
    _: KW_ONLY
    chunks: Sequence[str] | None = None
    tool_calls: Sequence[ToolCall] = ()
    output_tokens: int | None = None
    reasoning_tokens: int = 0
    finish: str | None = None
    input_tokens: int | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    usage: UsageReport = "reported"
    bill_anyway: bool = False
    keeps_ceiling: bool = True
    status: int = 200
    body: Mapping[str, Any] | str | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    latency_seconds: float = 0.0
    chunk_delay_seconds: float = 0.0
    tokens_per_chunk: int = 1
    pause_after_chunks: int | None = None
    split_bytes: int | None = None
    gzip: bool = False
    background_polls: int = 0
    fault: Fault | None = None
    cut_after_chunks: int | None = None

    def __post_init__(self) -> None:
        for name in ("output_tokens", "input_tokens", "pause_after_chunks", "cut_after_chunks"):
            _require_integer(name, getattr(self, name), minimum=0, optional=True)
        for name in ("reasoning_tokens", "cached_tokens", "cache_write_tokens", "background_polls"):
            _require_integer(name, getattr(self, name), minimum=0)
        _require_integer("tokens_per_chunk", self.tokens_per_chunk, minimum=1)
        _require_integer("split_bytes", self.split_bytes, minimum=1, optional=True)
        _require_integer("status", self.status, minimum=200)
        for name in ("latency_seconds", "chunk_delay_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be a number of seconds, not {getattr(self, name)!r}")
        if self.fault is not None and self.fault not in get_args(Fault):
            raise ValueError(f"fault must be one of {', '.join(get_args(Fault))}, not {self.fault!r}")
        if isinstance(self.usage, str) and self.usage not in ("reported", "absent", "zero"):
            raise ValueError(f"usage must be 'reported', 'absent', 'zero' or a Usage, not {self.usage!r}")
        if self.text is not None and self.chunks is not None:
            raise ValueError("text and chunks are two ways to say the same: give one")
        if self.output_tokens is not None and self.reasoning_tokens > self.output_tokens:
            raise ValueError(
                f"reasoning_tokens ({self.reasoning_tokens}) are part of output_tokens ({self.output_tokens})"
            )
        if self.input_tokens is not None and self.cached_tokens + self.cache_write_tokens > self.input_tokens:
            raise ValueError("cached_tokens and cache_write_tokens are part of input_tokens, and exceed it")

    @property
    def cut_at(self) -> Fault | None:
        """The fault that breaks off an answer half way, if there is one."""
        if self.fault in ("close_mid_body", "error_mid_stream"):
            return self.fault
        return "close_mid_body" if self.fault is None and self.cut_after_chunks is not None else None


def _require_integer(name: str, value: Any, *, minimum: int, optional: bool = False) -> None:
    if value is None and optional:
        return
    if type(value) is not int or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, not {value!r}")
