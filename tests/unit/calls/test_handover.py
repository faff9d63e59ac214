"""
Goal: a call that a program offers to a proxy on its own ledger counts once, on every account of both; and whoever of
the two leaves, wherever they stand, it counts at least what it cost, and nothing stays held.
Method: both lives are driven by hand over one file, each in a runtime of its own, and are called away between any two
steps. Real programs and proxies: tests/doors/proxy/test_shared_ledger.py; kill -9: tests/crash.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farthing.admin.standing import set_budget
from farthing.calls.call import Call
from farthing.calls.handover import offer
from farthing.calls.life import life
from farthing.calls.steps import STEPS, Answered, Broken, Finished, ReadAll, Send, advance_detached
from farthing.errors import BudgetExceeded, FarthingError
from farthing.kernel.balances import Balance
from farthing.kernel.budget import make_budget
from farthing.proxy.sharing import refused, shared
from farthing.runtime.ambient import Ambient, Binding
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.wire.openai.chat import OpenAIChat
from tests.doors.clients import HI, HI_TOKENS
from tests.unit.wire.recorded_bodies import recorded
from tests.waiting import eventually

BODY = json.dumps({"model": "gpt-4o", "messages": HI, "max_completion_tokens": 50}).encode()
HOLD, COST = HI_TOKENS + 50, 10
USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
ANSWER = json.dumps({**json.loads(recorded("openai_chat_answer.json")), "usage": USAGE}).encode()
SETTLED, NOTHING = Balance(settled=COST), Balance()
MINE, STANDING = "mine", "standing"
"""A budget that the program alone names, and one that binds both sides."""


class Side:
    """The program or the proxy: its runtime, and the life that it drives."""

    def __init__(self, path: Path) -> None:
        self.runtime = Runtime(Settings(ledger=f"sqlite:///{path}"))
        self.runtime.housekeeper.start = lambda: None  # type: ignore[method-assign]
        assert self.runtime.durable is not None
        self.store = self.runtime.durable.store
        self.tickets = 0
        self._life: Any = None

    def call(self, *, ambient: Ambient, offers: bool = False) -> Call:
        dialect = OpenAIChat()
        return Call(self.runtime, dialect, dialect.read_request(BODY), ambient, "http://host", 60, offers=offers)

    def begin(self, call: Call, *, leave_at: int | None = None) -> Any:
        self._life = life(call)
        return self.go_on(leave_at=leave_at)

    def go_on(self, answer: Any = None, *, leave_at: int | None = None) -> Any:
        """The next step; None if it left while the ledger was asked for the time of that number."""
        try:
            step = self._life.send(answer)
            while not isinstance(step, STEPS):
                if self.tickets == leave_at:
                    self.leave()
                    return None
                self.tickets += 1
                try:
                    found = step.result()
                except FarthingError as error:  # the life decides what that means
                    step = self._life.throw(error)
                else:
                    step = self._life.send(found)
        except StopIteration as stop:
            return stop.value
        return step

    def leave(self) -> None:
        advance_detached(self._life, Broken("cancelled"))


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    program, proxy = Side(tmp_path / "ledger.db"), Side(tmp_path / "ledger.db")
    program.runtime.put_budget(make_budget(MINE, tokens=1_000))
    set_budget(proxy.store, STANDING, tokens=1_000)
    for side in (program, proxy):
        side.runtime.main.refresh(side.store.catalogue().result())
    yield program, proxy
    for side in (program, proxy):
        side.runtime.close()


def offered(program: Side) -> tuple[Call, bytes]:
    """The program's call, held for and about to leave, and what goes with it."""
    own = Binding(program.runtime.main.catalogue.budgets[MINE], os.getpid())
    call = program.call(ambient=Ambient((own,), ()), offers=True)
    assert isinstance(program.begin(call), Send)
    said = offer(call)
    assert said is not None
    return call, said.encode()


ALICE = (("user", "alice"),)


def taken(proxy: Side, said: bytes, tags: tuple[tuple[str, str], ...] = ()) -> Call:
    return asyncio.run(shared(proxy.call(ambient=Ambient((), tags)), said))


def alice_has(proxy: Side, tokens: int) -> None:
    """A budget that binds the proxy alone."""
    set_budget(proxy.store, "of alice", tokens=tokens, scope=dict(ALICE))
    proxy.runtime.main.refresh(proxy.store.catalogue().result())


def answer_through(proxy: Side) -> None:
    """The provider answers the proxy, which settles."""
    assert isinstance(proxy.go_on(Answered(200, False)), ReadAll)
    assert isinstance(proxy.go_on(ANSWER), Finished)


def counted_in_rows(program: Side) -> int:
    return sum(row.tokens("input", "output") for row in program.store.entries().result())


def counted(program: Side) -> dict[str, Balance]:
    """By budget, in tokens, once nothing is on its way any more."""
    eventually(lambda: program.store.holds("held").result() == ())
    rows = program.store.balances().result()
    return {name: next(row.of("tokens") for key, row in rows.items() if name in key) for name in (MINE, STANDING)}


@pytest.mark.parametrize("header", [True, False])
def test_it_counts_once_whether_or_not_the_answer_says_how_it_came(sides: tuple[Side, Side], header: bool) -> None:
    program, proxy = sides
    _, said = offered(program)
    call = taken(proxy, said)
    assert isinstance(proxy.begin(call), Send)
    answer_through(proxy)
    assert isinstance(program.go_on(Answered(200, False, proxied=header)), ReadAll)
    assert isinstance(program.go_on(ANSWER), Finished)
    assert counted(program) == {MINE: SETTLED, STANDING: SETTLED}
    (row,) = program.store.entries().result()
    assert set(row.facts.budgets) == {MINE, STANDING}


@pytest.mark.parametrize("look_first", [True, False])
def test_a_program_that_leaves_before_the_proxy_holds_is_counted_once(
    sides: tuple[Side, Side], look_first: bool
) -> None:
    """What it may have lost is a suspect, until the proxy says that the call is its own."""
    program, proxy = sides
    _, said = offered(program)
    call = taken(proxy, said) if look_first else None
    program.leave()
    eventually(lambda: program.store.holds("held").result() == ())
    assert program.store.find(said.decode()).result() is not None
    assert isinstance(proxy.begin(call or taken(proxy, said)), Send)
    answer_through(proxy)
    assert counted(program) == {MINE: SETTLED, STANDING: SETTLED}
    assert counted_in_rows(program) == COST


@pytest.mark.parametrize("leaves", ["first", "in the middle", "last"])
def test_a_call_that_the_proxy_refuses_is_nobodys_suspect(sides: tuple[Side, Side], leaves: str) -> None:
    program, proxy = sides
    alice_has(proxy, 1)
    _, said = offered(program)
    if leaves == "first":
        program.leave()
    call = taken(proxy, said, ALICE)
    if leaves == "in the middle":
        program.leave()
    with pytest.raises(BudgetExceeded):
        proxy.begin(call)
    asyncio.run(refused(call, 429))
    if leaves == "last":
        program.leave()
    assert counted(program) == {MINE: NOTHING, STANDING: NOTHING}
    assert not program.store.holds("suspect").result()
    assert counted_in_rows(program) == 0


def test_what_the_proxy_says_of_a_refusal_is_what_the_program_says(sides: tuple[Side, Side]) -> None:
    program, proxy = sides
    _, said = offered(program)
    asyncio.run(refused(taken(proxy, said), 429))
    assert isinstance(program.go_on(Answered(429, False)), ReadAll)
    assert isinstance(program.go_on(b"{}"), Finished)
    assert [row.ending for row in program.store.entries().result()] == ["http_429"]


def test_a_program_that_leaves_later_changes_nothing(sides: tuple[Side, Side]) -> None:
    program, proxy = sides
    _, said = offered(program)
    assert isinstance(proxy.begin(taken(proxy, said)), Send)
    program.leave()
    assert not program.store.holds("suspect").result()
    answer_through(proxy)
    assert counted(program) == {MINE: SETTLED, STANDING: SETTLED}


def test_a_program_that_leaves_while_it_asks_what_became_of_it(sides: tuple[Side, Side]) -> None:
    program, proxy = sides
    call, said = offered(program)
    assert isinstance(proxy.begin(taken(proxy, said)), Send)
    answer_through(proxy)
    assert program.go_on(Answered(200, False, proxied=True), leave_at=program.tickets) is None
    assert call.ended
    assert counted(program) == {MINE: SETTLED, STANDING: SETTLED}


def test_a_proxy_that_leaves_while_it_asks_its_ledger_leaves_nothing_held(
    sides: tuple[Side, Side], request: pytest.FixtureRequest
) -> None:
    """It sent nothing. The program, which cannot know that, has a suspect call; or none, if its hold was moved."""
    program, proxy = sides
    # What is left goes at once, and not when somebody looks for cycles.
    request.addfinalizer(gc.enable)
    gc.disable()
    left = 0
    for ticket in range(10):
        suspects = len(program.store.holds("suspect").result())
        _, said = offered(program)
        proxy.tickets = 0
        step = proxy.begin(taken(proxy, said), leave_at=ticket)
        if step is None:
            left += 1
            program.leave()
            found = counted(program)
            assert found[MINE] == found[STANDING]
            assert found[MINE].settled == 0
            assert len(program.store.holds("suspect").result()) - suspects in (0, 1)
            continue
        proxy.leave()
        program.leave()
        assert counted(program)[MINE] == counted(program)[STANDING]
        break
    assert left >= 1


# -- where nothing is held ---------------------------------------------------------------------------------------------


@pytest.fixture
def free(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    """No budget binds the program."""
    program, proxy = Side(tmp_path / "ledger.db"), Side(tmp_path / "ledger.db")
    yield program, proxy
    for side in (program, proxy):
        side.runtime.close()


def test_a_budget_that_is_split_meanwhile_counts_once(sides: tuple[Side, Side]) -> None:
    """The hold of the program is on an account that no call has any more: the proxy's takes its place all the same."""
    program, proxy = sides
    _, said = offered(program)
    set_budget(proxy.store, STANDING, update=True, tokens=1_000, each=["user"])
    theirs = taken(proxy, said, ALICE)
    assert isinstance(proxy.begin(theirs), Send)
    answer_through(proxy)
    assert isinstance(program.go_on(Answered(200, False, proxied=True)), ReadAll)
    assert isinstance(program.go_on(ANSWER), Finished)
    assert counted_in_rows(program) == COST


LEAVES = ("before the proxy looks", "before it holds", "before it answers", "in the middle of its answer", "never")


@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize("leaves", LEAVES)
def test_one_side_counts_a_call_that_nothing_was_held_for(free: tuple[Side, Side], leaves: str, budget: bool) -> None:
    program, proxy = free
    if budget:
        alice_has(proxy, 1_000)
    call = program.call(ambient=Ambient((), ()), offers=True)
    assert isinstance(program.begin(call), Send)
    said = offer(call)
    assert said is not None
    if leaves == LEAVES[0]:
        program.leave()
        eventually(lambda: program.store.entries().result())
    theirs = taken(proxy, said.encode(), ALICE)
    if leaves == LEAVES[1]:
        program.leave()
        eventually(lambda: program.store.holds("suspect").result())
    assert isinstance(proxy.begin(theirs), Send)
    if leaves == LEAVES[2]:
        program.leave()
    answer_through(proxy)
    if leaves in LEAVES[3:]:
        assert isinstance(program.go_on(Answered(200, False, proxied=True)), ReadAll)
        if leaves == LEAVES[3]:
            program.leave()
        else:
            assert isinstance(program.go_on(ANSWER), Finished)
    eventually(lambda: not program.store.holds().result())
    eventually(lambda: counted_in_rows(program) == COST)
    rows = program.store.entries().result()
    assert not [row for row in rows if row.suspect and not [of for of in rows if of.resolves_suspect]]


def test_a_refused_call_that_nothing_was_held_for_leaves_one_row(free: tuple[Side, Side]) -> None:
    program, proxy = free
    alice_has(proxy, 1)
    call = program.call(ambient=Ambient((), ()), offers=True)
    assert isinstance(program.begin(call), Send)
    theirs = taken(proxy, (offer(call) or "").encode(), ALICE)
    with pytest.raises(BudgetExceeded):
        proxy.begin(theirs)
    asyncio.run(refused(theirs, 429))
    program.leave()
    assert not program.store.holds().result()
    (row,) = program.store.entries().result()
    assert (row.ending, row.tokens("input", "output")) == ("http_429", 0)
