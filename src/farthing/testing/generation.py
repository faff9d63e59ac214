"""A reply made concrete for one request: what is generated, where it stops, and what it truly costs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from ..kernel.usage import Usage
from .counting import DEFAULT_TOKENS, Count, Piece, filler, pieces_of, spread
from .reply import Reply, ToolCall

_ARGUMENT_CHARS = 8
"""How many characters of a tool's arguments one piece holds: several deltas, as real providers send them."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that is shown: a text, or a call of a tool."""

    pieces: tuple[Piece, ...]
    tool: ToolCall | None = None

    @property
    def text(self) -> str:
        """The text, or the arguments, as far as they were generated."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def arguments(self) -> Any:
        """The arguments, read; {} where the ceiling cut them: nobody can show half an object."""
        try:
            return json.loads(self.text or "{}")
        except ValueError:
            return {}


@dataclass(frozen=True, slots=True)
class Generation:
    """
    What one call generates. All choices are alike.

    ``billed`` is the truth; ``reported`` is what the answer will say, or None for nothing. ``reasoning_tokens`` and
    ``choice_tokens`` are per choice; ``unseen_tokens`` were generated for choices that are not shown (``best_of``).
    """

    parts: tuple[Part, ...]
    choices: int
    truncated: bool
    finish: str | None
    reasoning_tokens: int
    unseen_tokens: int
    billed: Usage
    reported: Usage | None
    tokens_per_chunk: int = field(default=1, compare=False)

    @property
    def text(self) -> str:
        """What a reader sees of one choice, tools apart."""
        return "".join(part.text for part in self.parts if part.tool is None)

    @property
    def tools(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.tool is not None)

    @property
    def ending(self) -> Literal["stop", "length", "tool_calls"]:
        """Why it stopped, in chat's words; the other endpoints translate it. A given ``finish`` wins over it."""
        if self.truncated:
            return "length"
        return "tool_calls" if self.tools else "stop"

    @property
    def thoughts(self) -> str:
        """The reasoning of one choice, where it is shown."""
        return "".join(piece.text for piece in filler(self.reasoning_tokens))

    @property
    def hidden_tokens(self) -> int:
        """Output that is generated before anything is shown, over all choices."""
        return self.reasoning_tokens * self.choices + self.unseen_tokens

    def billed_after(self, tokens: int) -> Usage:
        """What is billed when it is stopped after so much output, over all choices."""
        return self.billed._replace(output=tokens, reasoning=min(tokens, self.billed.reasoning))

    def chunks(self, part: Part) -> tuple[Piece, ...]:
        """The part's pieces, joined to as many tokens as one chunk carries."""
        size = self.tokens_per_chunk
        if size == 1:
            return part.pieces
        joined: list[Piece] = []
        text, tokens = "", 0
        for piece in part.pieces:
            text, tokens = text + piece.text, tokens + piece.tokens
            if tokens >= size:
                joined.append(Piece(text, tokens))
                text, tokens = "", 0
        if text or tokens:
            joined.append(Piece(text, tokens))
        return tuple(joined)

    def chunk_count(self) -> int:
        """How many chunks a stream of this sends, over all choices."""
        return self.choices * sum(len(self.chunks(part)) for part in self.parts)


def generate(
    reply: Reply,
    *,
    model: str,
    input_tokens: int,
    ceiling: int,
    count: Count,
    choices: int = 1,
    generated_choices: int | None = None,
) -> Generation:
    """
    What *reply* comes to for a request: cut at *ceiling* (output tokens per choice), times *choices*.

    *input_tokens* is the provider's count of the request, used where the reply does not say. *generated_choices* is
    how many choices are generated where that is more than are shown.
    """
    wanted = _wanted_parts(reply, model, ceiling, count)
    total = reply.reasoning_tokens + sum(piece.tokens for part in wanted for piece in part.pieces)
    reasoning = min(reply.reasoning_tokens, ceiling)
    truncated = total > ceiling
    parts = _cut(wanted, ceiling - reasoning) if truncated else wanted
    per_choice = min(total, ceiling)
    generated = generated_choices or choices
    apart = reply.cached_tokens + reply.cache_write_tokens
    input_total = max(input_tokens, apart) if reply.input_tokens is None else reply.input_tokens
    billed = Usage(
        input=input_total - apart,
        cached=reply.cached_tokens,
        cache_write=reply.cache_write_tokens,
        output=per_choice * generated,
        reasoning=reasoning * generated,
    )
    return Generation(
        parts=parts,
        choices=choices,
        truncated=truncated,
        finish=reply.finish,
        reasoning_tokens=reasoning,
        unseen_tokens=per_choice * (generated - choices),
        billed=billed,
        reported=_reported(reply, billed),
        tokens_per_chunk=1 if reply.chunks is not None else reply.tokens_per_chunk,
    )


def _wanted_parts(reply: Reply, model: str, ceiling: int, count: Count) -> tuple[Part, ...]:
    """All that the reply would show if nothing stopped it; filler is made only as far as one token too many."""
    visible = None if reply.output_tokens is None else reply.output_tokens - reply.reasoning_tokens
    if reply.text is None and reply.chunks is None and not reply.tool_calls:
        return (Part(filler(min(DEFAULT_TOKENS if visible is None else visible, ceiling + 1))),)
    parts: list[Part] = []
    if reply.chunks is not None:
        parts.append(Part(tuple(Piece(chunk, count(chunk, model)) for chunk in reply.chunks)))
    elif reply.text is not None:
        parts.append(Part(pieces_of(reply.text, model, count)))
    for tool in reply.tool_calls:
        text = tool.arguments_text
        texts = [text[start : start + _ARGUMENT_CHARS] for start in range(0, len(text), _ARGUMENT_CHARS)] or [""]
        parts.append(Part(spread(texts, count(tool.name, model) + count(text, model)), tool))
    return tuple(parts) if visible is None else _respread(parts, visible)


def _respread(parts: list[Part], tokens: int) -> tuple[Part, ...]:
    """The same text, said to have taken *tokens* tokens in all."""
    texts = [piece.text for part in parts for piece in part.pieces] or [""]
    pieces = iter(spread(texts, tokens))
    remade = [Part(tuple(next(pieces) for _ in part.pieces), part.tool) for part in parts]
    rest = tuple(pieces)
    return tuple(remade) if not rest else (Part(rest), *remade)


def _cut(parts: tuple[Part, ...], room: int) -> tuple[Part, ...]:
    """As much of the parts as fits into *room* tokens; the last piece that is shown takes what is left of them."""
    kept: list[Part] = []
    for part in parts:
        pieces: list[Piece] = []
        for piece in part.pieces:
            if piece.tokens > room:
                # A real model stops at the very token, in the middle of a word if need be.
                if room and pieces:
                    pieces[-1] = Piece(pieces[-1].text, pieces[-1].tokens + room)
                elif room:
                    pieces.append(Piece("", room))
                return (*kept, Part(tuple(pieces), part.tool)) if pieces else tuple(kept)
            pieces.append(piece)
            room -= piece.tokens
        kept.append(Part(tuple(pieces), part.tool))
    return tuple(kept)


def _reported(reply: Reply, billed: Usage) -> Usage | None:
    if isinstance(reply.usage, Usage):
        return reply.usage
    if reply.usage == "reported":
        return billed
    return Usage() if reply.usage == "zero" else None
