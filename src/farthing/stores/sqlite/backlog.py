"""
What cannot be written now, but must be: the ends of calls that were made and paid.

A disk fills, a file is locked for too long: then the end of a call is kept in order, its caller is told no error (the
call was fine), and new holds are refused until all of it is written, for their admission would rest on balances that
are not in the file. If the process ends before that, the holds are in the file and become suspect: nothing is lost but
the exact figure.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from ...errors import StoreUnavailable
from ...kernel.ledger import Settled
from .books import Books
from .tickets import END, KEPT, LOOK, READ, Ticket, publish

_log = logging.getLogger("farthing.stores")

BACKLOG_MAX = 100_000


class Backlog:
    """Ends of calls that wait for the file. Used by the writer's thread only."""

    def __init__(self, name: str, books: Books) -> None:
        self._name = name
        self._books = books
        self.tickets: deque[Ticket[Any]] = deque()
        """Those that wait, the oldest first."""
        self._calls = 0
        """Of those, the ends of calls: denials wait too, to be counted."""
        self._reason = ""

    def keep(self, tickets: list[Ticket[Any]], *, reason: str) -> None:
        """A group failed with the file: answer all of it, and keep what must not be lost."""
        self._reason = reason
        before = len(self.tickets)
        for ticket in tickets:
            if ticket.kind == END:
                self._keep(ticket)
            else:
                ticket.fail(StoreUnavailable(self._name, reason))
        if self.tickets and not before:
            _log.critical(
                "ledger %s cannot be written (%s): the ends of calls are kept in memory, and new holds refused until "
                "they are written",
                self._name,
                reason,
            )

    def refuse(self, tickets: list[Ticket[Any]]) -> list[Ticket[Any]]:
        """While ends are waiting: keep further ones, refuse what changes the books, return what only reads."""
        reading = [ticket for ticket in tickets if ticket.kind in (LOOK, READ)]
        others = [ticket for ticket in tickets if ticket.kind not in (LOOK, READ)]
        waiting = "what was denied waits"
        if self._calls:
            waiting = "1 ended call waits" if self._calls == 1 else f"{self._calls} ended calls wait"
        for ticket in others:
            if ticket.kind == END:
                self._keep(ticket)
            else:
                why = f"{self._reason}; {waiting} to be written first"
                ticket.fail(StoreUnavailable(self._name, why))
        publish(others)
        return reading

    def batch(self, count: int) -> list[Ticket[Any]]:
        """The oldest, at most so many. They stay until they are said to be written."""
        return [self.tickets[at] for at in range(min(count, len(self.tickets)))]

    def written(self, tickets: list[Ticket[Any]]) -> None:
        for _ in tickets:
            self._calls -= self.tickets.popleft().hold_id is not None
        if not self.tickets:
            _log.warning("ledger %s can be written again; what was kept in memory is in it now", self._name)

    def say_lost(self) -> None:
        lost = []
        if self._calls:
            calls = "1 call" if self._calls == 1 else f"{self._calls} calls"
            lost.append(f"{calls} will be shown as suspect, at what was held")
        if len(self.tickets) > self._calls:
            lost.append("what was denied meanwhile is missing from reports")
        if lost:
            said = "; ".join(lost)
            _log.critical("ledger %s could not be written until the end (%s): %s", self._name, self._reason, said)

    def _keep(self, ticket: Ticket[Any]) -> None:
        hold = None if ticket.hold_id is None else self._books.known(ticket.hold_id)
        if hold is None and isinstance(ticket.answer, Settled):
            hold = ticket.answer.hold
        if len(self.tickets) >= BACKLOG_MAX:
            ticket.fail(StoreUnavailable(self._name, f"{self._reason}; {BACKLOG_MAX} ended calls wait already"))
            return
        self.tickets.append(ticket)
        self._calls += ticket.hold_id is not None
        if hold is None:
            ticket.fail(StoreUnavailable(self._name, f"{self._reason}; {KEPT}"))
        else:
            ticket.answer = Settled(hold, None)
