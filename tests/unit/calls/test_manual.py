"""Holds and records by hand: what they cost, and whose they are."""

from __future__ import annotations

import gc
import logging
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.errors import HoldNotFound
from farthing.runtime.default import runtime
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, entries, holds, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def test_an_amount_that_was_held_is_not_free_because_no_price_is_known() -> None:
    """I9: an unknown price is never zero."""
    with farthing.budget(usd=10) as budget:
        with farthing.hold(usd=2) as held:
            held.settle(tokens=500)
        assert (budget.spent.usd, budget.spent.tokens) == (Decimal(2), 500)
    assert "price was not known" in str(entries()[-1].note)


def test_a_known_cost_or_price_goes_before_what_was_held() -> None:
    with farthing.budget(usd=10) as budget:
        with farthing.hold(usd=2) as held:
            held.settle(tokens=500, usd=Decimal("0.5"))
        with farthing.hold(usd=2, model="gpt-4o") as held:
            held.settle({"input_tokens": 1_000_000})
        assert budget.spent.usd == Decimal("3.0")
    assert entries()[-1].note is None


def test_the_provider_says_whose_price_and_whose_scope() -> None:
    with farthing.budget("azures", usd=10, scope={"provider": "azure"}) as azures:
        for provider in ("azure", None):
            with farthing.hold(tokens=100, model="gpt-4o", provider=provider) as held:
                held.settle({"input_tokens": 100})
            farthing.record({"input_tokens": 100}, model="gpt-4o", provider=provider)
        assert azures.spent.tokens == 200
    assert [row.facts.provider for row in entries()] == ["azure", "azure", "openai", "openai"]
    assert {row["tags"]["provider"]: row["calls"] for row in farthing.report(group_by=["provider"])} == {
        "azure": 2,
        "openai": 2,
    }


def test_a_provider_without_a_known_price_is_kept_all_the_same() -> None:
    with pytest.warns(farthing.UnpricedModelWarning):
        farthing.record({"input_tokens": 5}, model="my-model", provider="my-cloud")
    assert entries()[-1].facts.provider == "my-cloud"
    with pytest.raises(ValueError, match="provider"):
        farthing.record({"input_tokens": 5}, provider="")


def test_what_a_program_registers_outlives_a_reset() -> None:
    farthing.prices.register("house-model", input=1, output=2)
    farthing.tokens.register("house-model", len)
    try:
        farthing.reset()
        assert farthing.estimate("house-model", "four") == Decimal(4) / 1_000_000
    finally:
        farthing.prices.unregister("house-model")
        farthing.tokens.unregister("house-model")


def test_what_was_kept_in_memory_is_forgotten_by_a_reset() -> None:
    """What was in force for a call outside of all scopes held on to it."""
    farthing.configure(config={"budgets": [{"name": "all", "tokens": 100}]})
    with farthing.hold(tokens=5):
        memory = weakref.ref(runtime().memory_store)
    farthing.reset()
    gc.collect()
    assert memory() is None


# -- each with is a call of its own ----------------------------------------------------------------------------------


def test_a_hold_that_is_entered_again_holds_again() -> None:
    with farthing.budget(tokens=250) as budget:
        held = farthing.hold(tokens=100)
        seen = set()
        for _ in range(2):
            with held:
                assert budget.held.tokens == 100
                seen.add(held.id)
        assert (budget.spent.tokens, len(seen)) == (200, 2)
        with pytest.raises(farthing.BudgetExceeded), held:
            pass
    with farthing.budget(tokens=100) as budget, held:
        assert budget.held.tokens == 100, "after a denial too"
    assert len(entries()) == 3


def test_a_hold_that_is_open_is_no_second_one() -> None:
    with farthing.budget(tokens=250) as budget:
        with farthing.hold(tokens=100) as held:
            with pytest.raises(ValueError, match="make another"), held:
                pass
            assert budget.held.tokens == 100
        assert budget.spent.tokens == 100


def test_a_hold_that_one_ledger_refused_is_new_to_the_other(tmp_path: Path) -> None:
    """The first time it was placed, and taken back, in memory: the same id there is no hold any more."""
    farthing.configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
    held = farthing.hold(tokens=100)
    with farthing.budget(tokens=100) as unit:
        with farthing.budget("named", tokens=50), pytest.raises(farthing.BudgetExceeded), held:
            pass
        with held:
            assert unit.held.tokens == 100
        assert unit.spent.tokens == 100


def test_a_hold_finds_what_a_stream_gave_back_that_was_left(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(output_tokens=1, pause_after_chunks=1)
    with openai_client(fake_provider) as client, farthing.budget(tokens=173):
        client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100, stream=True).close()
        with farthing.hold(tokens=100):
            pass


@contextmanager
def interrupted_by_the_log() -> Iterator[None]:
    """A signal that arrives while something is logged."""

    class Interrupt(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    handler = Interrupt(logging.WARNING)
    logging.getLogger("farthing").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("farthing").removeHandler(handler)


def test_an_interrupted_entry_holds_nothing(fake_provider: FakeProvider) -> None:
    """What is said of a call is said when it is held already."""
    with (
        farthing.budget(tokens=1_000) as budget,
        farthing.budget(requests=0, on_exceed="warn"),
        openai_client(fake_provider) as client,
    ):
        with interrupted_by_the_log():
            with pytest.raises(KeyboardInterrupt), farthing.hold(tokens=100):
                pass
            with pytest.raises(KeyboardInterrupt):
                client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100)
        assert (budget.held.tokens, budget.spent.tokens) == (0, 0)
    assert (holds(), entries(), fake_provider.posts) == ([], [], 0)


@pytest.mark.parametrize(
    ("limit", "given", "says"),
    [
        ({"tokens": 100}, {}, "tokens: budget 'b' counts tokens, so say what to hold: give tokens="),
        ({"tokens": 100}, {"usd": 1}, "tokens: budget 'b' counts tokens"),
        ({"usd": 1}, {"model": "gpt-4o"}, "usd: budget 'b' counts USD, so say what to hold: give usd=, or tokens="),
        ({"usd": 1}, {}, "usd: budget 'b' counts USD, so say what to hold: give usd= or model="),
    ],
)
def test_what_nobody_said_is_not_zero(limit: dict[str, Any], given: dict[str, Any], says: str) -> None:
    """A hold without tokens held none under a limit of tokens, so any number of them passed it."""
    with (
        farthing.budget("b", **limit) as budget,
        pytest.raises(ValueError, match=re.escape(says)),
        farthing.hold(**given),
    ):
        pass
    assert budget.held.tokens == budget.spent.tokens == 0
    with farthing.budget("calls", requests=1), farthing.hold():
        pass  # nothing else is counted


def test_zero_may_be_said() -> None:
    with farthing.budget(tokens=1, usd=1), farthing.hold(tokens=0, usd=0) as held:
        held.settle(tokens=0, usd=0)


@pytest.mark.parametrize("voids", [False, True])
def test_a_ledger_that_is_opened_again_meanwhile_is_told_the_end(tmp_path: Path, voids: bool) -> None:
    """When it was closed nobody could know the end; now it is known, and counted in place of what was held."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    farthing.configure(ledger=url)
    with farthing.budget("b", tokens=1_000) as budget, farthing.hold(tokens=500) as held:
        farthing.configure(ledger=f"sqlite:///{tmp_path / 'other.db'}")
        farthing.configure(ledger=url)
        if voids:
            held.void()
        else:
            held.settle(tokens=100)
    figures = (budget.held.tokens, budget.suspect.tokens, budget.spent.tokens)
    assert figures == (0, 0, 0 if voids else 100)


def test_a_hold_whose_ledger_is_another_now_is_said_to_stay_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    farthing.configure(ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
    with farthing.budget("b", tokens=1_000), farthing.hold(tokens=500) as held:
        farthing.configure(ledger=f"sqlite:///{tmp_path / 'other.db'}")
        held.settle(tokens=100)
    assert "what it held stays counted" in caplog.text


def test_a_hold_that_was_forgotten_is_no_error_of_whoever_paid(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Resolved by somebody, and then one of too many ended holds: no ledger knows its id any more."""
    monkeypatch.setattr("farthing.stores.memory.books.ENDED_HOLDS_MAX", 2)
    store = runtime().main.store
    with farthing.budget(tokens=1_000), farthing.hold(tokens=500) as held:
        store.suspect(held.id, ending="?").result()
        store.resolve(held.id, "release", note="by hand").result()
        for _ in range(4):
            with farthing.hold(tokens=1):
                pass
        held.settle(tokens=100)
        assert "its ledger stays as it is: no hold has the id" in caplog.text
        with pytest.raises(HoldNotFound):
            held.settle(tokens=200)
