"""
The contract of one endpoint of the fake provider: how it reads a request, refuses one, and renders a generation.

Pure: dicts in, dicts and bytes out. The HTTP half (``server``) and the account (``provider``) know endpoints only
through this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import msgspec

from .counting import Count
from .generation import Generation

Body = dict[str, Any]


class Frame(NamedTuple):
    """A piece of an answer's body, and how many output tokens had been generated when it is sent."""

    data: bytes
    generated: int
    chunk: bool = False
    """It carries output: what ``pause_after_chunks`` and ``cut_after_chunks`` count."""


class Rendering(NamedTuple):
    """What an answer is marked with."""

    id: str
    model: str
    created: int
    """Seconds since the epoch."""


class Rejection(Exception):
    """The provider refuses the request as it stands; rendered in the endpoint's own shape."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
        self.kind = kind


class Endpoint(ABC):
    """One endpoint that generates (or embeds) and bills."""

    name: ClassVar[str]
    """As farthing's dialects are named: ``openai.chat`` …"""
    id_prefix: ClassVar[str]
    fields: ClassVar[frozenset[str]]
    """The fields of a request that the provider knows; it refuses others."""
    required: ClassVar[tuple[str, ...]] = ()
    request_id_header: ClassVar[str] = "x-request-id"
    error_kinds: ClassVar[dict[int, tuple[str, str | None]]]
    """Type and code of the errors that the provider sends, by status; ``500`` stands for every other 5xx."""

    streamed: bool | None = None
    """Whether it answers with a stream; None: as the request's ``stream`` says."""
    sse: bool = True
    """Whether its streams are server-sent events."""

    def counted(self, tokens: int) -> Body:
        """The answer of an endpoint that only counts."""
        return {"input_tokens": tokens}

    @abstractmethod
    def check(self, body: Body, headers: dict[str, str]) -> None:
        """Raises Rejection on what the real provider refuses; unknown fields are checked by ``check_fields``."""

    @abstractmethod
    def check_fields(self, body: Body) -> None:
        """Raises Rejection naming a field that the provider does not know."""

    @abstractmethod
    def input_tokens(self, body: Body, count: Count) -> int:
        """What the request's input comes to."""

    @abstractmethod
    def ceiling(self, body: Body) -> int | None:
        """The request's output ceiling per choice, if it sets one."""

    def choices(self, body: Body) -> tuple[int, int]:
        """How many choices are shown, and how many are generated."""
        return 1, 1

    def failure(self, status: int) -> Rejection:
        """What the provider says with an error status that is none of the request's fault."""
        kind, code = self.error_kinds.get(status) or self.error_kinds[500 if status >= 500 else 400]
        return Rejection(f"The fake provider was told to answer {status}.", code=code, status=status, kind=kind)

    @abstractmethod
    def plain(self, made: Generation, mark: Rendering, body: Body) -> Body:
        """The whole answer."""

    @abstractmethod
    def stream(self, made: Generation, mark: Rendering, body: Body) -> Iterator[Frame]:
        """The answer as server-sent events."""

    @abstractmethod
    def error(self, rejection: Rejection, request_id: str) -> Body:
        """An error body."""

    @abstractmethod
    def stream_error(self, rejection: Rejection, request_id: str) -> bytes:
        """An error as an event of a stream."""


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event with JSON data."""
    if name is None:
        return b"data: %b\n\n" % dumps(data)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), dumps(data))


def require_integer(body: Body, field: str, *, minimum: int, refuse: Callable[[str, str, str], Rejection]) -> None:
    """Refuses a field that is present, not null, and not an integer >= *minimum*."""
    value = body.get(field)
    if value is None:
        return
    if type(value) is not int:
        raise refuse(f"Invalid type for '{field}': expected an integer, but got {value!r} instead.", field, "type")
    if value < minimum:
        problem = f"Invalid '{field}': integer below minimum value. Expected a value >= {minimum}, but got {value}."
        raise refuse(problem, field, "minimum")


dumps: Callable[[Any], bytes] = msgspec.json.Encoder().encode
"""Compact JSON as UTF-8."""
