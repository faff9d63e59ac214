"""The reference says what the program is: it is made from it, and made anew whenever that changes."""

from __future__ import annotations

from pathlib import Path

import pytest

import farthing
from farthing.config.document import BudgetTable, Document, PriceTable, ProxyTable, UpstreamTable
from tests.docs.reference import PAGES

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_it_is_current(name: str) -> None:
    made = PAGES[name]()
    assert (REFERENCE / name).read_text("utf-8") == made, "run scripts/make-reference, and commit what it writes"


def test_every_key_and_name_is_in_it() -> None:
    keys = PAGES["configuration.md"]()
    for table in (Document, BudgetTable, UpstreamTable, PriceTable, ProxyTable):
        tables = {"budgets", "upstreams", "prices", "proxy"}
        assert [name for name in table.model_fields if name not in tables and f"| `{name}` |" not in keys] == []
    names = PAGES["python.md"]()
    assert [name for name in farthing.__all__ if f"## `{name}" not in names and f"## Module `{name}" not in names] == []


def test_nothing_of_this_machine_is_in_it() -> None:
    for page in PAGES.values():
        assert " at 0x" not in page()
        assert str(Path.home()) + "/" not in page()
