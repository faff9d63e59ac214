"""What is known of a ledger and kept: of one catalogue, never older than the version it names, and of this instant."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import farthing
import farthing.stores
from farthing import budget, hold
from farthing.calls import holding
from farthing.kernel.budget import Budget, make_budget
from farthing.kernel.catalogue import Catalogue, Grant
from farthing.kernel.scope import matches
from farthing.runtime import ledgers
from farthing.runtime.default import runtime
from farthing.runtime.in_force import InForce, in_force
from farthing.runtime.ledgers import Ledger
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores import open_store
from farthing.stores.memory import MemoryStore
from farthing.testing import FakeClock

pytestmark = pytest.mark.usefixtures("farthing_isolated")


class Interrupting(dict[str, Budget]):
    """Budgets that another thread's call comes between of, whenever they are looked through."""

    def __init__(self, budgets: dict[str, Budget], between: Callable[[], None]) -> None:
        super().__init__(budgets)
        self.between = between

    def values(self) -> Any:
        self.between()
        yield from super().values()


def standing(tokens: int) -> Budget:
    return replace(make_budget("b", tokens=tokens), standing=True)


def test_a_call_while_a_change_is_taken_over() -> None:
    """It may plan by the old terms, and then says so: the store refuses it. Never old terms under the new version."""
    ledger = Ledger(MemoryStore())
    seen: list[tuple[int, int | None, int | None]] = []

    def call() -> None:
        version = ledger.catalogue.version
        (of,) = ledger.standing({})
        (account,) = ledger.accounts([of], {}, 0)
        seen.append((version, of.tokens, account.ceiling("tokens")))

    ledger.refresh(Catalogue(1, {"b": standing(100)}))
    ledger.refresh(Catalogue(2, Interrupting({"b": standing(5)}, call)))
    call()
    assert seen[-1] == (2, 5, 5)
    assert seen[0] == (1, 100, 100)
    assert all(tokens == 5 for version, tokens, _ in seen if version == 2)
    ledger.refresh(Catalogue(1, {"b": standing(100)}))
    call()
    assert seen[-1] == (2, 5, 5), "what was asked for before does not come back"


def test_a_call_while_a_budget_is_frozen() -> None:
    """Freezing leaves the budget itself as it is; its account is another."""
    ledger = Ledger(MemoryStore())
    ledger.refresh(Catalogue(1, {"b": standing(100)}))
    seen: list[tuple[int, bool]] = []

    def call() -> None:
        version = ledger.catalogue.version
        (account,) = ledger.accounts(ledger.standing({}), {}, 0)
        seen.append((version, account.frozen))

    call()
    known = ledger.catalogue.budgets
    ledger.refresh(Catalogue(2, Interrupting(dict(known), call), frozen=frozenset({"b"})))
    call()
    assert seen[0] == (1, False)
    assert seen[-1] == (2, True)
    assert all(frozen for version, frozen in seen if version == 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_counts_the_versions_of_its_memory_anew() -> None:
    with budget("of the parent", tokens=100):
        pass
    child = os.fork()
    if child == 0:
        try:
            with budget("of the child", tokens=100) as mine, hold(tokens=10):
                assert mine.held.tokens == 10
            with budget("of the parent", tokens=50) as other:
                assert other.remaining.tokens == 50
            os._exit(0)
        except BaseException:  # noqa: BLE001 - said here, for nobody is there to raise it to
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_clock_that_is_set_back_leads_to_the_rolling_window_of_then() -> None:
    """The buckets that a clock ahead of time had summed leave out what was spent before."""
    with FakeClock() as clock, farthing.budget("rolling", tokens=1_000, per="rolling 30d") as rolling:
        with farthing.hold(tokens=1_000):
            pass
        clock.advance(days=25)
        assert rolling.remaining.tokens == 0
        clock.advance(days=15)
        assert rolling.remaining.tokens == 1_000
        clock.jump_back(days=15)
        assert rolling.remaining.tokens == 0
        with pytest.raises(farthing.BudgetExceeded), farthing.hold(tokens=1):
            pass


def test_a_clock_that_is_set_back_brings_a_grant_back() -> None:
    with FakeClock() as clock, farthing.budget("granted", tokens=1_000) as granted:
        ledger = runtime().main
        grant = Grant("granted", "tokens", 500, clock(), until_ms=clock() + 3_600_000)
        ledger.refresh(ledger.store.grant(grant).result())
        assert granted.remaining.tokens == 1_500
        clock.advance(days=1)
        assert granted.remaining.tokens == 1_000
        clock.jump_back(days=1)
        assert granted.remaining.tokens == 1_500


# -- several threads -------------------------------------------------------------------------------------------------


def test_an_older_catalogue_does_not_take_a_newer_ones_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads name budgets at once; the first comes back from the store last. What stands, stands."""
    here, refresh = runtime(), Ledger.refresh
    others = [lambda: farthing.configure(config={"budgets": [{"name": "all", "tokens": 10}]})]

    def late(self: Ledger, catalogue: Catalogue) -> None:
        if others:
            others.pop()()
        refresh(self, catalogue)

    monkeypatch.setattr(Ledger, "refresh", late)
    here.put_budget(make_budget("mine", tokens=5))
    assert set(here.main.catalogue.budgets) == {"mine", "all"}
    with pytest.raises(farthing.BudgetExceeded, match="'all'"), farthing.hold(tokens=11):
        pass


def test_a_ledger_that_is_left_is_not_opened_again_by_who_comes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farthing.configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
    here = runtime()
    assert here.durable is not None
    store: Any = here.durable.store
    close, seen = store.close, []

    def slowly() -> None:
        close()
        caller = threading.Thread(target=lambda: seen.append(here.durable))
        caller.start()
        caller.join()

    monkeypatch.setattr(store, "close", slowly)
    farthing.configure(ledger=None)
    assert (seen, here.durable) == ([None], None)


class Met(Runtime):
    """A runtime whose call on another thread asks for the ledger just before it is taken away to be closed."""

    _taken: Ledger | None = None
    between: Callable[[], None] | None = None

    @property
    def _durable(self) -> Ledger | None:  # type: ignore[override]
        if (between := self.between) is not None:
            self.between = None
            between()
        return self._taken

    @_durable.setter
    def _durable(self, ledger: Ledger | None) -> None:
        self._taken = ledger


def test_a_call_comes_while_its_runtime_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opened a second ledger, which was closed in the first one's place: from then on there was none."""
    stores: list[Any] = []
    closed: list[Any] = []

    def opening(url: str, **how: Any) -> Any:
        store: Any = open_store(url, **how)
        close = store.close
        store.close = lambda: (closed.append(store), close())
        stores.append(store)
        return store

    monkeypatch.setattr(farthing.stores, "open_store", opening)
    here = Met(Settings(ledger=f"sqlite:///{tmp_path / 'ledger.db'}"))
    assert here.durable is not None
    caller = threading.Thread(target=lambda: here.durable)

    def comes() -> None:
        waits = here._opening.locked()
        caller.start()
        if not waits:
            caller.join()

    here.between = comes
    here.close()
    caller.join()
    after = here.durable
    assert after is not None
    assert after.store is stores[-1]
    assert closed == stores[:-1]
    here.close()
    assert closed == stores


def test_a_call_that_is_planned_while_its_ledger_is_left_is_planned_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on the budget in memory then, and not on none."""
    farthing.configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
    budget = farthing.budget("named", tokens=100)
    looks: list[tuple[bool, bool]] = []

    def look(*given: Any) -> InForce:
        found = in_force(*given)
        looks.append((found.here is not None, found.there is not None))
        if len(looks) == 1:
            farthing.configure(ledger=None)
        return found

    with budget:
        monkeypatch.setattr(holding, "in_force", look)
        with farthing.hold(tokens=60):
            assert looks == [(False, True), (True, False)]
            assert budget.held.tokens == 60


def test_figures_wait_for_the_end_that_another_thread_is_writing() -> None:
    """It is not in line any more, and not in the figures yet."""
    here, ending, go_on = runtime(), threading.Event(), threading.Event()
    seen: list[int | None] = []
    with farthing.budget(tokens=100) as budget:
        held = farthing.hold(tokens=60).__enter__()

        def end() -> None:
            ending.set()
            go_on.wait()
            held.settle(tokens=9)

        here.housekeeper.put(end)
        other = threading.Thread(target=here.housekeeper.catch_up)
        other.start()
        ending.wait()
        reader = threading.Thread(target=lambda: seen.append(budget.held.tokens))
        reader.start()
        reader.join(0.05)
        go_on.set()
        reader.join()
        other.join()
    assert seen == [0]


def test_a_ledger_in_memory_is_looked_for_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not by every call: there is nothing to open. A file that is named after that is opened all the same."""
    opened: list[str] = []

    def opening(url: str, **how: Any) -> Any:
        opened.append(url)
        return open_store(url, **how)

    monkeypatch.setattr(farthing.stores, "open_store", opening)
    farthing.configure(ledger="memory:")
    for _ in range(3):
        assert runtime().durable is None
    assert opened == ["memory:"]
    file = str(tmp_path / "ledger.db")
    farthing.configure(ledger=file)
    assert runtime().durable is runtime().durable is not None
    farthing.configure(ledger="memory:")
    assert runtime().durable is None
    assert opened == ["memory:", file, "memory:"]


def test_of_many_standing_budgets_only_those_near_a_call_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be one for every user: each call of a new scope looked through all of them, 18 ms of 10,000."""
    store = MemoryStore()
    scopes: list[dict[str, object]] = [{}, *({"user": f"u{number}"} for number in range(50)), {"model": "m"}]
    scopes += [{"team": "t", "user": "u7"}, {}, {"team": "t"}]
    for number, scope in enumerate(scopes):
        store.put_budget(make_budget(f"b{number}", tokens=1, scope=scope, standing=True)).result()
    ledger = Ledger(store)
    ledger.refresh(store.catalogue().result())
    looked: list[object] = []

    def counted(scope: Any, tags: Any) -> bool:
        looked.append(scope)
        return matches(scope, tags)

    monkeypatch.setattr(ledgers, "matches", counted)
    for tags, expected in (
        ({"user": "u7", "team": "t", "model": "m"}, ["b0", "b8", "b51", "b52", "b53", "b54"]),
        ({"user": "u7", "model": "x"}, ["b0", "b8", "b53"]),
        ({}, ["b0", "b53"]),
    ):
        assert [budget.name for budget in ledger.standing(tags)] == expected
    assert len(looked) < 20
