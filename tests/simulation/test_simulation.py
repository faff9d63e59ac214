"""
A thousand worlds on each store, each from one seed: see :mod:`.scheduler` for what happens in them, :mod:`.oracle` and
:mod:`.audit` for what is checked. A failure prints the trace of its steps and the command that replays it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from .scheduler import Simulation
from .world import MEMORY, SQLITE, Violation

SITUATIONS = (
    "placed", "denied", "shadow", "clamped", "downgraded", "stale", "resized", "extended", "recorded", "crossed",
    "counted, not held", "suspect, not held",
    "taken over", "handed over", "refused by the proxy", "not joined", "sent twice",
    "cut by us",
    "repeated place", "repeated end", "suspect", "late word of a suspect", "late word after a resolution",
    "resolved: settle_at_hold", "resolved: release", "overrun", "counter put away", "crash",
    "BudgetExceeded", "UnpricedModel", "StoreUnavailable", "CancelledError", "KeyboardInterrupt",
    "connect_error", "timeout", "connection_lost", "cancelled", "abandoned", "client_gone",
    "store fails: before", "store fails: after", "store fails: patience",
    "provider: ok", "provider: silent", "provider: refused", "provider: gateway", "provider: cut", "provider: overrun",
)  # fmt: skip
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


def test_meets_every_situation(tmp_path: Path) -> None:
    """What a simulation never meets it cannot judge: two hundred seeds meet each of these."""
    met: Counter[str] = Counter()
    for seed in range(200):
        simulation = Simulation(seed, backend=MEMORY, directory=tmp_path)
        simulation.run()
        met += simulation.world.seen
    assert not [situation for situation in SITUATIONS if not met[situation]]


def test_a_seed_replays_to_the_last_step(tmp_path: Path) -> None:
    """Without this, the number of a failing seed would be worth nothing."""
    for seed in (3, 11):
        first, again = (Simulation(seed, backend=MEMORY, directory=tmp_path) for _ in range(2))
        first.run()
        again.run()
        assert first.trace == again.trace
        assert len(first.trace) > 20
