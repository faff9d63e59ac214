"""The names that users may import, and that a release may not lose by accident."""

from __future__ import annotations

import inspect

import farthing
from farthing import errors


def test_public_names_are_sorted_and_listed_once() -> None:
    names = list(farthing.__all__)
    assert names == sorted(set(names))


def test_every_public_name_resolves() -> None:
    # Names load on use, through a module-level __getattr__: one that is misspelt there fails only here.
    assert {name for name in farthing.__all__ if not hasattr(farthing, name)} == set()


def test_dir_lists_every_public_name() -> None:
    assert set(farthing.__all__) <= set(dir(farthing))


def test_every_error_can_be_caught_by_a_public_name() -> None:
    kinds = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert "BudgetExceeded" in kinds
    assert kinds <= set(farthing.__all__)
