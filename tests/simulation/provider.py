"""
A provider in a hundred lines: reads a chat request, answers in OpenAI's own bytes, and bills.

It shares no code with farthing: tokens are counted by construction (every word is ``" the"``, one token in OpenAI's
vocabularies), prices are the fractions below, and costs are rounded half up once. What it bills is the truth that the
ledgers are audited against.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any

WORD = " the"
MESSAGE_TOKENS = 7
"""One user message: the chat template's 3, its role's 1, and 3 to begin the answer (OpenAI cookbook)."""
ABORT_MARGIN = 64
DEFAULT_CEILING = 90
"""What this provider's models write at most where a request names no ceiling."""

PRICES: dict[str, tuple[Fraction, Fraction, Fraction]] = {
    "gpt-4o": (Fraction(2500), Fraction(10_000), Fraction(1250)),
    "gpt-4o-mini": (Fraction(150), Fraction(600), Fraction(75)),
    "o3-mini": (Fraction(1100), Fraction(4400), Fraction(550)),
    # Not whole nano-dollars a token, so that rounding once or twice makes a difference.
    "house-model": (Fraction("37.5"), Fraction("150.01"), Fraction("3.75")),
}
"""Nano-dollars a token: fresh input, output, cached input. The model ``mystery`` has no price."""
UNPRICED = "mystery"
REASONS_UNSEEN = "o3-mini"
"""The one model here that is billed for output which it does not deliver."""


@dataclass(frozen=True)
class Bill:
    """What one call is charged for. ``reasoning`` is part of ``output``."""

    model: str
    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def tokens(self) -> int:
        return self.input + self.output

    def cost_nano(self, prices_of: str | None = None) -> int | None:
        """Rounded half up; None where there is no price."""
        prices = PRICES.get(prices_of or self.model)
        if prices is None:
            return None
        fresh, out, cached = prices
        cost = (self.input - self.cached) * fresh + self.cached * cached + self.output * out
        return int((2 * cost + 1) // 2)


@dataclass
class Exchange:
    """One request that reached the provider, its answer, and its bill so far."""

    kind: str
    """``ok``, ``silent`` (no usage figure), ``refused``, ``gateway`` (504, 524), ``cut``, ``overrun``."""
    status: int
    streamed: bool
    full: Bill
    """The bill if the answer is finished."""
    wire_ceiling: int | None
    choices: int
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    frames: list[tuple[int, int]] = field(default_factory=list)
    """Of a stream: where each frame ends (in bytes), and how many tokens it delivers."""
    usage_ends: int | None = None
    """Where the frame with the usage figure ends (0 for a plain body that has one)."""
    terminal_ends: int | None = None
    """Where the last event that matters ends."""
    delivered_bytes: int = 0
    body_delivered: bool = False
    aborted: bool = False
    extra: int = 0
    """Tokens written on after an abort: at most the margin."""
    never_ran: bool = False
    """Lost on the way in: the connection broke, and nothing was generated."""

    @property
    def usage_delivered(self) -> bool:
        """Whether the caller's side has seen the final figure."""
        if not self.streamed:
            return self.body_delivered and self.usage_ends is not None
        return self.usage_ends is not None and self.delivered_bytes >= self.usage_ends

    @property
    def finished(self) -> bool:
        """The whole answer went out, to the byte that ends it."""
        if not self.streamed:
            return self.body_delivered
        return self.terminal_ends is not None and self.delivered_bytes >= self.terminal_ends

    @property
    def delivered_tokens(self) -> int:
        return sum(tokens for end, tokens in self.frames if end <= self.delivered_bytes)

    @property
    def bill(self) -> Bill:
        """What the provider charges, whatever its caller saw."""
        full = self.full
        if self.kind == "refused" or self.never_ran:
            return Bill(full.model)
        if not self.streamed or self.finished or self.usage_delivered:
            return full
        visible = full.output - full.reasoning
        output = full.reasoning + min(visible, self.delivered_tokens + self.extra)
        return Bill(full.model, full.input, full.cached, output, full.reasoning)


def receive(body: bytes, rng: random.Random, *, calm: bool) -> Exchange:
    """Answer a request: what *rng* says, in the shape that the request asks for."""
    request = json.loads(body)
    streamed = bool(request.get("stream"))
    choices = request.get("n", 1)
    ceilings = [request[name] for name in ("max_completion_tokens", "max_tokens") if request.get(name) is not None]
    wire_ceiling = min(ceilings) if ceilings else None
    kinds = {"ok": 70, "silent": 8, "refused": 8, "gateway": 3, "cut": 6 if streamed else 0, "overrun": 5}
    kind = "ok" if calm else rng.choices(list(kinds), list(kinds.values()))[0]
    bill = _bill(request, rng, choices, wire_ceiling if wire_ceiling is not None else DEFAULT_CEILING, kind)
    status = {"refused": rng.choice((400, 401, 429, 500, 503, 200)), "gateway": rng.choice((504, 524))}.get(kind, 200)
    exchange = Exchange(kind, status, streamed and status == 200, bill, wire_ceiling, choices)
    exchange.extra = rng.randint(0, ABORT_MARGIN)
    exchange.never_ran = kind == "gateway" and rng.random() < 0.5
    if not exchange.streamed:
        _plain(exchange, rng)
    elif kind == "refused":
        text = _frame({"error": {"message": "overloaded", "type": "server_error"}})
        exchange.chunks, exchange.terminal_ends = _split(text, rng), len(text)
    else:
        asked = bool((request.get("stream_options") or {}).get("include_usage"))
        _stream(exchange, rng, usage=asked and kind != "silent")
    return exchange


def _bill(request: dict[str, Any], rng: random.Random, choices: int, ceiling: int, kind: str) -> Bill:
    model = str(request["model"])
    words = sum(str(message["content"]).count(WORD) for message in request["messages"])
    input_tokens = words + MESSAGE_TOKENS
    most = choices * ceiling
    output = most if rng.random() < 0.3 and most <= 800 else rng.randint(0, min(most, 120))
    if kind == "overrun":
        if rng.random() < 0.5:
            output = most + rng.randint(1, 300)
        else:
            input_tokens += rng.randint(1, 200)
    reasoning = rng.randint(0, output) if model == REASONS_UNSEEN else 0
    cached = rng.randint(0, input_tokens) if rng.random() < 0.4 else 0
    return Bill(model, input_tokens, cached, output, reasoning)


def _usage(bill: Bill) -> dict[str, object]:
    return {
        "prompt_tokens": bill.input,
        "completion_tokens": bill.output,
        "total_tokens": bill.input + bill.output,
        "prompt_tokens_details": {"cached_tokens": bill.cached},
        "completion_tokens_details": {"reasoning_tokens": bill.reasoning},
    }


def _shares(exchange: Exchange) -> list[int]:
    """The visible tokens of each choice."""
    visible = exchange.full.output - exchange.full.reasoning
    share = ceil(visible / exchange.choices)
    return [max(0, min(share, visible - share * index)) for index in range(exchange.choices)]


def _plain(exchange: Exchange, rng: random.Random) -> None:
    if exchange.kind in ("refused", "gateway"):
        exchange.body = json.dumps({"error": {"message": "no", "type": "server_error"}}).encode()
        return
    answer: dict[str, object] = {"id": "chatcmpl-1", "object": "chat.completion", "model": exchange.full.model}
    answer["choices"] = [
        {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": WORD * tokens}}
        for index, tokens in enumerate(_shares(exchange))
    ]
    if exchange.kind != "silent":
        answer["usage"] = _usage(exchange.full)
        exchange.usage_ends = 0
    exchange.body = json.dumps(answer, separators=(",", ":") if rng.random() < 0.5 else None).encode()


def _frame(data: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def _chunk(exchange: Exchange, choices: list[dict[str, object]]) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": exchange.full.model, "choices": choices}


def _stream(exchange: Exchange, rng: random.Random, *, usage: bool) -> None:
    frames: list[tuple[bytes, int]] = []
    for index, tokens in enumerate(_shares(exchange)):
        left = tokens
        while left > 0:
            size = min(left, rng.randint(1, 40))
            left -= size
            choice = {"index": index, "delta": {"content": WORD * size}, "finish_reason": None}
            frames.append((_frame(_chunk(exchange, [choice])), size))
    rng.shuffle(frames)
    if exchange.kind == "cut":
        frames = frames[: rng.randint(0, len(frames))]
    else:
        for index in range(exchange.choices):
            choice = {"index": index, "delta": {}, "finish_reason": "stop"}
            frames.append((_frame(_chunk(exchange, [choice])), 0))
        if usage:
            frames.append((_frame({**_chunk(exchange, []), "usage": _usage(exchange.full)}), 0))
        frames.append((b"data: [DONE]\n\n", 0))
    ends = 0
    for text, tokens in frames:
        ends += len(text)
        exchange.frames.append((ends, tokens))
    if exchange.kind != "cut":
        exchange.terminal_ends = ends
        if usage:
            exchange.usage_ends = exchange.frames[-2][0]
    exchange.chunks = _split(b"".join(text for text, _ in frames), rng)


def _split(text: bytes, rng: random.Random) -> list[bytes]:
    """The same bytes in a few pieces, cut anywhere."""
    cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, 5)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if a < b]
