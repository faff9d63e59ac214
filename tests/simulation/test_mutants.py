"""
Each mutant is caught within 200 seeds, by the same simulation that finds nothing without it. (That it finds nothing is
what ``test_simulation.py`` shows, on these seeds among others.)
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .mutants import MUTANTS, Mutant
from .scheduler import Simulation
from .world import MEMORY, Violation

SEEDS = 200
STUMBLES = ("TypeError", "AttributeError", "NameError", "KeyError", "IndexError")
"""What a mutant that no longer fits the code would raise: that is no catch."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    caught = _first_violation(mutant, tmp_path)
    assert caught is not None, f"{SEEDS} seeds noticed nothing"
    assert not any(name in caught for name in STUMBLES), f"the mutant itself is broken: {caught}"


def _first_violation(mutant: Mutant, directory: Path) -> str | None:
    with mutant.at_work():
        for seed in range(SEEDS):
            try:
                Simulation(seed, backend=MEMORY, directory=directory).run()
            except Violation as violation:
                return str(violation)
    return None
