"""
Goal: whatever ends a call, wherever it stands, it leaves no hold behind, and one entry at most on each ledger.
Method: the life of a call is driven by hand over memory and SQLite together, and at every step of it (every yield) it
is closed, interrupted, cancelled, or broken; then nothing may be held, and what left must be in both ledgers.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farthing.calls import endings
from farthing.calls.call import Call
from farthing.calls.life import life
from farthing.calls.steps import STEPS, Answered, Broken, ReadAll, Relay, Send, advance, advance_detached
from farthing.kernel.balances import UNITS
from farthing.kernel.budget import make_budget, unit_of_work
from farthing.runtime.ambient import Ambient, Binding
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores.sqlite.tickets import Ticket
from farthing.wire.openai.chat import OpenAIChat
from tests.unit.wire.recorded_bodies import recorded
from tests.waiting import eventually

MESSAGES = [{"role": "user", "content": "hi"}]
STREAM = recorded("openai_chat_stream.sse")
CHUNKS = [STREAM[start : start + 400] for start in range(0, len(STREAM), 400)]
ANSWER = recorded("openai_chat_answer.json")
NUMBERS = itertools.count()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = Runtime(Settings(ledger=f"sqlite:///{tmp_path / 'ledger.db'}"))
    made.housekeeper.start = lambda: None  # type: ignore[method-assign]
    yield made
    made.close()


def call_of(runtime: Runtime, *, stream: bool, tokens: int) -> Call:
    """On a unit of work in memory, a named budget in the file, and one that raises once it is crossed."""
    named = runtime.put_budget(make_budget("named", tokens=1_000_000))
    guard = runtime.put_budget(make_budget(f"guard-{next(NUMBERS)}", tokens=5, on_exceed="raise"))
    unit = unit_of_work(make_budget(tokens=tokens, on_exceed="break"), unit_id=f"unit-{next(NUMBERS)}", label="unit")
    ambient = Ambient(tuple(Binding(budget, os.getpid()) for budget in (unit, named, guard)))
    body = json.dumps({"model": "gpt-4o", "messages": MESSAGES, "stream": stream}).encode()
    dialect = OpenAIChat()
    # A timeout this short makes it show that it is alive at every chunk: those are steps too.
    return Call(runtime, dialect, dialect.read_request(body), ambient, "http://provider", timeout_seconds=0.0001)


class Door:
    """Answers the steps of a life, as a provider that is well would have it."""

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._chunks = iter(CHUNKS)
        self.sent = False

    def answer(self, step: Any) -> Any:
        if isinstance(step, Send):
            self.sent = True
            return Answered(200, self._stream)
        if isinstance(step, ReadAll):
            return ANSWER
        if isinstance(step, Relay):
            return next(self._chunks, None)
        return step.result()


def run(call: Call, *, stream: bool, stop_at: int | None, how: Callable[[Any], None]) -> int:
    """Drive it, and let *how* end it at this step. Gives the number of steps that it took."""
    door, running = Door(stream=stream), life(call)
    steps, step = 0, None
    try:
        step = next(running)
        while steps != stop_at:
            steps += 1
            step = running.send(door.answer(step))
    except StopIteration:
        return steps
    how(running)
    return steps


def closes(running: Any) -> None:
    running.close()


def is_collected(running: Any) -> None:
    """Nothing refers to it any more; the caller's own name is gone when it returns."""


def raises(error: BaseException) -> Callable[[Any], None]:
    def throw(running: Any) -> None:
        """As a driver has it: what the life then asks of its ledgers is waited for."""

        def wait() -> None:
            step = running.throw(error)
            while not isinstance(step, STEPS):
                step = running.send(step.result())

        with pytest.raises(type(error)) as raised:
            wait()
        assert raised.value is error

    return throw


def detached(running: Any) -> None:
    advance_detached(running, Broken("cancelled"))


HOW: dict[str, Callable[[], Callable[[Any], None]]] = {
    "closed": lambda: closes,
    "collected": lambda: is_collected,
    "interrupted": lambda: raises(KeyboardInterrupt()),
    "cancelled": lambda: raises(asyncio.CancelledError()),
    "an error": lambda: raises(RuntimeError("between two lines")),
    "detached": lambda: detached,
}


def settled_everywhere(runtime: Runtime, call: Call, *, sent: bool) -> None:
    gc.collect()
    runtime.housekeeper.catch_up()
    durable = runtime.durable
    assert durable is not None
    # A hold that is admitted for one who has gone is given back by the writer, when it lets go of the ticket.
    eventually(lambda: durable.store.holds("held").result() == ())
    entries = []
    for store in (runtime.memory_store, durable.store):
        assert store.holds("held").result() == ()
        assert not any(row.of(unit).held for row in store.balances().result().values() for unit in UNITS)
        entries.append([entry for entry in store.entries().result() if entry.hold_id == call.id])
        assert len(entries[-1]) <= 1
    if sent:
        (here,), (there,) = entries
        assert here.usage == there.usage
        assert here.ending == there.ending


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("stream", "tokens"), [(False, 100_000), (True, 100_000), (True, 95)], ids=["plain", "stream", "cut"]
)
def test_no_step_of_a_call_leaks_a_hold(runtime: Runtime, stream: bool, tokens: int, how: str) -> None:
    call = call_of(runtime, stream=stream, tokens=tokens)
    total = run(call, stream=stream, stop_at=None, how=closes)
    settled_everywhere(runtime, call, sent=True)
    assert total > 4
    for stop_at in range(total):
        call = call_of(runtime, stream=stream, tokens=tokens)
        run(call, stream=stream, stop_at=stop_at, how=HOW[how]())
        settled_everywhere(runtime, call, sent=call.ended)


def test_an_answer_that_cannot_be_counted_ends_its_call(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own token counter may raise: that is the caller's to see, and no reason to hold for ever."""

    def broken(*given: object) -> int:
        raise ZeroDivisionError

    call = call_of(runtime, stream=False, tokens=100_000)
    running = life(call)
    assert isinstance(advance(running), Send)
    assert isinstance(advance(running, Answered(200, False)), ReadAll)
    monkeypatch.setattr(endings, "_count", broken)
    answer = json.loads(ANSWER)
    del answer["usage"]
    with pytest.raises(ZeroDivisionError):
        advance(running, json.dumps(answer).encode())
    settled_everywhere(runtime, call, sent=True)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_called_away_while_it_asks_whether_a_proxy_counts_it(runtime: Runtime, stream: bool, how: str) -> None:
    """Nothing was held for it, and nothing of its answer was read: one row, that says so."""
    body = json.dumps({"model": "gpt-4o", "messages": MESSAGES, "stream": stream}).encode()
    dialect = OpenAIChat()
    call = Call(runtime, dialect, dialect.read_request(body), Ambient(), "http://proxy", offers=True)
    running = life(call)
    assert isinstance(next(running), Send)
    step: Any = running.send(Answered(200, stream, proxied=True))
    assert isinstance(step, Ticket)
    HOW[how]()(running)
    del running, step
    gc.collect()
    runtime.housekeeper.catch_up()
    assert runtime.durable is not None
    for store in (runtime.memory_store, runtime.durable.store):
        (row,) = store.entries().result()
        assert row.suspect == store.durable
        assert row.tokens("input") > 0


def test_a_hold_that_was_released_meanwhile_was_not_taken_over(runtime: Runtime) -> None:
    """Past its deadline it is suspect, and some release what is: the answer that comes after all is counted."""
    call = call_of(runtime, stream=False, tokens=100_000)
    call.offers = True
    running = life(call)
    assert isinstance(advance(running), Send)
    assert runtime.durable is not None
    for store in (runtime.memory_store, runtime.durable.store):
        store.suspect(call.id, ending="expired").result()
        store.resolve(call.id, "release").result()
    assert isinstance(advance(running, Answered(200, False, proxied=True)), ReadAll)
    advance(running, ANSWER)
    spent = [sum(row.cost_nano or 0 for row in of.store.entries().result()) for of in (runtime.memory, runtime.durable)]
    assert spent[0] == spent[1] > 0


def test_a_thousand_lost_calls_without_a_budget_leave_nothing_open_in_memory(runtime: Runtime) -> None:
    """In memory nobody looks for them, and each would stay for a day."""
    dialect = OpenAIChat()
    body = json.dumps({"model": "gpt-4o", "messages": MESSAGES}).encode()
    for _ in range(1_000):
        running = life(Call(runtime, dialect, dialect.read_request(body), Ambient(), "http://host"))
        assert isinstance(advance(running), Send)
        advance(running, error=Broken("timeout"))
    assert runtime.memory_store.holds().result() == ()
    assert not runtime.memory_store.balances().result()
