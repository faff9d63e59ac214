"""
The demo's scenes.

Each runs real calls against two fake providers, one for each way to keep a budget, and reads the figures off the
providers' own bills.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ... import prices
from ...kernel.money import nano_of_usd, usd_decimal, usd_from_nano
from ...scopes.budgets import BudgetHandle, budget
from ...testing import FakeProvider, Reply
from .callers import MODEL, OUTPUT_TOKENS, Caller, SDKCaller, make_caller, sdk_version
from .counters import CheckThenRecord, Tally, Tariff

NAIVE, OURS = "check, then record", "farthing"
NANO_A_CALL = 250_000
"""The budget grows with the number of calls: $0.05 for 200, of which two in five fit."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way to keep a budget, in one scene. ``billed_nano`` is the provider's own word."""

    scene: str
    way: str
    budget_nano: int
    tried: int
    sent: int
    denied: int
    billed_nano: int
    denied_with_room: int

    @property
    def over_nano(self) -> int:
        """By how much the provider's bill passes the budget."""
        return max(0, self.billed_nano - self.budget_nano)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: USD as decimal strings."""
        amounts = {"budget_usd": self.budget_nano, "billed_usd": self.billed_nano, "over_usd": self.over_nano}
        return {
            "scene": self.scene,
            "way": self.way,
            "tried": self.tried,
            "sent": self.sent,
            "denied": self.denied,
            "denied_with_room": self.denied_with_room,
            **{name: usd_decimal(nano) for name, nano in amounts.items()},
        }


@dataclass(frozen=True, slots=True)
class Side:
    """One provider and the client that calls it."""

    provider: FakeProvider
    caller: Caller

    def start_over(self, reply: Reply) -> None:
        """A new scene: an empty bill, and this answer to every call."""
        self.provider.wait_idle()
        self.provider.forget()
        self.provider.reply = reply


@dataclass(frozen=True, slots=True)
class Stage:
    """What all scenes share."""

    naive: Side
    ours: Side
    tariff: Tariff
    call_nano: int
    """What one call costs: measured, by making one."""

    def billed_nano(self, side: Side) -> int:
        """A provider's bill, after everything that was sent to it has been answered."""
        side.provider.wait_idle()
        return side.provider.billed_nano({MODEL: (self.tariff.input, self.tariff.output)})

    def row(self, scene: str, side: Side, limit_nano: int, tally: Tally) -> Row:
        """What a scene came to. Raises what went wrong in it, if anything did that was no denial."""
        if tally.failures:
            raise tally.failures[0]
        way = OURS if side is self.ours else NAIVE
        return Row(
            scene,
            way,
            limit_nano,
            tally.tried,
            side.provider.posts,
            tally.denied,
            self.billed_nano(side),
            tally.denied_with_room,
        )


Watch = Callable[[int, int], None]
"""Told, while a scene runs, what is spent and what is held, in nano-dollars."""


def answer(latency_seconds: float = 0.0) -> Reply:
    """Every call of the demo has one size: it writes as much as it may."""
    return Reply(output_tokens=OUTPUT_TOKENS, latency_seconds=latency_seconds, tokens_per_chunk=10)


@contextmanager
def stage() -> Iterator[Stage]:
    """Providers and clients, warm: vocabularies, price table and connections are loaded before anything is shown."""
    rates = prices.rates_of(MODEL)
    tariff = Tariff(rates.usd_per_million("input"), rates.usd_per_million("output"))
    with ExitStack() as stack:
        providers = [stack.enter_context(FakeProvider(answer())) for _ in range(2)]
        callers = [make_caller(providers[0].openai_url, governed=False)]
        stack.callback(callers[0].close)
        call_nano = tariff.cost_nano(*callers[0].call())
        callers.append(make_caller(providers[1].openai_url, governed=True, call_usd=usd_from_nano(call_nano)))
        stack.callback(callers[1].close)
        with budget(usd=1):
            callers[1].call()
        naive, ours = map(Side, providers, callers)
        yield Stage(naive, ours, tariff, call_nano)


def burst(on: Stage, calls: int, latency_seconds: float, watch_naive: Watch, watch_ours: Watch) -> list[Row]:
    """So many calls in so many threads, all let go at the same moment."""
    scene, limit_nano = f"{calls} calls at once", calls * NANO_A_CALL
    on.naive.start_over(answer(latency_seconds))
    counter = CheckThenRecord(limit_nano, on.tariff)
    naive = Tally()
    all_at_once(
        calls,
        lambda: naive.attempt(lambda: counter.call(on.naive.caller.call)),
        lambda: watch_naive(counter.spent_nano, 0),
    )
    on.ours.start_over(answer(latency_seconds))
    ours = Tally()
    with budget(usd=usd_from_nano(limit_nano)) as handle:
        all_at_once(calls, lambda: ours.attempt(on.ours.caller.call), lambda: watch_ours(*_figures(handle)))
    return [on.row(scene, on.naive, limit_nano, naive), on.row(scene, on.ours, limit_nano, ours)]


def streams(on: Stage, calls: int) -> list[Row]:
    """Streams that are all opened before any is read: nobody knows yet what they will cost. Needs the SDK."""
    return [_streams(on, side, calls) for side in (on.naive, on.ours)]


def _streams(on: Stage, side: Side, calls: int) -> Row:
    caller = side.caller
    if not isinstance(caller, SDKCaller):
        raise TypeError("streams are only shown with the SDK")
    side.start_over(answer())
    limit_nano = calls * NANO_A_CALL
    counter = CheckThenRecord(limit_nano, on.tariff)
    tally = Tally()
    opened: list[Iterator[Any]] = []

    def open_one() -> None:
        if side is on.naive:
            counter.check()
        opened.append(caller.open_stream())

    with budget(usd=usd_from_nano(limit_nano)) if side is on.ours else nullcontext():
        for _ in range(calls):
            tally.attempt(open_one)
    for stream in opened:
        counter.record(caller.drain(stream))
    return on.row(f"{calls} streams at once", side, limit_nano, tally)


def with_sdk() -> bool:
    """Whether the real SDK makes the calls."""
    return sdk_version() is not None


def all_at_once(calls: int, attempt: Callable[[], None], watch: Callable[[], None] = lambda: None) -> None:
    """So many attempts in so many threads, all let go at the same moment; *watch* is called while they run."""
    gate = threading.Barrier(calls + 1)

    def run() -> None:
        gate.wait()
        attempt()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(calls)]
    for thread in threads:
        thread.start()
    gate.wait()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.05)
            watch()
    watch()


def _figures(handle: BudgetHandle) -> tuple[int, int]:
    return nano_of_usd(handle.spent.usd or Decimal(0)), nano_of_usd(handle.held.usd or Decimal(0))
