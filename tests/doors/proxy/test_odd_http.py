"""HTTP that is legal and rare: requests sent before the last answer came, and clients that speak HTTP/1.0."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import struct
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from farthing.proxy.connection import Connection
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI
from tests.doors.proxy.raw import ask
from tests.doors.proxy.running import entries, holds, proxy_with, settings_for
from tests.waiting import eventually

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


def call(*, stream: bool = False, version: str = "1.1") -> bytes:
    body = json.dumps({"model": "gpt-4o", "messages": HI, "max_completion_tokens": 50, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/{version}\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=60)


def read_until(client: socket.socket, mark: bytes, *, times: int = 1) -> bytes:
    """All that comes, until this mark has come so many times; or to the end of the connection."""
    read = b""
    while read.count(mark) < times and (data := client.recv(65536)):
        read += data
    return read


def to_the_end(client: socket.socket) -> bytes:
    return read_until(client, b"\0never\0")


def test_requests_in_one_go_are_answered_in_their_order(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(text="one", output_tokens=1)
    with proxy_with(settings_for(fake_provider)) as server, connect(server.url) as client:
        client.sendall(call() + HEALTH + call(stream=True) + HEALTH)
        said = read_until(client, b'"ok"}', times=2)
        parts = [said.index(part) for part in (b'"chat.completion"', b'"ok"', b"[DONE]")]
        assert parts == sorted(parts)
        assert said.count(b"HTTP/1.1 200 OK") == 4
        assert [entry.ending for entry in eventually(lambda: entries(server))] == ["ok", "ok"]


def test_what_is_sent_ahead_may_wait_for_the_answer_before_it(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused as too slow, in the middle of that answer."""
    fake_provider.reply = Reply(output_tokens=9, pause_after_chunks=3)
    looks: list[int] = []
    look = Connection._look

    def looking(self: Connection) -> None:
        looks.append(1)
        look(self)

    monkeypatch.setattr(Connection, "_look", looking)
    given = settings_for(fake_provider)
    given = replace(given, bounds=replace(given.bounds, read_seconds=0.3))
    with proxy_with(given) as server, connect(server.url) as client:
        client.sendall(call(stream=True) + HEALTH[:-20])
        eventually(lambda: looks)
        client.sendall(HEALTH[-20:])
        fake_provider.resume()
        said = read_until(client, b'"ok"}')
        assert said.count(b"HTTP/1.1 200 OK") == 2
        assert [entry.ending for entry in eventually(lambda: entries(server))] == ["ok"]


@pytest.mark.parametrize("piece", [1, 300, 10_000])
def test_an_offer_of_another_protocol_is_passed_over(fake_provider: FakeProvider, piece: int) -> None:
    """Java's client makes it with each request, curl's with ``--http2``."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
    fake_provider.reply = Reply(text="one", output_tokens=1)
    offered = call().replace(b"host:", offer + b"host:")
    chunked = offered.replace(b"content-length: ", b"transfer-encoding: chunked\r\nx-length: ")
    head, _, body = chunked.partition(b"\r\n\r\n")
    chunked = b"%b\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body)
    whole = offered + HEALTH + chunked + HEALTH.replace(b"host:", offer + b"host:") + HEALTH
    with proxy_with(settings_for(fake_provider)) as server, connect(server.url) as client:
        for start in range(0, len(whole), piece):
            client.sendall(whole[start : start + piece])
        said = read_until(client, b'"ok"}', times=3)
        assert said.count(b"HTTP/1.1 200 OK") == 5
        assert said.count(b'"chat.completion"') == 2
        assert [entry.ending for entry in eventually(lambda: entries(server))] == ["ok", "ok"]
    sent = {name for of in fake_provider.requests for name in of.headers}
    assert not {"upgrade", "http2-settings", "connection"} & sent


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_offer_with_the_last_request_of_a_connection_is_passed_over(
    fake_provider: FakeProvider, version: str
) -> None:
    fake_provider.reply = Reply(text="one", output_tokens=1)
    offered = call(version=version).replace(b"host:", b"connection: close, Upgrade\r\nupgrade: h2c\r\nhost:")
    with proxy_with(settings_for(fake_provider)) as server, connect(server.url) as client:
        client.sendall(offered)
        assert b'"chat.completion"' in to_the_end(client)


@pytest.mark.parametrize("unmetered", ["deny", "allow"])
@pytest.mark.parametrize("path", ["responses", "realtime?model=gpt-realtime"])
def test_a_websocket_is_told_to_use_http(fake_provider: FakeProvider, unmetered: str, path: str) -> None:
    """Codex goes on over HTTP after this status, at once."""
    offer = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "AA=="}
    given = settings_for(fake_provider)
    given = replace(given, upstreams=tuple(replace(of, unmetered=unmetered) for of in given.upstreams))
    with proxy_with(given) as server:
        got = ask(server.url, f"/v1/{path}", method="GET", headers=offer)
        assert (got.status, got.json["error"]["code"]) == (426, "no_websocket")
        # RFC 9110, 15.5.22 and 7.8
        assert (got.header("upgrade"), got.header("connection")) == ("HTTP/1.1", "upgrade")
    assert fake_provider.requests == []


def test_a_client_that_goes_with_another_request_in_line_leaves_no_error(
    fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """The server tells only the last request of a connection that it was lost: here it is not the one that runs."""
    fake_provider.reply = Reply(output_tokens=5, pause_after_chunks=1)
    with proxy_with(settings_for(fake_provider)) as server:
        with connect(server.url) as client:
            client.sendall(call() + HEALTH)
            fake_provider.wait_in_flight(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        eventually(lambda: fake_provider.in_flight == 1 and not server._worker.proxy.connections)  # type: ignore[union-attr]
        fake_provider.resume()
        (entry,) = eventually(lambda: entries(server))
        assert (entry.ending, entry.tokens("output")) == ("ok", 5)
        assert holds(server) == []
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_cut_answer_with_another_request_in_line_is_the_last_and_no_error(
    fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    fake_provider.reply = Reply(output_tokens=20, cut_after_chunks=2)
    with proxy_with(settings_for(fake_provider)) as server:
        with connect(server.url) as client:
            client.sendall(call(stream=True) + HEALTH)
            said = to_the_end(client)
        assert said.count(b"HTTP/1.1 ") == 1
        assert not said.endswith(b"0\r\n\r\n")
        (entry,) = eventually(lambda: entries(server))
        assert entry.usage_source == "counted"
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_is_answered_without_chunks(stream: bool, fake_provider: FakeProvider) -> None:
    """Such a client knows no chunks: a stream ends with its connection."""
    fake_provider.reply = Reply(text="one two", output_tokens=2)
    with proxy_with(settings_for(fake_provider)) as server:
        with connect(server.url) as client:
            client.sendall(call(stream=stream, version="1.0"))
            head, _, body = to_the_end(client).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert b"connection: close" in head.lower()
        if stream:
            events = body.decode().split("\n\n")
            assert (events[-2], events[-1]) == ("data: [DONE]", "")
            assert all(event.startswith("data: ") for event in events[:-1])
        else:
            assert json.loads(body)["choices"][0]["message"]["content"] == "one two"
        (entry,) = eventually(lambda: entries(server))
        assert (entry.ending, entry.usage_source) == ("ok", "provider")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd, gzip", "GZIP"])
def test_a_body_with_a_content_encoding_is_refused_and_told_so(fake_provider: FakeProvider, encoding: str) -> None:
    """Also one that reads as JSON: what its upstream unpacks may be another request."""
    body = {"model": "gpt-4o", "messages": HI, "max_completion_tokens": 50}
    with proxy_with(settings_for(fake_provider)) as server:
        for sent in (body, gzip.compress(json.dumps(body).encode())):
            got = ask(server.url, "/v1/chat/completions", sent, headers={"content-encoding": encoding})
            assert (got.status, got.json["error"]["code"]) == (415, "encoded_request")
            assert repr(encoding.lower()) in got.json["error"]["message"]
            assert got.header("accept-encoding") == "identity"
        # The last of several is not all of them.
        offered = call().replace(b"host:", b"content-encoding: gzip\r\ncontent-encoding: identity\r\nhost:")
        with connect(server.url) as client:
            client.sendall(offered + HEALTH)
            assert b"HTTP/1.1 415 " in read_until(client, b'"ok"}')
        plain = ask(server.url, "/v1/chat/completions", body, headers={"content-encoding": "identity"})
        assert (plain.status, len(entries(server))) == (200, 1)
    assert len(fake_provider.requests) == 1


def test_a_packed_body_passes_unmetered_where_its_upstream_allows_that(
    fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    given = settings_for(fake_provider)
    given = replace(given, upstreams=tuple(replace(of, unmetered="allow") for of in given.upstreams))
    packed = gzip.compress(b"{}")
    with proxy_with(given) as server:
        ask(server.url, "/v1/chat/completions", packed, headers={"content-encoding": "gzip"})
        assert entries(server) == []
        # A plain one that only says so would be counted by nobody, though its upstream may read it as it is.
        got = ask(
            server.url, "/v1/chat/completions", {"model": "gpt-4o", "messages": HI}, headers={"content-encoding": "x"}
        )
        assert (got.status, got.json["error"]["code"]) == (415, "encoded_request")
    assert [request.body for request in fake_provider.requests] == [packed]
    assert "unmetered" in caplog.text


@pytest.mark.parametrize("status", [600, 999])
def test_a_status_that_no_server_should_send_passes(fake_provider: FakeProvider, status: int) -> None:
    fake_provider.reply = Reply(status=status, body={"error": "of mine"})
    with proxy_with(settings_for(fake_provider)) as server:
        got = ask(server.url, "/v1/chat/completions", {"model": "gpt-4o", "messages": HI})
        assert (got.status, got.json) == (status, {"error": "of mine"})
        assert [entry.ending for entry in entries(server)] == [f"http_{status}"]


def test_an_answer_without_content_tells_no_length(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(status=204, body=b"")
    with proxy_with(settings_for(fake_provider)) as server, connect(server.url) as client:
        client.sendall(call() + HEALTH)
        head = read_until(client, b'"ok"}').partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 204 ")
        assert b"content-length" not in head.lower()
        assert len(entries(server)) == 1
