"""Virtual keys at the proxy: who a caller is, what its key opens, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai.types import HttpOptions

from farthing.admin.keys import create_key, rotate_key
from farthing.kernel.keys import Key, hash_of
from farthing.proxy import log
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import anthropic_client, openai_client
from tests.waiting import impatient

from .keyed import BODY, CALL_TOKENS, CHAT, UPSTREAM_KEY, Desk, bearer, workers

MESSAGES = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
CONTENTS = {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"maxOutputTokens": 50}}
GEMINI = "/v1beta/models/gemini-2.5-flash:generateContent"
WAYS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "authorization": (CHAT, BODY, bearer),
    "x-api-key": ("/v1/messages", MESSAGES, lambda text: {"x-api-key": text, "anthropic-version": "2023-06-01"}),
    "x-goog-api-key": (GEMINI, CONTENTS, lambda text: {"x-goog-api-key": text}),
    "key": (GEMINI, CONTENTS, None),
}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply(output_tokens=50)) as provider:
        yield provider


@pytest.fixture
def desk(tmp_path: Path, provider: FakeProvider) -> Iterator[Desk]:
    with workers(tmp_path, provider) as desk:
        yield desk


@pytest.mark.parametrize("way", sorted(WAYS))
def test_every_sdk_sends_its_key_in_its_own_way(desk: Desk, way: str) -> None:
    made = desk.key(user="alice", team="search")
    path, body, headers = WAYS[way]
    query = f"?key={made.text}" if headers is None else ""
    answer = desk.client.post(path + query, json=body, headers=headers(made.text) if headers else {})
    assert answer.status_code == 200, answer.text
    (entry,) = desk.entries()
    assert dict(entry.facts.tags).items() >= {"user": "alice", "team": "search", "key": made.key.id}.items()
    (request,) = desk.provider.requests
    seen = f"{request}"
    assert made.text not in seen
    assert made.text.rpartition("_")[2] not in seen


def test_official_clients_need_nothing_but_the_base_url_and_the_key(desk: Desk) -> None:
    made = desk.key(user="alice", budgets=["100k tokens/day"])
    url = desk.servers[0].url
    messages: Any = [{"role": "user", "content": "Hi"}]
    with openai_client(f"{url}/v1", governed=False, api_key=made.text) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_completion_tokens=50)
        client.responses.create(model="gpt-4o-mini", input="Hi", max_output_tokens=50)
    with anthropic_client(url, governed=False, api_key=made.text) as anthropic:
        anthropic.messages.create(model="claude-haiku-4-5", messages=messages, max_tokens=50)
    google = genai.Client(api_key=made.text, http_options=HttpOptions(base_url=url))
    google.models.generate_content(model="gemini-2.5-flash", contents="Hi", config={"max_output_tokens": 50})
    google.close()
    entries = desk.entries()
    assert [(entry.facts.provider, dict(entry.facts.tags)["user"]) for entry in entries] == [
        ("openai", "alice"),
        ("openai", "alice"),
        ("anthropic", "alice"),
        ("google", "alice"),
    ]
    assert made.text.rpartition("_")[2] not in f"{desk.provider.requests}"


def test_without_keys_this_machine_may_call_and_with_one_it_needs_it(desk: Desk) -> None:
    assert desk.client.post(CHAT, json=BODY).status_code == 200
    made = desk.key(user="alice")
    refused = desk.client.post(CHAT, json=BODY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "missing_key")
    assert desk.post(made).status_code == 200
    desk.revoke(made)
    desk.settle_in()
    # Revoking the last key does not open the door again.
    assert desk.client.post(CHAT, json=BODY).status_code == 401
    assert desk.provider.posts == 2


def test_an_admin_key_alone_leaves_calls_to_this_machine(desk: Desk) -> None:
    desk.key(admin=True)
    assert desk.client.post(CHAT, json=BODY).status_code == 200


@pytest.mark.parametrize("keys", [0, 1])
def test_a_key_of_ours_that_is_not_known_goes_to_no_provider(desk: Desk, keys: int) -> None:
    for _ in range(keys):
        desk.key(user="alice")
    refused = desk.client.post(CHAT, json=BODY, headers=bearer(f"fk_{'0' * 12}_{'0' * 64}"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unknown_key")
    assert refused.headers["x-should-retry"] == "false"
    assert desk.provider.requests == []


def test_a_providers_own_key_opens_nothing_where_keys_are_needed(desk: Desk) -> None:
    desk.key(user="alice")
    assert desk.client.post(CHAT, json=BODY, headers=bearer("sk-proj-123")).status_code == 401
    assert desk.provider.requests == []


def test_an_expired_key_says_so(desk: Desk) -> None:
    text = f"fk_{'0' * 12}_{'1' * 64}"
    desk.store.put_key(Key("0" * 12, hash_of(text), expires_ms=desk.store.now())).result()
    desk.settle_in()
    refused = desk.client.post(CHAT, json=BODY, headers=bearer(text))
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "expired_key")
    assert desk.provider.requests == []


def test_each_user_has_an_account_of_their_own(desk: Desk) -> None:
    alice = desk.key(user="alice", budgets=[f"{CALL_TOKENS} tokens/day"])
    bob = desk.key(user="bob", budgets=[f"{CALL_TOKENS} tokens/day"])
    laptop = desk.key(user="alice", label="laptop", deny_status=403)
    assert desk.post(alice).status_code == 200
    refused = desk.post(alice)
    assert refused.status_code == 429
    evidence = refused.json()["error"]["farthing"]
    assert (evidence["budget"], evidence["scope"], evidence["remaining"]) == ("alice per day", {"user": "alice"}, 0)
    assert desk.post(laptop).status_code == 403  # another key of hers: the same account, and the status it asked for
    assert desk.post(bob).status_code == 200
    assert desk.provider.posts == 2


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-farthing-tags": "user=bob,key=x,team=other"}, {}),
        ({}, {"user": "bob"}),
        ({}, {"metadata": {"user": "bob", "key": "x"}, "store": True}),
    ],
)
def test_what_a_caller_says_of_itself_changes_nothing(
    desk: Desk, headers: dict[str, str], body: dict[str, Any]
) -> None:
    alice = desk.key(user="alice", budgets=[f"{CALL_TOKENS} tokens/day"])
    desk.key(user="bob", budgets=[f"{CALL_TOKENS * 100} tokens/day"])
    assert desk.post(alice, headers=headers, **body).status_code == 200
    assert desk.post(alice, headers=headers, **body).status_code == 429
    (entry,) = desk.entries()
    assert (dict(entry.facts.tags)["user"], dict(entry.facts.tags)["key"]) == ("alice", alice.key.id)


def test_a_budget_on_what_callers_say_binds_nobody_who_says_it_not(desk: Desk) -> None:
    from farthing.admin.standing import set_budget

    made = desk.key(user="alice")
    set_budget(desk.store, "run", tokens=CALL_TOKENS, each=["run"])
    desk.settle_in()
    # An untrusted tag never opens an account of its own: all such calls share that of nobody.
    assert desk.post(made, headers={"x-farthing-tags": "run=1"}).status_code == 200
    assert desk.post(made, headers={"x-farthing-tags": "run=2"}).status_code == 429


def test_a_tag_of_a_key_and_of_its_proxy_stands_in_a_row_once(tmp_path: Path, provider: FakeProvider) -> None:
    """Reports went by the key's, and budgets by the proxy's."""
    with workers(tmp_path, provider, session="here") as desk:
        assert desk.post(desk.key(tags={"proxy": "there"})).status_code == 200
        (entry,) = desk.entries()
        assert [value for name, value in entry.facts.tags if name == "proxy"] == ["here"]


def test_a_trusted_tag_does(tmp_path: Path, provider: FakeProvider) -> None:
    from farthing.admin.standing import set_budget

    with workers(tmp_path, provider, upstream={"trusted_tags": ("run",)}) as desk:
        made = desk.key(user="alice")
        set_budget(desk.store, "run", tokens=CALL_TOKENS, each=["run"])
        desk.settle_in()
        assert desk.post(made, headers={"x-farthing-tags": "run=1"}).status_code == 200
        assert desk.post(made, headers={"x-farthing-tags": "run=2"}).status_code == 200
        assert desk.post(made, headers={"x-farthing-tags": "run=1"}).status_code == 429


def test_an_admin_key_makes_no_calls_and_a_key_for_calls_is_no_admin(desk: Desk) -> None:
    admin, made = desk.key(admin=True), desk.key(user="alice")
    refused = desk.post(admin)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_key")
    for path in ("/admin/budgets", "/admin/keys", "/metrics", "/admin/nothing"):
        assert desk.client.get(path, headers=bearer(admin.text)).status_code in (200, 404)
        refused = desk.client.get(path, headers=bearer(made.text))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_an_admin_key")
        assert desk.client.get(path).status_code == 401
    assert desk.provider.requests == []


def test_a_revocation_reaches_every_worker_within_a_second(tmp_path: Path, provider: FakeProvider) -> None:
    with workers(tmp_path, provider, count=3) as desk:
        made = desk.key(user="alice")
        assert [desk.post(made, worker=worker).status_code for worker in range(3)] == [200, 200, 200]
        desk.revoke(made)
        revoked = time.monotonic()
        # Whatever answers come in the second that is allowed: after it there is none but one.
        while time.monotonic() - revoked < 1.0:
            for worker in range(2):  # the third has nothing to do meanwhile
                assert desk.post(made, worker=worker).status_code in (200, 401)
        assert [desk.post(made, worker=worker).status_code for worker in range(3)] == [401, 401, 401]
        assert desk.post(made).json()["error"]["code"] == "revoked_key"


def test_a_rotated_key_keeps_its_account(desk: Desk) -> None:
    made = desk.key(user="alice", budgets=[f"{CALL_TOKENS} tokens/day"])
    assert desk.post(made).status_code == 200
    again = rotate_key(desk.store, made.key.id, overlap="1h")
    desk.settle_in()
    assert {desk.post(made).status_code, desk.post(again).status_code} == {429}
    last = rotate_key(desk.store, made.key.id)
    desk.settle_in()
    assert desk.post(again).status_code == 401
    assert desk.post(last).status_code == 429


def test_a_delegated_key_spends_from_its_parents_account(desk: Desk) -> None:
    parent = desk.key(user="alice", budgets=[f"{CALL_TOKENS * 2} tokens/day"])
    child = desk.key(parent=parent.key.id, tags={"agent": "critic"}, expires="1h", budgets=[f"{CALL_TOKENS} tokens"])
    assert desk.post(child).status_code == 200
    refused = desk.post(child)
    assert refused.json()["error"]["farthing"]["scope"] == {"agent": "critic", "key": parent.key.id}
    assert desk.post(parent).status_code == 200
    assert desk.post(parent).status_code == 429
    desk.revoke(parent)
    desk.settle_in()
    assert desk.post(child).status_code == 401


def test_no_secret_is_in_any_log_or_in_the_ledger(
    desk: Desk, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    caplog.set_level("DEBUG")
    handler = log.to_stream("json")
    try:
        admin, made = desk.key(admin=True), desk.key(user="alice", budgets=["$5/day"])
        theirs = "sk-proj-somebody-elses-0123456789"
        secrets = [made.text.rpartition("_")[2], admin.text.rpartition("_")[2], UPSTREAM_KEY, theirs]
        assert desk.post(made).status_code == 200
        assert desk.post(made, stream=True).status_code == 200
        assert desk.client.post(CHAT, json=BODY, headers=bearer(theirs)).status_code == 401
        assert desk.client.post(f"{GEMINI}?key={made.text}", json=CONTENTS).status_code == 200
        assert desk.client.post(f"{GEMINI}?key={admin.text}", json=CONTENTS).status_code == 403
        assert desk.client.get(f"/v1/budgets/me?key={made.text}").status_code == 200
        new = desk.client.post("/admin/keys", headers=bearer(admin.text), json={"user": "bob"}).json()["key"]
        secrets.append(new.rpartition("_")[2])
        desk.client.get("/admin/keys", headers=bearer(admin.text))
        desk.settle_in()
        for server in desk.servers:
            server.stop()
    finally:
        import logging

        logging.getLogger("farthing").removeHandler(handler)
    # What the client of this test says of its own requests is its own.
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    said = "\n".join([*ours, *capfd.readouterr()])
    assert CHAT in said
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"alice per day" in kept
    for secret in secrets:
        assert secret not in said
        assert secret.encode() not in kept


@pytest.mark.parametrize("policy", ["deny", "allow"])
def test_callers_are_not_known_while_the_ledger_hangs(tmp_path: Path, provider: FakeProvider, policy: str) -> None:
    from farthing.stores.sqlite.files import FileLock

    with workers(tmp_path, provider, calls={"on_store_failure": policy}) as desk:
        made = desk.key(user="alice")
        assert desk.post(made).status_code == 200
        store = desk.servers[0].runtime.main.store
        lock = FileLock(desk.path.with_name(f"{desk.path.name}-lock"))
        lock.acquire()
        try:
            store.add_denials({})  # its writer waits for the lock now, and nothing that is asked of it is answered
            # As if nothing had looked at the ledger for a second.
            store._writer.looked_at = float("-inf")  # type: ignore[attr-defined]
            with impatient(store):
                answer = desk.post(made)
        finally:
            lock.release()
            lock.drop()
    assert answer.status_code == (503 if policy == "deny" else 200), answer.text
    # Callers need not know where it lies.
    assert str(tmp_path) not in answer.text


def test_a_budget_that_callers_could_escape_is_said_at_the_start(tmp_path: Path, provider: FakeProvider) -> None:
    from farthing.admin.standing import set_budget
    from farthing.stores.sqlite import SQLiteStore

    store = SQLiteStore(tmp_path / "ledger.db")
    set_budget(store, "each-run", tokens=5, each=["run"])
    set_budget(store, "each-user", tokens=5, each=["user"])
    set_budget(store, "search", tokens=5, scope={"feature": "search"})
    store.close()
    with workers(tmp_path, provider) as desk:
        said = [line for line in desk.servers[0]._opened.lines() if "callers choose" in line]
    assert [line.partition(" names")[0] for line in said] == ["Budget each-run", "Budget search"]
    assert "one account for all calls" in said[0]
    assert "binds no call here" in said[1]


def test_who_knows_a_new_key_knows_its_budget(desk: Desk) -> None:
    """Another process makes both. The first answer is the budget's."""
    desk.key(user="somebody else")
    for number in range(3):
        made = create_key(desk.store, user=f"user-{number}", budgets=["1 tokens/day"])
        assert desk.post(made).status_code == 429
    assert desk.provider.posts == 0


def test_the_first_key_of_all_is_good_at_once(desk: Desk) -> None:
    assert desk.client.post(CHAT, json=BODY).status_code == 200
    made = create_key(desk.store, user="alice")
    assert desk.post(made).status_code == 200
    assert [dict(entry.facts.tags).get("user") for entry in desk.entries()] == [None, "alice"]


def test_pages_know_a_new_key_at_once(desk: Desk) -> None:
    desk.key(user="somebody else")
    admin, made = create_key(desk.store, admin=True), create_key(desk.store, user="alice")
    for path, key in (("/v1/budgets/me", made), ("/metrics", admin), ("/admin/keys", admin)):
        assert desk.client.get(path, headers=bearer(key.text)).status_code == 200, path
    child = desk.client.post(
        "/admin/keys",
        headers=bearer(admin.text),
        json={"parent": create_key(desk.store, user="bob").key.id, "tags": {"agent": "x"}, "expires": "1h"},
    )
    assert child.status_code in (200, 201), child.text
