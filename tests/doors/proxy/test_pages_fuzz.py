"""Whatever is sent to a page of the proxy's own: it answers, never with a fault of ours, and nothing goes upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.proxy.pages.admin import ROUTES
from farthing.testing import FakeProvider

from .keyed import BODY, CHAT, Desk, bearer, workers

TEXT = st.text(max_size=30)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
NAMES = (
    "usd tokens requests per scope each on_exceed update until user team tags budgets expires admin policy overlap "
    "messages model stream max_tokens n tools metadata"
).split()
NEARLY = st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(["$5/day", "1h", "day", "release"]), max_size=5)
BODIES = (JSON | NEARLY).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)
PATHS = st.sampled_from(
    [f"/admin/{route.path}" for route in ROUTES]
    + ["/admin/", "/admin/reload", "/v1/explain", "/v1/budgets/me", "/v1/calls/{id}", "/metrics", "/healthz", "/readyz"]
)
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
VALUES = ASCII | st.sampled_from(["x", "..", "%2f", "%00", "%ff", "*", "a b", "\N{SNOWMAN}"])
QUERIES = st.lists(
    st.tuples(
        st.sampled_from("route model since until after limit group_by key x".split()),
        VALUES | st.sampled_from([CHAT, f"{CHAT}?x=1", "/v1/messages", "7d", "-1"]),
    ),
    max_size=3,
)


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[Desk]:
    path: Path = tmp_path_factory.mktemp("pages")
    with workers(path, provider) as desk:
        yield desk


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]),
    path=PATHS,
    value=VALUES,
    query=QUERIES,
    body=BODIES,
    who=st.sampled_from(["admin", "caller", "nobody"]),
)
def test_every_answer_is_one_of_ours(
    desk: Desk,
    provider: FakeProvider,
    method: str,
    path: str,
    value: str,
    query: list[tuple[str, str]],
    body: bytes,
    who: str,
) -> None:
    keys: dict[str, Any] = desk.__dict__.setdefault("fuzzed", {})
    if not keys:
        keys.update(admin=desk.key(admin=True), caller=desk.key(user="alice", budgets=["1M tokens/day"]))
    headers = bearer(keys[who].text) if who in keys else {}
    target = path.replace("{name}", value.replace("/", "")).replace("{id}", value.replace("/", ""))
    answer = desk.client.request(method, target, params=tuple(query), headers=headers, content=body)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and method != "HEAD":
        assert answer.json()["error"]["message"]
    assert provider.requests == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    # What a client may put on the wire at all.
    credential=st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=90),
    header=st.sampled_from(["authorization", "x-api-key", "x-goog-api-key"]),
    scheme=st.sampled_from(["", "Bearer ", "bearer  ", "Basic ", "Bearer fk_"]),
)
def test_no_made_up_credential_opens_anything(
    desk: Desk, provider: FakeProvider, credential: str, header: str, scheme: str
) -> None:
    if not desk.store.keys().result().keys:
        desk.key(user="somebody")
    text = (scheme + credential).strip().encode("latin-1")
    answer = desk.client.post(CHAT, headers={header.encode(): text}, json=BODY)
    assert answer.status_code in (400, 401)
    assert provider.requests == []
