"""
What the pipeline needs to know about a request and its answer, whatever the provider's dialect.

A dialect reads bytes and returns these facts; nothing here does I/O, counts tokens or knows a price.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, Self

from ..kernel.usage import Usage


class Image(NamedTuple):
    """One image in a request: its size in pixels if the bytes said so, and the detail asked for."""

    width: int | None
    height: int | None
    detail: str
    """``low``, ``high`` or ``auto``, as the request says it (``auto`` where it says nothing)."""


class RequestFacts:
    """
    One request, read. The dialect that reads it puts the facts together (:class:`~.reading.Gathering`); from then on
    none is changed.
    """

    dialect: str
    """``openai.chat``, ``openai.responses``, ``anthropic.messages`` …"""
    provider: str
    """``openai``, ``anthropic`` …: the id the price table uses."""
    body: dict[str, Any]
    """The parsed JSON object. Never mutated: a dialect's ``rewrite`` builds new bytes."""
    body_bytes: int
    """The length of the serialised request, an upper bound of the tokens of all its text."""
    path: str
    """The path that it was sent to, query included: some providers name the model there."""
    model: str = ""
    text: Sequence[str] = ()
    """Every piece of text that the provider will tokenise, in order: messages, system, instructions, tool schemas (as
    their JSON text), tool calls and results."""
    overhead_tokens: int = 0
    """What the chat template adds around them."""
    images: Sequence[Image] = ()
    stream: bool = False
    output_ceiling: int | None = None
    """The caller's own ceiling on output tokens, per choice; None when the request has none. 0 where there is none to
    set, for nothing is generated (embeddings)."""
    choices: int = 1
    """How many answers are asked for (``n``, ``best_of``): each may cost the whole ceiling."""
    min_output_tokens: int = 1
    """The smallest ceiling that the provider accepts for this request (above a thinking budget, say)."""
    writes_cache: bool = False
    """Cache markers stand in the request: input may be billed at the (dearer) cache-write rate."""
    cache_1h: bool = False
    """One of the markers asks for an hour."""
    no_reasoning: bool = False
    """The request certainly makes no model reason: Anthropic's, where thinking is not switched on."""
    service_tier: str | None = None
    open_reasons: Collection[str] = ()
    """Why the input has no bound on this side (``previous_response_id``, a hosted tool …), each reason once; empty:
    proven."""
    previous_response_id: str | None = None
    wants_usage: bool = False
    """A stream that will carry a usage figure without our asking for it."""
    implied_ceiling: int | None = None
    """Where the caller set no ceiling, the one that the provider documents for this endpoint (legacy completions)."""
    stream_type: str = "text/event-stream"
    """The content type by which a stream of it is known."""
    no_text: bool = False
    """Its answer may be sound or images: what was delivered of it cannot be counted."""

    def but(self, **changes: Any) -> Self:
        """The same request with some facts changed."""
        unknown = changes.keys() - RequestFacts.__annotations__.keys()
        if unknown:
            raise TypeError(f"no facts of a request: {', '.join(sorted(unknown))}")
        other = copy(self)
        vars(other).update(changes)
        return other

    def streams(self, status: int, content_type: bytes) -> bool:
        """Whether its answer is relayed as it comes. *content_type*: as its header says."""
        media_type = _media_type(content_type)
        return media_type == "text/event-stream" or (self.stream and status < 300 and media_type == self.stream_type)


@lru_cache(maxsize=256)
def _media_type(content_type: bytes) -> str:
    """Without its parameters."""
    return content_type.partition(b";")[0].strip().lower().decode("latin-1")


class AnswerFacts(NamedTuple):
    """
    One answer (plain, or a stream so far), read.

    ``usage`` is None when the provider reported none: absent is not zero. ``partial_input`` is the input usage that a
    stream reports at its start, before the final figure. ``text`` is what was delivered, for counting where no usage
    came: text, visible thinking, refusals and tool-call arguments.
    """

    usage: Usage | None = None
    usage_note: str | None = None
    """Set when the provider's total differs from the sum of the kinds: how, and what was done."""
    partial_input: Usage | None = None
    text: tuple[str, ...] = ()
    model: str | None = None
    response_id: str | None = None
    finish: str | None = None
    """``length`` if an answer ended at its output ceiling, else the provider's own word, or None."""
    complete: bool = False
    """A terminal event was seen (a plain answer: the body parsed)."""
    error: bool = False
    """The answer is an error: an error status, or a stream whose first event is an error."""
    service_tier: str | None = None
    """The tier that the provider says it used, where it does."""
    kept_as: str | None = None
    """The id under which the provider keeps it, where a later request may name it."""
    beside: tuple[tuple[str, Usage], ...] = ()
    """What other models were used for it, beside ``usage``, and their own: each is billed at its own price."""


class StreamMeter(Protocol):
    """
    Reads a stream as it passes. One per answer; pure: bytes in, bytes out.

    ``feed`` takes decoded body bytes and returns the bytes to relay: the same ones, unless the meter strips a usage
    frame that only we had asked for (it then holds back at most one incomplete event).
    """

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes:
        """The body ended: the bytes that were still held back."""
        ...

    @property
    def complete(self) -> bool:
        """A terminal event has been seen; nothing that matters follows."""
        ...

    def facts(self) -> AnswerFacts:
        """What has been seen so far. May be asked at any time, and again."""
        ...


class Closer(Protocol):
    """
    Ends a stream in order where its provider has not: whatever is open in it is closed, and its last events say that it
    reached its output ceiling. One per answer; pure.
    """

    def see(self, data: dict[str, Any]) -> None:
        """One event that was relayed: what it opens, closes, or says about the answer."""
        ...

    def close(self, usage: Usage) -> list[bytes]:
        """The events that are missing, each as it goes out; *usage* is told wherever the dialect tells one."""
        ...


class Dialect(Protocol):
    """One provider endpoint's language. Stateless; every method is pure."""

    name: str
    provider: str

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """
        Raises ValueError (naming the field) on a body that is not this dialect's. *path* is the URL's, undecoded, with
        its query; only dialects that name the model there need it.
        """
        ...

    def rewrite(
        self,
        facts: RequestFacts,
        *,
        model: str | None = None,
        output_ceiling: int | None = None,
        ask_usage: bool = False,
    ) -> bytes:
        """
        The body with another model, with this output ceiling in the right field (the caller's own field if it set one),
        and, for a stream, with the usage figure asked for. Everything else stays as it was.
        """
        ...

    def rewrite_path(self, facts: RequestFacts, *, model: str) -> str | None:
        """The path with another model; None where the path names none."""
        ...

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer. Never raises: what cannot be read is an answer without usage."""
        ...

    def closer(self, facts: RequestFacts) -> Closer | None:
        """For a stream that is to be ended early; None where an answer has no text to cut."""
        ...

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> StreamMeter:
        """A meter for the streamed answer; *strip_usage* when only we had asked for the usage frame."""
        ...
