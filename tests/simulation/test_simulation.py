"""
A thousand worlds on each store, each from one seed: see :mod:`.scheduler` for what happens in them, :mod:`.oracle` and
:mod:`.audit` for what is checked. A failure prints the trace of its steps and the command that replays it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .scheduler import Simulation
from .world import MEMORY, SQLITE, Violation

SEEDS = 1_000
CHUNK = 50


def simulate(seed: int, *, backend: str, directory: Path) -> None:
    """Run one seed; a violation is shown with its trace."""
    try:
        Simulation(seed, backend=backend, directory=directory).run()
    except Violation as violation:
        pytest.fail(f"{violation}\nreplay with: pytest tests/simulation -k test_{backend} --seed {seed}", pytrace=False)


def _seeds(config: pytest.Config, first: int) -> range:
    only = config.getoption("--seed", default=None)
    if only is None:
        return range(first, first + CHUNK)
    if not first <= only < first + CHUNK:
        pytest.skip("--seed names one of another chunk")
    return range(only, only + 1)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_memory(first: int, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    for seed in _seeds(pytestconfig, first):
        simulate(seed, backend=MEMORY, directory=tmp_path)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_sqlite(first: int, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    for seed in _seeds(pytestconfig, first):
        simulate(seed, backend=SQLITE, directory=tmp_path)
