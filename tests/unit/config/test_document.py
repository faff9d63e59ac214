"""Every setting has its key in ``farthing.toml``, with the default that it has in code."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

import pytest

from farthing.config.document import BudgetTable, Document, PriceTable, ProxyTable, SettingsTable, Table, UpstreamTable
from farthing.kernel.budget import make_budget
from farthing.prices.registry import registered
from farthing.proxy.settings import Bounds, ProxySettings, Timeouts, Upstream
from farthing.runtime.settings import Settings
from farthing.scopes.budgets import budget

NO_KEY: dict[Any, set[str]] = {
    Upstream: {"name", "timeouts"},  # the table's own name; its keys stand in it directly
    ProxySettings: {
        "calls",
        "upstreams",
        "budgets",
        "source",
        "prices",
        "bounds",
    },  # the rest of the file; its keys stand directly
    make_budget: {"standing"},  # a budget of a file always is
    registered: {"model"},  # the table's own name
}
ONLY_A_KEY: dict[type[Table], set[str]] = {ProxyTable: {"identity_tags"}}
"""What is said for reading the file itself."""


def defaults(kind: Any) -> dict[str, Any]:
    if inspect.isclass(kind):
        found = {
            of.name: of.default_factory() if of.default_factory is not MISSING else of.default for of in fields(kind)
        }
        found = {name: None if value is MISSING else value for name, value in found.items()}
    else:
        parameters = inspect.signature(kind).parameters.values()
        found = {of.name: None if of.default is inspect.Parameter.empty else of.default for of in parameters}
    return {name: value for name, value in found.items() if name not in NO_KEY.get(kind, set())}


@pytest.mark.parametrize(
    ("table", "kinds"),
    [
        (SettingsTable, [Settings]),
        (UpstreamTable, [Upstream, Timeouts]),
        (BudgetTable, [make_budget]),
        (PriceTable, [registered]),
        (ProxyTable, [ProxySettings, Bounds]),
    ],
)
def test_every_setting_has_a_key_with_its_default(table: type[Table], kinds: list[Any]) -> None:
    settings: dict[str, Any] = {}
    for kind in kinds:
        settings |= defaults(kind)
    keys = {name: of for name, of in table.model_fields.items() if name not in ONLY_A_KEY.get(table, set())}
    assert set(keys) == set(settings)
    for name, of in keys.items():
        default = None if of.is_required() else of.default
        assert (default or None) == (_listed(settings[name]) or None), name


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_what_a_program_says_of_a_budget_a_file_can_say() -> None:
    said = set(inspect.signature(budget).parameters) - {"update"}
    assert said == set(BudgetTable.model_fields)


@pytest.mark.parametrize("table", [Document, UpstreamTable, BudgetTable, PriceTable, ProxyTable])
def test_every_key_says_what_it_means(table: type[Table]) -> None:
    tables = {"upstreams", "budgets", "prices", "proxy"} if table is Document else set()
    assert {name for name, of in table.model_fields.items() if not of.description} == tables
    assert table.__doc__
