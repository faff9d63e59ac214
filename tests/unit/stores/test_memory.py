"""
The memory ledger where the contract suite does not look: exceptions at any line, finalisers inside the lock, forks,
and what it must not keep.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import opcode
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from farthing.errors import HoldNotFound, StoreUnavailable
from farthing.kernel import ledger, plan
from farthing.kernel.balances import ZERO, Balances
from farthing.kernel.budget import make_budget
from farthing.kernel.hold import Outcome
from farthing.kernel.ledger import Denied, Placed
from farthing.kernel.plan import Ask, CallFacts, Formula, Plan, make_plan
from farthing.kernel.usage import Usage
from farthing.stores.contract import ACCOUNT_GRACE_MS, SWEEP_BATCH, DenialKey, SweepPolicy
from farthing.stores.memory import MemoryStore, books
from farthing.stores.memory import store as memory_store
from farthing.testing import FakeClock

HOUR_MS = 3_600_000
FAR_MS = 4_000_000_000_000
KEPT = SweepPolicy(0, "keep")


def call(store: MemoryStore, call_id: str, *, tokens: int = 10, deadline_ms: int = FAR_MS) -> Plan:
    """A call of so many input tokens at 3 nano-dollars each on every budget of the store."""
    catalogue = store.catalogue().result()
    now = store.now()
    accounts = [catalogue.account(budget, {}, now) for budget in catalogue.budgets.values()]
    facts = CallFacts(input_tokens=tokens, price=Formula(3 * tokens))
    return make_plan(Ask(call_id, facts, 0, 0, deadline_ms), accounts, catalogue_version=catalogue.version)


def said(tokens: int) -> Outcome:
    """What a call of so many tokens says that it cost."""
    return Outcome((tokens, 3 * tokens, 1, 0), Usage(input=tokens), 3 * tokens)


def balances(store: MemoryStore) -> dict[str, Balances]:
    return {key: balance for key, balance in store.balances().result().items() if balance != ZERO}


def check_books(store: MemoryStore) -> None:
    """I4 and I5."""
    journal = store.journal().result()
    assert ledger.replay(dict(journal.settled_before), journal.entries, journal.holds) == balances(store)
    assert all(min(balance) >= 0 for balance in balances(store).values())


def spent(store: MemoryStore, unit: str = "tokens") -> int:
    return sum(row.of(unit).settled for row in balances(store).values())


def sizes(store: MemoryStore) -> dict[str, int]:
    """How many things it keeps, container by container."""
    return {name: len(value) for name, value in vars(store).items() if hasattr(value, "__len__")}


# -- an exception at any line ----------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """As a signal handler may raise it, anywhere."""


NOP = opcode.opmap["NOP"]
TRACED = {module.__file__ for module in (books, memory_store, ledger, plan)}


@contextmanager
def interrupt_at(line: int) -> Iterator[list[str]]:
    """Raise at the *line*-th line that the store or the kernel begins. Yields where that was, once it has happened."""
    where: list[str] = []
    begun = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        begun_here: set[int] = set()

        def each(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal begun
            # Two lines on which the interpreter itself lets nothing in (it looks for signals in calls and loops), so
            # that its own `with` does not protect them: a `try:`, which does nothing, and leaving a `with`, which
            # counts as beginning its line again.
            does_nothing = frame.f_code.co_code[frame.f_lasti] == NOP
            leaves_with = frame.f_code.co_name == "_run" and frame.f_lineno in begun_here
            if event == "line" and not does_nothing and not leaves_with:
                begun_here.add(frame.f_lineno)
                begun += 1
                if begun == line:
                    where.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
                    raise Interrupted
            return each

        return each

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield where
    except Interrupted:
        assert where
    finally:
        sys.settrace(before)


def prepared(clock: FakeClock) -> MemoryStore:
    """A store in which every kind of command has something to do, and bounds that each of them crosses."""
    store = MemoryStore(clock=clock, entries_max=2)
    store.put_budget(make_budget("all", tokens=10_000, usd=1, concurrency=50))
    store.put_budget(make_budget("minute", tokens=10_000, per="minute"))
    for n in range(4):
        store.place(call(store, f"old{n}"))
        store.settle(f"old{n}", said(7))
    for _ in range(2):
        store.sweep()
        clock.advance(seconds=ACCOUNT_GRACE_MS / 2000 + 30)
    for name in ("held", "resized", "replaced"):
        store.place(call(store, name))
    store.place(call(store, "expired", deadline_ms=clock() + 1))
    store.place(call(store, "lost"))
    store.suspect("lost", ending="timeout")
    clock.advance(seconds=2)
    return store


COMMANDS: dict[str, Callable[[MemoryStore], object]] = {
    "place": lambda store: store.place(call(store, "new")).result(),
    "replace": lambda store: store.place(call(store, "new"), replaces="replaced").result(),
    "resize": lambda store: store.resize("resized", x=0).result(),
    "extend": lambda store: store.extend("held", deadline_ms=FAR_MS + 1).result(),
    "settle": lambda store: store.settle("held", said(9)).result(),
    "settle above the hold": lambda store: store.settle("held", said(99)).result(),
    "settle late": lambda store: store.settle("lost", said(9)).result(),
    "void": lambda store: store.void("held").result(),
    "void with an outcome": lambda store: store.void("held", Outcome((0, 0, 1, 0))).result(),
    "suspect": lambda store: store.suspect("held", ending="timeout").result().hold,
    "record": lambda store: store.record(call(store, "paid"), said(9)).result(),
    "put_budget": lambda store: store.put_budget(make_budget("more", tokens=5)).result(),
    "freeze": lambda store: store.freeze("all", frozen=True).result(),
}
# Repeated, these find what is left to do: they are compared once nothing is.
UNREPEATABLE: dict[str, Callable[[MemoryStore], object]] = {
    "sweep": lambda store: store.sweep(SweepPolicy(0, "settle_at_hold")),
    "sweep, release": lambda store: store.sweep(SweepPolicy(0, "release")),
    "forget": lambda store: store.forget(list(store.balances().result())),
}


def finish(store: MemoryStore, command: Callable[[MemoryStore], object] | None) -> None:
    """What was cut short after its change was made is tidied up by the next change."""
    if command is not None:
        command(store)
        command(store)
    store.record(call(store, "afterwards"), said(1))


@pytest.mark.parametrize("name", [*COMMANDS, *UNREPEATABLE])
def test_an_exception_at_any_line_leaves_all_or_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the command can be repeated with the same id: then everything is as if nothing had happened."""
    monkeypatch.setattr(books, "ENDED_HOLDS_MAX", 2)
    command = {**COMMANDS, **UNREPEATABLE}[name]
    undisturbed = prepared(FakeClock())
    untouched = balances(undisturbed)
    answer = command(undisturbed)
    changed = balances(undisturbed)
    finish(undisturbed, command if name in UNREPEATABLE else None)

    line = 0
    while True:
        line += 1
        store = prepared(FakeClock())
        with interrupt_at(line) as where:
            command(store)
        if not where:
            break
        check_books(store)
        if name in COMMANDS:
            assert balances(store) in (untouched, changed), f"half a change after {where}"
        again = command(store)
        assert name in UNREPEATABLE or again == answer, where
        finish(store, command if name in UNREPEATABLE else None)
        assert balances(store) == balances(undisturbed), where
        if name in COMMANDS:  # a sweep that is cut short comes to its holds in another order
            assert store.journal().result() == undisturbed.journal().result(), where
        check_books(store)
    assert line > 10, "nothing was interrupted"


def test_asynchronous_exceptions_lose_and_invent_nothing() -> None:
    """As Ctrl-C does, a real one, wherever it lands. Every call is repeated until it is done; each counts once."""
    store = MemoryStore(clock=FakeClock(), entries_max=3)
    store.put_budget(make_budget("all", tokens=2**50, usd=9_000_000))
    begun, answered, stop = threading.Event(), threading.Event(), threading.Event()
    finished: set[str] = set()
    troubles: list[BaseException] = []

    def one(call_id: str) -> None:
        assert isinstance(store.place(call(store, call_id)).result(), Placed)
        store.settle(call_id, said(7)).result()
        finished.add(call_id)

    def work() -> None:
        try:
            while not stop.is_set():
                try:
                    begun.set()
                    while not stop.is_set():
                        one(f"{len(finished)}")
                except Interrupted:
                    one(f"{len(finished)}")
                    answered.set()
        except BaseException as error:  # noqa: BLE001 - for the test's own thread to see
            troubles.append(error)
            answered.set()

    worker = threading.Thread(target=work)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    gc.disable()  # what is raised in one of its callbacks (Hypothesis has one) is printed, and gone
    worker.start()
    try:
        for _ in range(150):
            assert begun.wait(60)
            begun.clear()
            assert worker.ident is not None
            raised_in = ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(worker.ident), ctypes.py_object(Interrupted)
            )
            assert raised_in == 1
            assert answered.wait(60)
            assert not troubles
            answered.clear()
    finally:
        stop.set()
        gc.enable()
        sys.setswitchinterval(interval)
        worker.join(60)
    assert not worker.is_alive()
    assert not troubles
    check_books(store)
    assert len(finished) >= 150
    assert (spent(store), spent(store, "requests")) == (7 * len(finished), len(finished))
    assert store.holds().result() == ()


# -- finalisers and signal handlers inside the lock ------------------------------------------------------------------


class InsideTheLock:
    """A clock that runs something once, at the next time it is asked: the store asks while it holds its lock."""

    def __init__(self) -> None:
        self.then: Callable[[], object] | None = None

    def __call__(self) -> int:
        then, self.then = self.then, None
        if then is not None:
            then()
        return 1_767_225_600_000


class Abandoned:
    """A stream that nobody closed: its finaliser settles."""

    def __init__(self, finish: Callable[[], object]) -> None:
        self.finish = finish

    def __del__(self) -> None:
        self.finish()


@pytest.fixture
def clock() -> InsideTheLock:
    return InsideTheLock()


@pytest.fixture
def store(clock: InsideTheLock) -> MemoryStore:
    store = MemoryStore(clock=clock)
    store.put_budget(make_budget("all", tokens=20))
    return store


def in_the_lock_of(store: MemoryStore, clock: InsideTheLock, run: Callable[[], object], verb: str = "extend") -> None:
    """Run this in a finaliser, on this thread, while the store works on another command."""
    garbage = [Abandoned(run)]
    ran = []
    clock.then = lambda: (ran.append(True), garbage.clear())
    if verb == "extend":
        store.extend("other", deadline_ms=FAR_MS)
    else:
        store.place(call_without_asking_the_time(store, "third"))
    assert ran


def call_without_asking_the_time(store: MemoryStore, call_id: str) -> Plan:
    then, clock = store._clock.then, store._clock  # type: ignore[attr-defined]
    clock.then = None  # type: ignore[attr-defined]
    made = call(store, call_id)
    clock.then = then  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("verb", ["extend", "place"])
@pytest.mark.parametrize(
    ("end", "settled"),
    [
        (lambda store: store.settle("a", said(7)), 7),
        (lambda store: store.void("a"), 0),
        (lambda store: store.suspect("a", ending="abandoned"), 0),
    ],
)
def test_a_finaliser_that_ends_a_call_inside_the_lock_neither_deadlocks_nor_is_lost(
    store: MemoryStore, clock: InsideTheLock, verb: str, end: Callable[[MemoryStore], Any], settled: int
) -> None:
    for name in ("a", "other"):
        store.place(call(store, name)).result()
    answers: list[Any] = []
    in_the_lock_of(store, clock, lambda: answers.append(end(store).result()), verb)
    assert answers[0].hold.id == "a"
    assert "a" not in {hold.id for hold in store.holds("held").result()}
    assert spent(store) == settled
    check_books(store)
    assert end(store).result().hold.id == "a", "repeating it is answered, not refused"


def test_what_a_finaliser_gave_back_is_there_for_the_next_call(store: MemoryStore, clock: InsideTheLock) -> None:
    for name in ("a", "other"):
        store.place(call(store, name)).result()
    assert isinstance(store.place(call(store, "b")).result(), Denied)
    in_the_lock_of(store, clock, lambda: store.settle("a", said(1)))
    assert isinstance(store.place(call(store, "b", tokens=9)).result(), Placed)


def test_what_cannot_wait_for_the_lock_is_refused_and_not_run_on_half_a_change(
    store: MemoryStore, clock: InsideTheLock
) -> None:
    store.place(call(store, "other")).result()
    new = call(store, "new")
    refused: list[str] = []

    def try_everything() -> None:
        for verb in (lambda: store.place(new), store.balances, store.sweep, lambda: store.resize("other", x=0)):
            try:
                verb()
            except StoreUnavailable as error:
                refused.append(error.reason)

    in_the_lock_of(store, clock, try_everything)
    assert len(refused) == 4
    assert "inside itself" in refused[0]
    assert isinstance(store.place(new).result(), Placed)


def test_a_call_that_a_signal_handler_could_not_begin_leaves_nothing_to_give_back(
    store: MemoryStore, clock: InsideTheLock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever was refused gives back what may have been placed; that nothing was is no fault."""
    store.place(call(store, "other")).result()
    new = call(store, "new")

    def begin() -> None:
        for verb in (lambda: store.place(new), lambda: store.void("new")):
            with pytest.raises(StoreUnavailable):
                verb()

    with caplog.at_level(logging.ERROR, "farthing.stores"):
        in_the_lock_of(store, clock, begin)
        store.extend("other", deadline_ms=FAR_MS)
    assert not caplog.records
    check_books(store)


@pytest.mark.parametrize(
    "end",
    [
        lambda store: store.settle("other", Outcome((-1, 0, 0, 0))),  # ValueError
        lambda store: store.settle("done", said(1)),  # HoldConflict
    ],
)
def test_a_finalisers_mistake_is_logged_and_blames_no_other_call(
    store: MemoryStore, clock: InsideTheLock, end: Callable[[MemoryStore], object], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("done", "other"):
        store.place(call(store, name)).result()
    store.settle("done", said(2)).result()
    with caplog.at_level(logging.ERROR, "farthing.stores"):
        in_the_lock_of(store, clock, lambda: end(store))
        store.extend("other", deadline_ms=FAR_MS)
    assert [record.getMessage() for record in caplog.records] == [
        "a command that a finaliser gave could not be carried out"
    ]
    assert caplog.records[0].exc_info is not None
    assert spent(store) == 2
    check_books(store)


def test_an_exception_from_a_signal_handler_inside_the_lock_leaves_the_lock_free(
    store: MemoryStore, clock: InsideTheLock
) -> None:
    """Free for this thread as well: a note of who holds the lock must not stay behind."""

    def interrupt() -> None:
        store.settle("other", said(3))  # put off, and still carried out
        raise Interrupted

    store.place(call(store, "other")).result()
    for verb in (store.sweep, lambda: store.extend("other", deadline_ms=FAR_MS)):
        clock.then = interrupt
        with pytest.raises(Interrupted):
            verb()
    assert spent(store) == 3
    in_another_thread: list[int] = []
    thread = threading.Thread(target=lambda: in_another_thread.append(spent(store)))
    thread.start()
    thread.join(60)
    assert in_another_thread == [3]


# -- forks -----------------------------------------------------------------------------------------------------------


def in_a_child(run: Callable[[], object]) -> Any:
    """What this returns in a forked child, as JSON. A child that hangs is killed by its own alarm."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "fork in a process with threads": that is what is tested
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        try:
            os.write(writing, json.dumps(run()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert answer, "the child died or hung"
    return json.loads(answer)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_an_empty_ledger_and_a_free_lock() -> None:
    """Forked while another thread is inside the lock: in the child that thread does not exist, so nobody frees it."""
    clock = FakeClock()
    inside, leave = threading.Event(), threading.Event()
    blocking = [False]

    def ask_the_time() -> int:
        if blocking[0] and threading.current_thread() is worker:
            inside.set()
            assert leave.wait(60)
        return clock()

    store = MemoryStore(clock=ask_the_time)
    worker = threading.Thread(target=lambda: store.extend("a", deadline_ms=FAR_MS))
    store.put_budget(make_budget("all", tokens=20))
    for name in ("a", "b"):
        store.place(call(store, name)).result()
    store.settle("b", said(7)).result()
    store.add_denials({DenialKey(0, "b", "tokens", "m", "p", (), False): 1})
    before = balances(store)
    blocking[0] = True
    worker.start()
    assert inside.wait(60)

    def look() -> object:
        try:
            store.settle("a", said(1))
            found = True
        except HoldNotFound:
            found = False
        empty = [store.balances().result(), store.holds().result(), store.entries().result(), store.denials().result()]
        return [found, store.dropped, *map(len, empty)]

    try:
        assert in_a_child(look) == [False, 0, 0, 0, 0, 0]
    finally:
        leave.set()
        worker.join(60)
    assert balances(store) == before


# -- what it must not keep -------------------------------------------------------------------------------------------


def test_a_correction_of_a_dropped_row_is_in_no_sum() -> None:
    """It is a difference to that row: alone it would make a report say less than nothing."""
    store = MemoryStore(clock=FakeClock(), entries_max=2)
    store.put_budget(make_budget("b", tokens=1_000)).result()
    for call_id in ("first", "second", "third"):
        store.place(call(store, call_id, tokens=100)).result()
        store.suspect(call_id, ending="timeout").result()
    store.settle("first", said(7)).result()
    (figures,) = store.sums().result().values()
    assert (figures.input_tokens, figures.calls, figures.suspect) == (100, 1, 1)
    store.settle("third", said(9)).result()
    assert store.sums().result() == {}, "two corrections are left"
    check_books(store)


@pytest.mark.parametrize("entries_max", [0, 1, 10])
def test_entries_are_bounded_counted_and_folded_into_the_snapshot(entries_max: int) -> None:
    store = MemoryStore(clock=FakeClock(), entries_max=entries_max)
    store.put_budget(make_budget("all", tokens=10_000))
    for n in range(25):
        store.place(call(store, f"{n}"))
        store.settle(f"{n}", said(n))
        check_books(store)
    entries = store.entries().result()
    assert [entry.hold_id for entry in entries] == [f"{n}" for n in range(25 - entries_max, 25)]
    assert store.dropped == 25 - entries_max
    assert spent(store) == sum(range(25))
    assert store.settle("24", said(24)).result().hold.state == "settled", "repeating is answered without its row"


def test_so_are_those_of_calls_whose_end_nobody_knows() -> None:
    """They end nothing, and may come one after the other while a provider is away."""
    store = MemoryStore(clock=FakeClock(), entries_max=3)
    for n in range(25):
        store.place(call(store, f"{n}"))
        store.suspect(f"{n}", ending="timeout")
    assert len(store.entries().result()) == 3
    assert store.dropped == 22
    check_books(store)


def test_without_a_bound_every_entry_is_kept_and_a_negative_one_is_refused() -> None:
    store = MemoryStore(clock=FakeClock(), entries_max=None)
    for n in range(25):
        store.record(call(store, f"{n}"), said(n))
    assert (len(store.entries().result()), store.dropped) == (25, 0)
    with pytest.raises(ValueError, match="entries_max"):
        MemoryStore(entries_max=-1)


def test_denials_are_bounded_too() -> None:
    store = MemoryStore(clock=FakeClock(), entries_max=10)
    for n in range(25):
        store.add_denials({DenialKey(n, "b", "tokens", "m", "p", (), False): 1})
    assert sorted(key.hour_ms for key in store.denials().result()) == list(range(15, 25))


def test_nothing_grows_with_calls_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 calls over many windows leave as much behind as 100 do, whatever way they end."""
    monkeypatch.setattr(books, "ENDED_HOLDS_MAX", 10)
    clock = FakeClock()
    store = MemoryStore(clock=clock, entries_max=10)
    for per in ("minute", "rolling 60s", "lifetime"):
        store.put_budget(make_budget(per, tokens=10_000, per=per))

    def live_through(first: int, count: int) -> dict[str, int]:
        for n in range(first, first + count):
            store.place(call(store, f"{n}", deadline_ms=clock() + 1))
            ends: list[Callable[[], object]] = [
                lambda n=n: store.settle(f"{n}", said(1)),  # type: ignore[misc]
                lambda n=n: store.void(f"{n}"),  # type: ignore[misc]
                lambda n=n: store.suspect(f"{n}", ending="x"),  # type: ignore[misc]
                lambda: None,
            ]
            ends[n % 4]()
            clock.advance(seconds=61)
            store.sweep(SweepPolicy(60_000, "settle_at_hold"))
        clock.advance(hours=3)
        store.sweep(SweepPolicy(60_000, "settle_at_hold"))
        for n in range(20):  # so that none of those that were given up may still be corrected
            store.place(call(store, f"quick{first}-{n}"))
            store.settle(f"quick{first}-{n}", said(1))
        clock.advance(hours=3)
        store.sweep()
        check_books(store)
        return sizes(store)

    assert live_through(0, 100) == live_through(100, 100)


def test_open_holds_are_kept_however_many_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "ENDED_HOLDS_MAX", 3)
    store = MemoryStore(clock=FakeClock())
    store.put_budget(make_budget("all", tokens=10_000))
    store.place(call(store, "open"))
    store.place(call(store, "lost"))
    store.suspect("lost", ending="timeout")
    for n in range(10):
        store.place(call(store, f"{n}"))
        store.settle(f"{n}", said(1))
    assert {hold.id for hold in store.holds().result()} == {"open", "lost"}
    assert store.settle("9", said(1)).result().hold.state == "settled"
    with pytest.raises(HoldNotFound):
        store.settle("0", said(1))
    assert store.settle("open", said(2)).result().hold.state == "settled"
    assert store.settle("lost", said(2)).result().hold.state == "settled"
    assert spent(store) == 14


def test_accounts_of_past_windows_are_put_away_after_their_grace() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    store.put_budget(make_budget("minute", tokens=1_000, per="minute"))
    store.put_budget(make_budget("total", tokens=1_000))
    store.place(call(store, "a"))
    store.settle("a", said(7))
    end_ms = clock() + 2 * 60_000
    for before_ms in (ACCOUNT_GRACE_MS, ACCOUNT_GRACE_MS // 2, 1):
        clock.advance(seconds=(end_ms + ACCOUNT_GRACE_MS - before_ms - clock()) / 1000)
        store.sweep()
    assert len(balances(store)) == 2
    clock.advance(seconds=0.001)
    store.sweep()
    assert {json.loads(key)[0] for key in balances(store)} == {"total"}
    check_books(store)


def test_an_account_that_a_call_may_still_change_is_not_put_away() -> None:
    """A hold that a policy ended may be corrected by its call, by the difference to what was settled there."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    store.put_budget(make_budget("minute", tokens=1_000, per="minute"))
    for name in ("open", "lost", "settled for it"):
        store.place(call(store, name))
    store.suspect("lost", ending="timeout")
    store.suspect("settled for it", ending="timeout")
    store.resolve("settled for it", "settle_at_hold")
    clock.advance(hours=5)
    for _ in range(2):
        store.sweep(KEPT)
        clock.advance(minutes=30)
    for name in ("open", "lost", "settled for it"):
        assert store.settle(name, said(4)).result().hold.state == "settled"
    assert spent(store) == 12
    check_books(store)
    store.sweep(KEPT)
    assert balances(store) == {}


def test_a_units_account_is_forgotten_once_nothing_counts_on_it() -> None:
    store = MemoryStore(clock=FakeClock())
    store.put_budget(make_budget("unit", tokens=1_000))
    store.place(call(store, "a"))
    keys = list(store.balances().result())
    assert not store.forget(keys)
    store.settle("a", said(7))
    assert store.forget([*keys, "unknown"])
    assert balances(store) == {}
    check_books(store)


def test_a_units_account_is_not_forgotten_while_its_call_may_still_correct_it() -> None:
    store = MemoryStore(clock=FakeClock())
    store.put_budget(make_budget("unit", tokens=1_000))
    store.place(call(store, "a"))
    keys = list(store.balances().result())
    store.suspect("a", ending="timeout")
    store.resolve("a", "settle_at_hold")
    assert not store.forget(keys)
    assert store.settle("a", said(4)).result().hold.state == "settled"
    assert spent(store) == 4
    assert store.forget(keys)
    assert balances(store) == {}
    check_books(store)


def test_healthy_holds_do_not_hide_those_that_are_due() -> None:
    """A batch is bounded after asking which holds are due: an outage's suspects come first, and stay for a day."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    store.put_budget(make_budget("all", tokens=10_000))
    for n in range(SWEEP_BATCH + 1):
        store.place(call(store, f"{n}"))
        store.suspect(f"{n}", ending="timeout")
    store.place(call(store, "expired", deadline_ms=clock() + 1))
    clock.advance(seconds=1)
    assert [settled.hold.id for settled in store.sweep().result()] == ["expired"]
    clock.advance(hours=24)
    assert len(store.sweep().result()) == SWEEP_BATCH
    assert len(store.sweep().result()) == 2


# -- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cap", "size"), [(1_000, 10), (1_009, 10), (7, 10), (500, 1)])
def test_of_fifty_threads_exactly_what_fits_is_admitted(cap: int, size: int) -> None:
    store = MemoryStore(clock=FakeClock())
    store.put_budget(make_budget("all", tokens=cap, usd=1))
    store.put_budget(make_budget("rolling", tokens=cap + 5, per="rolling 60s"))
    admitted, at_once = [0] * 50, threading.Barrier(50)

    def work(me: int) -> None:
        at_once.wait()
        for n in range(20):
            if isinstance(store.place(call(store, f"{me}-{n}", tokens=size)).result(), Placed):
                admitted[me] += 1
                if n % 2:
                    store.settle(f"{me}-{n}", said(size)).result()

    threads = [threading.Thread(target=work, args=(me,)) for me in range(50)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sum(admitted) == min(1_000, cap // size)
    assert sum(row.of("tokens").total for row in balances(store).values()) == 2 * size * sum(admitted)
    check_books(store)


def test_of_fifty_threads_no_settle_is_lost_and_what_goes_back_is_used_again() -> None:
    """A cap of three calls at a time, each settling to less: as many pass in the end as their cost allows."""
    store = MemoryStore(clock=FakeClock(), entries_max=5)
    store.put_budget(make_budget("all", tokens=10_000_000, concurrency=3))
    passed = [0] * 50

    def work(me: int) -> None:
        while passed[me] < 10:
            call_id = f"{me}-{passed[me]}"
            if isinstance(store.place(call(store, call_id)).result(), Placed):
                store.settle(call_id, said(7)).result()
                passed[me] += 1

    threads = [threading.Thread(target=work, args=(me,)) for me in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (spent(store), spent(store, "requests"), spent(store, "concurrency")) == (3_500, 500, 0)
    assert store.dropped == 495
    assert store.holds().result() == ()
    check_books(store)
