"""Who waits for an answer, who gives up, and what becomes of the hold then."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from farthing.errors import HoldNotFound, StoreUnavailable
from farthing.kernel.balances import Balance
from farthing.kernel.budget import make_budget
from farthing.kernel.ledger import Placed, Settled
from farthing.kernel.plan import Plan
from farthing.stores.sqlite import SQLiteStore
from tests.contract.calls import outcome, plan
from tests.contract.conftest import threads
from tests.waiting import eventually, impatient

from .conftest import stuck


def held(store: SQLiteStore) -> list[str]:
    return [hold.id for hold in store.holds("held").result()]


def always_worth_waiting(monkeypatch: pytest.MonkeyPatch, store: SQLiteStore) -> None:
    """As for those who begin to wait before anything is wrong."""
    monkeypatch.setattr(store._at_work(), "why_not_wait", lambda: None)


def test_a_hold_whose_waiter_lost_patience_is_voided(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(store, "call")
    always_worth_waiting(monkeypatch, store)
    with stuck(store), impatient(store):
        ticket = store.place(planned)
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.05 s"):
            ticket.result()
    assert held(store) == []
    assert store.entries().result() == []
    with pytest.raises(HoldNotFound):
        store.void("call").result()


def test_a_hold_that_is_committed_for_one_who_has_left_is_voided(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The writer is past its look at the waiter, and commits.
    writer = store._at_work()
    write, reached, go_on = writer.books.write, threading.Event(), threading.Event()

    def slow() -> int:
        reached.set()
        go_on.wait()
        return write()

    monkeypatch.setattr(writer.books, "write", slow)
    ticket = store.place(plan(store, "call"))
    reached.wait()
    with impatient(store), pytest.raises(StoreUnavailable):
        ticket.result()
    monkeypatch.undo()
    go_on.set()
    assert held(store) == []
    assert [hold.id for hold in store.holds("voided").result()] == ["call"]
    assert store.entries().result() == []


def test_a_hold_whose_ticket_is_dropped_is_voided(store: SQLiteStore) -> None:
    ticket = store.place(plan(store, "call"))
    store.balances([]).result()
    del ticket
    gc.collect()
    eventually(lambda: held(store) == [])


def test_a_repetition_that_nobody_waits_for_voids_nothing(store: SQLiteStore) -> None:
    planned = plan(store, "call")
    assert isinstance(store.place(planned).result(), Placed)
    store.place(planned)
    gc.collect()
    assert held(store) == ["call"]


def test_the_end_of_a_call_is_carried_out_whoever_waits(store: SQLiteStore) -> None:
    store.place(plan(store, "call")).result()
    store.settle("call", outcome())
    gc.collect()
    assert store.holds().result() == ()
    assert len(store.entries().result()) == 1


def test_an_end_that_finds_the_writer_stuck_answers_with_the_hold_and_is_written_later(store: SQLiteStore) -> None:
    placed = store.place(plan(store, "call")).result()
    assert isinstance(placed, Placed)
    with stuck(store), impatient(store):
        assert store.settle("call", outcome()).result() == Settled(placed.hold, None)
    (entry,) = store.entries().result()
    assert entry.ending == "ok"


def test_an_end_of_a_hold_that_is_not_known_here_says_that_it_is_kept(store: SQLiteStore) -> None:
    with stuck(store), impatient(store):
        ticket = store.settle("elsewhere", outcome())
        with pytest.raises(StoreUnavailable):
            ticket.result()


def test_a_writer_that_does_not_respond_is_not_waited_for_again(store: SQLiteStore) -> None:
    planned = plan(store, "two")
    with stuck(store), impatient(store):
        with pytest.raises(StoreUnavailable):
            store.resize("one", x=0).result()
        ticket = store.place(planned)
        eventually(lambda: store._at_work().why_not_wait() is not None)
        with pytest.raises(StoreUnavailable, match="not responded"):
            ticket.result()
    assert held(store) == []


def test_an_interrupted_wait_gives_the_hold_back(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def acquire(self, timeout: float | None = None) -> bool:
            if timeout is not None:
                raise KeyboardInterrupt
            return True

        def release(self) -> None: ...

    planned = plan(store, "call")
    with stuck(store):
        ticket = store.place(planned)
        monkeypatch.setattr("farthing.stores.sqlite.tickets.threading.Lock", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            ticket.result()
        monkeypatch.undo()
    assert held(store) == []


def test_a_cancelled_task_gives_the_hold_back(store: SQLiteStore) -> None:
    planned = plan(store, "call")

    async def main() -> None:
        async def place() -> None:
            await store.place(planned)

        with stuck(store):
            task = asyncio.create_task(place())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [hold.id for hold in await store.holds("held")] == []

    asyncio.run(main())


def test_patience_ends_in_an_event_loop_too(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [plan(store, f"call-{number}") for number in range(3)]
    always_worth_waiting(monkeypatch, store)

    async def place(planned: Plan) -> str:
        try:
            await store.place(planned)
        except StoreUnavailable as error:
            return error.reason
        return "placed"

    async def main() -> list[str]:
        with stuck(store), impatient(store):
            return await asyncio.gather(*map(place, plans))

    reasons = asyncio.run(main())
    assert all("no answer within" in reason for reason in reasons)
    assert held(store) == []


def test_loops_come_and_go(store: SQLiteStore) -> None:
    async def one(number: int) -> None:
        placed = await store.place(plan(store, f"call-{number}"))
        assert isinstance(placed, Placed)
        await store.void(f"call-{number}")

    for number in range(20):
        asyncio.run(one(number))
    from farthing.stores.sqlite import patience

    assert len(patience._lines) <= 1


def test_a_loop_that_is_closed_before_the_answer_leaves_no_hold(store: SQLiteStore) -> None:
    loop = asyncio.new_event_loop()
    planned = plan(store, "call")
    with stuck(store):
        task = loop.create_task(_await_place(store, planned))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert held(store) == ["call"]
    # Nobody will ever ask for this answer; when the task is gone, so is the hold.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()
    del task, coroutine
    gc.collect()
    eventually(lambda: held(store) == [])


async def _await_place(store: SQLiteStore, planned: Plan) -> None:
    await store.place(planned)


def test_uvloop(store: SQLiteStore) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async def place(number: int) -> object:
            return await store.place(plan(store, f"call-{number}"))

        placed = await asyncio.gather(*(place(number) for number in range(6)))
        assert all(isinstance(answer, Placed) for answer in placed)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_loop_that_nobody_knows(store: SQLiteStore) -> None:
    """Its thread waits: a coroutine that is driven by hand gets its answer all the same."""
    with pytest.raises(StopIteration):
        _await_place(store, plan(store, "call")).send(None)
    assert held(store) == ["call"]


def test_a_finaliser_in_the_writers_own_thread_waits_for_nothing(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector may run anywhere, also inside the writer."""
    store.place(plan(store, "call")).result()
    planned = plan(store, "other")
    writer = store._at_work()
    committed = writer.books.committed
    seen: list[object] = []

    def finaliser() -> None:
        if not seen:
            seen.append(store.settle("call", outcome()).result())
            try:
                store.place(planned).result()
            except StoreUnavailable as error:
                seen.append(error.reason)
        committed()

    monkeypatch.setattr(writer.books, "committed", finaliser)
    store.freeze("b", frozen=False).result()
    monkeypatch.undo()
    assert isinstance(seen[0], Settled)
    assert "inside its own writer" in str(seen[1])
    assert store.holds().result() == ()
    assert len(store.entries().result()) == 1


def test_an_error_that_nobody_asked_for_is_logged(store: SQLiteStore, caplog: pytest.LogCaptureFixture) -> None:
    store.settle("nobody", outcome())
    eventually(lambda: "nobody asked for its answer" in caplog.text)
    assert "no hold has the id 'nobody'" in caplog.text


def test_many_changes_of_a_group_see_each_other(store: SQLiteStore) -> None:
    plans = [plan(store, f"call-{number}") for number in range(10)]
    with stuck(store):
        tickets = [store.place(one) for one in plans]
        ends = [store.settle("call-0", outcome()), store.void("call-1")]
        again = store.place(plans[2])
        balances = store.balances([plans[0].postings[0].key])
    admitted = [ticket.result() for ticket in tickets]
    assert [isinstance(answer, Placed) for answer in admitted] == [True] * 6 + [False] * 4
    assert again.result() == admitted[2]
    for end in ends:
        end.result()
    assert balances.result()[plans[0].postings[0].key].of("tokens") == Balance(120, 600)


def test_a_store_that_is_dropped_ends_its_threads_and_writes_what_it_was_given(store: SQLiteStore) -> None:
    before = threads()
    other = SQLiteStore(store.name)
    other.put_budget(make_budget("of the dropped", tokens=1))
    writer = other._at_work()
    del other
    gc.collect()
    writer._thread.join()
    assert threads() <= before
    assert "of the dropped" in store.put_budget(make_budget("b2", tokens=1)).result().budgets
