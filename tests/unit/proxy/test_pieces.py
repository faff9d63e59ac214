"""The pure pieces of the proxy: where a request goes, which headers go with it, who may call, what is decoded."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import Any

import pytest

from farthing.errors import ConfigError
from farthing.proxy.callers.identity import Caller, Loopback, Refused, is_loopback
from farthing.proxy.headers import credential_at, credential_of, free_tags, incoming, outgoing_headers, without_key
from farthing.proxy.pages.page import Pages, Reply, Request, find_page
from farthing.proxy.routing import Table, family_of, hint_of, url_of
from farthing.proxy.settings import DEFAULT_UPSTREAMS, Bounds, ProxySettings, Timeouts, Upstream
from farthing.wire.encoding import Decoder, decoded, decoder_of

OPENAI, ANTHROPIC, GEMINI = DEFAULT_UPSTREAMS


@pytest.mark.parametrize(
    ("method", "path", "headers", "family"),
    [
        ("POST", "/v1/chat/completions", {}, "openai"),
        ("POST", "/v1/responses", {}, "openai"),
        ("POST", "/v1/messages", {}, "anthropic"),
        ("POST", "/v1/messages/count_tokens", {}, "anthropic"),
        ("POST", "/v1beta/models/gemini-2.5-flash:generateContent", {}, "gemini"),
        ("GET", "/v1beta/models", {}, "gemini"),
        ("GET", "/v1/models", {}, "openai"),
        ("GET", "/v1/models", {b"anthropic-version": b"2023-06-01"}, "anthropic"),
        ("GET", "/v1/models", {b"x-goog-api-key": b"k"}, "gemini"),
        ("POST", "/v1/nothing", {b"anthropic-version": b"2023-06-01"}, "anthropic"),
        ("POST", "/v1/nothing", {}, "openai"),
    ],
)
def test_whose_dialect_a_path_belongs_to(method: str, path: str, headers: dict[bytes, bytes], family: str) -> None:
    assert family_of(method, path, hint_of(headers)) == family


@pytest.mark.parametrize(
    ("upstream", "family", "path", "url"),
    [
        (OPENAI, "openai", "/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        (OPENAI, "openai", "/chat/completions", "https://api.openai.com/v1/chat/completions"),
        (ANTHROPIC, "anthropic", "/v1/messages?beta=true", "https://api.anthropic.com/v1/messages?beta=true"),
        (Upstream("p", "https://api.perplexity.ai"), "openai", "/v1/chat/completions", "https://api.perplexity.ai/chat/completions"),
        (Upstream("g", "https://api.groq.com/openai/v1"), "openai", "/openai/v1/chat/completions", "https://api.groq.com/openai/v1/chat/completions"),
        (Upstream("g", "https://api.groq.com/openai/v1"), "openai", "/v1/chat/completions", "https://api.groq.com/openai/v1/chat/completions"),
        (Upstream("d", "http://h/x/v1/", speaks=("openai", "anthropic")), "anthropic", "/v1/messages", "http://h/x/v1/messages"),
        (Upstream("d", "http://h/x/v1/", speaks=("openai", "anthropic")), "openai", "/v1/embeddings", "http://h/x/v1/embeddings"),
    ],
)  # fmt: skip
def test_urls_as_each_sdk_would_make_them(upstream: Upstream, family: str, path: str, url: str) -> None:
    assert url_of(upstream, family, path) == url


def test_the_longest_prefix_wins_and_patterns_go_before_the_rest() -> None:
    groq = Upstream("groq", "https://api.groq.com/openai/v1", prefix="/groq")
    deeper = Upstream("deeper", "https://example.com/v1", prefix="/groq/deeper")
    llama = Upstream("llama", "http://localhost:11434/v1", models=("llama*",))
    table = Table((OPENAI, groq, deeper, llama))
    assert [route.upstream.name for route in table.find("POST", "/groq/v1/chat/completions", "").candidates] == ["groq"]
    assert [route.upstream.name for route in table.find("POST", "/groq/deeper/v1/embeddings", "").candidates] == [
        "deeper"
    ]
    routes = table.find("POST", "/v1/chat/completions", "")
    chosen = {model: routes.for_model(model) for model in ("gpt-4o", "llama3")}
    assert {model: route and route.upstream.name for model, route in chosen.items()} == {
        "gpt-4o": "openai",
        "llama3": "llama",
    }
    assert table.find("POST", "/groqs/v1/chat/completions", "").candidates[0].upstream is OPENAI


def test_what_anybody_may_ask_for_is_not_kept_at_any_length() -> None:
    """Whoever calls is not known yet: thousands of long paths took a hundred megabytes of a worker."""
    table = Table((OPENAI,))
    tracemalloc.start()
    try:
        for number in range(300):
            assert table.find("GET", f"/v1/{number}/{'a' * 60_000}").candidates[0].found.verdict == "unmetered"
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 1_000_000


def test_headers_of_a_connection_and_ours_go_no_further() -> None:
    given = [
        (b"host", b"proxy"), (b"content-length", b"3"), (b"connection", b"close, X-Hop"), (b"x-hop", b"1"),
        (b"te", b"trailers"), (b"x-farthing-tags", b"a=b"), (b"authorization", b"Bearer k"),
        (b"accept-encoding", b"br"), (b"cookie", b"a"), (b"cookie", b"b"),
    ]  # fmt: skip
    assert outgoing_headers(given, None, identity=True, keep_credential=True) == [
        (b"authorization", b"Bearer k"), (b"cookie", b"a"), (b"cookie", b"b"), (b"accept-encoding", b"identity"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", [b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url"]
)
def test_what_would_make_another_request_of_it_goes_no_further(name: bytes) -> None:
    """A free GET with one of these is a call to a server that heeds it."""
    given = [(name, b"POST"), (b"accept", b"*/*")]
    sent = outgoing_headers(given, None, identity=False, keep_credential=True)
    assert sent == [(b"accept", b"*/*")]


def test_what_would_hide_what_an_answer_cost_goes_no_further() -> None:
    given = [(b"x-goog-fieldmask", b"candidates"), (b"accept", b"*/*")]
    sent = outgoing_headers(given, None, identity=False, keep_credential=True)
    assert sent == [(b"accept", b"*/*")]


@pytest.mark.parametrize(
    ("family", "header"),
    [
        ("openai", (b"authorization", b"Bearer ours")),
        ("anthropic", (b"x-api-key", b"ours")),
        ("gemini", (b"x-goog-api-key", b"ours")),
    ],
)
def test_a_credential_of_ours_replaces_every_one_of_theirs(family: str, header: tuple[bytes, bytes]) -> None:
    theirs = [(b"authorization", b"Bearer k"), (b"x-api-key", b"k"), (b"x-goog-api-key", b"k"), (b"api-key", b"k")]
    upstream = Upstream("one", "https://example.com", api_key="ours")
    assert outgoing_headers(theirs, credential_at(upstream, family), identity=False, keep_credential=True) == [header]
    assert outgoing_headers(theirs, None, identity=False, keep_credential=False) == []


def test_what_an_upstream_says_of_its_connection_stays_there() -> None:
    given = [(b"Connection", b"keep-alive, x-own"), (b"X-Own", b"1"), (b"Transfer-Encoding", b"chunked"),
             (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"), (b"X-Farthing-Call-Id", b"forged"),
             (b"Content-Encoding", b"gzip")]  # fmt: skip
    kept = [(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")]
    assert incoming(given) == ([*kept, (b"Content-Encoding", b"gzip")], b"", b"gzip")


def test_the_length_of_an_answer_goes_back_only_where_its_body_goes_as_it_came() -> None:
    given = [(b"Content-Type", b"Application/JSON; charset=utf-8"), (b"Content-Length", b"3"), (b"Content-Type", b"b")]
    assert incoming(given) == ([given[0], given[2]], b"Application/JSON; charset=utf-8", b"")
    assert incoming(given, with_length=True).headers == given


@pytest.mark.parametrize(
    ("headers", "query", "credential"),
    [
        ({b"authorization": b"Bearer  abc "}, "", "abc"),
        ({b"authorization": b"abc"}, "", "abc"),
        ({b"x-api-key": b"abc"}, "", "abc"),
        ({}, "alt=sse&key=a%2Bb", "a+b"),
        ({}, "monkey=1", None),
        ({}, "", None),
    ],
)
def test_where_credentials_stand(headers: dict[bytes, bytes], query: str, credential: str | None) -> None:
    assert credential_of(headers, query) == credential


def test_a_query_without_its_credential() -> None:
    assert without_key("key=secret&alt=sse&key=again&monkey=1") == "alt=sse&monkey=1"


def test_the_object_that_claude_code_sends_for_a_user_is_no_users_name() -> None:
    body = {"metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'}}
    assert free_tags({b"x-claude-code-session-id": b"s"}, body) == {"session": "s"}


def test_tags_that_do_not_fit_are_left_out_of_bodies_and_said_of_headers() -> None:
    body: dict[str, Any] = {"user": "u" * 300, "metadata": {"ok": "1", "": "x", "n": 5, "user_id": "alice"}}
    assert free_tags({}, body) == {"ok": "1", "user": "alice"}
    with pytest.raises(ValueError, match="x-farthing-tags"):
        free_tags({b"x-farthing-tags": b"a=" + b"v" * 300}, {})


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("0.0.0.0", False),
     ("127.evil.example", False), ("localhost.evil.example", False), ("192.168.1.1", False)],
)  # fmt: skip
def test_what_is_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({b"host": b"127.0.0.1:8080"}, True),
        ({b"host": b"[::1]:8080"}, True),
        ({b"host": b"LOCALHOST"}, True),
        ({b"host": b"rebound.evil.example"}, False),
        ({b"host": b"localhost", b"origin": b"http://localhost:3000"}, True),
        ({b"host": b"localhost", b"origin": b"https://evil.example"}, False),
        ({b"host": b"localhost", b"origin": b"app://notes"}, True),
    ],
)
def test_without_keys_no_web_page_of_others_may_spend(headers: dict[bytes, bytes], passes: bool) -> None:
    caller = Caller(None, headers, "127.0.0.1")
    if passes:
        assert Loopback()(caller).tags == ()
    else:
        with pytest.raises(Refused) as refused:
            Loopback()(caller)
        assert (refused.value.status, refused.value.code) == (403, "not_loopback")


def test_encodings() -> None:
    text = b"farthing " * 1000
    for name, packed in ((b"gzip", gzip.compress(text)), (b"deflate", zlib.compress(text))):
        assert decoded(name, packed) == text
        decoder = decoder_of(name)
        assert decoder is not None
        assert b"".join(decoder.feed(packed[at : at + 3]) for at in range(0, len(packed), 3)) == text
    assert decoded(b"gzip", b"damaged") == b"damaged"
    assert decoder_of(b"zstd") is None
    with pytest.raises(ValueError, match="damaged"):
        Decoder(47).feed(b"\x1f\x8bdamaged")


def test_pages_by_path_and_by_prefix() -> None:
    async def page(request: Request) -> Reply:
        return Reply(200, b"")

    async def deeper(request: Request) -> Reply:
        return Reply(200, b"")

    pages: Pages = {"/healthz": page, "/admin/": page, "/admin/keys/": deeper}
    assert find_page(pages, "/healthz") is page
    assert find_page(pages, "/healthz/") is None
    assert find_page(pages, "/admin/budgets") is page
    assert find_page(pages, "/admin/keys/1") is deeper
    assert find_page(pages, "/administration") is None


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Upstream("a b", "http://h"), "upstreams.a b"),
        (lambda: Upstream("a", "ftp://h"), "upstreams.a.base_url"),
        (lambda: Upstream("a", "http://user:secret@h"), "upstreams.a.base_url"),
        (lambda: Upstream("a", "http://h", speaks=("klingon",)), "upstreams.a.speaks"),
        (lambda: Upstream("a", "http://h", prefix="groq"), "upstreams.a.prefix"),
        (lambda: Upstream("a", "http://h", unmetered="perhaps"), "upstreams.a.unmetered"),
        (lambda: Upstream("a", "http://h", abort_margin_tokens=-1), "upstreams.a.abort_margin_tokens"),
        (lambda: Timeouts(idle_seconds=float("nan")), "idle_seconds"),
        (lambda: Bounds(max_body_bytes=0), "max_body_bytes"),
        (lambda: ProxySettings(port=70_000), "port"),
        (lambda: ProxySettings(upstreams=()), "upstreams"),
        (lambda: ProxySettings(workers=2), "workers"),
        (lambda: ProxySettings(deny_status=500), "deny_status"),
    ],
)
def test_settings_that_cannot_be_used_name_their_key(make: Any, key: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        make()
    assert wrong.value.key == key
    assert "secret" not in str(wrong.value)


def test_a_credential_is_in_no_repr() -> None:
    assert "sk-1" not in repr(ProxySettings(upstreams=(Upstream("a", "http://h", api_key="sk-1"),)))


def test_an_encoding_may_have_several_members_and_must_have_an_end() -> None:
    body = gzip.compress(b"one ") + gzip.compress(b"two")
    for cut in range(1, len(body)):
        decoder = decoder_of(b"gzip")
        assert decoder is not None
        assert decoder.feed(body[:cut]) + decoder.feed(body[cut:]) == b"one two"
        decoder.end()
    for cut in range(len(body)):
        decoder = decoder_of(b"gzip")
        assert decoder is not None
        assert b"one two".startswith(decoder.feed(body[:cut]))
        if cut not in (0, len(gzip.compress(b"one "))):
            with pytest.raises(ValueError, match="no end"):
                decoder.end()
