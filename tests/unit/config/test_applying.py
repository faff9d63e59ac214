"""
A configuration taken over, and again: budgets of a file stand, are the file's own, and change under calls in flight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing import BudgetExceeded, ConfigError, budget, configure, hold, prices, track
from farthing.admin.owned import differences, put_owned
from farthing.admin.standing import grant_more, set_budget
from farthing.config.loading import load
from farthing.kernel.balances import UNITS
from farthing.kernel.budget import make_budget
from farthing.runtime.default import runtime
from farthing.stores import open_store
from farthing.stores.contract import Store
from farthing.testing import FakeProvider
from tests.doors.clients import HI, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")

FILE = """
ledger = "ledger.db"
unpriced = "tokens_only"
[[budgets]]
name = "everything"
tokens = 1000
[[budgets]]
name = "each-user"
each = ["user"]
tokens = 100
[prices.my-model]
input = 1
output = 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "farthing.toml"
    path.write_text(FILE)
    return path


def change(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


def known(store: Store) -> dict[str, Any]:
    return dict(store.catalogue().result().budgets)


def test_the_budgets_of_a_file_bind_every_call(file: Path, fake_provider: FakeProvider) -> None:
    settings = configure(file, max_records=7)
    assert (settings.ledger, settings.unpriced, settings.max_records) == (
        str(file.with_name("ledger.db")),
        "tokens_only",
        7,
    )
    with openai_client(fake_provider) as client, track(user="alice"):
        client.chat.completions.create(model="gpt-4o", messages=HI, max_completion_tokens=50)
        with pytest.raises(BudgetExceeded) as caught:
            client.chat.completions.create(model="gpt-4o", messages=HI, max_completion_tokens=500)
    assert (caught.value.budget, caught.value.scope) == ("each-user", {"user": "alice"})
    assert budget("everything").spent.tokens == fake_provider.billed_tokens
    assert prices.explain("my-model").how == "registered"
    prices.unregister("my-model")


def test_a_mapping_says_the_same() -> None:
    configure(config={"budgets": [{"name": "everything", "tokens": 10}]})
    with pytest.raises(BudgetExceeded, match="'everything'"), hold(tokens=11):
        pass


def test_a_file_owns_its_budgets(file: Path) -> None:
    configure(file)
    store = runtime().main.store
    assert budget("everything", tokens=1000).remaining.tokens == 1000, "with its own terms it may be named"
    with pytest.raises(ConfigError, match=r"'everything' is defined by .*farthing\.toml .*change it there"):
        budget("everything", tokens=5, update=True).__enter__()
    for command in (
        lambda: set_budget(store, "everything", tokens=5),
        lambda: set_budget(store, "everything", tokens=5, update=True),
        lambda: store.remove_budget("everything").result(),
    ):
        with pytest.raises(ConfigError, match=r"farthing\.toml"):
            command()
    grant_more(store, "everything", tokens=500)
    store.freeze("each-user", frozen=True).result()
    assert known(store)["everything"].tokens == 1000


def test_what_a_person_set_is_taken_over_and_what_another_file_owns_is_not(file: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "ledger.db"))
    set_budget(store, "everything", tokens=5)
    set_budget(store, "by-hand", tokens=5)
    store.close()
    configure(file)
    store = runtime().main.store
    assert (known(store)["everything"].tokens, known(store)["by-hand"].tokens) == (1000, 5)
    before = runtime().settings
    other = tmp_path / "other.toml"
    other.write_text(
        'unpriced = "reject"\n[[budgets]]\nname = "mine"\ntokens = 1\n[[budgets]]\nname = "everything"\ntokens = 1\n'
    )
    with pytest.raises(ConfigError, match=r"budgets\.everything: the ledger has this budget from .*farthing\.toml"):
        configure(other)
    assert runtime().settings == before
    assert "mine" not in known(store), "nothing changes before all of it can"


def test_configured_again_a_file_takes_its_own_back_and_nothing_else(file: Path) -> None:
    configure(file)
    set_budget(runtime().main.store, "by-hand", tokens=5)
    change(file, ('name = "each-user"\neach = ["user"]', 'name = "each-team"\neach = ["team"]'), ("1000", "2000"))
    configure(file)
    now = known(runtime().main.store)
    assert set(now) == {"everything", "each-team", "by-hand"}
    assert now["everything"].tokens == 2000


def test_put_again_under_calls_in_flight_it_loses_no_hold(file: Path) -> None:
    """Holds stay counted, and end on the accounts that they were placed on."""
    configure(file)
    store = runtime().main.store

    def again() -> list[str]:
        now = load(file)
        return put_owned(store, now.budgets, defined_by=now.source).lines()

    with track(user="alice"), hold(tokens=60) as call:
        change(file, ("tokens = 1000", "tokens = 50"), ("tokens = 100\n", "tokens = 300\n"))
        assert again() == ["budget 'everything': tokens 1,000 → 50", "budget 'each-user': tokens 100 → 300"]
        runtime().housekeeper.tick(sweep=False)
        assert (budget("everything").held.tokens, budget("everything").remaining.tokens) == (60, 0)
        with (
            pytest.raises(BudgetExceeded, match="'everything': limit 50 tokens, spent 0 tokens, held 60"),
            hold(tokens=1),
        ):
            pass
        change(file, ('name = "each-user"\neach = ["user"]', 'name = "other"'))
        assert again() == ["budget 'other': added, 300 tokens", "budget 'each-user': removed, 300 tokens"]
        call.settle(tokens=40)
    assert (budget("everything").spent.tokens, budget("everything").held.tokens) == (40, 0)
    balances = store.balances().result()
    assert {row.of(unit).held for row in balances.values() for unit in UNITS} == {0}
    assert sum(row.settled_tokens for key, row in balances.items() if "each-user" in key) == 40
    assert again() == []


def test_prices_of_a_file_replace_those_of_the_file_before(file: Path) -> None:
    before = load(file).prices
    prices.register_all(before)
    change(file, ("[prices.my-model]", "[prices.your-model]"))
    now = load(file).prices
    prices.register_all(now, before=before)
    assert (prices.explain("my-model").how, prices.explain("your-model").how) == ("unpriced", "registered")
    prices.register_all({}, before=now)


def test_differences_are_pure_and_exact() -> None:
    owned = make_budget("a", tokens=1, standing=True)
    first = differences({}, [owned], defined_by="f")
    assert [budget.defined_by for budget in first.added] == ["f"]
    ledger = {"a": first.added[0], "b": make_budget("b", tokens=1)}
    assert differences(ledger, [owned], defined_by="f") == ((), (), ())
    assert differences(ledger, [], defined_by="f").removed == (first.added[0],)
    taken = differences(ledger, [owned, make_budget("b", tokens=1)], defined_by="f")
    assert taken.lines() == ["budget 'b': taken over"]


def test_a_file_or_a_mapping(file: Path) -> None:
    with pytest.raises(ValueError, match="not both"):
        configure(file, config={})


def test_a_mistake_in_a_file_changes_nothing(file: Path) -> None:
    change(file, ("tokens = 1000", "tokens = -1"))
    before = runtime().settings
    with pytest.raises(
        ConfigError, match=r"line 6: budgets\.everything\.tokens: tokens must be an integer of at least 0, not -1"
    ):
        farthing.configure(file)
    assert runtime().settings == before
