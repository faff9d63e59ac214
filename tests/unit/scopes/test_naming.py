"""``budget("name")``: naming a budget that the ledger has already, on its terms."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farthing import BudgetExceeded, ConfigError, budget, configure, hold
from farthing.admin.standing import set_budget
from farthing.runtime.default import runtime
from farthing.stores import open_store

pytestmark = pytest.mark.usefixtures("farthing_isolated")


@pytest.mark.parametrize("file", [None, "ledger.db"])
def test_a_name_alone_is_a_budget_that_exists(tmp_path: Path, file: str | None) -> None:
    configure(ledger=None if file is None else tmp_path / file)
    with budget("search", tokens=100, usd=1, per="day"), hold(tokens=30, usd=0.25) as h:
        h.settle(tokens=30, usd=0.25)
    again = budget("search")
    assert repr(again) == "budget('search')"
    assert (again.remaining.tokens, again.remaining.usd) == (70, Decimal("0.75"))
    assert again.terms.terms_text() == "$1.00 and 100 tokens per day"
    with again, pytest.raises(BudgetExceeded) as caught, hold(tokens=71, usd=0):
        pass
    assert caught.value.budget == "search"

    @again
    def work() -> None:
        with hold(tokens=1, usd=0) as h:
            h.settle(tokens=1)

    work()
    assert budget("search").spent.tokens == 31


def test_it_follows_what_an_operator_changes(tmp_path: Path) -> None:
    configure(ledger=tmp_path / "ledger.db")
    store = runtime().main.store
    set_budget(store, "search", tokens=100)
    named = budget("search")
    assert named.remaining.tokens == 100
    set_budget(store, "search", tokens=500, update=True)
    runtime().housekeeper.tick(sweep=False)
    assert named.remaining.tokens == 500


def test_a_name_that_nobody_set_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="no budget is named 'serach' in ledger memory: give it a limit here"):
        budget("serach").__enter__()


@pytest.mark.parametrize("terms", [{"on_exceed": "warn"}, {"per": "day"}, {"each": ["user"]}, {"wait_seconds": 1}])
def test_other_terms_without_a_limit_are_a_mistake(terms: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a budget needs a limit"):
        budget("search", **terms)  # type: ignore[arg-type]


def test_an_empty_name_is_no_name() -> None:
    with pytest.raises(ValueError, match="name must be"):
        budget(" ")


def test_a_budget_that_another_process_has_just_set_is_found(tmp_path: Path) -> None:
    """What a store knows of the catalogue may be half a second old; a program must not be told that it is not there."""
    configure(ledger=tmp_path / "ledger.db")
    assert budget("other", tokens=1).remaining.tokens == 1
    other = open_store(str(tmp_path / "ledger.db"))
    set_budget(other, "search", tokens=100)
    other.close()
    assert budget("search").remaining.tokens == 100


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda handle: pickle.loads(pickle.dumps(handle))])
def test_a_copy_of_a_budget_that_was_entered_is_the_same_account(copied: Callable[[Any], Any]) -> None:
    """As an argument for a worker process, say: the ledger is named there anew."""
    handle = budget("shared", tokens=100)
    with handle, hold(tokens=30):
        pass
    other = copied(handle)
    with other, hold(tokens=30):
        pass
    assert (handle.spent.tokens, other.spent.tokens) == (60, 60)
