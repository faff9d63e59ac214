"""What clients do when a budget says no: the official ones post once, and know when to come back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from farthing import ProxyServer
from farthing.kernel.budget import make_budget
from farthing.testing import FakeClock, FakeProvider
from tests.doors.clients import HI, HI_TOKENS, anthropic_client, openai_client
from tests.doors.proxy.raw import ask
from tests.doors.proxy.running import proxy_before, proxy_with, settings_for

CHAT = {"model": "gpt-4o", "messages": HI, "max_completion_tokens": 50}
MESSAGES = {"model": "claude-haiku-4-5", "messages": HI, "max_tokens": 50}
GEMINI = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 50}}
GEMINI_PATH = "/v1beta/models/gemini-2.5-flash-lite:generateContent"


class Refused(NamedTuple):
    """How an SDK told its caller."""

    error: Exception
    status: int
    message: str


def refused_openai(server: ProxyServer, **options: Any) -> Refused:
    with (
        openai_client(f"{server.url}/v1", governed=False, **options) as client,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    return Refused(raised.value, raised.value.status_code, str(raised.value))


def refused_openai_stream(server: ProxyServer, **options: Any) -> Refused:
    with (
        openai_client(f"{server.url}/v1", governed=False, **options) as client,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        client.responses.create(model="gpt-4o", input="hi", max_output_tokens=50, stream=True)
    return Refused(raised.value, raised.value.status_code, str(raised.value))


def refused_anthropic(server: ProxyServer, **options: Any) -> Refused:
    with (
        anthropic_client(server.url, governed=False, **options) as client,
        pytest.raises(anthropic.APIStatusError) as raised,
    ):
        client.messages.create(**MESSAGES)  # type: ignore[call-overload]
    return Refused(raised.value, raised.value.status_code, str(raised.value))


def refused_gemini(server: ProxyServer, **options: Any) -> Refused:
    with httpx2.Client(timeout=60) as http:
        options_of = genai_types.HttpOptions(base_url=server.url, httpx_client=http)
        client = genai.Client(api_key="fake", http_options=options_of)
        with pytest.raises(genai_errors.APIError) as raised:
            client.models.generate_content(
                model="gemini-2.5-flash-lite",
                contents="hi",
                config=genai_types.GenerateContentConfig(max_output_tokens=50),
            )
    return Refused(raised.value, raised.value.code, str(raised.value))


SDKS = (refused_openai, refused_openai_stream, refused_anthropic, refused_gemini)


@pytest.mark.parametrize("deny_status", [400, 402, 403, 429])
@pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.__name__)
def test_sdks_post_once_and_show_why(
    sdk: Callable[..., Refused], deny_status: int, fake_provider: FakeProvider
) -> None:
    with proxy_before(fake_provider, max_tokens_total=10, deny_status=deny_status) as server:
        refused = sdk(server, **({} if sdk is refused_gemini else {"max_retries": 2}))
        assert server.stats["requests"] == 1
        assert server.stats["blocked"] == 1
    assert fake_provider.posts == 0
    assert refused.status == deny_status
    assert "budget 'max-tokens-total'" in refused.message
    assert "limit 10 tokens" in refused.message


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", CHAT), ("/v1/messages", MESSAGES), (GEMINI_PATH, GEMINI)],
    ids=["openai", "anthropic", "gemini"],
)
def test_a_refusal_in_each_dialect(path: str, body: dict[str, Any], fake_provider: FakeProvider) -> None:
    with proxy_before(fake_provider, max_tokens_total=10) as server:
        got = ask(server.url, path, body)
    error = got.json["error"]
    decision = error.pop("farthing")
    assert (got.status, got.header("x-should-retry"), got.header("retry-after")) == (429, "false", None)
    assert (decision["budget"], decision["limit"], decision["unit"]) == ("max-tokens-total", 10, "tokens")
    assert decision["failed"][0]["remaining"] == 10
    assert (got.header("x-ratelimit-limit-tokens"), got.header("x-ratelimit-remaining-tokens")) == ("10", "10")
    message = error.pop("message")
    assert message.startswith("budget 'max-tokens-total'")
    if path == "/v1/messages":
        assert error == {"type": "rate_limit_error"}
        assert got.json["type"] == "error"
    elif path == GEMINI_PATH:
        assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
    else:
        assert error == {"type": "insufficient_quota", "param": None, "code": "budget_exceeded"}


def test_a_minutes_refusal_says_when_it_passes_and_then_it_does(fake_provider: FakeProvider) -> None:
    clock = FakeClock()
    server = ProxyServer(settings_for(fake_provider), clock=clock)
    server.runtime.put_budget(make_budget("a-minute", tokens=100, per="rolling 60s", standing=True))
    server.start()
    try:
        body = {**CHAT, "max_completion_tokens": 80}
        assert ask(server.url, "/v1/chat/completions", body).status == 200
        clock.advance(seconds=30)
        assert ask(server.url, "/v1/chat/completions", body).status == 429
        got = ask(server.url, "/v1/chat/completions", body)
        assert got.status == 429
        seconds = int(got.header("retry-after") or 0)
        assert 0 < seconds <= 66
        clock.advance(seconds=seconds - 8)
        assert ask(server.url, "/v1/chat/completions", body).status == 429
        clock.advance(seconds=8)
        assert ask(server.url, "/v1/chat/completions", body).status == 200
    finally:
        server.stop()


def test_it_says_nothing_where_another_budget_never_passes(fake_provider: FakeProvider) -> None:
    with proxy_before(fake_provider, max_tokens_per_minute=20, max_tokens_total=20) as server:
        got = ask(server.url, "/v1/chat/completions", {**CHAT, "max_completion_tokens": 12})
        assert got.status == 200
        got = ask(server.url, "/v1/chat/completions", {**CHAT, "max_completion_tokens": 12})
    assert got.status == 429
    assert {line["budget"] for line in got.json["error"]["farthing"]["failed"]} == {
        "max-tokens-per-minute",
        "max-tokens-total",
    }
    assert got.header("retry-after") is None


SECRET = "sk-farthing-secret-000111222333"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_credential_is_ever_logged(
    log_format: str, fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with proxy_before(
        fake_provider, upstream_api_key=f"{SECRET}-ours", max_tokens_total=200, log_format=log_format
    ) as at:
        for path, body in (
            ("/v1/chat/completions", CHAT),
            ("/v1/chat/completions", b"{"),
            ("/v1/chat/completions", {**CHAT, "max_completion_tokens": 5000}),
            ("/v1/chat/completions", {**CHAT, "user": SECRET}),
            ("/v1/audio/speech", {}),
            (f"{GEMINI_PATH}?key={SECRET}", GEMINI),
            (f"/v1beta/models?key={SECRET}", None),
            (f"/v1beta/nothing?key={SECRET}", {}),
        ):
            for header in ("authorization", "x-api-key", "x-goog-api-key", "api-key"):
                value = f"Bearer {SECRET}" if header == "authorization" else SECRET
                got = ask(at.url, path, body, method="GET" if body is None else "POST", headers={header: value})
                assert SECRET not in str(got.headers) + got.body.decode()
        ask(at.url, "/v1/chat/completions", {**CHAT, "stream": SECRET})
        assert SECRET not in repr(at.settings)
    assert SECRET not in caplog.text
    assert len(caplog.records) > 20


def test_ours_replaces_theirs_and_our_headers_go_no_further(fake_provider: FakeProvider) -> None:
    headers = {"authorization": f"Bearer {SECRET}", "x-farthing-tags": "feature=search", "x-farthing-anything": "1"}
    with proxy_before(fake_provider, upstream_api_key="ours") as server:
        assert ask(server.url, "/v1/chat/completions", CHAT, headers=headers).status == 200
        (entry,) = server.runtime.memory_store.entries().result()
        assert dict(entry.facts.tags)["feature"] == "search"
    (arrived,) = fake_provider.requests
    assert arrived.headers["authorization"] == "Bearer ours"
    assert not [name for name in arrived.headers if name.startswith("x-farthing")]
    assert SECRET not in str(arrived.headers)


@pytest.mark.parametrize(
    ("path", "body", "header", "value"),
    [
        ("/v1/chat/completions", CHAT, "authorization", f"Bearer {SECRET}"),
        ("/v1/messages", MESSAGES, "x-api-key", SECRET),
        (GEMINI_PATH, GEMINI, "x-goog-api-key", SECRET),
    ],
)
def test_theirs_goes_through_where_there_is_none_of_ours(
    path: str, body: object, header: str, value: str, fake_provider: FakeProvider
) -> None:
    with proxy_with(settings_for(fake_provider)) as server:
        assert ask(server.url, path, body, headers={header: value}).status == 200
    assert fake_provider.requests[0].headers[header] == value


def test_free_tags_attribute_and_never_pay(fake_provider: FakeProvider) -> None:
    with proxy_with(settings_for(fake_provider)) as server:
        server.runtime.put_budget(make_budget("bobs", tokens=0, scope={"user": "bob"}, standing=True))
        server.runtime.put_budget(make_budget("each", tokens=HI_TOKENS + 50, each=["user"], standing=True))
        said = {**CHAT, "user": "bob", "metadata": {"ticket": "7"}}
        headers = {"x-farthing-tags": "user=bob, run=42", "x-claude-code-session-id": "s-1"}
        assert ask(server.url, "/v1/chat/completions", said, headers=headers).status == 200
        (entry,) = server.runtime.memory_store.entries().result()
        tags = dict(entry.facts.tags)
        assert (tags["user"], tags["run"], tags["ticket"], tags["session"]) == ("bob", "42", "7", "s-1")
        assert entry.facts.budgets == ("each",)
        # The account of the absent user, whoever they say they are.
        said["user"] = "eve"
        assert ask(server.url, "/v1/chat/completions", said).status == 429


def test_tags_that_are_none(fake_provider: FakeProvider) -> None:
    with proxy_with(settings_for(fake_provider)) as server:
        got = ask(server.url, "/v1/chat/completions", CHAT, headers={"x-farthing-tags": "feature"})
    assert (got.status, got.json["error"]["code"]) == (400, "invalid_tags")
    assert fake_provider.posts == 0
