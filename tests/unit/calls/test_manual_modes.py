"""
Goal: a hold by hand meets every ``on_exceed`` as an SDK's call does, as far as its size and model are the caller's.
Method: each mode through ``hold``, sync and async; who waits is let in by the event that makes room.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import farthing
from farthing import Allow, BudgetExceeded, Decision
from farthing.runtime.default import runtime
from tests.doors.clients import holds

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def use(tokens: int) -> None:
    with farthing.hold(tokens=tokens):
        pass


def test_wait_lets_it_in_once_another_gave_back() -> None:

    def other() -> None:
        with farthing.hold(tokens=80) as held:
            entered.set()
            deadline = time.monotonic() + 30
            while not runtime().line.waiting and time.monotonic() < deadline:
                time.sleep(0.001)
            held.settle(tokens=10)

    entered = threading.Event()
    with farthing.budget(tokens=100, on_exceed="wait") as purse:
        first = threading.Thread(target=other)
        first.start()
        assert entered.wait(30)
        assert purse.held.tokens == 80
        use(90)
        first.join()
    assert purse.spent.tokens == 100
    assert holds() == []


def test_wait_denies_at_once_what_can_never_fit_and_gives_up_in_time() -> None:
    with farthing.budget(tokens=100, on_exceed="wait", wait_seconds=3_600):
        with pytest.raises(BudgetExceeded):
            use(101)
        use(50)
        with pytest.raises(BudgetExceeded):
            use(51)
    with farthing.budget(tokens=100, on_exceed="wait", wait_seconds=0.02) as purse, farthing.hold(tokens=80):
        with pytest.raises(BudgetExceeded) as denied:
            use(30)
        assert (denied.value.held, purse.held.tokens) == (80, 80)


def test_tasks_wait_in_line_and_never_together() -> None:
    """Twenty tasks, room for two at once: all get in."""
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        async with farthing.hold(tokens=50) as held:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1
            held.settle(tokens=1)

    async def main() -> None:
        await asyncio.gather(*[work() for _ in range(20)])

    with farthing.budget(tokens=120, on_exceed="wait") as purse:
        asyncio.run(main())
    assert (purse.spent.tokens, most) == (20, 2)


def test_a_cancelled_waiter_leaves_the_line_and_may_enter_again() -> None:
    async def main() -> None:
        wanted = farthing.hold(tokens=90)

        async def wait() -> None:
            async with wanted:
                pass

        async with farthing.hold(tokens=80) as held:
            task = asyncio.create_task(wait())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            held.settle(tokens=10)
        await wait()

    with farthing.budget(tokens=100, on_exceed="wait") as purse:
        asyncio.run(main())
    assert purse.spent.tokens == 100


def test_truncate_ends_the_with_and_the_function_quietly() -> None:
    done: list[int] = []

    @farthing.budget(tokens=100, on_exceed="truncate")
    def work() -> str:
        for number in range(5):
            use(60)
            done.append(number)
        return "all"

    assert work() is None
    with farthing.budget(tokens=100, on_exceed="truncate"):
        use(60)
        use(60)
        done.append(9)
    assert done == [0]


def test_a_callable_is_asked_once_and_may_make_room() -> None:
    asked: list[Decision] = []

    def decide(decision: Decision) -> Allow | None:
        asked.append(decision)
        spare.void()
        return Allow()

    with farthing.budget(tokens=100, on_exceed=decide), farthing.hold(tokens=80) as spare:
        use(90)
        with pytest.raises(BudgetExceeded):
            use(90)
    assert [(decision.held, decision.asked) for decision in asked] == [(80, 90), (0, 90)]

    def refuse(_: Decision) -> None:
        return None

    with farthing.budget(tokens=100, on_exceed=refuse), pytest.raises(BudgetExceeded):
        use(101)


@pytest.mark.parametrize("mode", [{"on_exceed": "clamp"}, {"on_exceed": "downgrade", "downgrade": {"gpt-4o": "o3"}}])
def test_nothing_shrinks_or_replaces_what_a_hold_asks_for(mode: dict[str, Any]) -> None:
    asked = farthing.hold(tokens=101, model="gpt-4o")
    with farthing.budget(tokens=100, usd=1, **mode), pytest.raises(BudgetExceeded) as denied, asked:
        pass
    assert denied.value.asked == 101


def test_raise_lets_the_crossing_one_settle_and_refuses_the_next() -> None:
    events: list[farthing.BudgetEvent] = []
    told = farthing.use_sink(events=events.append)
    assert told is not None
    with farthing.budget(tokens=100, on_exceed="raise") as purse:
        use(100)
        assert purse.remaining.tokens == 0
        with pytest.raises(BudgetExceeded) as blocked:
            use(1)
        assert blocked.value.spent == 100
    with farthing.budget(tokens=100, on_exceed="raise") as purse:
        with pytest.raises(BudgetExceeded) as crossed, farthing.hold(tokens=150) as held:
            held.settle(tokens=120)
        assert (crossed.value.spent, crossed.value.overrun) == (120, 20)
        assert purse.spent.tokens == 120
    with farthing.budget(tokens=100, on_exceed="raise"):
        with pytest.raises(KeyError), farthing.hold(tokens=150):
            raise KeyError("what went wrong inside goes before it")
        with pytest.raises(BudgetExceeded):
            use(1)
    told.flush()
    assert [event.action for event in events] == ["blocked", "raised", "raised", "blocked"]


def test_no_tag_of_a_record_hides_what_a_call_says_itself() -> None:
    with pytest.raises(ValueError, match="day"):
        farthing.record({"input_tokens": 1}, day="monday")
