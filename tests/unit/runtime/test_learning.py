"""What is billed for one call decides what is held for the next: here at once, in other processes by the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic

import farthing
from farthing.errors import StoreUnavailable
from farthing.kernel.ratios import Ratio, RatioKey
from farthing.runtime.default import runtime, use
from farthing.runtime.learning import Learner
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores.memory import MemoryStore
from farthing.testing import FakeProvider, Reply
from farthing.tokens.learning import ENOUGH_CALLS
from tests.doors.clients import anthropic_client, entries

pytestmark = pytest.mark.usefixtures("farthing_isolated")

HAIKU = "claude-haiku-4-5"
KEY = RatioKey(HAIKU, "anthropic.messages")
TEXT = "The quick brown fox jumps over the lazy dog, again and again. " * 100
PLAIN = farthing.tokens.count(TEXT, "gpt-4o")


@pytest.fixture
def claude(fake_provider: FakeProvider) -> Iterator[Anthropic]:
    with anthropic_client(fake_provider) as client:
        yield client


def say(client: Anthropic, text: str = TEXT, **more: Any) -> int:
    """Make one call; how much input was held for it."""
    with farthing.budget(tokens=100_000, open_bound="overrun"):
        client.messages.create(model=HAIKU, max_tokens=10, messages=[{"role": "user", "content": text}], **more)
    return entries()[-1].facts.input_tokens


def test_an_overrun_raises_the_next_bound_at_once(fake_provider: FakeProvider, claude: Anthropic) -> None:
    dense = PLAIN * 2
    fake_provider.reply = Reply(input_tokens=dense)
    assert say(claude) < dense
    assert dict(entries()[-1].overrun)["tokens"] > 0
    assert dense <= say(claude) <= dense + 50
    assert entries()[-1].overrun == ()


def test_it_comes_down_after_enough_calls(fake_provider: FakeProvider, claude: Anthropic) -> None:
    fake_provider.reply = Reply(input_tokens=PLAIN + 10)
    first = say(claude)
    assert first >= PLAIN * 17 // 10
    assert say(claude) == first
    told = {KEY: Ratio(0, ENOUGH_CALLS)}
    runtime().learner.refresh(told)
    assert PLAIN * 5 // 4 <= say(claude) < first


def test_open_requests_and_unheld_calls_teach_nothing(fake_provider: FakeProvider, claude: Anthropic) -> None:
    fake_provider.reply = Reply(input_tokens=PLAIN * 9)
    search: Any = [{"type": "web_search_20250305", "name": "web_search"}]
    say(claude, tools=search)
    claude.messages.create(model=HAIKU, max_tokens=10, messages=[{"role": "user", "content": TEXT}])
    assert dict(runtime().learner.ratios()) == {}


def test_models_with_a_public_vocabulary_learn_nothing(fake_provider: FakeProvider) -> None:
    from tests.doors.clients import openai_client

    fake_provider.reply = Reply(input_tokens=5_000)
    with openai_client(fake_provider) as client, farthing.budget(tokens=100_000):
        client.chat.completions.create(model="gpt-4o", max_tokens=10, messages=[{"role": "user", "content": TEXT}])
    assert dict(runtime().learner.ratios()) == {}


def test_another_process_learns_of_it_from_the_ledger(
    fake_provider: FakeProvider, claude: Anthropic, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    other = Runtime(Settings(ledger=url))
    assert other.durable is not None
    farthing.configure(ledger=url)
    fake_provider.reply = Reply(input_tokens=PLAIN * 2)
    say(claude)
    runtime().housekeeper.tick(sweep=False)
    other.durable.store.balances(["any"]).result()
    other.housekeeper.tick(sweep=False)
    here = use(other)
    try:
        assert say(claude) >= PLAIN * 2
    finally:
        use(here)
        other.close()


def test_what_the_ledger_was_told_outlives_the_process(
    fake_provider: FakeProvider, claude: Anthropic, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    farthing.configure(ledger=url)
    fake_provider.reply = Reply(input_tokens=PLAIN + 5)
    say(claude)
    say(claude)
    farthing.reset()
    farthing.configure(ledger=url)
    assert runtime().learner.ratios()[KEY].calls == 2


def test_a_ledger_that_is_away_is_told_later() -> None:
    class Away(MemoryStore):
        away = True

        def add_ratios(self, seen: Any) -> Any:
            if self.away:
                raise StoreUnavailable("memory", "away")
            return super().add_ratios(seen)

    learner, store = Learner(), Away()
    learner._seen = {KEY: Ratio(1_900, 3)}
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            learner.tell(store)
        assert dict(learner.ratios()) == {KEY: Ratio(1_900, 3)}
    store.away = False
    learner.tell(store)
    learner.tell(store)
    assert dict(learner.ratios()) == dict(store.ratios().result()) == {KEY: Ratio(1_900, 3)}


def test_a_long_text_is_counted_only_where_its_bytes_do_not_fit(fake_provider: FakeProvider) -> None:
    """A bound of a byte a token would refuse a call that fits four times over."""
    from tests.doors.clients import openai_client

    text = "hello world " * 40_000
    request: Any = {"model": "gpt-4o", "max_tokens": 10, "messages": [{"role": "user", "content": text}]}
    counted = farthing.tokens.count_text("hello world " * 1_000, "gpt-4o") * 40
    with openai_client(fake_provider) as client:
        with farthing.budget(tokens=1_000_000):
            client.chat.completions.create(**request)
        assert entries()[-1].facts.input_tokens > len(text)
        with farthing.budget(tokens=200_000):
            assert farthing.explain("gpt-4o", text, max_output_tokens=10).allowed
            client.chat.completions.create(**request)
        assert counted - 100 < entries()[-1].facts.input_tokens < counted + 100
        with farthing.budget(tokens=50_000), pytest.raises(farthing.BudgetExceeded) as denied:
            client.chat.completions.create(**request)
        assert (denied.value.asked or 0) < counted + 200
