"""Ratios of billed to counted tokens: the largest are kept, calls are added."""

from __future__ import annotations

from pathlib import Path

from farthing.kernel.ratios import Ratio, RatioKey
from farthing.stores.contract import Store
from farthing.stores.sqlite import SQLiteStore
from farthing.testing import FakeClock

from .conftest import Ask

CLAUDE = RatioKey("claude-sonnet-5", "anthropic.messages")
GEMINI = RatioKey("gemini-3-flash \N{SNOWMAN}", "gemini.generate")


def test_a_ledger_begins_knowing_none(store: Store, ask: Ask) -> None:
    assert dict(ask(store.ratios())) == {}
    assert dict(ask(store.add_ratios({}))) == {}


def test_the_larger_is_kept_and_calls_are_added(store: Store, ask: Ask) -> None:
    ask(store.add_ratios({CLAUDE: Ratio(1_300, 5, 20)}))
    after = ask(store.add_ratios({CLAUDE: Ratio(1_250, 7), GEMINI: Ratio(900, 1)}))
    assert dict(after) == {CLAUDE: Ratio(1_300, 12, 20), GEMINI: Ratio(900, 1)}
    ask(store.add_ratios({CLAUDE: Ratio(1_500, 1, 30)}))
    assert dict(ask(store.ratios())) == {CLAUDE: Ratio(1_500, 13, 30), GEMINI: Ratio(900, 1)}


def test_what_one_process_sees_the_others_know(tmp_path: Path, ask: Ask, clock: FakeClock) -> None:
    one, other = (SQLiteStore(tmp_path / "shared.db", clock=clock) for _ in range(2))
    try:
        ask(one.add_ratios({CLAUDE: Ratio(1_300, 5)}))
        # Written by both before either has read the other's: neither figure nor call is lost.
        assert dict(ask(other.add_ratios({CLAUDE: Ratio(1_400, 1)}))) == {CLAUDE: Ratio(1_400, 6)}
        ask(one.balances(["any"]))  # one look at the file
        assert dict(ask(one.ratios())) == {CLAUDE: Ratio(1_400, 6)}
        ask(one.add_ratios({GEMINI: Ratio(1, 1)}))
        assert dict(ask(other.add_ratios({CLAUDE: Ratio(0, 1)}))) == {CLAUDE: Ratio(1_400, 7), GEMINI: Ratio(1, 1)}
    finally:
        one.close()
        other.close()


def test_they_outlive_their_process(tmp_path: Path, ask: Ask, clock: FakeClock) -> None:
    first = SQLiteStore(tmp_path / "kept.db", clock=clock)
    ask(first.add_ratios({CLAUDE: Ratio(1_300, 5, 7)}))
    first.close()
    again = SQLiteStore(tmp_path / "kept.db", clock=clock)
    try:
        assert dict(ask(again.ratios())) == {CLAUDE: Ratio(1_300, 5, 7)}
    finally:
        again.close()
