"""The manager: terms, delegation, closing, figures, explanations; in memory and on a ledger that others share."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

import farthing
from farthing import hold, report
from farthing.admin.standing import set_budget
from farthing.agents import BudgetExceededError, BudgetManager, ConfidenceReached, UnknownAgent
from farthing.errors import BudgetExceeded, ConfigError, StoreUnavailable
from farthing.kernel.budget import Budget
from farthing.kernel.catalogue import Grant
from farthing.runtime.default import runtime, use
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores.changing import latest
from farthing.testing import FakeClock

pytestmark = pytest.mark.usefixtures("farthing_isolated")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
def manager(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[BudgetManager]:
    """A crew of a planner (1,000), a worker (500) and an idler (300), each with a tenth in reserve."""
    ledger = None if request.param == "memory" else f"sqlite:///{tmp_path / 'ledger.db'}"
    mine = Runtime(Settings(ledger=ledger), clock=clock)
    before = use(mine)
    manager = BudgetManager(name=None if ledger is None else "crew", wait_seconds=0)
    manager.register_agent("planner", priority=3, max_tokens=1_000)
    manager.register_agent("worker", priority=2, max_tokens=500)
    manager.register_agent("idler", priority=1, max_tokens=300)
    yield manager
    use(before)
    mine.close()


def spend(manager: BudgetManager, agent: str, tokens: int) -> None:
    with manager.agent(agent), hold(tokens=tokens) as held:
        held.settle(tokens=tokens)


def allocated(manager: BudgetManager) -> dict[str, int]:
    return {name: int(of["allocated"]) for name, of in manager.report().items()}


def test_agents_are_looked_for_while_others_are_registered(
    manager: BudgetManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread; here at the worst instant."""
    crew = manager.crew
    budget, _ = crew.budget("idler")
    known = crew.ledger.catalogue

    class Meanwhile(dict[str, Budget]):
        def __contains__(self, name: object) -> bool:
            crew._mine[f"another {len(crew._mine)}"] = budget
            return super().__contains__(name)

    monkeypatch.setattr(crew.ledger, "catalogue", known._replace(budgets=Meanwhile(known.budgets)))
    assert list(crew.members()) == ["planner", "worker", "idler"]


# -- lending -----------------------------------------------------------------------------------------------------------


def test_what_was_granted_for_a_time_is_not_lent_on(manager: BudgetManager, clock: FakeClock) -> None:
    budget, _ = manager.crew.budget("idler")
    now_ms = clock()
    manager.crew.ledger.store.grant(Grant(budget.name, "tokens", 900, now_ms, now_ms + 60_000)).result()
    manager.crew.refresh()
    for seconds in (0, 61):
        clock.advance(seconds=seconds)
        assert manager.explain("planner", 1_720).allowed, "1,000 of its own, 450 of the worker, 270 of the idler"
        assert not manager.explain("planner", 1_721).allowed
        with pytest.raises(BudgetExceededError), manager.agent("planner"), hold(tokens=1_721):
            pass
        with manager.agent("planner"), hold(tokens=1_720) as held:
            held.settle(tokens=0)


# -- terms -------------------------------------------------------------------------------------------------------------


def test_registering_again_is_harmless_or_explicit(manager: BudgetManager) -> None:
    manager.register_agent("worker", priority=2, max_tokens=500)
    with pytest.raises(ConfigError, match="update_agent"):
        manager.register_agent("worker", priority=2, max_tokens=600)
    spend(manager, "worker", 100)
    contract = manager.update_agent("worker", max_tokens=600, priority=4)
    assert (contract.max_tokens, contract.priority, contract.min_reserve) == (600, 4, 60)
    assert manager.report()["worker"] == {"allocated": 600, "consumed": 100, "remaining": 500}
    with pytest.raises(ValueError, match="tokens"):
        manager.update_agent("worker", tokens=5)
    with pytest.raises(UnknownAgent):
        manager.update_agent("nobody", max_tokens=5)


def test_updating_keeps_what_the_agent_last_said(manager: BudgetManager) -> None:
    manager.contracts["worker"].last_confidence = 0.5
    manager.update_agent("worker", confidence_threshold=0.9)
    assert manager.contracts["worker"].last_confidence == 0.5


def test_reports(manager: BudgetManager) -> None:
    spend(manager, "idler", 300)
    assert manager.report() == {
        "planner": {"allocated": 1_000, "consumed": 0, "remaining": 1_000},
        "worker": {"allocated": 500, "consumed": 0, "remaining": 500},
        "idler": {"allocated": 300, "consumed": 300, "remaining": 0},
    }
    with manager.agent("planner"), hold(tokens=1_100) as held:
        detail = manager.report(detail=True)
        shown = ("allocated", "consumed", "remaining", "held", "borrowed", "lent", "overrun", "reserve")
        assert [detail["planner"][name] for name in shown] == [1_100, 0, 0, 1_100, 100, 0, 0, 100]
        assert [detail["worker"][name] for name in shown] == [400, 0, 400, 0, 0, 100, 0, 50]
        held.void()
    assert allocated(manager) == {"planner": 1_000, "worker": 500, "idler": 300}


def test_nothing_flows_uphill_or_below_a_reserve(manager: BudgetManager) -> None:
    with pytest.raises(BudgetExceededError) as caught:
        spend(manager, "worker", 771)
    assert caught.value.available == 500 + 270, "the planner matters more, and the idler keeps 30"
    spend(manager, "worker", 770)
    assert allocated(manager) == {"planner": 1_000, "worker": 770, "idler": 30}


def test_explanations(manager: BudgetManager) -> None:
    yes = manager.explain("planner", 1_300)
    assert (yes.allowed, yes.own, yes.lenders) == (True, 1_000, (("idler", 270), ("worker", 30)))
    assert str(yes) == "Yes: planner has 1,000 of 1,300 tokens and would borrow 270 from idler, 30 from worker."
    no = manager.explain("idler", 400)
    assert (no.allowed, no.lenders, no.missing) == (False, (), 100)
    assert "100 are missing" in no.reason
    assert manager.report()["planner"]["remaining"] == 1_000, "nothing is held"
    with pytest.raises(UnknownAgent):
        manager.explain("nobody", 1)


def test_hints(manager: BudgetManager) -> None:
    assert manager.hint("worker") == "Budget of worker: 500 of 500 tokens left."
    manager.govern("worker", usage_fn=lambda result: 120)(lambda: None)()
    assert (
        manager.hint("worker")
        == "Budget of worker: 380 of 500 tokens left, about 3 more calls of the usual 120 tokens."
    )
    assert manager.remaining("worker") == 380


# -- delegation --------------------------------------------------------------------------------------------------------


def test_terms_are_changed_in_the_ledger_and_nowhere_else(manager: BudgetManager) -> None:
    contract = manager.contracts["planner"]
    for term, value in (("min_reserve", 5), ("max_tokens", 5), ("priority", 1), ("confidence_threshold", 0.5)):
        with pytest.raises(AttributeError, match=rf"update_agent\('planner', {term}="):
            setattr(contract, term, value)
        manager.update_agent("planner", **{term: value})
        assert getattr(manager.contracts["planner"], term) == value
    with pytest.raises(TypeError):
        manager.contracts["new"] = contract  # type: ignore[index]
    manager.contracts["planner"].last_confidence = 0.9
    with pytest.raises(ConfidenceReached):
        manager.check_gate("planner", None)


def test_a_child_spends_what_it_was_given_and_no_more(manager: BudgetManager) -> None:
    child = manager.delegate("planner", "sub", max_tokens=100)
    assert not manager.explain("sub", 101).allowed
    with pytest.raises(BudgetExceededError) as caught, child.agent(), hold(tokens=101):
        pass
    assert (caught.value.agent_name, caught.value.requested, caught.value.available) == ("sub", 101, 100)
    with pytest.raises(BudgetExceededError):
        manager.delegate("sub", "subsub", max_tokens=101)
    with child.agent(), hold(tokens=100) as held:
        held.settle(tokens=100)
    assert allocated(manager) == {"planner": 900, "worker": 500, "idler": 300, "sub": 100}


def test_a_child_lends_as_others_do(manager: BudgetManager) -> None:
    manager.delegate("worker", "sub", max_tokens=400, priority=1, min_reserve=0)
    with manager.agent("planner"), hold(tokens=1_600) as held:
        held.settle(tokens=1_600)
    assert allocated(manager)["sub"] < 400


def test_exact_usage_is_recorded_and_said(manager: BudgetManager) -> None:
    manager.update_agent("planner", confidence_threshold=0.8)
    manager.record_usage("planner", 1_200, note="two calls", confidence=0.5)
    assert manager.report()["planner"] == {"allocated": 1_200, "consumed": 1_200, "remaining": 0}
    assert manager.ledger.history("planner")[0].note == "two calls"
    with pytest.raises(BudgetExceededError) as caught:
        manager.record_usage("planner", 5_000, confidence=0.9)
    assert (caught.value.requested, manager.ledger.consumed("planner")) == (5_000, 6_200)
    assert manager.contracts["planner"].last_confidence == 0.9
    for wrong in (-1, 1.5, "10"):
        with pytest.raises(ValueError, match="tokens"):
            manager.record_usage("worker", wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="confidence"):
        manager.record_usage("worker", 10, confidence=2)
    with pytest.raises(UnknownAgent):
        manager.record_usage("nobody", 1)
    assert manager.ledger.consumed("worker") == 0


def test_a_child_is_debited_from_its_parent(manager: BudgetManager) -> None:
    with manager.delegate("planner", "sub-1", max_tokens=400) as child:
        assert allocated(manager) == {"planner": 600, "worker": 500, "idler": 300, "sub-1": 400}
        with child.agent(), hold(tokens=150) as held:
            held.settle(tokens=150)
        assert child.remaining() == 250
        assert manager.report()["planner"] == {"allocated": 600, "consumed": 0, "remaining": 600}
    assert allocated(manager) == {"planner": 850, "worker": 500, "idler": 300}
    with pytest.raises(UnknownAgent):
        manager.agent("sub-1")
    with pytest.raises(ConfigError, match="used once"):
        manager.delegate("planner", "sub-1", max_tokens=4)
    child.close()
    assert manager.ledger.history("sub-1")[0].tokens == 150
    assert report().totals()["calls"] == 1, "moving budget is no call"
    assert report().totals()["tokens"] == 150


def test_children_nest_and_end_with_their_parents(manager: BudgetManager) -> None:
    manager.delegate("planner", "sub", max_tokens=400)
    manager.delegate("sub", "subsub", max_tokens=300)
    spend(manager, "subsub", 50)
    spend(manager, "sub", 20)
    assert allocated(manager) == {"planner": 600, "worker": 500, "idler": 300, "sub": 100, "subsub": 300}
    manager.close_agent("sub")
    assert allocated(manager) == {"planner": 930, "worker": 500, "idler": 300}


def test_more_than_the_parent_has_is_borrowed_or_refused(manager: BudgetManager) -> None:
    manager.delegate("worker", "sub", max_tokens=600)
    assert allocated(manager) == {"planner": 1_000, "worker": 0, "idler": 200, "sub": 600}
    with pytest.raises(BudgetExceededError):
        manager.delegate("worker", "other", max_tokens=800)
    assert "other" not in manager.report()
    manager.close_agent("sub")
    assert allocated(manager) == {"planner": 1_000, "worker": 500, "idler": 300}


def test_a_child_expires(manager: BudgetManager, clock: FakeClock) -> None:
    manager.delegate("planner", "sub", max_tokens=400, expires=60)
    spend(manager, "sub", 100)
    clock.advance(seconds=59)
    spend(manager, "sub", 1)
    clock.advance(seconds=1)
    with pytest.raises(UnknownAgent):
        manager.agent("sub")
    runtime().housekeeper.tick(sweep=True)
    assert allocated(manager) == {"planner": 899, "worker": 500, "idler": 300}
    with pytest.raises(ValueError, match="in the past"):
        manager.delegate("planner", "late", max_tokens=4, expires=-5)


def test_what_a_child_has_in_flight_follows_when_it_ends(manager: BudgetManager) -> None:
    child = manager.delegate("planner", "sub", max_tokens=400)
    with child.agent(), hold(tokens=150) as held:
        child.close()
        assert allocated(manager)["planner"] == 850, "what it can still cost stays with it"
        held.settle(tokens=100)
    assert allocated(manager)["planner"] == 900


def test_a_child_in_money(manager: BudgetManager) -> None:
    manager.register_agent("rich", max_usd=1)
    with manager.delegate("rich", "sub", max_usd=Decimal("0.10")) as child:
        assert manager.report()["rich"]["allocated"] == Decimal("0.9")
        with child.agent(), hold(usd=0.03, model="gpt-4o-mini") as held:
            held.settle(usd=0.02)
        assert child.remaining() == Decimal("0.08")
    assert manager.report()["rich"] == {
        "allocated": Decimal("0.98"),
        "consumed": Decimal(0),
        "remaining": Decimal("0.98"),
    }
    with pytest.raises(ValueError, match="max_tokens"):
        manager.delegate("rich", "other", max_tokens=5)


def test_a_registered_child(manager: BudgetManager) -> None:
    manager.register_agent("sub", parent="planner", max_tokens=100)
    assert allocated(manager)["planner"] == 900
    manager.close_agent("sub")
    assert allocated(manager)["planner"] == 1_000


def test_a_delegation_whose_end_nobody_knows_may_be_tried_again(
    manager: BudgetManager, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger does not answer when the child is named. What was debited for it stands until it is certain."""
    store = manager.crew.ledger.store

    def silent(*_: object, **__: object) -> None:
        raise StoreUnavailable(store.name, "silent")

    with monkeypatch.context() as broken:
        broken.setattr(store, "put_budget", silent)
        with pytest.raises(StoreUnavailable):
            manager.delegate("planner", "sub", max_tokens=300)
    manager.delegate("planner", "sub", max_tokens=300)
    assert allocated(manager) == {"planner": 400, "worker": 500, "idler": 300, "sub": 300}
    spend(manager, "sub", 100)
    clock.advance(minutes=11)
    runtime().housekeeper.tick(sweep=True)
    assert allocated(manager) == {"planner": 700, "worker": 500, "idler": 300, "sub": 300}
    manager.close_agent("sub")
    assert allocated(manager) == {"planner": 900, "worker": 500, "idler": 300}


def test_what_a_removed_child_spent_stays_spent(manager: BudgetManager, clock: FakeClock) -> None:
    manager.delegate("planner", "sub", max_tokens=300)
    spend(manager, "sub", 100)
    store = manager.crew.ledger.store
    manager.crew.ledger.refresh(store.remove_budget(f"{manager.crew.pool}/sub").result())
    manager.crew._mine.clear()
    clock.advance(minutes=11)
    runtime().housekeeper.tick(sweep=True)
    assert allocated(manager) == {"planner": 900, "worker": 500, "idler": 300}


def test_an_operator_changes_limits_and_agents_stay_agents(manager: BudgetManager) -> None:
    ledger, pool = manager.crew.ledger, manager.crew.pool
    manager.delegate("planner", "sub", max_tokens=300)
    set_budget(ledger.store, f"{pool}/planner", tokens=5_000, update=True)
    ledger.refresh(latest(ledger.store))
    assert allocated(manager) == {"planner": 4_700, "worker": 500, "idler": 300, "sub": 300}
    with pytest.raises(ConfigError, match="'planner' gave its agent 'sub'"):
        set_budget(ledger.store, f"{pool}/sub", tokens=5_000, update=True)
    manager.close_agent("sub")
    assert allocated(manager) == {"planner": 5_000, "worker": 500, "idler": 300}


def test_what_a_closed_agent_leaves_is_the_pools(manager: BudgetManager) -> None:
    manager.close_agent("worker")
    assert list(manager.report()) == ["planner", "idler"]
    yes = manager.explain("idler", 800)
    assert (yes.allowed, yes.lenders) == (True, (("worker", 500),)), "whatever its priority was, reserve included"
    spend(manager, "idler", 800)
    with pytest.raises(UnknownAgent):
        manager.ledger.record("worker", 5)
    with pytest.raises(ConfigError, match="closed"):
        manager.register_agent("worker", max_tokens=5)


# -- other processes ---------------------------------------------------------------------------------------------------


def test_managers_of_one_name_have_the_same_agents(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    one = BudgetManager(url, "crew")
    one.register_agent("a", max_tokens=100, confidence_threshold=0.85)
    other = BudgetManager(name="crew")
    assert other.contracts["a"].confidence_threshold == 0.85
    spend(other, "a", 40)
    assert one.remaining("a") == 60
    with pytest.raises(ConfigError, match="one durable ledger"):
        BudgetManager("sqlite:///elsewhere.db")
    farthing.reset()
    again = BudgetManager(url, "crew")
    again.register_agent("a", max_tokens=100, confidence_threshold=0.85)
    assert again.remaining("a") == 60, "what was spent is remembered"


def test_a_ledger_that_only_a_manager_brought_goes_with_it(tmp_path: Path) -> None:
    one, other = f"sqlite:///{tmp_path / 'one.db'}", f"sqlite:///{tmp_path / 'other.db'}"
    first = BudgetManager(one, "crew")
    first.register_agent("a", max_tokens=100)
    spend(first, "a", 40)
    with pytest.raises(ConfigError, match="one durable ledger"):
        BudgetManager(other, "crew")
    del first
    second = BudgetManager(other, "crew")
    second.register_agent("a", max_tokens=100)
    assert second.remaining("a") == 100
    del second
    assert BudgetManager(one, "crew").remaining("a") == 60


def test_a_ledger_that_was_configured_stays(tmp_path: Path) -> None:
    farthing.configure(ledger=tmp_path / "one.db")
    with pytest.raises(ConfigError, match="one durable ledger"):
        BudgetManager(f"sqlite:///{tmp_path / 'other.db'}", "crew")


def test_one_ledger_has_many_spellings(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = BudgetManager(path, "crew")
    first.register_agent("a", max_tokens=100)
    for spelled in (str(path), f"sqlite:///{path}", f"sqlite:///{tmp_path}/./ledger.db"):
        assert BudgetManager(spelled, "crew").remaining("a") == 100


def test_managers_without_a_name_have_nothing_to_do_with_each_other() -> None:
    one, other = BudgetManager(), BudgetManager()
    one.register_agent("a", max_tokens=100)
    other.register_agent("a", max_tokens=200)
    spend(one, "a", 40)
    assert (one.remaining("a"), other.remaining("a")) == (60, 200)


def test_a_forked_child_does_not_get_the_budget_once_more() -> None:
    import os

    manager = BudgetManager()
    manager.register_agent("a", max_tokens=100)
    call = manager.govern("a")(lambda: None)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            call()
            os.write(write, b"admitted")
        except BudgetExceeded as error:
            os.write(write, b"refused" if "forked" in str(error) else str(error).encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent, which asserts on it
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 500) == b"refused"
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("given", "match"), [({"name": ""}, "name"), ({"wait_seconds": -1}, "wait_seconds"), ({"ledger": 5}, "ledger")]
)
def test_wrong_arguments_are_named(given: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        BudgetManager(**given)  # type: ignore[arg-type]
