"""
The scheduler: one step at a time, of whichever call it draws, with whatever goes wrong there.

A call is driven as the doors of :mod:`farthing.sdk` drive it. Where a door waits for a ticket, other calls run; where
it cannot wait (the transport failed, the caller has gone), :func:`~farthing.calls.steps.advance_detached` ends the
call, and its last commands wait in line. After every step the world's oracles must have nothing to say; at the end the
books are audited against the provider's bills (:mod:`.audit`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
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
from farthing.errors import BudgetExceeded, HoldConflict, StoreUnavailable, UnpricedModel
from farthing.stores.contract import SweepPolicy
from farthing.wire.openai.chat import OpenAIChat

from . import provider
from .faults import Command, Pending, SlowStore
from .world import KEEP, Process, Request, Violation, World

STEPS_MAX = 5_000
AT_ONCE_MAX = 8
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


class _Contradictions(logging.Handler):
    """
    A ledger's refusal of a call's last word costs no caller an answer: it is an error in the log. That a call has said
    two different words is one all the same.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if any(isinstance(argument, HoldConflict) for argument in record.args or ()):
            self._world.violate(record.getMessage())


class Simulation:
    """Runs the world of one seed to its end."""

    world_type: type[World] = World

    def __init__(self, seed: int, *, backend: str, directory: Path) -> None:
        self.world = self.world_type(seed, backend=backend, directory=directory)
        self.rng = self.world.rng
        self.calls: list[SimulatedCall] = []
        self.trace: list[str] = []
        self.calm = False
        self._heard = _Contradictions(self.world)

    def run(self) -> None:
        """Raises Violation, with the trace of all steps."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._run()
        finally:
            log = logging.getLogger("farthing")
            log.setLevel(logging.NOTSET)
            log.removeHandler(self._heard)
            log.propagate = True
            self.world.close()
            for call in self.calls:
                if not call.ended:
                    _bury(call.life)

    def _run(self) -> None:
        from .audit import audit, audit_leftovers

        log = logging.getLogger("farthing")
        log.setLevel(logging.ERROR)
        log.addHandler(self._heard)
        log.propagate = False
        self._stop_if_violated()
        while self.world.to_make or self._unfinished():
            self._step()
            if len(self.trace) > STEPS_MAX:
                self.world.violate("a call that never ends")
            self._stop_if_violated()
        self.calm = True
        self._note("every call has ended", self._drain())
        audit(self.world, self.calls)
        self._stop_if_violated()
        self._note("all deadlines pass", self._sweep_all())
        audit_leftovers(self.world, self.calls)
        self._stop_if_violated()

    # -- steps ---------------------------------------------------------------------------------------------------

    def _unfinished(self) -> bool:
        return any(not call.ended for call in self.calls) or any(store.line for store in self._stores())

    def _stores(self) -> list[SlowStore]:
        return [store for process in self.world.processes for store in process.stores]

    def _goes_wrong(self, chance: float) -> bool:
        return not self.calm and self.rng.random() < chance * self.world.storm

    def _step(self) -> None:
        active = [call for call in self.calls if not call.ended]
        runnable = [call for call in active if call.runnable]
        waiting = [store for store in self._stores() if store.line]
        options: list[tuple[float, Callable[[], None]]] = [(6.0 * len(runnable), lambda: self._call_step(runnable))]
        options.append((8.0 * len(waiting), lambda: self._apply(waiting)))
        options.append((6.0 if self.world.to_make and len(active) < AT_ONCE_MAX else 0.0, self._start_call))
        options.append((2.0, self._time_passes))
        storm = self.world.storm
        options.append((0.6 * storm, lambda: self._interrupt_one(active)))
        options.append((0.8 * storm, self._repeat))
        options.append((0.3 * storm, self._contradict))
        options.append((0.7, self._housekeep))
        options.append((0.5 * storm, self._administer))
        options.append((0.2 * storm, self._resolve_by_hand))
        options.append((0.2 * storm if self.world.shared is not None else 0.0, self._crash))
        weights = [weight for weight, _ in options]
        self.rng.choices([do for _, do in options], weights)[0]()

    def _note(self, who: str, what: object = "") -> None:
        self.trace.append(f"{len(self.trace):4} {self.world.clock.ms - 1_780_000_000_000:>10} ms  {who} {what}")

    def _start_call(self) -> None:
        world = self.world
        world.to_make -= 1
        process = self.rng.choice([process for process in world.processes if process.alive])
        request = world.new_request()
        world.process_of[request.id] = process
        call = SimulatedCall(world, process, request)
        self.calls.append(call)
        body = json.loads(request.body)
        body["messages"] = f"{body['messages'][0]['content'].count(provider.WORD)} words"
        self._note(call.id, f"on {process.name}: {body} under {request.ambient_names} {request.tags}")

    def _call_step(self, runnable: list[SimulatedCall]) -> None:
        call = self.rng.choice(runnable)
        self._note(call.id, call.step(goes_wrong=self._goes_wrong))

    def _apply(self, waiting: list[SlowStore]) -> None:
        store = self.rng.choice(waiting)
        fault: str | None = None
        if store.durable and self.world.store_faults and self._goes_wrong(0.06):
            fault = self.rng.choice(("before", "after", "patience"))
            self.world.seen[f"store fails: {fault}"] += 1
        self._note(f"{store.process}→{'durable' if store.durable else 'memory'}", store.apply_next(fault))

    def _interrupt_one(self, active: list[SimulatedCall]) -> None:
        """A task is cancelled while it waits for a ledger."""
        waiting = [call for call in active if isinstance(call.waits_for, Pending)]
        if waiting:
            call = self.rng.choice(waiting)
            self._note(call.id, call.interrupt(self.rng.choice(INTERRUPTIONS)))

    def _time_passes(self) -> None:
        rng = self.rng
        jumps = (rng.randint(1, 3_000), rng.randint(1, 3_000), rng.randint(1, 70_000), -rng.randint(1, 1_800_000))
        by_ms = rng.choice(jumps)
        if rng.random() < 0.06 * self.world.storm:
            by_ms = rng.choice((15 * 60_000, 2 * 3_600_000, 26 * 3_600_000))
        self.world.clock.move(by_ms)
        self._note("time", f"{by_ms:+} ms")

    def _repeat(self) -> None:
        """A command that was carried out is given again, as after an answer that got lost."""
        store = self.rng.choice(self._stores())
        if store.done and not store.dead:
            command = self.rng.choice(store.done)
            self._note(f"again {command}", self._carried_out(store, command))

    def _contradict(self) -> None:
        """An id that is known comes with another body."""
        store = self.rng.choice(self._stores())
        given = [command for command in store.done if command.verb == "settle"]
        if not given or store.dead:
            return
        command = self.rng.choice(given)
        outcome = command.args[1]._replace(amounts=(("tokens", self.rng.randint(0, 50)), ("requests", 1)), ending="x")
        other = Command(self.rng.choice(("settle", "void")), (command.hold_id, outcome))
        self._note(f"contradiction {other}", self._carried_out(store, other))

    def _carried_out(self, store: SlowStore, command: Command) -> str:
        try:
            return type(store.carry_out(command)).__name__
        except Exception as error:  # noqa: BLE001 - the oracle has judged it
            return type(error).__name__

    def _housekeep(self) -> None:
        process = self.rng.choice([process for process in self.world.processes if process.alive])
        sweep = self.rng.random() < 0.6
        try:
            process.runtime.housekeeper.tick(sweep=sweep)
        except StoreUnavailable as error:
            self._note(process.name, f"housekeeping failed: {error}")
        self._note(process.name, "housekeeping" + (" and sweep" if sweep else ""))

    def _administer(self) -> None:
        self._note("somebody", self.world.administer())

    def _resolve_by_hand(self) -> None:
        store = self.rng.choice(self._stores())
        suspects = [row.id for row in store.oracle.rows.values() if row.state == "suspect"]
        if suspects and not store.dead:
            policy = self.rng.choice(("settle_at_hold", "release"))
            command = Command("resolve", (self.rng.choice(suspects), policy), {"note": "by hand"})
            self._note("somebody", f"{command}: {self._carried_out(store, command)}")

    def _crash(self) -> None:
        """kill -9, and a new process on the same ledger."""
        world = self.world
        process = self.rng.choice([process for process in world.processes if process.alive])
        process.die()
        world.seen["crash"] += 1
        for call in self.calls:
            if call.process is process and not call.ended:
                call.killed = True
                call.end()
                _bury(call.life)
        world.processes.remove(process)
        self._note(process.name, "is killed")
        fresh = world.start_process()
        world.processes.append(fresh)
        self._note(fresh.name, "starts")
        if self.rng.random() < 0.7 and fresh.durable is not None:
            fresh.durable.carry_out(Command("sweep", (KEEP,)))
            self._note(fresh.name, "sweeps")

    # -- the end -------------------------------------------------------------------------------------------------

    def _drain(self) -> str:
        for process in self.world.processes:
            process.runtime.housekeeper.tick(sweep=False)
            for store in process.stores:
                while store.line:
                    store.apply_next()
        return ""

    def _sweep_all(self) -> str:
        self.world.clock.move(2 * 3_600_000)
        for store in self._stores():
            store.carry_out(Command("sweep", (KEEP,)))
        self.world.clock.move(3_600_000)
        for store in self._stores():
            store.carry_out(Command("sweep", (SweepPolicy(0, "settle_at_hold"),)))
        return ""

    def _stop_if_violated(self) -> None:
        if self.world.violations:
            world = self.world
            head = f"seed {world.seed} on {world.backend}: {world.violations[0]}"
            tail = "\n".join(self.trace)
            budgets = "\n".join(f"     {budget}" for budget in (*world.named, *world.anonymous))
            raise Violation(f"{head}\n\nsettings: {world.settings}\nbudgets:\n{budgets}\n\n{tail}\n\n{head}")


def _bury(life: Life) -> None:
    """Let a killed process's generator end: its stores are dead, so that nothing it does reaches anything."""
    try:
        advance_detached(life, Broken("killed"))
    except BaseException:  # noqa: BLE001 - whatever a dead process would have said, nobody hears it
        return
