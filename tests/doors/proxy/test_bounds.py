"""What one client may ask of a proxy, and what it is told beyond that, in its own dialect."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from farthing import ProxyServer
from farthing.kernel.hold import Outcome
from farthing.proxy.process import worker
from farthing.proxy.settings import Bounds, Timeouts, Upstream
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI
from tests.doors.proxy.raw import SECONDS, Got, ask
from tests.doors.proxy.running import entries, proxy_with, settings_for
from tests.waiting import eventually

BOUNDS = Bounds(max_body_bytes=10_000, max_header_bytes=4_000, max_connections=5)
CHAT = {"model": "gpt-4o", "messages": HI, "max_completion_tokens": 5}
MESSAGES = {"model": "claude-haiku-4-5", "messages": HI, "max_tokens": 5}
GEMINI = {"contents": [{"parts": [{"text": "hi"}]}]}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/messages": MESSAGES,
    "/v1beta/models/gemini-2.5-flash:generateContent": GEMINI,
}


@pytest.fixture
def proxy(fake_provider: FakeProvider) -> Iterator[ProxyServer]:
    with proxy_with(settings_for(fake_provider, bounds=BOUNDS)) as server:
        yield server


def shaped(path: str, got: Got) -> str:
    """Our code, from an error in the dialect of this path."""
    error = got.json["error"]
    if "messages" in path:
        assert got.json["type"] == "error"
        assert isinstance(error["type"], str)
    elif "gemini" in path:
        assert error["code"] == got.status
        assert isinstance(error["status"], str)
    else:
        assert error["code"] == error["farthing"]["code"]
        assert isinstance(error["type"], str)
    assert error["message"]
    assert got.header("x-should-retry") == "false"
    return str(error["farthing"]["code"])


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(path: str, chunked: bool, proxy: ProxyServer, fake_provider: FakeProvider) -> None:
    padded = json.dumps({**BODIES[path], "padding": "x" * 20_000}).encode()
    if chunked:
        head = f"POST {path} HTTP/1.1\r\nhost: {urlsplit(proxy.url).netloc}\r\ntransfer-encoding: chunked\r\n\r\n"
        got = by_hand(proxy.url, head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(padded), padded))
    else:
        got = ask(proxy.url, path, padded)
    assert (got.status, shaped(path, got)) == (413, "request_too_large")
    assert fake_provider.requests == []


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("ended", [False, True], ids=["endless", "whole"])
def test_headers_that_are_too_large(path: str, ended: bool, proxy: ProxyServer) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: {urlsplit(proxy.url).netloc}\r\nx-padding: {'x' * 9_000}"
    got = by_hand(proxy.url, head.encode() + (b"\r\ncontent-length: 0\r\n\r\n" if ended else b""))
    assert (got.status, shaped(path, got)) == (431, "headers_too_large")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_request_that_does_not_come(path: str, part: str, fake_provider: FakeProvider) -> None:
    with proxy_with(settings_for(fake_provider, bounds=replace(BOUNDS, read_seconds=0.1))) as server:
        head = f"POST {path} HTTP/1.1\r\nhost: {urlsplit(server.url).netloc}\r\ncontent-length: 100\r\n"
        got = by_hand(server.url, head.encode() + (b"" if part == "headers" else b"\r\n{"))
    assert (got.status, shaped(path, got)) == (408, "request_timeout")


@pytest.mark.parametrize("said", [b"", b"\r\n\r\n"])
def test_a_connection_that_never_speaks_is_closed(
    said: bytes, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "KEEP_ALIVE_SECONDS", 0.1)
    with proxy_with(settings_for(fake_provider)) as server, connected(server.url) as client:
        with suppress(ConnectionError):  # it may be closed already
            client.sendall(said)
            assert client.recv(65536) == b""
        eventually(lambda: not server._worker.proxy.connections)  # type: ignore[union-attr]


@pytest.mark.parametrize("then", [b"\r\n", b"{}"], ids=["line ends", "the rest of a refused request"])
def test_a_connection_that_says_nothing_new_is_idle(
    then: bytes, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stayed for ever: whatever came ended the wait for the next request."""
    monkeypatch.setattr(worker, "KEEP_ALIVE_SECONDS", 0.5)
    length = len(then.strip())
    with proxy_with(settings_for(fake_provider)) as server, connected(server.url) as client:
        client.sendall(b"POST /v1/x HTTP/1.1\r\nhost: elsewhere\r\ncontent-length: %d\r\n\r\n" % length)
        assert b"not_loopback" in client.recv(65536)
        with suppress(ConnectionError):  # it may be closed already
            client.sendall(then)
            assert client.recv(65536) == b""
        eventually(lambda: not server._worker.proxy.connections)  # type: ignore[union-attr]


def test_a_client_that_was_refused_and_says_little_more_keeps_no_place(fake_provider: FakeProvider) -> None:
    """Its connection stayed for ever: nobody waited for the rest of its request."""
    given = settings_for(fake_provider, bounds=replace(BOUNDS, read_seconds=0.1))
    with proxy_with(given) as server, connected(server.url) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: elsewhere\r\ncontent-length: 100\r\n\r\n")
        assert b"not_loopback" in client.recv(65536)
        with suppress(ConnectionError):
            client.sendall(b"{")
            while client.recv(65536):
                pass
        eventually(lambda: not server._worker.proxy.connections)  # type: ignore[union-attr]


def connected(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=SECONDS)


def test_one_connection_too_many(proxy: ProxyServer) -> None:
    where = urlsplit(proxy.url)
    held = [socket.create_connection((where.hostname or "", where.port or 0)) for _ in range(5)]
    try:
        got = eventually(lambda: refused_by_number(proxy.url))
        assert got.json["error"]["code"] == "too_many_connections"
    finally:
        for connection in held:
            connection.close()
    eventually(lambda: ask(proxy.url, "/v1/models", method="GET").status == 200)


def refused_by_number(url: str) -> Got | None:
    got = by_hand(url, b"")
    return got if got.status == 503 else None


@pytest.mark.parametrize("path", BODIES)
def test_an_upstream_that_cannot_be_reached(path: str, fake_provider: FakeProvider) -> None:
    settings = settings_for(fake_provider)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        upstreams = tuple(replace(of, base_url=nobody) for of in settings.upstreams)
        with proxy_with(replace(settings, upstreams=upstreams)) as server:
            got = ask(server.url, path, BODIES[path])
            assert got.status == 502
            assert got.json["error"]["farthing"]["code"] == "upstream_unreachable"
            (entry,) = entries(server)
            assert (entry.suspect, entry.said) == (False, Outcome(cost_nano=0, ending="connect_error"))


def test_an_answer_that_takes_too_long_in_all(fake_provider: FakeProvider) -> None:
    """Nothing is silent for long here: it is cut for its length alone."""
    fake_provider.reply = Reply(chunks=["a "] * 10_000, chunk_delay_seconds=0.01)
    with proxy_with(settings_for(fake_provider, timeouts=Timeouts(total_seconds=0.3))) as server:

        def under_way() -> Got | None:
            got = ask(server.url, "/v1/chat/completions", {**CHAT, "max_completion_tokens": 20_000, "stream": True})
            # Where this machine takes so long to begin, it is the case below: once more.
            assert (got.status, got.whole) in ((200, False), (504, True))
            return got if got.status == 200 else None

        got = eventually(under_way)
        assert got is not None
        assert b"a " in got.body
        endings = eventually(lambda: [entry.ending for entry in entries(server)])
        assert set(endings) == {"timeout"}


def test_an_answer_that_does_not_begin_in_the_time_that_it_has_in_all(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(fault="hang")
    with proxy_with(settings_for(fake_provider, timeouts=Timeouts(total_seconds=0.3))) as server:
        got = ask(server.url, "/v1/chat/completions", CHAT)
        assert (got.status, got.json["error"]["code"]) == (504, "upstream_timeout")
        (entry,) = entries(server)
        assert (entry.ending, entry.usage_source) == ("timeout", "estimate")


def test_what_no_upstream_speaks(fake_provider: FakeProvider) -> None:
    only_openai = (Upstream("openai", fake_provider.openai_url),)
    with proxy_with(settings_for(fake_provider, upstreams=only_openai)) as server:
        got = ask(server.url, "/v1/messages", MESSAGES)
        assert (got.status, shaped("/v1/messages", got)) == (404, "no_upstream")


@pytest.mark.parametrize("path", BODIES)
def test_a_body_that_cannot_be_read(path: str, proxy: ProxyServer, fake_provider: FakeProvider) -> None:
    for body in (b"", b"[]", b"{", b"\xff", json.dumps({**BODIES[path], "messages": 5, "contents": 5}).encode()):
        got = ask(proxy.url, path, body)
        assert (got.status, shaped(path, got)) == (400, "unreadable_request")
    assert fake_provider.requests == []


def by_hand(url: str, sent: bytes) -> Got:
    """These bytes as they are, and what comes back until the connection ends."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=SECONDS) as connection:
        connection.sendall(sent)
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < _length(answer):
            try:
                more = connection.recv(65536)
            except ConnectionResetError:
                break
            if not more:
                break
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
    return Got(int(lines[0].split(" ")[1]) if answer else 0, headers, body)


def _length(answer: bytes) -> int:
    for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
