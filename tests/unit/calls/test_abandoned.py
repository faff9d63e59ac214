"""Ends that are put in line: one that cannot happen yet, and one whose connection cannot be asked any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.runtime.default import runtime
from farthing.sdk.streaming import OpenStream
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def test_an_end_that_puts_itself_in_line_again_does_not_hold_up_its_caller() -> None:
    """Its stream is in the middle of a chunk, perhaps in this very event loop: waiting for it here would never end."""
    keeper, tries = runtime().housekeeper, []

    def later() -> None:
        tries.append(1)
        if len(tries) < 100:
            keeper.put(later)

    keeper.put(later)
    keeper.catch_up()
    assert len(tries) == 1
    keeper.catch_up()
    assert len(tries) == 2


def test_nothing_of_a_unit_of_work_is_kept_when_it_is_over(fake_provider: FakeProvider) -> None:
    with openai_client(fake_provider) as client:
        for _ in range(3):
            with farthing.budget(tokens=1_000):
                client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10)
    here = runtime()
    here.put_units_away(most=10)
    assert here.memory._accounts == {}
    assert here.memory_store.balances().result() == {}


@pytest.mark.parametrize("rest", ["the middle", "the end"])
def test_a_stream_that_is_left_is_settled_on_a_durable_ledger(
    fake_provider: FakeProvider, tmp_path: Path, rest: str
) -> None:
    """Nobody waits for the file then: what its ticket will answer is not known when the call ends."""
    farthing.configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
    fake_provider.reply = Reply(output_tokens=20, pause_after_chunks=3 if rest == "the middle" else None)
    with openai_client(fake_provider) as client, farthing.budget("named", tokens=50, on_exceed="raise") as budget:
        stream = client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=60, stream=True)
        next(iter(stream))
        if rest == "the end":
            fake_provider.wait_idle()
        stream.close()
        runtime().housekeeper.catch_up()
        fake_provider.wait_idle()
        assert budget.held.tokens == 0
        assert (budget.spent.tokens or 0) >= fake_provider.billed_tokens > 0
    (entry,) = runtime().memory_store.entries().result()
    durable = runtime().durable
    assert durable is not None
    (kept,) = durable.store.entries().result()
    assert (entry.ending, entry.usage) == (kept.ending, kept.usage)


def test_a_stream_that_was_read_to_its_last_event_leaves_nothing_in_line(fake_provider: FakeProvider) -> None:
    keeper = runtime().housekeeper
    with openai_client(fake_provider) as client, farthing.budget(tokens=1_000):
        with client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10, stream=True) as stream:
            assert keeper._open_calls
            assert list(stream)
        assert not keeper._open_calls
        assert not keeper._abandoned


def test_a_rest_that_cannot_be_read_ends_the_call_at_its_hold(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the HTTP library raises then reaches no innocent caller, and no hold stays open."""
    fake_provider.reply = Reply(output_tokens=50, pause_after_chunks=2)

    def broken() -> list[bytes] | None:
        raise OSError("the connection is gone")

    abandon: Callable[[Any], None] = OpenStream.abandon

    def without_rest(self: Any) -> None:
        self.leftover = broken
        abandon(self)

    monkeypatch.setattr(OpenStream, "abandon", without_rest)
    with openai_client(fake_provider) as client, farthing.budget(tokens=1_000) as budget:
        client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=50, stream=True).close()
        assert budget.held.tokens == 0
        assert budget.spent.tokens == 58
    (entry,) = runtime().memory_store.entries().result()
    assert (entry.ending, entry.usage_source) == ("abandoned", "estimate")
