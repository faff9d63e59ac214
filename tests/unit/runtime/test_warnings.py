"""Warnings: once, not twice; about the line of the program, not one of ours or an SDK's."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from openai import OpenAI

import farthing
from farthing.testing import FakeProvider, Reply

LOUD = """
from farthing import record
record({"input_tokens": 5}, model="nobody-knows-me")
"""


@pytest.fixture
def client(farthing_isolated: None) -> OpenAI:
    with (
        FakeProvider(Reply(output_tokens=10)) as provider,
        OpenAI(base_url=provider.openai_url, api_key="fake") as client,
    ):
        yield farthing.instrument(client)  # type: ignore[misc]


def call(client: OpenAI, model: str = "gpt-4o-mini", **more: object) -> None:
    client.responses.create(model=model, input="hi", max_output_tokens=50, **more)  # type: ignore[call-overload]


def test_a_warning_names_the_line_of_the_program(client: OpenAI) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(client, model="no-such-model")
    (warning,) = [one for one in caught if issubclass(one.category, farthing.UnpricedModelWarning)]
    assert Path(warning.filename) == Path(__file__), "not farthing, httpx or openai"


@pytest.mark.parametrize(("logging_is_set_up", "times"), [(False, 1), (True, 2)])
def test_where_nobody_set_logging_up_it_is_said_once(tmp_path: Path, logging_is_set_up: bool, times: int) -> None:
    script = tmp_path / "program.py"
    script.write_text(("import logging\nlogging.basicConfig()\n" if logging_is_set_up else "") + LOUD)
    source = str(Path(farthing.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script)], env={"PYTHONPATH": source}, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("no price is known for model 'nobody-knows-me'") == times
    assert str(script) in done.stderr


def test_a_shadow_budget_logs_the_figures(client: OpenAI, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "farthing"), farthing.budget("trial", tokens=20, on_exceed="warn"):
        call(client)
    (said,) = [record.getMessage() for record in caplog.records if "would have denied" in record.getMessage()]
    assert said.startswith("budget 'trial' (on_exceed='warn') would have denied call ")
    assert said.endswith(
        "to gpt-4o-mini: limit 20 tokens, spent 0 tokens, held 0 tokens, asked 58 tokens; 20 tokens remain."
    )


def test_a_shorter_prompt_is_no_remedy_for_what_the_provider_keeps(client: OpenAI) -> None:
    with farthing.budget("small", usd=0.01), pytest.raises(farthing.BudgetExceeded) as denied:
        call(client, model="gpt-4o", previous_response_id="resp_unknown")
    assert "previous_response_id" in denied.value.remedy
    assert "shorten" not in str(denied.value)
    assert "open_bound='overrun'" in str(denied.value)
    with farthing.budget("again", usd=0.00001), pytest.raises(farthing.BudgetExceeded, match="shorten the prompt"):
        call(client, model="gpt-4o")
