"""
The route table: every route × {plain, stream} × {ok, 4xx, 5xx, timeout, client gone, upstream cut} leaves exactly one
right entry per attempt, and what is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from farthing import ProxyServer
from farthing.kernel.budget import make_budget
from farthing.kernel.hold import SUSPECT, Entry
from farthing.proxy.settings import Timeouts
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI
from tests.doors.proxy.raw import Got, ask, hang_up, send
from tests.doors.proxy.running import entries, holds, proxy_with, settings_for
from tests.waiting import eventually

CEILING = 40
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": CEILING}}
BASE = "/v1beta/models/gemini-2.5-flash-lite"


class Route(NamedTuple):
    id: str
    path: str
    body: dict[str, Any]
    streams: bool = False
    output: bool = True
    """It generates."""


ROUTES = (
    Route("chat", "/v1/chat/completions", {"model": "gpt-4o", "messages": HI, "max_completion_tokens": CEILING}),
    Route(
        "chat-stream",
        "/v1/chat/completions",
        {"model": "gpt-4o", "messages": HI, "max_completion_tokens": CEILING, "stream": True},
        streams=True,
    ),
    Route("completions", "/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "hi", "max_tokens": CEILING}),
    Route(
        "completions-stream",
        "/v1/completions",
        {"model": "gpt-3.5-turbo-instruct", "prompt": "hi", "max_tokens": CEILING, "stream": True},
        streams=True,
    ),
    Route("responses", "/v1/responses", {"model": "gpt-4o", "input": "hi", "max_output_tokens": CEILING}),
    Route(
        "responses-stream",
        "/v1/responses",
        {"model": "gpt-4o", "input": "hi", "max_output_tokens": CEILING, "stream": True},
        streams=True,
    ),
    Route("embeddings", "/v1/embeddings", {"model": "text-embedding-3-small", "input": "hi"}, output=False),
    Route("messages", "/v1/messages", {"model": "claude-haiku-4-5", "messages": HI, "max_tokens": CEILING}),
    Route(
        "messages-stream",
        "/v1/messages",
        {"model": "claude-haiku-4-5", "messages": HI, "max_tokens": CEILING, "stream": True},
        streams=True,
    ),
    Route("gemini", f"{BASE}:generateContent", GEMINI),
    Route("gemini-stream", f"{BASE}:streamGenerateContent?alt=sse", GEMINI, streams=True),
    Route("gemini-array", f"{BASE}:streamGenerateContent", GEMINI, streams=True),
    Route("gemini-embed", "/v1beta/models/gemini-embedding-001:embedContent",
          {"content": {"parts": [{"text": "hi"}]}}, output=False),
)  # fmt: skip
GENERATING = tuple(route for route in ROUTES if route.output)
STREAMS = tuple(route for route in ROUTES if route.streams)
PLAIN = tuple(route for route in ROUTES if not route.streams)
FREE = (
    ("POST", "/v1/messages/count_tokens", {"model": "claude-haiku-4-5", "messages": HI}),
    ("POST", f"{BASE}:countTokens", {"contents": GEMINI["contents"]}),
    ("GET", "/v1/models", None),
    ("GET", "/v1beta/models", None),
)
SPEECH = {"model": "tts-1", "input": "hi", "voice": "alloy"}
UNKNOWN = (
    ("POST", "/v1/audio/speech", SPEECH),
    ("POST", "/v1/batches", {}),
    ("POST", "/v1/messages/batches", {}),
    ("POST", f"{BASE}:batchGenerateContent", {}),
    ("POST", "/v1/something/new", {}),
    # They cost nothing, and would go out with the operator's key.
    ("POST", "/v1/files", {}),
    ("GET", "/v1/files", None),
    ("DELETE", "/v1/files/file-1", None),
    ("DELETE", "/v1/models/ft:gpt-4o:acme::1", None),
    ("GET", "/v1/organization/admin_api_keys", None),
    ("GET", "/v1/organizations/api_keys", None),
    ("GET", "/v1/messages/batches/b/results", None),
    ("DELETE", "/v1beta/files/f", None),
    ("POST", "/", {}),
    ("POST", "//v1/chat/completions", ROUTES[0].body),
    ("POST", "/v1//chat/completions", ROUTES[0].body),
    ("POST", "/v1/chat/completions/", ROUTES[0].body),
    ("POST", "/v1/./chat/completions", ROUTES[0].body),
    ("POST", "/v1/models/../chat/completions", ROUTES[0].body),
    ("POST", "/v1/chat%2Fcompletions", ROUTES[0].body),
    ("PUT", "/v1/chat/completions", ROUTES[0].body),
    ("POST", "/administration", {}),
)


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(now_ms=lambda: 1_700_000_000_000) as started:
        yield started


@pytest.fixture(scope="module")
def patient(provider: FakeProvider) -> Iterator[ProxyServer]:
    with proxy_with(settings_for(provider)) as server:
        give_limit(server)
        yield server


@pytest.fixture(scope="module")
def impatient(provider: FakeProvider) -> Iterator[ProxyServer]:
    with proxy_with(settings_for(provider, timeouts=Timeouts(idle_seconds=0.2))) as server:
        give_limit(server)
        yield server


@pytest.fixture(autouse=True)
def _afresh(provider: FakeProvider) -> Iterator[None]:
    provider.reply = Reply("one two three four", output_tokens=9)
    provider.forget()
    yield
    provider.reply = Reply()
    provider.wait_idle()


def give_limit(server: ProxyServer) -> None:
    """A hard budget that is never in the way: every call is held, and what has no meter is no way around it."""
    server.runtime.put_budget(make_budget("everything", usd=1000, standing=True))


class Seen:
    """What a proxy's ledger says since this was made."""

    def __init__(self, server: ProxyServer) -> None:
        self._server = server
        self._before = len(entries(server))

    def new(self) -> list[Entry]:
        return entries(self._server)[self._before :]

    def one(self) -> Entry:
        """The one entry of the one attempt, once its call is over; nothing else may be left of it."""
        eventually(lambda: self.new() and self._server.stats["in_flight"] == 0)
        (entry,) = self.new()
        assert not [hold for hold in holds(self._server) if hold.id == entry.hold_id and hold.state != SUSPECT]
        return entry


def of_one(route: Route) -> str:
    return route.id


def tokens_of(entry: Entry) -> int:
    """All tokens; reasoning is a part of the output."""
    return sum(count for kind, count in entry.usage if kind != "reasoning")


@pytest.mark.parametrize("route", ROUTES, ids=of_one)
def test_ok(route: Route, patient: ProxyServer, provider: FakeProvider) -> None:
    seen = Seen(patient)
    got = ask(patient.url, route.path, route.body)
    assert got.status == 200, got.body
    entry = seen.one()
    assert (entry.ending, entry.usage_source, entry.suspect) == ("ok", "provider", False)
    assert tokens_of(entry) == provider.billed_tokens > 0
    assert got.header("x-farthing-call-id") == entry.hold_id
    assert (got.header("x-farthing-cost-usd") is not None) == (not route.streams)


@pytest.mark.parametrize("route", ROUTES, ids=of_one)
def test_the_answer_is_the_upstreams_byte_for_byte(route: Route, patient: ProxyServer) -> None:
    reply = Reply("one two three four", output_tokens=9, headers={"x-of-the-provider": "kept"})
    asks_itself = (
        {"stream_options": {"include_usage": True}} if route.id in ("chat-stream", "completions-stream") else {}
    )
    body = {**route.body, **asks_itself}
    with FakeProvider(reply, now_ms=lambda: 1_700_000_000_000) as direct:
        wanted = ask(direct.url, route.path, body)
    with (
        FakeProvider(reply, now_ms=lambda: 1_700_000_000_000) as provider,
        proxy_with(settings_for(provider)) as server,
    ):
        got = ask(server.url, route.path, body)
        (arrived,) = provider.requests
    assert (got.status, got.body) == (wanted.status, wanted.body)
    assert got.header("x-of-the-provider") == "kept"
    ours = [name for name, _ in got.headers if not name.lower().startswith("x-farthing-")]
    assert ours == [name for name, _ in wanted.headers]
    assert arrived.json == body, "nothing had to be changed"


@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
@pytest.mark.parametrize("route", ROUTES, ids=of_one)
def test_an_upstreams_error(route: Route, status: int, patient: ProxyServer, provider: FakeProvider) -> None:
    provider.reply = Reply(status=status, headers={"retry-after": "7"})
    seen = Seen(patient)
    got = ask(patient.url, route.path, route.body)
    wanted = ask(provider.url, route.path, route.body)
    assert (got.status, got.header("retry-after")) == (status, "7")
    assert without_ids(got) == without_ids(wanted)
    entry = seen.one()
    assert (entry.ending, tokens_of(entry), entry.cost_nano) == (f"http_{status}", 0, 0)
    assert entry.said.amounts == (0, 0, 1, 0)


@pytest.mark.parametrize("route", ROUTES, ids=of_one)
def test_a_gateways_timeout_is_suspect(route: Route, patient: ProxyServer, provider: FakeProvider) -> None:
    provider.reply = Reply(status=504, bill_anyway=True)
    seen = Seen(patient)
    assert ask(patient.url, route.path, route.body).status == 504
    entry = seen.one()
    assert (entry.ending, entry.suspect) == ("http_504", True)


@pytest.mark.parametrize("route", ROUTES, ids=of_one)
def test_a_timeout(route: Route, impatient: ProxyServer, provider: FakeProvider) -> None:
    provider.reply = Reply(fault="hang")
    seen = Seen(impatient)
    got = ask(impatient.url, route.path, route.body)
    assert got.status == 504
    assert code_of(got) == "upstream_timeout"
    entry = seen.one()
    assert (entry.ending, entry.suspect) == ("timeout", True)


@pytest.mark.parametrize("route", ROUTES, ids=of_one)
def test_a_connection_that_is_lost_before_the_answer(
    route: Route, patient: ProxyServer, provider: FakeProvider
) -> None:
    provider.reply = Reply(fault="reset")
    seen = Seen(patient)
    got = ask(patient.url, route.path, route.body)
    assert (got.status, code_of(got)) == (502, "upstream_connection_lost")
    entry = seen.one()
    assert (entry.ending, entry.suspect) == ("connection_lost", True)


@pytest.mark.parametrize("route", [route for route in PLAIN if route.output], ids=of_one)
def test_a_plain_answer_that_is_cut_is_suspect(route: Route, patient: ProxyServer, provider: FakeProvider) -> None:
    provider.reply = Reply("one two three four", output_tokens=9, fault="close_mid_body")
    seen = Seen(patient)
    assert ask(patient.url, route.path, route.body).status == 502
    entry = seen.one()
    assert (entry.ending, entry.suspect) == ("connection_lost", True)
    assert tokens_of(entry) >= provider.billed_tokens


@pytest.mark.parametrize("route", STREAMS, ids=of_one)
def test_a_stream_that_is_cut_counts_what_came(route: Route, patient: ProxyServer, provider: FakeProvider) -> None:
    provider.reply = Reply(chunks=["one ", "two ", "three ", "four"], cut_after_chunks=2)
    seen = Seen(patient)
    got = ask(patient.url, route.path, route.body)
    assert not got.whole, "the client sees that it is not whole"
    assert b"two" in got.body
    assert b"three" not in got.body
    entry = seen.one()
    assert entry.ending == "connection_lost"
    assert provider.billed_tokens <= tokens_of(entry)


@pytest.mark.parametrize("route", [route for route in PLAIN if route.output], ids=of_one)
def test_a_client_that_leaves_a_plain_call(route: Route, patient: ProxyServer, provider: FakeProvider) -> None:
    """The provider finishes anyway: its figure is waited for, and is what the call costs."""
    provider.reply = Reply("one two three four", output_tokens=9, pause_after_chunks=1)
    seen = Seen(patient)
    with pytest.raises(TimeoutError):
        send(patient.url, route.path, route.body, seconds=0.3)
    provider.wait_in_flight(1)
    provider.resume()
    entry = seen.one()
    assert (entry.ending, entry.usage_source) == ("ok", "provider")
    assert tokens_of(entry) == provider.billed_tokens


@pytest.mark.parametrize("route", STREAMS, ids=of_one)
def test_a_client_that_leaves_a_stream(route: Route, patient: ProxyServer, provider: FakeProvider) -> None:
    """The provider is stopped; what had come by then is counted, and at most what it may have gone on to generate."""
    provider.reply = Reply(chunks=["one ", "two ", "three ", "four"], pause_after_chunks=2)
    seen = Seen(patient)
    response = send(patient.url, route.path, route.body)
    read = b""
    while b"two" not in read:
        read += response.read1(65536)
    hang_up(response)
    provider.wait_idle()
    entry = seen.one()
    assert entry.ending == "client_gone"
    (billed,) = provider.bill
    assert billed.aborted
    assert billed.usage.total_tokens <= tokens_of(entry)


@pytest.mark.parametrize(("method", "path", "body"), FREE, ids=[path for _, path, _ in FREE])
def test_what_is_free_passes_without_an_entry(
    method: str, path: str, body: object, patient: ProxyServer, provider: FakeProvider
) -> None:
    seen = Seen(patient)
    got = ask(patient.url, path, body, method=method)
    assert got.status == 200
    assert len(provider.requests) == 1
    assert seen.new() == []


@pytest.mark.parametrize(("method", "path", "body"), UNKNOWN, ids=[f"{method} {path}" for method, path, _ in UNKNOWN])
def test_what_is_not_in_the_table_is_refused(
    method: str, path: str, body: object, patient: ProxyServer, provider: FakeProvider
) -> None:
    seen = Seen(patient)
    got = ask(patient.url, path, body, method=method)
    assert (got.status, code_of(got)) == (403, "unmetered_route")
    assert provider.requests == []
    assert seen.new() == []


def code_of(got: Got) -> str:
    """Our word for why it was refused, in whatever dialect."""
    return str(got.json["error"]["farthing"]["code"])


def without_ids(got: Got) -> Any:
    """An error's body without the number of its request."""
    parsed = got.json
    parsed.pop("request_id", None)
    return parsed
