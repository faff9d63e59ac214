"""Whoever passes something that is no model, path or instant is told which argument it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing import prices, sinks, tokens
from farthing.admin.standing import set_budget
from farthing.stores.memory import MemoryStore

pytestmark = pytest.mark.usefixtures("farthing_isolated")
WRONG: Any = 5


@pytest.mark.parametrize(
    "call",
    [
        lambda: farthing.estimate(WRONG, "hi"),
        lambda: farthing.explain(WRONG, "hi"),
        lambda: farthing.hold(tokens=1, model=WRONG),
        lambda: farthing.record({"input_tokens": 1}, model=WRONG),
        lambda: prices.explain(WRONG),
        lambda: tokens.count("hi", WRONG),
    ],
)
def test_a_model_that_is_no_name(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="model must be the name of a model, not 5"):
        call()


def test_hosts_that_are_no_map() -> None:
    with pytest.raises(farthing.ConfigError, match="hosts: must map hosts to their providers, not 5"):
        farthing.install(hosts=WRONG)


def test_a_sink_that_cannot_write_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        sinks.SQLiteSink(tmp_path / "nowhere" / "calls.db")


def test_a_span_may_be_a_timedelta() -> None:
    farthing.record({"input_tokens": 7}, model="gpt-4o")
    assert farthing.report(since=timedelta(hours=1)).totals()["tokens"] == 7
    assert farthing.report(until=timedelta(hours=1), since="all").totals()["tokens"] == 0


@pytest.mark.parametrize("terms", [{"each": ["day"]}, {"scope": {"hour": "9"}}, {"each": ["budget"]}])
def test_a_budget_on_a_tag_that_no_call_can_carry(terms: Any) -> None:
    with pytest.raises(ValueError, match="a key of reports, not a tag that calls carry"):
        farthing.budget("never", tokens=5, **terms)


OTHERS = {"gpt-4o": "claude-haiku-4-5"}


def test_a_cheaper_model_of_another_provider(tmp_path: Path) -> None:
    """A call stays with the provider that it was made to: there this model is not to be had."""
    says = "downgrade: 'gpt-4o' is a model of openai, 'claude-haiku-4-5' one of anthropic"
    with pytest.raises(ValueError, match=says):
        farthing.budget(usd=1, on_exceed="downgrade", downgrade=OTHERS)
    table = {"name": "a", "usd": "1", "on_exceed": "downgrade", "downgrade": OTHERS}
    with pytest.raises(farthing.ConfigError, match=says):
        farthing.configure(config={"budgets": [table]})
    with pytest.raises(ValueError, match=says):
        set_budget(MemoryStore(), "a", usd=1, on_exceed="downgrade", downgrade=OTHERS)


def test_a_gateway_may_have_every_vendors_models() -> None:
    through = {"openai/gpt-4o": "anthropic/claude-haiku-4-5", "my-large": "my-small", "gpt-4o": "my-small"}
    farthing.budget(usd=1, on_exceed="downgrade", downgrade=through)
