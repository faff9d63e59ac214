"""
Calls that go through a proxy on the same durable ledger: two lives for one call.

A program sends; its letter waits, is delivered late, or twice, or never. Each delivery is a leg: what the proxy does
with the request, on a process of the world, with tags of its own that budgets match. The program hears what the leg
relays. Either side leaves, is interrupted or killed wherever it stands.

What must be true, beside what the oracle says of every command: once a leg has taken the offered hold over, or has
refused the call, that hold comes to nothing; the legs are audited as all calls are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from farthing.calls.call import OFFERED, Call
from farthing.calls.handover import offer
from farthing.calls.life import life
from farthing.calls.steps import Answered, Broken, ReadAll, Relay, Send
from farthing.proxy.sharing import refused, shared

from .driven import DIALECT, SimulatedCall
from .world import Process, Request, World, call_of

if TYPE_CHECKING:
    from .faults import SlowStore

REFUSED = 429


class Leg(SimulatedCall):
    """One delivery of a proxied call, on its way through the proxy."""

    def __init__(self, world: World, process: Process, request: Request, offered: str, client: ProxiedCall) -> None:
        super().__init__(world, process, request)
        self.client = client
        self.relayed_bytes: list[bytes] = []
        self.answered: Answered | None = None
        self.refusal_said = False
        self.prelude: Coroutine[Any, Any, Any] | None = shared(self.call, offered.encode())

    @property
    def took(self) -> bool:
        """
        It was let through in place of what was offered. Not where the ledger could not be asked, and its calls go out
        all the same: then the offered hold stands, and its sender ends it.
        """
        admitted = self.call.admitted
        unheld = admitted is not None and admitted.granted is not None and bool(admitted.granted.unheld)
        return self.call.replaces is not None and admitted is not None and not unheld

    def resume(self, value: Any = None, *, error: BaseException | None = None) -> None:
        if self.prelude is None:
            super().resume(value, error=error)
            self._learn()
            return
        try:
            # A ticket of the store tells its own answer.
            self.waits_for = self.prelude.send(None) if error is None else self.prelude.throw(error)
        except StopIteration as stop:
            self.prelude = None
            if self.refused is not None:
                self.refusal_said = True
                self.end()
                return
            self.call = stop.value
            self._account_for_both()
            self.life = life(self.call)
            super().resume()
            self._learn()
        except BaseException as failure:  # noqa: BLE001 - judged there
            self.end()
            self._came_out(failure)

    def _account_for_both(self) -> None:
        """Who pays, as the oracle knows it: the offered hold's budgets too, and its tags."""
        offered = self.call.replaces
        if offered is None or self.process.durable is None:
            return
        row = self.process.durable.oracle.rows[offered.id]
        bound = tuple(dict.fromkeys(counter.budget for counter in row.counters))
        tags = {**dict(row.facts.tags), **self.request.tags}
        self.world.requests[self.id] = dataclasses.replace(self.request, ambient_names=bound, tags=tags)

    def _came_out(self, failure: BaseException) -> None:
        super()._came_out(failure)
        if self.refused is failure and self.call.replaces is not None:
            # As the door does: what was offered ends here too.
            self.ended = False
            self.prelude = refused(self.call, REFUSED)

    def _learn(self) -> None:
        """What its client can hear by now."""
        step, exchange = self.waits_for, self.exchange
        if exchange is None or self.answered is not None:
            return
        if isinstance(step, Relay):
            self.answered = Answered(exchange.status, True, proxied=True)
        elif self.ended and self.finished is not None and not self.fate:
            self.answered = Answered(exchange.status, False, proxied=True)

    def step(self, *, goes_wrong: Callable[[float], bool]) -> str:
        if self.waits_for is None and self.prelude is not None:
            self.resume()
            return "looks for what is offered" if self.refused is None else "ends what was offered"
        if isinstance(self.waits_for, Relay):
            self.relayed_bytes.append(self.waits_for.data)
            if self.client.ended and self.rng_says(0.5):
                self.detach(Broken("client_gone"))
                return "stops: its client has gone"
        return super().step(goes_wrong=goes_wrong)

    def bury(self) -> None:
        if self.prelude is not None:
            self.prelude.close()
        super().bury()

    def rng_says(self, chance: float) -> bool:
        return self.world.rng.random() < chance


class ProxiedCall(SimulatedCall):
    """A program's own side of such a call."""

    def __init__(self, world: World, process: Process, request: Request) -> None:
        super().__init__(world, process, request)
        facts = DIALECT.read_request(request.body)
        self.call = Call(
            process.runtime,
            DIALECT,
            facts,
            process.ambient(request),
            "http://proxy/v1/chat/completions",
            request.timeout_seconds,
            f"{OFFERED}{request.id}",
            offers=True,
        )
        self.life = life(self.call)
        self.letter: tuple[bytes, str] | None = None
        """What it has sent: the body, and the hold that it offers."""
        self.deliveries = 0
        self.legs: list[Leg] = []
        self.heard = 0

    @property
    def runnable(self) -> bool:
        if self.letter is not None and isinstance(self.waits_for, Send | ReadAll | Relay):
            return self._hears()
        return super().runnable

    def _hears(self) -> bool:
        """Whether there is anything new for it; else only its own impatience ends the wait."""
        leg = self.legs[0] if self.legs else None
        if leg is None:
            return self.deliveries == 0
        if isinstance(self.waits_for, Relay) and self.heard < len(leg.relayed_bytes):
            return True
        return leg.ended or leg.killed or (isinstance(self.waits_for, Send) and leg.answered is not None)

    def _send(self, send: Send, goes_wrong: Callable[[float], bool]) -> str:
        if self.letter is None:
            offered = offer(self.call)
            assert offered is not None
            self.letter = (send.body if send.body is not None else self.request.body, offered)
            self.deliveries = self.world.rng.choice((0, 1, 1, 1, 1, 1, 2)) if goes_wrong(0.6) else 1
            return f"is sent to a proxy, {self.deliveries} times"
        leg = self.legs[0] if self.legs else None
        lost = leg is None or leg.killed or (leg.interrupted is not None and leg.answered is None)
        if leg is None or lost or goes_wrong(0.03):
            self.detach(Broken("connection_lost"))
            return "loses its proxy"
        if leg.answered is not None:
            self.resume(leg.answered)
            return "is answered through its proxy"
        if leg.refused is not None:
            self.resume(Answered(REFUSED, False))
            return "is refused by its proxy"
        if leg.fate == "connect_error":
            self.resume(Answered(502, False, proxied=True))
            return "is told that the provider was not reached"
        self.resume(Answered(504, False, proxied=True))
        return "is told that nobody knows"

    def _read(self, goes_wrong: Callable[[float], bool]) -> str:
        leg = self.legs[0]
        if goes_wrong(0.05):
            self.detach(Broken("timeout"))
            return "loses its proxy while the body is read"
        exchange = leg.exchange
        self.resume(exchange.body if leg.answered is not None and exchange is not None else b"{}")
        return "has its body"

    def _relay(self, relay: Relay, goes_wrong: Callable[[float], bool]) -> str:
        leg = self.legs[0]
        if relay.finished is not None:
            self.finished = relay.finished
        if goes_wrong(0.06):
            self.detach(Broken(self.world.rng.choice(("abandoned", "cancelled", "client_gone"))))
            return f"leaves the stream: {self.fate}"
        if relay.last:
            self.resume(None)
            return "cuts the stream"
        if self.heard < len(leg.relayed_bytes):
            self.heard += 1
            data = leg.relayed_bytes[self.heard - 1]
            self.resume(data) if data else None
            return f"has {len(data)} bytes through its proxy"
        if leg.killed or leg.fate:
            self.detach(Broken("connection_lost"))
            return "loses the stream"
        self.resume(None)
        return "has the end of its stream"

    def lose_patience(self) -> str:
        """It waits for its proxy, and leaves."""
        self.detach(Broken(self.world.rng.choice(("timeout", "cancelled"))))
        return f"leaves: {self.fate}"


def deliver(world: World, call: ProxiedCall) -> Leg:
    """The proxy has one (more) of these requests."""
    assert call.letter is not None
    body, offered = call.letter
    call.deliveries -= 1
    rng = world.rng
    alive = [process for process in world.processes if process.alive]
    process = rng.choice([of for of in alive if of is not call.process] or alive)
    tags = {"user": rng.choice(("ada", "bob"))} if rng.random() < 0.4 else {}
    request = Request(world.new_id(), body, (), tags, inherited=False, timeout_seconds=600.0)
    world.requests[request.id] = request
    world.process_of[request.id] = process
    leg = Leg(world, process, request, offered, call)
    call.legs.append(leg)
    return leg


def audit_handed_over(world: World, store: SlowStore, call: ProxiedCall) -> None:
    """What was offered comes to nothing, once a proxy has taken it, or has refused the call and nobody else has it."""
    unwritten = {call_of(hold_id) for hold_id in store.unwritten}
    if call.id in unwritten or not call.legs:
        return
    taken = any(leg.took for leg in call.legs)
    turned_down = all(leg.refusal_said for leg in call.legs)
    world.seen["handed over"] += taken
    world.seen["refused by the proxy"] += turned_down
    world.seen["not joined"] += any(leg.exchange is not None and not leg.took for leg in call.legs)
    world.seen["sent twice"] += sum(leg.exchange is not None for leg in call.legs) > 1
    if not taken and not turned_down:
        return
    rows = [entry for entry in store.inner.entries().result() if call_of(entry.hold_id) == call.id]
    tokens = sum(count for entry in rows for _, count in entry.usage)
    cost = sum(entry.cost_nano or 0 for entry in rows)
    if tokens or cost:
        world.violate(f"{call.id} was handed over or refused, and counts {tokens} tokens and {cost} beside it: {rows}")
