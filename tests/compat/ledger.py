"""What the tests of every environment look at: the rows of this process's own ledger, and that the wheel is tested."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import farthing
from farthing.kernel.hold import Entry, Hold
from farthing.runtime.default import runtime

HI: Any = [{"role": "user", "content": "hi"}]


def entries() -> list[Entry]:
    """Every row, abandoned calls ended first."""
    here = runtime()
    here.housekeeper.catch_up()
    return list(here.memory_store.entries().result())


def holds() -> list[Hold]:
    """The live holds, abandoned calls ended first."""
    here = runtime()
    here.housekeeper.catch_up()
    return list(here.memory_store.holds().result())


def comes_from_the_right_place() -> bool:
    """The installed wheel, where `make test` says so."""
    folder = Path(farthing.__file__).resolve().parents[1]
    return os.environ.get("FARTHING_TEST_WHEEL") != "1" or folder.name == "site-packages"
