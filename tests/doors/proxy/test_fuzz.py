"""
Whatever is sent: the proxy answers or closes, nothing reaches the provider without an entry, and no secret is logged.
"""

from __future__ import annotations

import gzip
import json
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from farthing import ProxyServer
from farthing.kernel.budget import make_budget
from farthing.testing import FakeProvider, Reply
from tests.doors.proxy.running import entries, proxy_with, settings_for
from tests.waiting import eventually

UPSTREAM_KEY = "sk-of-the-operator-0123456789"
PROMPT = "a prompt that nobody else may read"
CREDENTIALS = (
    "authorization: Bearer {}", "authorization: {}", "authorization: Basic {}", "x-api-key: {}", "x-goog-api-key: {}",
    "api-key: {}", "cookie: session={}", "proxy-authorization: Bearer {}", "?key={}", "?alt=sse&key={}", "?token={}",
)  # fmt: skip
"""Where clients have their secrets: headers, and queries."""
SECRETS = (
    "sk-secret-0123456789", f"fk_{'0' * 12}_{'1' * 64}", "AIzaSecret_0123456789", "fk_no-such-key-0123456789",
    "se%63ret-0123456789",
)  # fmt: skip
PATHS = (
    *["/v1/chat/completions"] * 4, *["/v1/messages"] * 2, "/v1/completions",
    "/v1/responses", "/v1/embeddings", "/v1/messages",
    "/v1beta/models/gemini-2.5-flash:generateContent", "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    "/v1/models", "/v1/audio/speech", "//v1/chat/completions", "/v1/chat/completions/", "/%761/chat/completions",
    "/v1/chat/completions%3f", "/v1/responses/resp_1", "/healthz", "/metrics", "/admin/budgets", "/v1/explain", "*",
    "*/v1/models", "*.127.0.0.1/v1/models", "*@127.0.0.1:9/v1/chat/completions", "http://127.0.0.1:9/v1/models",
)  # fmt: skip
FIELDS = (
    "model", "messages", "prompt", "input", "contents", "max_tokens", "max_completion_tokens", "stream", "n", "user",
    "metadata", "stream_options", "tools", "generationConfig", "system", "temperature", "previous_response_id",
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text(max_size=20),
    st.sampled_from(["gpt-4o", "claude-haiku-4-5", "user", "<|endoftext|>"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=8)), inner)
    ),
    max_leaves=12,
)
GOOD = {"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 9}
CHANGED = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=1)
BODIES = st.one_of(
    CHANGED.map(lambda fields: json.dumps({**GOOD, **fields}).encode()),
    CHANGED.map(lambda fields: json.dumps({**GOOD, "stream": True, **fields}).encode()),
    st.dictionaries(st.sampled_from(FIELDS), VALUES).map(lambda fields: json.dumps(fields).encode()),
    # Text that readers differ about: fields twice, or in another case; what stands before and behind an object.
    st.tuples(CHANGED, CHANGED).map(lambda two: _joined(GOOD, *two)),
    CHANGED.map(lambda fields: json.dumps({**GOOD, **{name.upper(): of for name, of in fields.items()}}).encode()),
    st.sampled_from([b"\xef\xbb\xbf", b" ", b"[", b"\0", b'"', b"{}"]).map(lambda odd: odd + json.dumps(GOOD).encode()),
    st.just(gzip.compress(json.dumps(GOOD).encode())),
    st.binary(max_size=200),
)


def _joined(*objects: dict[str, Any]) -> bytes:
    """One object with the fields of all these, as often as they come."""
    return b"{" + b",".join(json.dumps(of).encode()[1:-1] for of in objects if of) + b"}"


TOKEN = "abcdefghijklmnopqrstuvwxyz0123456789-_!#$%&'*+.^`|~"
NAMES = st.one_of(
    st.sampled_from(
        ["x-farthing-tags", "anthropic-version", "x-goog-api-key", "accept-encoding", "expect", "te", "cookie",
         "x-claude-code-session-id", "content-encoding", "origin", "forwarded", "x-stainless-retry-count"]
    ),
    st.text(TOKEN, min_size=1, max_size=12),
)  # fmt: skip
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30)
HEADERS = st.one_of(st.just([]), st.lists(st.tuples(NAMES, TEXTS), max_size=4))


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply(output_tokens=3), strict=False) as started:
        yield started


@pytest.fixture(scope="module")
def proxies(provider: FakeProvider) -> Iterator[dict[str, ProxyServer]]:
    """One that lets callers' credentials through, and one that has its own."""
    plain = settings_for(provider)
    own = tuple(replace(of, api_key=UPSTREAM_KEY) for of in plain.upstreams)
    with proxy_with(plain) as passing, proxy_with(replace(plain, upstreams=own)) as replacing:
        for server in (passing, replacing):
            server.runtime.put_budget(make_budget("all", tokens=10**12, open_bound="overrun", standing=True))
        yield {"passing": passing, "replacing": replacing}


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Every word of every logger, at any level."""
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="farthing"):
        yield caplog


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything(
    data: Any, provider: FakeProvider, proxies: dict[str, ProxyServer], everything: pytest.LogCaptureFixture
) -> None:
    everything.clear()
    body = data.draw(BODIES, label="body")
    path = data.draw(st.sampled_from(PATHS), label="path")
    method = data.draw(st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS"]), label="method")
    headers = data.draw(HEADERS, label="headers")
    secrets = [UPSTREAM_KEY, PROMPT]
    shown: list[str] = []
    for where in data.draw(st.lists(st.sampled_from(CREDENTIALS), max_size=3, unique=True), label="credentials"):
        secrets.append(data.draw(st.sampled_from(SECRETS), label="secret"))
        if where.startswith("?"):
            path += ("&" if "?" in path else "?") + where[1:].format(secrets[-1])
        else:
            shown.append(where.format(secrets[-1]))
    mode = data.draw(st.sampled_from(["passing", "replacing"]), label="mode")
    proxy = proxies[mode]
    before = len(entries(proxy))
    provider.forget()
    lines = [f"{method} {path} HTTP/1.1", f"host: {urlsplit(proxy.url).netloc}", *shown]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += ["anthropic-version: 2023-06-01"] if "messages" in path else []
    lines += ["connection: close", f"content-length: {len(body)}", "", ""]
    sent = "\r\n".join(lines).encode("latin-1") + body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=4), label="cuts"))
    answer = talk(proxy.url, [sent[at:to] for at, to in zip([0, *cuts], [*cuts, len(sent)], strict=True)])
    event(f"status {answer[9:12].decode()}")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer
    eventually(lambda: proxy.stats["in_flight"] == 0)
    metered = [request for request in provider.requests if request.method == "POST"]
    assert len(entries(proxy)) - before == len(metered), "each call that reached the provider has its entry"
    assert sum(
        sum(count for kind, count in entry.usage if kind != "reasoning") for entry in entries(proxy)[before:]
    ) >= (provider.billed_tokens)
    for secret in secrets:
        assert secret not in everything.text
        assert unquote(secret) not in everything.text
        assert secret.encode() not in answer
    if mode == "replacing":
        sent_on = f"{[(request.headers, request.query) for request in provider.requests]}"
        assert not [secret for secret in secrets[2:] if f" {secret}" in sent_on or f"key={secret}" in sent_on], sent_on
    assert not [record for record in everything.records if record.levelno >= logging.ERROR], everything.text


def talk(url: str, pieces: list[bytes]) -> bytes:
    """Send this in these pieces, and read until the answer ends."""
    where = urlsplit(url)
    answer = b""
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                connection.sendall(piece)
            while more := connection.recv(65_536):
                answer += more
        except ConnectionError:
            # It closed before all was sent.
            return answer
    return answer


@pytest.mark.parametrize("target", ["*", "*/v1/models", "*.127.0.0.1/v1/models", "*@127.0.0.1/v1/models"])
@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST"])
def test_a_target_that_is_no_path_goes_nowhere(
    proxies: dict[str, ProxyServer], provider: FakeProvider, method: str, target: str
) -> None:
    """Behind the base URL of an upstream it would name another host, which would get the operator's key."""
    provider.forget()
    url = proxies["replacing"].url
    answer = talk(url, [f"{method} {target} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n\r\n".encode()])
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert provider.requests == []
