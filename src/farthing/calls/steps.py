"""
What the life of a call asks of the door that drives it, and the two drivers.

The life is a generator. It yields either a store's ticket, which a driver waits for, or one of the steps below, which
the door carries out. A sync door calls :func:`advance`, an async one awaits :func:`advance_async`; whatever ends a
call while it cannot wait (a cancelled task, a finaliser) uses :func:`advance_detached`. There is no other twin.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from types import GeneratorType
from typing import Any, NamedTuple

from .. import loops
from ..kernel.decision import Decision
from ..stores.contract import Ready, Ticket


class Send(NamedTuple):
    """Send the request, with this body (None: as the caller made it). Answer with :class:`Answered`, or throw."""

    body: bytes | None
    path: str | None = None
    """Another path, query included; None: the caller's."""


class Answered(NamedTuple):
    """The status line is here. ``streamed``: the body is a stream, to be relayed as it comes."""

    status: int
    streamed: bool
    proxied: bool = False
    """It came through a proxy like ours."""


class ReadAll(NamedTuple):
    """Read the whole body of a plain answer. Answer with its bytes, decoded; or throw :class:`Broken`."""


SEND_AS_IT_IS = Send(None)
READ_ALL = ReadAll()


class Pause(NamedTuple):
    """A ticket that is answered when this much time has passed."""

    seconds: float

    def result(self) -> None:
        time.sleep(self.seconds)

    def __await__(self) -> Generator[Any, None, None]:
        return loops.sleep(self.seconds).__await__()


class Finished(NamedTuple):
    """The call is settled. ``crossed``: a budget with on_exceed="raise" was passed by it."""

    crossed: Decision | None = None


FINISHED = Finished()


class Relay(NamedTuple):
    """Pass these bytes on to the caller, then answer with the next ones, decoded (None at the end); or throw."""

    data: bytes
    finished: Finished | None = None
    """Set once the stream's last event was seen: the call is settled, the rest of the bytes only pass through."""
    last: bool = False
    """
    The stream ends with these bytes, whatever its provider still sends: the door closes what it reads from, passes them
    on, and ends the body in good order.
    """


class NotSent(Exception):
    """The request certainly never left: connecting failed. Its text is how the call ends."""

    note: str | None = None
    """Why, where that is known."""


class Broken(Exception):
    """
    The exchange ended before its end. ``ending`` names how: ``timeout``, ``connection_lost``, ``cancelled``,
    ``abandoned``, ``client_gone`` … ``arrived``: all that reached this machine was seen by the life of the call.
    """

    def __init__(self, ending: str, note: str | None = None, *, arrived: bool = True) -> None:
        super().__init__(ending)
        self.ending = ending
        self.note = note
        self.arrived = arrived


Step = Send | ReadAll | Relay
STEPS = (Send, ReadAll, Relay)


Life = Generator[Step | Ticket[Any], Any, Finished]


def advance(life: Life, value: Any = None, *, error: BaseException | None = None) -> Step | Finished:
    """Go on until the next step for the door, waiting for tickets on the way."""
    try:
        step = life.send(value) if error is None else life.throw(error)
        while not isinstance(step, STEPS):
            try:
                answer = step.result()
            except BaseException as failure:  # noqa: BLE001 - the life decides what a failing store means
                step = life.throw(failure)
            else:
                step = life.send(answer)
    except StopIteration as stop:
        return stop.value or FINISHED
    return step


async def advance_async(
    life: Life, value: Any = None, *, error: BaseException | None = None, met: Step | Ticket[Any] | None = None
) -> Step | Finished:
    """The same for a door that lives in an event loop; on from *met*, where the life was sent its value already."""
    try:
        step = met if met is not None else life.send(value) if error is None else life.throw(error)
        while not isinstance(step, STEPS):
            try:
                answer = step.result() if type(step) is Ready else await step
            except BaseException as failure:  # noqa: BLE001 - the life decides what a failing store means
                step = life.throw(failure)
            else:
                step = life.send(answer)
    except StopIteration as stop:
        return stop.value or FINISHED
    return step


def advance_detached(life: Life, error: BaseException | None = None, rest: Iterable[bytes] = ()) -> None:
    """
    End a life without waiting for anything: its last commands are given, and the stores carry them out in order.

    For a cancelled task, an abandoned stream, an interpreter that shuts down. *rest* are bytes of a stream that arrived
    and that nobody read.
    """
    if not isinstance(life, GeneratorType) or life.gi_frame is None:
        return
    try:
        for chunk in rest:
            step = life.send(chunk)
            while not isinstance(step, STEPS):
                step = life.send(step.result() if type(step) is Ready else None)
        step = life.send(None) if error is None else life.throw(error)
        while True:
            step = life.send(step.result() if type(step) is Ready else None)
    except StopIteration:
        return
    except BaseException as failure:  # what was thrown in comes out again; anything else is raised
        if failure is not error:
            raise
    finally:
        # Its traceback keeps the frames of whoever asks, and so the ticket that nobody waits for: no cycle may keep it.
        del error
