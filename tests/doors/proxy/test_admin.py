"""The admin API: what the command line does, over HTTP; and a description that says what is there, all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from farthing.proxy.pages.admin import ROUTES
from farthing.testing import FakeProvider, Reply

from .keyed import BODY, CALL_TOKENS, CHAT, Desk, bearer, workers

Admin = Callable[..., httpx2.Response]


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply(output_tokens=50)) as provider:
        yield provider


@pytest.fixture
def desk(tmp_path: Path, provider: FakeProvider) -> Iterator[Desk]:
    provider.forget()
    with workers(tmp_path, provider) as desk:
        yield desk


@pytest.fixture
def admin(desk: Desk) -> Admin:
    made = desk.key(admin=True)

    def ask(method: str, path: str, body: Any = None, status: int = 200) -> httpx2.Response:
        answer = desk.client.request(method, f"/admin/{path}", headers=bearer(made.text), json=body)
        assert answer.status_code == status, answer.text
        assert answer.headers["cache-control"] == "no-store"
        return answer

    return ask


def test_a_budget_is_set_raised_frozen_and_removed(desk: Desk, admin: Admin) -> None:
    made = desk.key(user="alice")
    done = admin("PUT", "budgets/alice%20%2F%20day", {"tokens": CALL_TOKENS, "per": "day", "scope": {"user": "alice"}})
    assert done.json()["before"] is None
    desk.settle_in()
    assert desk.post(made).status_code == 200
    assert desk.post(made).status_code == 429
    granted = admin(
        "POST", "budgets/alice%20%2F%20day/grants", {"tokens": CALL_TOKENS, "until": "1h", "reason": "demo"}
    )
    (account,) = granted.json()["accounts"]
    assert (account["tokens"]["limit"], account["tokens"]["remaining"]) == (2 * CALL_TOKENS, CALL_TOKENS)
    desk.settle_in()
    (grant,) = desk.store.catalogue().result().grants
    assert (grant.reason, grant.who is not None and grant.who.startswith("key ")) == ("demo", True)
    assert desk.post(made).status_code == 200
    changed = admin("PUT", "budgets/alice%20%2F%20day", {"tokens": 1_000_000, "update": True}).json()
    assert (changed["before"]["tokens"], changed["now"]["tokens"], changed["now"]["window"]) == (
        CALL_TOKENS,
        1_000_000,
        "day",
    )
    assert admin("POST", "budgets/alice%20%2F%20day/freeze").json()["terms"]["frozen"] is True
    desk.settle_in()
    assert desk.post(made).status_code == 429
    assert admin("POST", "budgets/alice%20%2F%20day/unfreeze", {}).json()["terms"]["frozen"] is False
    desk.settle_in()
    assert desk.post(made).status_code == 200
    assert [row["name"] for row in admin("GET", "budgets").json()["budgets"]] == ["alice / day"]
    assert admin("DELETE", "budgets/alice%20%2F%20day").json() == {"removed": "alice / day"}
    assert admin("GET", "budgets").json() == {"budgets": []}


def test_money_is_exact_in_and_out(admin: Admin) -> None:
    admin("PUT", "budgets/b", {"usd": "0.100000001", "per": "day"})
    (account,) = admin("GET", "budgets/b").json()["accounts"]
    assert account["usd"]["limit"] == "0.100000001"
    admin("PUT", "budgets/c", {"usd": 0.1})
    assert admin("GET", "budgets/c").json()["accounts"][0]["usd"]["limit"] == "0.1"


def test_a_key_is_made_rotated_and_revoked(desk: Desk, admin: Admin) -> None:
    made = admin("POST", "keys", {"user": "bob", "budgets": ["$5/day"], "label": "ci"}, 201).json()
    headers = bearer(made["key"])
    desk.settle_in()
    assert desk.client.post(CHAT, json=BODY, headers=headers).status_code == 200
    shown = admin("GET", f"keys/{made['id']}").json()
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert "key" not in shown
    rotated = admin("POST", f"keys/{made['id']}/rotate", {}).json()
    desk.settle_in()
    assert desk.client.post(CHAT, json=BODY, headers=headers).status_code == 401
    assert desk.client.post(CHAT, json=BODY, headers=bearer(rotated["key"])).status_code == 200
    assert admin("DELETE", f"keys/{made['id']}").json()["state"] == "revoked"
    desk.settle_in()
    assert desk.client.post(CHAT, json=BODY, headers=bearer(rotated["key"])).status_code == 401
    states = {row["id"]: row["state"] for row in admin("GET", "keys").json()["keys"]}
    assert (states[made["id"]], len(states)) == ("revoked", 2)


def test_a_suspect_call_is_found_and_resolved(desk: Desk, admin: Admin, provider: FakeProvider) -> None:
    made = desk.key(user="alice", budgets=["1k tokens/day"])
    provider.script([Reply(fault="reset", bill_anyway=True)])
    assert desk.post(made).status_code == 502
    (hold,) = admin("GET", "holds").json()["holds"]
    assert (hold["state"], hold["tokens"], hold["tags"]["user"]) == ("suspect", CALL_TOKENS, "alice")
    path = f"holds/{hold['id']}/resolve"
    admin("POST", path, {"policy": "forget it"}, 400)
    done = admin("POST", path, {"policy": "release", "note": "the invoice has it not"}).json()
    assert done["resolved"]["id"] == hold["id"]
    admin("POST", path, {"policy": "release"}, 409)
    admin("POST", "holds/nothing/resolve", {"policy": "release"}, 404)
    assert admin("GET", "holds").json() == {"holds": []}
    first, correction = admin("GET", "entries").json()["entries"]
    assert (first["suspect"], first["kind"], correction["kind"]) == (True, "call", "correction")
    assert correction["note"].endswith(": the invoice has it not")
    assert correction["note"].startswith("by key ")


def test_entries_come_in_pages_and_sums_by_any_tag(desk: Desk, admin: Admin) -> None:
    alice, bob = desk.key(user="alice"), desk.key(user="bob")
    for made in (alice, alice, bob):
        assert desk.post(made).status_code == 200
    first = admin("GET", "entries?limit=2").json()
    rest = admin("GET", f"entries?limit=2&after={first['next']}").json()
    rows = first["entries"] + rest["entries"]
    assert ([row["tags"]["user"] for row in rows], rest["next"]) == (["alice", "alice", "bob"], None)
    assert {row["id"] for row in rows} == {entry.id for entry in desk.entries()}
    assert admin("GET", f"calls/{rows[0]['id']}").json()["usd"] == rows[0]["usd"]
    report = admin("GET", "report?group_by=user,model&since=1h").json()
    assert [(row["tags"]["user"], row["calls"]) for row in report["rows"]] == [("alice", 2), ("bob", 1)]
    assert report["total"]["calls"] == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        ("GET", "nothing", None, 404, "openapi.json"),
        ("GET", "budgets/nobody", None, 404, "nobody"),
        ("DELETE", "budgets/nobody", None, 404, "nobody"),
        ("POST", "budgets/nobody/grants", {"tokens": 5}, 404, "nobody"),
        ("POST", "budgets/nobody/freeze", None, 404, "nobody"),
        ("GET", "keys/nobody", None, 404, "nobody"),
        ("DELETE", "keys/nobody", None, 404, "nobody"),
        ("POST", "keys/nobody/rotate", {}, 404, "nobody"),
        ("GET", "calls/nobody", None, 404, "nobody"),
        ("PATCH", "budgets", None, 405, "GET"),
        ("POST", "budgets/b", None, 405, "DELETE, GET, PUT"),
        ("PUT", "budgets/b", {"tokenz": 5}, 400, "tokenz"),
        ("PUT", "budgets/b", {"tokens": "5"}, 400, "$.tokens"),
        ("PUT", "budgets/b", {"tokens": -5}, 400, "tokens must be an integer of at least 0, not -5"),
        ("PUT", "budgets/b", {"usd": "nan"}, 400, "usd must be a finite number"),
        ("PUT", "budgets/b", {}, 400, "needs a limit"),
        ("PUT", "budgets/b", {"tokens": 5, "per": "fortnight"}, 400, "fortnight"),
        ("PUT", "budgets/b", [], 400, "object"),
        ("POST", "keys", {"budgets": ["5"]}, 400, "does not say of what"),
        ("POST", "keys", {"admin": True, "user": "x"}, 400, "admin key"),
        ("GET", "budgets", {"x": 1}, 400, "takes no body"),
        ("GET", "entries?limit=0", None, 400, "limit="),
        ("GET", "entries?limit=1001", None, 400, "limit="),
        ("GET", "entries?after=x", None, 400, "after="),
        ("GET", "entries?since=whenever", None, 400, "since="),
        ("GET", "entries?sinc=1h", None, 400, "sinc"),
        ("GET", "reload", None, 405, "POST"),
    ],
)
def test_what_cannot_be_used_is_named_and_changes_nothing(
    desk: Desk, admin: Admin, method: str, path: str, body: Any, status: int, named: str
) -> None:
    before = desk.store.catalogue().result(), desk.store.keys().result()
    error = admin(method, path, body, status).json()["error"]
    assert named in error["message"]
    desk.settle_in()
    assert (desk.store.catalogue().result(), desk.store.keys().result()) == before


def test_a_budget_that_exists_is_not_changed_by_accident(admin: Admin) -> None:
    admin("PUT", "budgets/b", {"tokens": 5})
    assert "tokens 5 → 6" in admin("PUT", "budgets/b", {"tokens": 6}, 400).json()["error"]["message"]


def test_the_description_is_that_of_every_route(desk: Desk) -> None:
    answer = desk.client.get("/admin/openapi.json")  # no key: it says nothing of this ledger
    described = answer.json()
    assert described["openapi"].startswith("3.1")
    there = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert there == {(route.method, f"/admin/{route.path}") for route in ROUTES} | {("POST", "/admin/reload")}
    operations = [operation for methods in described["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for path, methods in described["paths"].items():
        for operation in methods.values():
            named = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
    schemas = described["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', answer.text))
    assert references <= set(schemas)
    assert schemas["Terms"]["additionalProperties"] is False


def test_every_described_route_is_closed_without_an_admin_key(desk: Desk) -> None:
    desk.key(admin=True)
    made = desk.key(user="alice")
    for route in ROUTES:
        path = f"/admin/{re.sub('{.*?}', 'x', route.path)}"
        for headers, status in (({}, 401), (bearer(made.text), 403), (bearer("fk_wrong"), 401)):
            assert desk.client.request(route.method, path, headers=headers).status_code == status


def test_without_any_admin_key_there_is_no_admin(desk: Desk) -> None:
    refused = desk.client.get("/admin/budgets")
    assert refused.status_code == 401
    assert "farthing keys create --admin" in refused.json()["error"]["message"]


def test_no_budget_is_set_on_what_callers_say_of_themselves(desk: Desk, admin: Admin) -> None:
    refused = admin("PUT", "budgets/run", {"tokens": 5, "each": ["run"]}, 400).json()["error"]
    assert "each: callers choose tag 'run' themselves" in refused["message"]
    refused = admin("PUT", "budgets/run", {"tokens": 5, "scope": {"run": "1"}}, 400).json()["error"]
    assert refused["farthing"]["key"] == "scope"
    desk.key(user="alice", tags={"run": "1"})  # now it is said by a key
    admin("PUT", "budgets/run", {"tokens": 5, "each": ["run"]})


def test_trusted_tags_may_be_named(tmp_path: Path, provider: FakeProvider) -> None:
    with workers(tmp_path, provider, upstream={"trusted_tags": ("run",)}) as desk:
        made = desk.key(admin=True)
        answer = desk.client.put("/admin/budgets/run", headers=bearer(made.text), json={"tokens": 5, "each": ["run"]})
        assert answer.status_code == 200


def test_nothing_is_reloaded_where_nothing_was_loaded(admin: Admin) -> None:
    assert "configuration file" in admin("POST", "reload", None, 409).json()["error"]["message"]
