"""Several upstreams side by side, what their settings change, and calls whose upstream, or whose ledger, fails."""

from __future__ import annotations

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from farthing import ProxyServer
from farthing.kernel.budget import make_budget
from farthing.kernel.hold import SUSPECT
from farthing.proxy.settings import Timeouts, Upstream
from farthing.runtime.settings import Settings
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, HI_TOKENS
from tests.doors.proxy.raw import ask, send
from tests.doors.proxy.running import entries, holds, proxy_with, settings_for
from tests.waiting import eventually, impatient

CHAT = {"model": "gpt-4o", "messages": HI, "max_completion_tokens": 50}
SOON = Timeouts(idle_seconds=0.2)


def test_by_prefix_by_model_and_by_dialect(fake_provider: FakeProvider) -> None:
    with FakeProvider() as groq, FakeProvider() as local:
        upstreams = (
            *settings_for(fake_provider).upstreams,
            Upstream("groq", f"{groq.openai_url}", prefix="/groq", provider="groq", api_key="of-groq"),
            Upstream("local", local.openai_url, models=("llama-*", "qwen*")),
        )
        with proxy_with(settings_for(fake_provider, upstreams=upstreams)) as server:
            assert ask(server.url, "/v1/chat/completions", CHAT).status == 200
            assert ask(server.url, "/groq/v1/chat/completions", CHAT).status == 200
            assert ask(server.url, "/v1/chat/completions", {**CHAT, "model": "llama-4-scout"}).status == 200
            assert ask(server.url, "/groq/v1/models", method="GET").status == 200
            assert ask(server.url, "/groq/v1/audio/speech", {}).status == 403
            facts = [(entry.facts.provider, entry.facts.model) for entry in entries(server)]
        assert [request.path for request in fake_provider.requests] == ["/v1/chat/completions"]
        assert [request.path for request in groq.requests] == ["/v1/chat/completions", "/v1/models"]
        assert groq.requests[0].headers["authorization"] == "Bearer of-groq"
        assert [request.path for request in local.requests] == ["/v1/chat/completions"]
    assert facts == [("openai", "gpt-4o"), ("groq", "gpt-4o"), ("openai", "llama-4-scout")]


def test_the_ceiling_goes_where_the_upstream_reads_it(fake_provider: FakeProvider) -> None:
    old = Upstream("old", fake_provider.openai_url, ceiling_field="max_tokens")
    with proxy_with(settings_for(fake_provider, upstreams=(old,))) as server:
        server.runtime.put_budget(make_budget("small", tokens=500, standing=True))
        assert ask(server.url, "/v1/chat/completions", {"model": "gpt-4o", "messages": HI}).status == 200
    assert fake_provider.requests[0].json["max_tokens"] == 500 - HI_TOKENS


def test_what_is_allowed_unmetered_is_logged(fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture) -> None:
    upstreams = tuple(replace(of, unmetered="allow") for of in settings_for(fake_provider).upstreams)
    with proxy_with(settings_for(fake_provider, upstreams=upstreams)) as server:
        ask(server.url, "/v1/audio/speech", {"model": "tts-1", "input": "hi", "voice": "alloy"})
        ask(server.url, "/v1/chat/completions", b"not json")
        assert server.stats["unmetered"] == 2
        assert entries(server) == []
    assert [request.path for request in fake_provider.requests] == ["/v1/audio/speech", "/v1/chat/completions"]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [" — unmetered (" in line for line in said] == [True, True]


@pytest.mark.parametrize(("policy", "counted"), [("suspect", 58), ("settle_at_hold", 58), ("release", 0)])
def test_a_policy_for_unknown_endings_of_calls_without_a_budget(
    policy: str, counted: int, fake_provider: FakeProvider, tmp_path: Path
) -> None:
    fake_provider.reply = Reply(fault="hang")
    plain = settings_for(fake_provider, timeouts=SOON, calls=Settings(ledger=f"sqlite:///{tmp_path / 'ledger.db'}"))
    upstreams = tuple(replace(of, unknown_endings=policy) for of in plain.upstreams)
    with proxy_with(replace(plain, upstreams=upstreams)) as server:
        assert ask(server.url, "/v1/chat/completions", CHAT).status == 504
        assert [hold.state for hold in holds(server)] == ([SUSPECT] if policy == "suspect" else [])
        assert sum(entry.tokens("input", "output") for entry in entries(server)) == counted


@pytest.mark.parametrize(
    ("policy", "settled", "suspect"), [("suspect", 0, 58), ("settle_at_hold", 58, 0), ("release", 0, 0)]
)
def test_a_policy_for_unknown_endings(policy: str, settled: int, suspect: int, fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(fault="hang")
    plain = settings_for(fake_provider, timeouts=SOON)
    upstreams = tuple(replace(of, unknown_endings=policy) for of in plain.upstreams)
    with proxy_with(replace(plain, upstreams=upstreams)) as server:
        server.runtime.put_budget(make_budget("small", tokens=1_000, standing=True))
        assert ask(server.url, "/v1/chat/completions", CHAT).status == 504
        balances = server.runtime.memory_store.balances().result()
        (tokens,) = [row.of("tokens") for row in balances.values()]
        assert (tokens.settled, tokens.held, tokens.suspect) == (settled, 0, suspect)


def test_the_abort_margin_of_an_upstream(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(chunks=["one ", "two ", "three "], cut_after_chunks=2)
    plain = settings_for(fake_provider)
    upstreams = tuple(replace(of, abort_margin_tokens=7) for of in plain.upstreams)
    with proxy_with(replace(plain, upstreams=upstreams)) as server:
        assert not ask(server.url, "/v1/chat/completions", {**CHAT, "stream": True}).whole
        (entry,) = eventually(lambda: entries(server))
        assert entry.tokens("output") == 3 + 7, "three tokens came"


def test_background_answers_are_settled_when_they_are_asked_for(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply("later", output_tokens=9, background_polls=1)
    body = {"model": "gpt-4o", "input": "hi", "max_output_tokens": 50, "background": True}
    with proxy_with(settings_for(fake_provider)) as server:
        server.runtime.put_budget(make_budget("small", tokens=1_000_000, standing=True))
        begun = ask(server.url, "/v1/responses", body).json
        assert [hold.state for hold in holds(server)] == [SUSPECT]

        def polled() -> bool:
            got = ask(server.url, f"/v1/responses/{begun['id']}", method="GET")
            return bool(got.json["status"] == "completed")

        eventually(polled)
        assert holds(server) == []
        counted = sum(entry.tokens("input", "output") for entry in entries(server))
        assert counted == fake_provider.billed_tokens


@pytest.mark.parametrize("body", [b'[{"a": 1, "a": 2}', b'{"a": 1, "a": 2}', b"\xff", b""])
def test_a_body_that_nobody_reads_goes_on_as_it_came(fake_provider: FakeProvider, body: bytes) -> None:
    """Asking for an answer has none; a client that sends one all the same is the provider's matter."""
    with proxy_with(settings_for(fake_provider)) as server:
        assert ask(server.url, "/v1/responses/resp_1", body, method="GET").status == 404
    (request,) = fake_provider.requests
    assert request.body == body


def test_waiting_for_a_budget_is_bounded_and_in_line(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(output_tokens=5, pause_after_chunks=1)
    with proxy_with(settings_for(fake_provider)) as server:
        budget = make_budget("one", concurrency=1, on_exceed="wait", wait_seconds=120, standing=True)
        server.runtime.put_budget(budget)
        got: list[int] = []
        threads = [
            threading.Thread(target=lambda: got.append(ask(server.url, "/v1/chat/completions", CHAT).status))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for number in range(1, 4):
            eventually(lambda n=number: fake_provider.posts == n and fake_provider.in_flight == 1)
            fake_provider.resume()
        for thread in threads:
            thread.join()
        assert got == [200, 200, 200]
        assert fake_provider.max_in_flight == 1
        server.runtime.put_budget(replace(budget, wait_seconds=0.1), update=True)
        response = send_in_thread(server)
        fake_provider.wait_in_flight(1)
        assert ask(server.url, "/v1/chat/completions", CHAT).status == 429
        fake_provider.resume()
        response.join()


def test_a_client_that_leaves_the_line_sends_nothing(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(output_tokens=5, pause_after_chunks=1)
    with proxy_with(settings_for(fake_provider)) as server:
        budget = make_budget("one", concurrency=1, on_exceed="wait", wait_seconds=120, standing=True)
        server.runtime.put_budget(budget)
        first = send_in_thread(server)
        fake_provider.wait_in_flight(1)
        with pytest.raises(TimeoutError):
            send(server.url, "/v1/chat/completions", CHAT, seconds=0.3)
        fake_provider.resume()
        first.join()
        eventually(lambda: len(entries(server)) == 2 and not holds(server))
        assert sorted(entry.ending for entry in entries(server)) == ["client_gone", "ok"]
        assert fake_provider.posts == 1


def send_in_thread(server: ProxyServer) -> threading.Thread:
    thread = threading.Thread(target=lambda: ask(server.url, "/v1/chat/completions", CHAT))
    thread.start()
    return thread


# -- an upstream that compresses although it was not asked to --------------------------------------------------------


@contextmanager
def compressing(body: bytes, content_type: str, encoding: str = "gzip") -> Iterator[tuple[str, list[str]]]:
    """An upstream that answers so, in pieces; and what encodings it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked.append(self.headers["accept-encoding"] or "")
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-encoding", encoding)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            for at in range(0, len(body), 7):
                self.wfile.write(body[at : at + 7])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def one_upstream(provider: FakeProvider, url: str) -> AbstractContextManager[ProxyServer]:
    return proxy_with(settings_for(provider, upstreams=(Upstream("one", url),)))


ANSWER = json.dumps(
    {
        "id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11},
    }
).encode()  # fmt: skip
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}}\n\n'
STREAM = EVENT + USAGE + b"data: [DONE]\n\n"


def test_a_compressed_answer_is_metered_and_passes_as_it_came(fake_provider: FakeProvider) -> None:
    packed = gzip.compress(ANSWER)
    with compressing(packed, "application/json") as (url, asked), one_upstream(fake_provider, url) as server:
        got = ask(server.url, "/v1/chat/completions", CHAT, headers={"accept-encoding": "br, gzip"})
        assert (got.body, got.header("content-encoding")) == (packed, "gzip")
        (entry,) = entries(server)
    assert (entry.usage_source, entry.tokens("input"), entry.tokens("output")) == ("provider", 8, 3)
    assert asked == ["identity"]


def test_a_compressed_stream_is_metered_and_its_usage_frame_taken_out(fake_provider: FakeProvider) -> None:
    stream = gzip.compress(STREAM)
    with compressing(stream, "text/event-stream") as (url, asked), one_upstream(fake_provider, url) as server:
        got = ask(server.url, "/v1/chat/completions", {**CHAT, "stream": True})
        assert (got.body, got.header("content-encoding")) == (EVENT + b"data: [DONE]\n\n", None)
        (entry,) = entries(server)
    assert (entry.usage_source, entry.tokens("input"), entry.tokens("output")) == ("provider", 8, 3)
    assert asked == ["identity"]


def test_an_encoding_that_nobody_here_reads_counts_as_it_was_held(fake_provider: FakeProvider) -> None:
    packed = b"\x8b\x00never-brotli"
    with compressing(packed, "application/json", "br") as (url, _), one_upstream(fake_provider, url) as server:
        got = ask(server.url, "/v1/chat/completions", CHAT)
        assert (got.body, got.header("content-encoding")) == (packed, "br")
        (entry,) = entries(server)
    assert (entry.ending, entry.usage_source, entry.tokens("output")) == ("unreadable", "estimate", 50)


# -- the ledger ------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else holds the lock of this ledger, and hangs."""
    import fcntl

    with open(path.with_name(f"{path.name}-lock"), "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)


@pytest.mark.parametrize("policy", ["deny", "allow"])
def test_a_ledger_that_hangs(policy: str, fake_provider: FakeProvider, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    calls = Settings(ledger=f"sqlite:///{path}", on_store_failure=policy)
    with proxy_with(settings_for(fake_provider, calls=calls)) as server:
        server.runtime.put_budget(make_budget("small", tokens=1_000, standing=True))
        assert ask(server.url, "/v1/chat/completions", CHAT).status == 200
        with locked(path), impatient(server.runtime.main.store):
            got = ask(server.url, "/v1/chat/completions", CHAT)
            if policy == "allow":
                assert got.status == 200
            else:
                assert (got.status, got.header("x-should-retry")) == (503, "true")
                assert got.json["error"]["code"] == "ledger_unavailable"
        assert eventually(lambda: ask(server.url, "/v1/chat/completions", CHAT).status == 200)
    assert fake_provider.posts == (3 if policy == "allow" else 2)


def test_a_forward_proxy_is_not_asked_for_this_machine(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all that leaves must go through one, a fake provider or a model on this machine are reached directly."""
    for name in ("http_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with proxy_with(settings_for(fake_provider)) as server:
        assert ask(server.url, "/v1/chat/completions", CHAT).status == 200
        assert ask(server.url, "/v1/chat/completions", {**CHAT, "stream": True}).status == 200
        assert [entry.ending for entry in entries(server)] == ["ok", "ok"]
