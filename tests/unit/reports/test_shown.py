"""A call as the proxy shows it, in every state that its hold may have."""

from __future__ import annotations

import pytest

from farthing.kernel.budget import make_budget
from farthing.reports.rows import COLUMNS
from farthing.reports.shown import shown_call, shown_entry
from farthing.stores.memory import MemoryStore
from farthing.testing import FakeClock
from tests.contract.calls import outcome, plan


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore(clock=FakeClock(), entries_max=None)
    store.put_budget(make_budget("b", tokens=1_000)).result()
    store.place(plan(store, "call", tags={"user": "alice"})).result()
    return store


def shown(store: MemoryStore) -> dict[str, object]:
    hold = store.find("call").result()
    assert hold is not None
    found = shown_call(hold)
    assert set(COLUMNS) - {"kind"} <= set(found)
    return {name: found[name] for name in ("state", "ending", "input_tokens", "output_tokens", "usd", "usage_source")}


def test_in_flight_it_is_what_it_holds(store: MemoryStore) -> None:
    assert shown(store) == {
        "state": "held",
        "ending": None,
        "input_tokens": 100,
        "output_tokens": 50,
        "usd": "0.00000045",
        "usage_source": "estimate",
    }


def test_settled_it_is_what_its_provider_said(store: MemoryStore) -> None:
    store.settle("call", outcome())
    found = shown(store)
    assert (found["state"], found["ending"], found["output_tokens"], found["usage_source"]) == (
        "settled",
        "ok",
        20,
        "provider",
    )


def test_suspect_it_is_counted_at_its_hold_until_it_is_resolved(store: MemoryStore) -> None:
    store.suspect("call", ending="timeout")
    assert (shown(store)["state"], shown(store)["ending"], shown(store)["output_tokens"]) == ("suspect", "suspect", 50)
    store.resolve("call", "settle_at_hold")
    assert (shown(store)["state"], shown(store)["ending"], shown(store)["output_tokens"]) == (
        "settled",
        "settle_at_hold",
        50,
    )


def test_released_it_cost_nothing_until_its_own_word_comes(store: MemoryStore) -> None:
    store.suspect("call", ending="timeout")
    store.resolve("call", "release")
    assert (shown(store)["state"], shown(store)["usd"], shown(store)["output_tokens"]) == ("voided", "0", 0)
    store.settle("call", outcome())
    assert (shown(store)["state"], shown(store)["ending"], shown(store)["output_tokens"]) == ("settled", "ok", 20)


def test_a_row_has_the_columns_of_an_export_and_its_number(store: MemoryStore) -> None:
    store.settle("call", outcome(output=9_000, usd=9_000))
    (entry,) = store.entries().result()
    row = shown_entry(entry)
    assert set(COLUMNS) <= set(row)
    assert (row["seq"], row["suspect"], row["answered_by"]) == (1, False, "gpt-4o-2024-11-20")
    assert row["overrun"] == {"tokens": 8_950, "usd": "0.00000855"}
