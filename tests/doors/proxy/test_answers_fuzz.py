"""
Whatever an upstream answers, and however its bytes are cut: its client gets those bytes, the call has one entry, and
the proxy has no fault.
"""

from __future__ import annotations

import gzip
import json
import logging
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from farthing import ProxyServer
from farthing.kernel.budget import make_budget
from farthing.proxy.settings import ProxySettings, Upstream
from tests.doors.proxy.raw import ask
from tests.doors.proxy.running import entries, holds, proxy_with
from tests.waiting import eventually

HI = [{"role": "user", "content": "hi"}]
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {"model": "gpt-4o", "messages": HI, "max_tokens": 50, "stream_options": {"include_usage": True}},
    ),
    "responses": ("/v1/responses", {"model": "gpt-4o", "input": "hi", "max_output_tokens": 50}),
    "messages": ("/v1/messages", {"model": "claude-haiku-4-5", "messages": HI, "max_tokens": 50}),
    "gemini": (
        "/v1beta/models/gemini-2.5-flash-lite:{}",
        {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 50}},
    ),
}
COUNTS = st.one_of(
    st.integers(-5, 60),
    st.integers(2**31, 2**36),
    st.just(2**70),
    st.floats(),
    st.none(),
    st.booleans(),
    st.sampled_from(["7", {}, []]),
)
USAGE = st.dictionaries(
    st.sampled_from(
        ["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "promptTokenCount",
         "candidatesTokenCount", "totalTokenCount", "cache_read_input_tokens", "thoughtsTokenCount"]
    ),
    COUNTS,
    max_size=5,
)  # fmt: skip
TEXT = st.text(max_size=12)
OBJECTS = st.one_of(
    TEXT.map(lambda text: {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}),
    st.just({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    USAGE.map(lambda usage: {"choices": [], "usage": usage}),
    USAGE.map(lambda usage: {"type": "message_start", "message": {"usage": usage, "model": "m"}}),
    TEXT.map(lambda text: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
    USAGE.map(lambda usage: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}),
    st.just({"type": "message_stop"}),
    TEXT.map(lambda text: {"type": "response.output_text.delta", "delta": text}),
    USAGE.map(lambda usage: {"type": "response.completed", "response": {"id": "r", "usage": usage}}),
    TEXT.map(lambda text: {"candidates": [{"content": {"parts": [{"text": text}]}}]}),
    USAGE.map(lambda usage: {"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}),
    TEXT.map(lambda text: {"error": {"message": text, "type": "server_error"}}),
)
DATA = st.one_of(
    OBJECTS.map(lambda value: json.dumps(value).encode()),
    OBJECTS.map(lambda value: json.dumps(value, indent=1).encode()),
    st.sampled_from([b"[DONE]", b"{", b"null", b"[]", b"{}", b"NaN", b'{"usage": {"prompt_tokens": 1', b"\xff\xfe"]),
    st.binary(max_size=12),
)
ENDS = st.sampled_from([b"\n\n", b"\n\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b"", b"\n\n\n"])
FIELDS = st.sampled_from(
    [b"data: ", b"data: ", b"data: ", b"data:", b"event: ", b"event: error\ndata: ", b": ", b"", b"id"]
)
EVENTS = st.lists(st.tuples(FIELDS, DATA, ENDS).map(b"".join), max_size=8).map(b"".join)
BODIES = st.one_of(EVENTS, EVENTS, DATA, st.lists(OBJECTS, max_size=3).map(lambda of: json.dumps(of).encode()))
GOOD: dict[str, tuple[list[Any], Any]] = {
    "chat": (
        [
            {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9}},
            None,
        ],
        {
            "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9},
        },
    ),
    "responses": (
        [
            {"type": "response.output_text.delta", "delta": "hi"},
            {
                "type": "response.completed",
                "response": {"id": "r", "status": "completed", "usage": {"input_tokens": 8, "output_tokens": 1}},
            },
        ],
        {"id": "r", "status": "completed", "output": [], "usage": {"input_tokens": 8, "output_tokens": 1}},
    ),
    "messages": (
        [
            {"type": "message_start", "message": {"usage": {"input_tokens": 8, "output_tokens": 1}}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ],
        {"content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 8, "output_tokens": 2}},
    ),
    "gemini": (
        [
            {"candidates": [{"content": {"parts": [{"text": "hi"}]}}]},
            {
                "candidates": [{"finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 1},
            },
        ],
        {
            "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 1, "totalTokenCount": 9},
        },
    ),
}
"""By kind of call: the events of a stream (None: ``[DONE]``), and a plain answer, as a provider sends them."""


def bodies_of(call: str, streams: bool) -> st.SearchStrategy[bytes]:
    """What may come: an answer as it should be, one with a hole in it or with something put in, or anything."""
    events, plain = GOOD[call]
    good = json.dumps(plain).encode()
    if streams:
        good = b"".join(b"data: %b\n\n" % (b"[DONE]" if of is None else json.dumps(of).encode()) for of in events)
    place = st.integers(0, len(good))
    return st.one_of(
        st.just(good),
        st.tuples(place, place).map(lambda two: good[: min(two)] + good[max(two) :]),
        st.tuples(place, EVENTS).map(lambda two: good[: two[0]] + two[1] + good[two[0] :]),
        BODIES,
    )


TYPES = st.sampled_from(
    ["text/event-stream", "text/event-stream", "Text/Event-Stream; charset=utf-8", "application/json", "text/html", ""]
)


class Upstreams:
    """A server that answers each request with ``pieces``, as they stand, on a connection of its own."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.resets = False
        self.requests = 0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            with peer:
                self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head, _, body = _until_head(peer)
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += peer.recv(65_536)
        self.requests += 1
        try:
            for piece in self.pieces:
                peer.sendall(piece)
        except OSError:
            # The proxy had enough of it.
            return
        if self.resets:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _until_head(peer: socket.socket) -> tuple[bytes, bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(65_536)
    return data.partition(b"\r\n\r\n")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstreams]:
    started = Upstreams()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def proxy(upstream: Upstreams) -> Iterator[ProxyServer]:
    upstreams = tuple(
        Upstream(name, f"{upstream.url}/v1" if name == "openai" else upstream.url, speaks=(name,))
        for name in ("openai", "anthropic", "gemini")
    )
    with proxy_with(ProxySettings(upstreams=upstreams, port=0)) as server:
        server.runtime.put_budget(make_budget("all", tokens=2**52, standing=True))
        yield server


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_answer(data: Any, upstream: Upstreams, proxy: ProxyServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    call = data.draw(st.sampled_from(sorted(CALLS)), label="call")
    path, request = CALLS[call]
    streams = data.draw(st.booleans(), label="streams")
    if "models" in path:
        path = path.format("streamGenerateContent?alt=sse" if streams else "generateContent")
    elif streams:
        request = {**request, "stream": True}
    else:
        request = {name: value for name, value in request.items() if name != "stream_options"}
    status = data.draw(st.sampled_from([200, 200, 200, 201, 400, 429, 500, 504]), label="status")
    plain = data.draw(bodies_of(call, streams), label="body")
    packs = data.draw(st.sampled_from([False, False, True]), label="gzip")
    # In two members, as a body may be.
    body = gzip.compress(plain[:9]) + gzip.compress(plain[9:]) if packs else plain
    proper = st.just("text/event-stream" if streams else "application/json")
    kind = data.draw(st.one_of(proper, proper, TYPES), label="content-type")
    framing = data.draw(st.sampled_from(["length", "chunked", "close"]), label="framing")
    cuts = st.one_of(st.none(), st.none(), st.integers(0, max(0, len(body) - 1)))
    cut = data.draw(cuts, label="cut") if body else None
    upstream.resets = data.draw(st.booleans(), label="resets") and cut is not None
    upstream.pieces = list(_answer(data, status, kind, body, packs, framing, cut))
    before, seen = len(entries(proxy)), upstream.requests
    got = ask(proxy.url, path, request)
    eventually(lambda: proxy.stats["in_flight"] == 0)
    assert upstream.requests - seen == 1, "nothing that may have been billed is sent twice"
    (entry,) = entries(proxy)[before:]
    event(f"{entry.ending} {entry.usage_source}")
    assert holds(proxy, "held") == []
    assert all(count >= 0 for _, count in entry.usage)
    assert entry.cost_nano is None or entry.cost_nano >= 0
    if cut is None or (framing == "close" and not upstream.resets):
        whole = body if cut is None else body[:cut]
        assert got.status == status
        if got.whole:
            assert got.body in (whole, _unpacked(whole, packs)), "byte for byte"
        else:
            assert packs, "only what cannot be decoded is broken off"
    elif b'"upstream_' in got.body:
        assert got.status in (502, 504)
    else:
        assert got.status == status
        assert plain.startswith(got.body) or body.startswith(got.body)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], caplog.text


def _answer(
    data: Any, status: int, kind: str, body: bytes, packs: bool, framing: str, cut: int | None
) -> Iterator[bytes]:
    """The answer's bytes, in pieces; cut off in its body, if that is asked for."""
    lines = [f"HTTP/1.1 {status} Whatever", "connection: close"]
    lines += [f"content-type: {kind}"] if kind else []
    lines += ["content-encoding: gzip"] if packs else []
    if framing == "length":
        lines.append(f"content-length: {len(body)}")
    elif framing == "chunked":
        lines.append("transfer-encoding: chunked")
    yield "\r\n".join([*lines, "", ""]).encode()
    sent = body if cut is None else body[:cut]
    at = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=5), label="splits"))
    for begin, end in zip([0, *at], [*at, len(sent)], strict=True):
        piece = sent[begin:end]
        if framing == "chunked" and piece:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        yield piece
    if framing == "chunked" and cut is None:
        yield b"0\r\n\r\n"


def _unpacked(body: bytes, packs: bool) -> bytes:
    try:
        return gzip.decompress(body) if packs else body
    except (OSError, EOFError):
        return body
