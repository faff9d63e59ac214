"""
The scheduler: one step at a time, of whichever call it draws, with whatever goes wrong there.

A call is driven as the doors of :mod:`farthing.sdk` drive it. Where a door waits for a ticket, other calls run; where
it cannot wait (the transport failed, the caller has gone), :func:`~farthing.calls.steps.advance_detached` ends the
call, and its last commands wait in line. After every step the world's oracles must have nothing to say; at the end the
books are audited against the provider's bills (:mod:`.audit`).
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

from farthing.errors import HoldConflict, StoreUnavailable
from farthing.stores.contract import SweepPolicy

from . import provider
from .driven import INTERRUPTIONS, SimulatedCall
from .faults import Command, Pending, SlowStore
from .handover import ProxiedCall, deliver
from .world import KEEP, Violation, World

STEPS_MAX = 5_000
AT_ONCE_MAX = 8


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
                    call.bury()

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
        letters = any(isinstance(call, ProxiedCall) and call.deliveries for call in self.calls)
        return letters or any(not call.ended for call in self.calls) or any(store.line for store in self._stores())

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
        letters = [call for call in self.calls if isinstance(call, ProxiedCall) and call.deliveries]
        options.append((6.0 * len(letters), lambda: self._deliver(letters)))
        options.append((0.6 * storm, lambda: self._lose_patience(active)))
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
        call = (ProxiedCall if request.proxied else SimulatedCall)(world, process, request)
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

    def _deliver(self, letters: list[ProxiedCall]) -> None:
        call = self.rng.choice(letters)
        leg = deliver(self.world, call)
        self.calls.append(leg)
        self._note(leg.id, f"is {call.id} at the proxy {leg.process.name}, {leg.request.tags}")

    def _lose_patience(self, active: list[SimulatedCall]) -> None:
        waiting = [call for call in active if isinstance(call, ProxiedCall) and call.letter and not call.runnable]
        if waiting:
            call = self.rng.choice(waiting)
            self._note(call.id, call.lose_patience())

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
        outcome = command.args[1]._replace(amounts=(self.rng.randint(0, 50), 0, 1, 0), ending="x")
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
                call.bury()
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
