"""The meter of endpoints that have no streams, for an answer that arrives as one all the same."""

from __future__ import annotations

from .facts import AnswerFacts, Dialect, RequestFacts

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A longer answer than any of these endpoints gives; what comes after it is relayed and not read."""


class SingleAnswer:
    """Relays bytes as they come, and reads them as one plain answer when they have ended."""

    def __init__(self, dialect: Dialect, facts: RequestFacts) -> None:
        self._dialect = dialect
        self._facts = facts
        self._body = bytearray()
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        """The same bytes."""
        if len(self._body) < MAX_BODY_BYTES:
            self._body += data
        return data

    def finish(self) -> bytes:
        """The body ended; nothing was held back."""
        self._ended = True
        return b""

    @property
    def complete(self) -> bool:
        """Whether the body has ended and could be read."""
        return self._ended and self.facts().complete

    def facts(self) -> AnswerFacts:
        """Nothing until the end; then what a plain answer of these bytes says."""
        return self._dialect.read_answer(self._facts, 200, bytes(self._body)) if self._ended else AnswerFacts()
