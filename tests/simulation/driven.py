"""
One call, driven as the doors of :mod:`farthing.sdk` drive it, a step at a time, with what goes wrong at each.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable
from typing import Any

from farthing.calls.call import Call
from farthing.calls.life import life
from farthing.calls.steps import (
    Answered,
    Broken,
    Finished,
    Life,
    NotSent,
    ReadAll,
    Relay,
    Send,
    advance_detached,
)
from farthing.errors import BudgetExceeded, StoreUnavailable, UnpricedModel
from farthing.wire.openai.chat import OpenAIChat

from . import provider
from .faults import Pending
from .world import Process, Request, World

DIALECT = OpenAIChat()
INTERRUPTIONS = (asyncio.CancelledError, KeyboardInterrupt)


class SimulatedCall:
    """One call: its life, what it waits for, and what happened to it."""

    def __init__(self, world: World, process: Process, request: Request) -> None:
        self.world = world
        self.process = process
        self.request = request
        self.id = request.id
        facts = DIALECT.read_request(request.body)
        ambient = process.ambient(request)
        url = "https://api.openai.com/v1/chat/completions"
        self.call = Call(process.runtime, DIALECT, facts, ambient, url, request.timeout_seconds, request.id)
        self.life: Life = life(self.call)
        self.waits_for: Any = None
        self.ended = False
        self.exchange: provider.Exchange | None = None
        self.relayed = 0
        self.finished: Finished | None = None
        self.refused: BaseException | None = None
        self.interrupted: BaseException | None = None
        self.fate = ""
        """How the exchange broke, if it did."""
        self.killed = False

    @property
    def runnable(self) -> bool:
        ticket = self.waits_for
        return not self.ended and not (isinstance(ticket, Pending) and not ticket.done)

    def resume(self, value: Any = None, *, error: BaseException | None = None) -> None:
        """Give the life what it waits for, and note what it asks next."""
        try:
            self.waits_for = self.life.send(value) if error is None else self.life.throw(error)
        except StopIteration as stop:
            self.finished = stop.value
            self.end()
        except BaseException as failure:  # noqa: BLE001 - judged here: some may come out, every other is a bug
            self.end()
            self._came_out(failure)

    def _came_out(self, failure: BaseException) -> None:
        if failure is self.interrupted:
            return
        refusals = (BudgetExceeded, UnpricedModel, StoreUnavailable)
        if self.exchange is None and self.fate == "" and isinstance(failure, refusals):
            self.refused = failure
            self.world.seen[type(failure).__name__] += 1
            return
        text = "".join(traceback.format_exception(failure)[-4:])
        self.world.violate(f"{self.id} raised {failure!r} (interrupted: {self.interrupted!r}):\n{text}")

    def end(self) -> None:
        self.ended = True
        self.waits_for = None

    def detach(self, error: BaseException) -> None:
        """The door cannot wait: as it ends a call whose transport broke."""
        self.fate = str(error)
        self.world.seen[self.fate] += 1
        self.end()
        try:
            advance_detached(self.life, error)
        except BaseException as failure:  # noqa: BLE001 - nothing may come out of an ending
            self._came_out(failure)

    def interrupt(self, kind: type[BaseException]) -> str:
        """A cancelled task or a signal, while a ticket is waited for."""
        self.interrupted = kind()
        self.world.seen[kind.__name__] += 1
        ticket = self.waits_for
        if isinstance(ticket, Pending):
            ticket.give_up()
        self.resume(error=self.interrupted)
        return f"{kind.__name__} while waiting for {ticket.command if isinstance(ticket, Pending) else 'memory'}"

    # -- one step ------------------------------------------------------------------------------------------------

    def step(self, *, goes_wrong: Callable[[float], bool]) -> str:
        """Do the next thing. Returns what it was, for the trace."""
        waits_for = self.waits_for
        if isinstance(waits_for, Send):
            return self._send(waits_for, goes_wrong)
        if isinstance(waits_for, ReadAll):
            return self._read(goes_wrong)
        if isinstance(waits_for, Relay):
            return self._relay(waits_for, goes_wrong)
        if waits_for is None:
            self.resume()
            return "starts"
        if goes_wrong(0.03):
            # What memory answered is there at once: no task is cancelled over it, but a signal may come.
            kinds = INTERRUPTIONS if isinstance(waits_for, Pending) else (KeyboardInterrupt,)
            return self.interrupt(self.world.rng.choice(kinds))
        try:
            answer = waits_for.result()
        except Exception as error:  # noqa: BLE001 - as the drivers do: the life decides what it means
            self.resume(error=error)
            return f"is told {type(error).__name__}"
        self.resume(answer)
        return f"goes on after {waits_for.command if isinstance(waits_for, Pending) else 'memory'}"

    def _send(self, send: Send, goes_wrong: Callable[[float], bool]) -> str:
        rng = self.world.rng
        if self.exchange is None:
            if goes_wrong(0.05):
                self.detach(NotSent("connect_error"))
                return "cannot connect"
            body = send.body if send.body is not None else self.request.body
            self.exchange = provider.receive(body, rng, calm=not goes_wrong(0.45))
            self.world.seen[f"provider: {self.exchange.kind}"] += 1
            self._check_wire(body)
            return f"is sent; the provider: {self.exchange.kind} {self.exchange.status}"
        if goes_wrong(0.05):
            self.exchange.never_ran = rng.random() < 0.4
            self.detach(Broken(rng.choice(("timeout", "connection_lost", "cancelled"))))
            return f"breaks before its answer: {self.fate}"
        self.resume(Answered(self.exchange.status, self.exchange.streamed))
        return "is answered"

    def _read(self, goes_wrong: Callable[[float], bool]) -> str:
        assert self.exchange is not None
        if goes_wrong(0.05):
            self.detach(Broken(self.world.rng.choice(("timeout", "connection_lost", "cancelled"))))
            return f"breaks while its body is read: {self.fate}"
        self.exchange.body_delivered = True
        self.resume(self.exchange.body)
        return "has its body"

    def _relay(self, relay: Relay, goes_wrong: Callable[[float], bool]) -> str:
        exchange = self.exchange
        assert exchange is not None
        self.relayed += len(relay.data)
        if relay.finished is not None:
            self.finished = relay.finished
        if goes_wrong(0.06):
            self.detach(Broken(self.world.rng.choice(("abandoned", "connection_lost", "cancelled", "client_gone"))))
            return f"stream breaks: {self.fate}"
        if relay.last:
            self.world.seen["cut by us"] += 1
            self.resume(None)
            return "is cut: its hold is used up"
        if exchange.chunks:
            chunk = exchange.chunks.pop(0)
            exchange.delivered_bytes += len(chunk)
            self.resume(chunk)
            return f"has {len(chunk)} bytes of its stream"
        self.resume(None)
        return "has the end of its stream"

    def _check_wire(self, body: bytes) -> None:
        """What leaves can cost no more than what is held."""
        sent = json.loads(body)
        assert self.exchange is not None
        if self.exchange.kind == "overrun":
            return
        ceiling = self.exchange.wire_ceiling
        words = sum(message["content"].count(provider.WORD) for message in sent["messages"])
        for store in self.process.stores:
            for row in store.oracle.rows.values():
                its_own = row.id.startswith(self.id) and row.id not in store.unanswered | store.given_back
                if its_own and row.state == "held":
                    most = words + provider.MESSAGE_TOKENS
                    most += self.exchange.choices * (provider.DEFAULT_CEILING if ceiling is None else ceiling)
                    if ceiling is not None and row.held("tokens") < most:
                        self.world.violate(f"{self.id} may use {most} tokens, held are {row.held('tokens')}")

    def bury(self) -> None:
        """Its process was killed: the store is dead, so that nothing the generator does reaches anything."""
        try:
            advance_detached(self.life, Broken("killed"))
        except BaseException:  # noqa: BLE001 - whatever a dead process would have said, nobody hears it
            return
