"""Budgets on a file that several processes share."""

from __future__ import annotations

from pathlib import Path

from farthing.kernel.budget import make_budget
from farthing.stores.sqlite import SQLiteStore


def test_of_a_catalogue_that_another_process_changed_only_the_change_is_made_anew(path: Path) -> None:
    """It is read whole. With a budget for each of 10,000 users, a new one took every process half a second."""
    here, there = SQLiteStore(path), SQLiteStore(path)
    for name in ("a", "b"):
        there.put_budget(make_budget(name, tokens=1, scope={"user": name})).result()
    before = here.put_budgets((), catalogue_version=-1).result()
    there.put_budget(make_budget("b", tokens=2, scope={"user": "b"}), update=True).result()
    after = here.put_budgets((), catalogue_version=-1).result()
    assert after.budgets["a"] is before.budgets["a"]
    assert (before.budgets["b"].tokens, after.budgets["b"].tokens) == (1, 2)
    here.close()
    there.close()
