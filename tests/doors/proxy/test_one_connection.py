"""Several requests on one client connection, byte by byte: each gets its own answer, whole and in order."""

from __future__ import annotations

import json
import socket

from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI
from tests.doors.proxy.running import entries, proxy_before


def request(words: str, *headers: str, stream: bool = False) -> bytes:
    messages = [*HI, {"role": "user", "content": words}]
    body = json.dumps({"model": "gpt-4o-mini", "messages": messages, "max_tokens": 9, "stream": stream}).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", *headers, f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def exchange(url: str, sent: bytes) -> list[tuple[bytes, bytes]]:
    """The heads and bodies of all answers until the server closes."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60) as connection:
        connection.sendall(sent)
        received = b""
        while data := connection.recv(65536):
            received += data
    answers = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        fields = head.lower()
        if b"transfer-encoding: chunked" in fields:
            body, _, received = rest.partition(b"0\r\n\r\n")
        else:
            length = int(fields.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body, received = rest[:length], rest[length:]
        answers.append((head, body))
    return answers


def test_requests_that_are_sent_at_once_are_answered_in_order(fake_provider: FakeProvider) -> None:
    """Plain, refused and streamed ones behind each other; the last one asks to close."""
    fake_provider.reply = Reply("one two three", output_tokens=3)
    with proxy_before(fake_provider, max_tokens_per_request=200, max_tokens_total=100_000) as server:
        sent = (
            request("first")
            + request("word " * 400)
            + request("second", stream=True)
            + request("third", "connection: close")
        )
        answers = exchange(server.url, sent)
        assert [int(head.split()[1]) for head, _ in answers] == [200, 429, 200, 200]
        plain, refused, streamed, last = (body for _, body in answers)
        for body in (plain, last):
            assert json.loads(body)["choices"][0]["message"]["content"] == "one two three"
        assert json.loads(refused)["error"]["code"] == "budget_exceeded"
        assert b"data: [DONE]" in streamed
        assert b"connection: close" in answers[-1][0].lower()
        assert len(entries(server)) == 3
