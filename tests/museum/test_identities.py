"""Who pays, and who may know: identities that callers chose, keys above all budgets, refusals that name nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farthing.admin.standing import grant_more, set_budget
from farthing.testing import FakeProvider, Reply
from tests.doors.proxy.keyed import BODY, CALL_TOKENS, CHAT, Desk, bearer, workers


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with FakeProvider(Reply(output_tokens=50)) as provider, workers(tmp_path, provider) as desk:
        yield desk


@pytest.mark.parametrize(
    "said",
    [
        {"headers": {"x-farthing-tags": "user=bob,team=rich,key=other,end_user=bob"}},
        {"user": "bob"},
        {"metadata": {"user": "bob", "team": "rich"}, "store": True},
        {"headers": {"x-claude-code-session-id": "another session"}},
    ],
)
def test_p21_no_caller_names_another_customer(desk: Desk, said: dict[str, Any]) -> None:
    """pains P21: litellm#32779, any key may set the customer id that pays; #11083, such users had no budget at all."""
    alice = desk.key(user="alice", budgets=[f"{CALL_TOKENS} tokens/day"])
    desk.key(user="bob", team="rich", budgets=["1M tokens/day"])
    assert [desk.post(alice, **said).status_code for _ in range(3)] == [200, 429, 429]
    assert desk.provider.posts == 1
    (entry,) = desk.store.entries().result()
    assert dict(entry.facts.tags).items() >= {"user": "alice", "key": alice.key.id}.items()


def test_p21_no_key_stands_above_all_budgets(desk: Desk) -> None:
    """pains P21: trailofbits/buttercup#550, the master key passed every cap: $4.77 on $1.00."""
    admin = desk.key(admin=True)
    assert desk.post(admin).status_code == 403
    # Nor can it make itself one: a key is for calls or for administration, for ever.
    both = desk.client.post("/admin/keys", headers=bearer(admin.text), json={"admin": True, "user": "root"})
    assert both.status_code == 400
    assert desk.provider.requests == []


def test_p20_a_refusal_names_its_budget_and_callers_may_ask_before(desk: Desk) -> None:
    """pains P20: litellm#14144, which budget blocked me? can1357/oh-my-pi#11711: clients guess the tightest window."""
    made = desk.key(user="alice", team="search", budgets=["1M tokens/day"])
    set_budget(desk.store, "search-team", tokens=CALL_TOKENS, per="month", scope={"team": "search"})
    desk.settle_in()
    assert desk.post(made).status_code == 200
    explained = desk.client.post(f"/v1/explain?route={CHAT}", headers=bearer(made.text), json=BODY).json()
    refused = desk.post(made).json()["error"]["farthing"]
    assert (refused["budget"], refused["scope"], refused["remaining"]) == ("search-team", {"team": "search"}, 0)
    assert explained["decision"]["budget"] == refused["budget"]
    assert explained["passes_at"] == refused["resets_at"]
    mine = desk.client.get("/v1/budgets/me", headers=bearer(made.text)).json()["budgets"]
    assert {row["name"]: row["tokens"]["remaining"] for row in mine} == {
        "alice per day": 1_000_000 - CALL_TOKENS,
        "search-team": 0,
    }


def test_p24_a_raise_counts_beside_every_other_window(desk: Desk) -> None:
    """pains P24: litellm#35247, a temporary increase of a key was ignored where it had several windows."""
    made = desk.key(user="alice", budgets=[f"{CALL_TOKENS} tokens/hour", f"{2 * CALL_TOKENS} tokens/day"])
    assert [desk.post(made).status_code for _ in range(2)] == [200, 429]
    grant_more(desk.store, "alice per hour", tokens=10 * CALL_TOKENS, until="1h", reason="a demo", who="olga")
    desk.settle_in()
    # The hour was raised, the day was not: it still holds.
    assert [desk.post(made).status_code for _ in range(2)] == [200, 429]
    refused = desk.post(made).json()["error"]["farthing"]
    assert refused["budget"] == "alice per day"
