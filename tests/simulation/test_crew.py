"""Three hundred worlds of agents on each store, and the faults of lending that they must notice: see :mod:`.crew`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from .crew import CrewSimulation
from .crew_mutants import MUTANTS
from .mutants import Mutant
from .test_mutants import STUMBLES
from .world import MEMORY, SQLITE, Violation

SITUATIONS = (
    "placed", "denied", "borrowed", "borrowed from several", "borrow failed", "lent to another meanwhile",
    "used by another meanwhile", "lent and suspect", "lent, and a late word", "update", "close", "grant",
    "clamped", "stale", "repeated place", "repeated end", "overrun", "crash", "BudgetExceededError",
    "StoreUnavailable", "CancelledError", "KeyboardInterrupt", "counter put away",
    "store fails: before", "store fails: after", "store fails: patience",
)  # fmt: skip
SEEDS = 300
CHUNK = 50
CAUGHT_WITHIN = 200


def _simulate(first: int, backend: str, config: pytest.Config, directory: Path) -> None:
    only = config.getoption("--seed", default=None)
    for seed in range(first, first + CHUNK):
        if only not in (None, seed):
            continue
        try:
            CrewSimulation(seed, backend=backend, directory=directory).run()
        except Violation as violation:
            replay = f"pytest tests/simulation/test_crew.py -k test_crew_on_{backend} --seed {seed}"
            pytest.fail(f"{violation}\nreplay with: {replay}", pytrace=False)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_crew_on_memory(first: int, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    _simulate(first, MEMORY, pytestconfig, tmp_path)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_crew_on_sqlite(first: int, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    _simulate(first, SQLITE, pytestconfig, tmp_path)


def test_crews_meet_every_situation(tmp_path: Path) -> None:
    met: Counter[str] = Counter()
    for seed in range(SEEDS):
        simulation = CrewSimulation(seed, backend=MEMORY, directory=tmp_path)
        simulation.run()
        met += simulation.world.seen
    assert not [situation for situation in SITUATIONS if not met[situation]]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_of_lending_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    caught = _first_violation(mutant, tmp_path)
    assert caught is not None, f"{CAUGHT_WITHIN} seeds noticed nothing"
    assert not any(name in caught for name in STUMBLES), f"the mutant itself is broken: {caught}"


def _first_violation(mutant: Mutant, directory: Path) -> str | None:
    with mutant.at_work():
        for seed in range(CAUGHT_WITHIN):
            try:
                CrewSimulation(seed, backend=MEMORY, directory=directory).run()
            except Violation as violation:
                return str(violation)
    return None
