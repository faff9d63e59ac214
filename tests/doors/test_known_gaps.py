"""
What is known not to be right yet, each with its reason. Strict: a test that begins to pass fails the run until it moves
to where it belongs.
"""

from __future__ import annotations

import pytest

import farthing
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5"])
def test_a_reader_that_stops_at_the_finish_reason_pays_what_was_billed(fake_provider: FakeProvider, model: str) -> None:
    """
    ``if chunk.choices[0].finish_reason: break`` is how many programs read a stream. All was generated and billed by
    then, and the usage frame is the next thing on the wire; nobody reads it.
    """
    fake_provider.reply = Reply(output_tokens=20)
    with openai_client(fake_provider) as client, farthing.budget(tokens=10_000) as budget:
        with client.chat.completions.create(
            model=model, messages=HI, max_completion_tokens=2_000, stream=True
        ) as stream:
            for chunk in stream:
                if chunk.choices[0].finish_reason:
                    break
        assert budget.spent.tokens == fake_provider.billed_tokens == 28
