"""A provider over HTTP/2, cleartext with prior knowledge: just enough to answer chat completions, in one way each."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events

USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
_HEAD = {"id": "chatcmpl-1", "created": 0, "model": "gpt-4o"}
PLAIN = {
    **_HEAD,
    "object": "chat.completion",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a coin"}}],
    "usage": USAGE,
}


def _events(asks_usage: bool) -> Iterator[bytes]:
    chunk = {**_HEAD, "object": "chat.completion.chunk"}
    for delta, reason in (({"role": "assistant", "content": "a"}, None), ({"content": " coin"}, None), ({}, "stop")):
        yield _event({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    if asks_usage:
        yield _event({**chunk, "choices": [], "usage": USAGE})
    yield b"data: [DONE]\n\n"


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


class _Connection(asyncio.Protocol):
    def __init__(self, seen: list[str]) -> None:
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._bodies: dict[int, bytearray] = {}
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._h2.initiate_connection()
        self._transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self._bodies[event.stream_id] = bytearray()
            elif isinstance(event, h2.events.DataReceived):
                self._bodies[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self._answer(event.stream_id, json.loads(self._bodies.pop(event.stream_id)))
        self._transport.write(self._h2.data_to_send())

    def _answer(self, stream: int, asked: dict[str, Any]) -> None:
        self._seen.append("stream" if asked.get("stream") else "plain")
        kind = "text/event-stream" if asked.get("stream") else "application/json"
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", kind)])
        if not asked.get("stream"):
            self._h2.send_data(stream, json.dumps(PLAIN).encode(), end_stream=True)
            return
        for event in _events((asked.get("stream_options") or {}).get("include_usage") is True):
            self._h2.send_data(stream, event)
        self._h2.end_stream(stream)


@contextmanager
def http2_provider() -> Iterator[tuple[str, list[str]]]:
    """Its OpenAI base URL, and what was asked of it; on a thread of its own."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    seen: list[str] = []
    servers: list[asyncio.Server] = []

    def serve() -> None:
        servers.append(loop.run_until_complete(loop.create_server(lambda: _Connection(seen), "127.0.0.1", 0)))
        ready.set()
        loop.run_forever()
        servers[0].close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield f"http://127.0.0.1:{servers[0].sockets[0].getsockname()[1]}/v1", seen
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
