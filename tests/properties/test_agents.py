"""
I7, whatever agents do: the sum of all allocations is constant, no reserve is lent, nothing flows uphill, a borrow that
fails changes nothing, a call is refused only if nobody could cover it; and the journal says the same as the balances.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import hold
from farthing.agents import BudgetExceededError, BudgetManager
from farthing.calls.manual import ManualHold
from farthing.runtime.default import use
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.testing import FakeClock
from tests.contract.conftest import check_books

AGENTS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 200), st.integers(0, 100)), min_size=4, max_size=4)
"""Priority, tokens, and how much of them is reserved, in per cent."""
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "call", "end", "end", "delegate", "close", "move"]),
        st.integers(0, 9),
        st.integers(0, 250),
    ),
    max_size=25,
)


@contextmanager
def crew(ledger: str | None) -> Iterator[BudgetManager]:
    runtime = Runtime(Settings(ledger=ledger, max_records=None), clock=FakeClock())
    before = use(runtime)
    try:
        yield BudgetManager(name=None if ledger is None else "crew", wait_seconds=0)
    finally:
        use(before)
        runtime.close()


class Play:
    """One crew, step by step."""

    def __init__(self, manager: BudgetManager, agents: list[tuple[int, int, int]]) -> None:
        self.manager = manager
        self.open: list[tuple[ManualHold, int]] = []
        self.children = 0
        for name, (priority, tokens, percent) in zip("abcd", agents, strict=True):
            manager.register_agent(name, priority, tokens, tokens * percent // 100)
        self.total = sum(tokens for _, tokens, _ in agents)

    def step(self, what: str, agent: int, tokens: int) -> None:
        names = list(self.manager.report())
        if not names:
            return  # all are closed
        name = names[agent % len(names)]
        match what:
            case "call":
                self.call(name, tokens)
            case "end" if self.open:
                held, most = self.open.pop(agent % len(self.open))
                held.settle(tokens=min(tokens, most))
            case "delegate":
                self.delegate(name, tokens // 2)
            case "close" if len(names) > 2:
                self.manager.close_agent(name)
                assert name not in self.manager.report()
            case "move":
                assert 0 <= self.manager.reallocator.reallocate(name, tokens // 2) <= tokens // 2
        self.check()

    def call(self, name: str, tokens: int) -> None:
        before, would = self.manager.report(detail=True), self.manager.explain(name, tokens)
        call = hold(tokens=tokens)
        try:
            with self.manager.agent(name):
                call.__enter__()
        except BudgetExceededError:
            assert not would.allowed, "refused only if nobody could cover it at that instant"
            assert self.manager.report(detail=True) == before, "a borrow that fails changes nothing"
            return
        self.open.append((call, tokens))
        assert would.allowed
        after, contracts = self.manager.report(detail=True), self.manager.contracts
        for lender, amount in would.lenders:
            if lender in after:  # not what the pool had from a closed agent
                assert after[lender]["lent"] - before[lender]["lent"] == amount
                assert contracts[lender].priority <= contracts[name].priority, "nothing flows uphill"
                assert after[lender]["remaining"] >= after[lender]["reserve"], "a reserve is not lent"

    def delegate(self, name: str, tokens: int) -> None:
        before = self.manager.report(detail=True)
        self.children += 1
        try:
            self.manager.delegate(name, f"child-{self.children}", max_tokens=tokens)
        except BudgetExceededError:
            assert self.manager.report(detail=True) == before

    def check(self) -> None:
        self.manager.report()  # what ended children have left is given back
        members = self.manager.crew.members(ended=True)
        total = 0
        for name, units in self.manager.crew.figures(members).items():
            of, lending = units["tokens"], members[name].lending
            assert lending is not None
            ended_child = lending.closed and lending.parent is not None
            total += of.own.total + of.borrowed.total - of.lent.total if ended_child else of.allocated
            assert of.overrun == 0
        assert total == self.total
        check_books(self.manager.crew.ledger.store)


@settings(max_examples=300)
@given(agents=AGENTS, steps=STEPS)
def test_in_memory(agents: list[tuple[int, int, int]], steps: list[tuple[str, int, int]]) -> None:
    with crew(None) as manager:
        play = Play(manager, agents)
        for step in steps:
            play.step(*step)


@settings(max_examples=30)
@given(agents=AGENTS, steps=STEPS)
def test_on_sqlite(agents: list[tuple[int, int, int]], steps: list[tuple[str, int, int]]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="farthing-crew-") as folder,
        crew(f"sqlite:///{Path(folder, 'ledger.db')}") as manager,
    ):
        play = Play(manager, agents)
        for step in steps:
            play.step(*step)
