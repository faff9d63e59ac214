"""Properties, without a network: what is written, and what is made of whatever comes."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.http1.connection import MAX_HEAD_BYTES, Connection
from farthing.proxy.http1.request import Origin, encode, split
from farthing.proxy.http1.response import Header, Response
from farthing.proxy.settings import Timeouts
from farthing.proxy.upstream import Broken

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=20).map(str.encode)
VALUE = st.binary(max_size=40).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F).strip())
FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"keep-alive", b"proxy-connection"}
HEADERS = st.lists(st.tuples(TOKEN, VALUE).filter(lambda header: header[0].lower() not in FRAMING), max_size=6)
PIECES = st.lists(st.binary(min_size=1, max_size=300), max_size=6)


class Wire:
    """A transport that only remembers, and a pool of one."""

    def __init__(self) -> None:
        self.written = b""
        self.closing = False
        self.freed = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def free(self, connection: Connection) -> None:
        self.freed += 1

    def lost(self, connection: Connection) -> None: ...


class Clock:
    """As much of an event loop as a connection asks for."""

    def time(self) -> float:
        return 0.0

    def call_at(self, *args: Any) -> asyncio.TimerHandle | None:
        return None


class NoSocket:
    def getsockopt(self, *args: int) -> bytes:
        return b""


def exchange(pieces: list[bytes], *, end: bool) -> tuple[Response, Wire]:
    """What comes of an answer that arrives in these pieces; ``end``: the connection ends behind them."""
    wire: Any = Wire()
    loop: Any = Clock()
    sock: Any = NoSocket()
    connection = Connection(loop, wire, sock)
    connection.connection_made(wire)
    response = connection.send((b"GET / HTTP/1.1\r\n\r\n",), head_only=False, timeouts=Timeouts())
    for piece in pieces:
        if wire.closing:
            break
        connection.data_received(piece)
    if end and not wire.closing:
        connection.eof_received()
        connection.connection_lost(None)
    return response, wire


def split_at(raw: bytes, places: list[int]) -> list[bytes]:
    cuts = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(cuts) if start < end]


@given(
    status=st.integers(200, 599).filter(lambda status: status not in {204, 304}),
    headers=HEADERS,
    chunks=PIECES,
    trailers=HEADERS,
    chunked=st.booleans(),
    interim=st.integers(0, 2),
    places=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_an_answer_is_read_as_it_was_written_however_it_is_split(
    status: int,
    headers: list[Header],
    chunks: list[bytes],
    trailers: list[Header],
    chunked: bool,
    interim: int,
    places: list[int],
) -> None:
    framing = (b"Transfer-Encoding", b"chunked") if chunked else (b"Content-Length", b"%d" % len(b"".join(chunks)))
    lines = b"".join(b"%b: %b\r\n" % header for header in [*headers, framing])
    raw = b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * interim + b"HTTP/1.1 %d Said\r\n%b\r\n" % (status, lines)
    if chunked:
        raw += b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        raw += b"0\r\n" + b"".join(b"%b: %b\r\n" % header for header in trailers) + b"\r\n"
    else:
        raw += b"".join(chunks)
        trailers = []
    response, wire = exchange(split_at(raw, places), end=False)
    assert response.error is None
    assert response.whole
    assert response.status == status
    assert response.headers == [*headers, framing]
    assert response.trailers == trailers
    assert b"".join(response.pieces) == b"".join(chunks)
    assert wire.freed == 1


LIKELY = st.sampled_from(
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"Content-Length: 3\r\n",
     b"Transfer-Encoding: chunked\r\n",
     b"Connection: close\r\n", b"\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc", b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n"]
)  # fmt: skip


@given(st.lists(LIKELY | st.binary(max_size=20), max_size=12), st.lists(st.integers(0, 500), max_size=8))
def test_whatever_comes_is_an_answer_or_an_error_and_splitting_it_changes_neither(
    parts: list[bytes], places: list[int]
) -> None:
    raw = b"".join(parts)
    at_once, _ = exchange([raw], end=True)
    in_pieces, wire = exchange(split_at(raw, places), end=True)
    for response in (at_once, in_pieces):
        assert response.whole != (response.error is not None)
        assert response.error is None or isinstance(response.error, Broken)
        assert response.connection is None
    assert (at_once.whole, at_once.status) == (in_pieces.whole, in_pieces.status)
    if at_once.whole:
        assert b"".join(at_once.pieces) == b"".join(in_pieces.pieces)
    assert wire.freed <= 1


class Parsed:
    """A request as ``httptools`` reads it."""

    def __init__(self, raw: bytes) -> None:
        self.target, self.body, self.whole = b"", b"", 0
        self.headers: list[Header] = []
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(raw)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole += 1


@given(
    method=st.sampled_from(["POST", "GET", "PUT", "DELETE", "OPTIONS", "PATCH"]),
    target=st.text("abc/?&=%20._~-:@", max_size=30).map(lambda text: b"/" + text.encode()),
    headers=HEADERS,
    body=st.binary(max_size=400) | st.just(b"x" * 100_000),
)
def test_a_request_is_read_as_it_was_meant(method: str, target: bytes, headers: list[Header], body: bytes) -> None:
    parsed = Parsed(b"".join(encode(method, target, b"example.com:81", headers, body)))
    assert parsed.whole == 1
    assert parsed.parser.get_method() == method.encode()
    assert (parsed.target, parsed.body) == (target, body)
    assert parsed.headers[: len(headers) + 1] == [(b"host", b"example.com:81"), *headers]
    rest = parsed.headers[len(headers) + 1 :]
    assert rest == ([] if method in {"GET", "OPTIONS"} and not body else [(b"content-length", b"%d" % len(body))])


@pytest.mark.parametrize("bad", [b"a\r\nx: y", b"a\nx: y", b"a\rb", b"a\0b"])
def test_nothing_in_a_header_or_url_can_begin_another(bad: bytes) -> None:
    for headers, target in (([(b"x", bad)], b"/"), ([(bad, b"x")], b"/"), ([], b"/" + bad)):
        with pytest.raises(ValueError, match="line break or NUL"):
            encode("POST", target, b"h", headers, b"")
    for target in (b"/a b", b"/a#b"):
        with pytest.raises(ValueError, match="unescaped"):
            encode("POST", target, b"h", [], b"")


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("http://h/v1?a=b", Origin(False, "h", 80, b"h"), b"/v1?a=b"),
        ("https://H.example:8443/v1", Origin(True, "h.example", 8443, b"H.example:8443"), b"/v1"),
        ("https://h", Origin(True, "h", 443, b"h"), b"/"),
        ("https://h?x=/y", Origin(True, "h", 443, b"h"), b"/?x=/y"),
        ("http://[::1]:81/v1", Origin(False, "::1", 81, b"[::1]:81"), b"/v1"),
        ("http://b\u00fccher.example/x", Origin(False, "xn--bcher-kva.example", 80, b"xn--bcher-kva.example"), b"/x"),
    ],
)
def test_urls(url: str, origin: Origin, target: bytes) -> None:
    place, found = split(url)
    assert found == target
    assert Origin.parse(place) == origin


@pytest.mark.parametrize("url", ["ftp://h/", "http:///v1", "https://user:secret@h/v1", "/v1", "http://h:99999/"])
def test_what_is_no_url_of_an_upstream(url: str) -> None:
    with pytest.raises(ValueError, match=r"upstream|Port") as caught:
        Origin.parse(split(url)[0])
    assert "secret" not in str(caught.value)


def test_the_bound_on_headers_counts_all_of_them() -> None:
    fits = b"HTTP/1.1 200 OK\r\nX: " + b"y" * (MAX_HEAD_BYTES - 200) + b"\r\nContent-Length: 0\r\n\r\n"
    assert exchange([fits], end=False)[0].whole
    beyond = b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n"
    response, wire = exchange([beyond], end=False)
    assert not response.status
    assert wire.closing
