"""
An open stream: what its reader, whoever closes it and the housekeeper do to the life of its call.

Each piece goes through the life before its reader has it, and the call is settled when its last event passes. Closing
the stream early only puts its end in line, for a finaliser may be what closes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ..calls.call import Call
from ..calls.steps import Broken, Finished, Life, Relay, Step, advance, advance_async, advance_detached
from ..errors import FarthingError
from ..runtime.runtime import log
from .errors import sdk_of_request
from .failures import failure
from .results import paid


class OpenStream:
    """The state of one stream, and the life of its call."""

    finished: Finished | None = None
    keep: object = None
    """The unread rest of a stream. Held here, out of the garbage collector's reach: it would close it unread."""
    leftover: Callable[[], list[bytes] | None] | None = None
    """Asked when a stream ends unread: what had arrived; None: nobody can say."""
    _ending = _ended = _claimed = False
    kept_waiting = False
    """Its reader was so slow that the sender may hold back what it has generated since."""
    _taking = _torn = False
    """A piece is on its way from the connection to the life of the call; and one came while another closed it."""

    def __init__(self, request: Any, call: Call, life: Life, *, sdk: str | None) -> None:
        self._request, self._sdk = request, sdk
        self._call, self._life = call, life
        self._process = os.getpid()
        self._busy = threading.Lock()
        # It goes to its caller: whatever becomes of it, its end is in line.
        call.runtime.housekeeper.opened(id(self), self._end_abandoned)

    def take(self, chunks: Iterator[bytes]) -> bytes | None:
        """The next piece to feed; None at the end, and where another has closed the stream meanwhile."""
        self._taking = True
        try:
            chunk = next(chunks, None)
        except Exception:  # nothing came; a signal or a cancelled task may have taken a piece with it
            self._taking = False
            raise
        if chunk is None or self._claimed:
            self._left(chunk)
            return None
        return chunk

    async def take_async(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        self._taking = True
        try:
            chunk = await anext(chunks, None)
        except Exception:  # nothing came; a signal or a cancelled task may have taken a piece with it
            self._taking = False
            raise
        if chunk is None or self._claimed:
            self._left(chunk)
            return None
        return chunk

    def _left(self, chunk: bytes | None) -> None:
        """Nothing is to be fed: this was the end, or another has closed the stream meanwhile."""
        if chunk is None:
            self._taking = False
        else:
            # Whoever closes it read what came before this piece, or what came after: nobody has all of it in order.
            self._torn = True

    def feed(self, chunk: bytes | None) -> Relay | None:
        """The bytes to relay for these; None when the life is over."""
        with self._busy:
            step = advance(self._life, chunk)
            relay = step if type(step) is Relay and step.finished is None else self._note(step)
        self._taking = False
        return relay

    async def feed_async(self, chunk: bytes | None) -> Relay | None:
        with self._busy:
            step = await advance_async(self._life, chunk)
            relay = step if type(step) is Relay and step.finished is None else self._note(step)
        self._taking = False
        return relay

    def broke(self, error: BaseException) -> None:
        """The stream broke. Does not wait: its caller may be cancelled."""
        if not self._ending and not self._claimed:
            self._ending = True
            with self._busy:
                advance_detached(self._life, failure(error))
            self._over()

    @property
    def is_open(self) -> bool:
        """The stream's last event has not been seen, and it has not been ended: what it cost is not known yet."""
        return not self._ended and self.finished is None and self._process == os.getpid()

    def claim(self) -> bool:
        """Whether its caller is the one to read what arrived of an open stream: once, the first that asks."""
        claimed, self._claimed = self._claimed, True
        return not claimed and self.is_open

    @property
    def is_left(self) -> bool:
        """Another than its reader has closed the stream, has read what was left of it, and ends the call with that."""
        return self._claimed

    def leave(self, rest: list[bytes] | None) -> None:
        """Whoever claimed the stream has read what was left; None: nobody can say what that was."""
        whole = not self._taking and not self._torn
        self.leftover = lambda: rest if whole else None

    def closed(self) -> None:
        """Its connection is closed. Where its call is settled as well, nothing is left to do."""
        if self.finished is not None and not self._ended:
            self._ending = True
            self._over()

    def abandon(self) -> None:
        """Nobody will read on. Safe in a finaliser: only puts the end in line."""
        if self._ended or self._ending or self._process != os.getpid():
            return
        self._ending = True
        self._call.runtime.housekeeper.put(self._end_abandoned)

    def _note(self, step: Step | Finished) -> Relay | None:
        """The call is settled, or over."""
        if isinstance(step, Relay):
            self.finished = self.finished or step.finished
            return step
        if isinstance(step, Finished):
            self.finished = self.finished or step
        self._ending = True
        self._over()
        return None

    def _end_abandoned(self) -> None:
        if not self._busy.acquire(blocking=False):
            # Its caller is in the middle of a chunk: later, then.
            self._call.runtime.housekeeper.put(self._end_abandoned)
            return
        try:
            rest = self._unread()
            advance_detached(self._life, Broken("abandoned", arrived=rest is not None), rest or ())
        finally:
            self._busy.release()
            self._ending = True
            self._over()

    def _unread(self) -> list[bytes] | None:
        """What had arrived unread; None where the connection cannot be asked any more."""
        leftover = self.leftover
        try:
            return None if leftover is None else leftover()
        except Exception:  # noqa: BLE001 - two HTTP modules, each with errors of its own
            # Whoever runs this is an innocent caller, and the call must be ended all the same: as it was held.
            log.warning("the rest of an abandoned stream could not be read", exc_info=True)
            return None

    def _over(self) -> None:
        self._ended = True
        # It knows this stream: together they would stay, with all that was read, until somebody looks for garbage.
        self.leftover = None
        self._call.runtime.housekeeper.ended(id(self))

    def take_crossed(self) -> FarthingError | None:
        """The exception to raise at the end of a crossing stream, once."""
        finished = self.finished
        if finished is None or finished.crossed is None:
            return None
        self.finished = Finished()
        return paid(finished.crossed, self._call.dialect.name, b"", sdk=sdk_of_request(self._request, self._sdk))
