"""What the proxy meters is what the provider reads, also where a body can be read in two ways."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from farthing import ProxyServer
from farthing.kernel.budget import make_budget
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, HI_TOKENS
from tests.doors.proxy.raw import ask
from tests.doors.proxy.running import entries, proxy_with, settings_for

CHAT = "/v1/chat/completions"
GEMINI = "/v1beta/models/gemini-2.5-flash-lite:generateContent"
MESSAGES = json.dumps(HI)
LIMIT = 1_000


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply(output_tokens=1_000_000), strict=False) as provider:
        yield provider


@pytest.fixture
def proxy(provider: FakeProvider) -> Iterator[ProxyServer]:
    with proxy_with(settings_for(provider)) as server:
        server.runtime.put_budget(make_budget("all", tokens=LIMIT, standing=True))
        yield server


def chat(fields: str) -> bytes:
    return f'{{"model": "gpt-4o-mini", "messages": {MESSAGES}, "max_tokens": 9, {fields}}}'.encode()


def fields_of(body: bytes) -> list[list[str]]:
    """The fields of each object in this text, as often as they stand there."""
    found: list[list[str]] = []
    json.loads(body, object_pairs_hook=lambda pairs: found.append([name for name, _ in pairs]))
    return found


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        (CHAT, chat('"max_tokens": 100000, "max_tokens": 20'), HI_TOKENS + 20),
        (CHAT, chat('"n": 50, "n": 2'), HI_TOKENS + 2 * 9),
        (CHAT, chat('"n": 2, "n": 1, "n" : 3'), HI_TOKENS + 3 * 9),
        (CHAT, chat('"model": "gpt-4o", "\\u006dodel": "gpt-4o-mini"'), HI_TOKENS + 9),
        (CHAT, chat('"stream": true, "stream": false'), HI_TOKENS + 9),
        (CHAT, chat(f'"messages": [{{"role": "user", "content": "{"long " * 500}"}}], "messages": {MESSAGES}'), None),
        (CHAT, chat(f'"messages": [{{"role": "user", "content": "{"long " * 500}", "content": "hi"}}]'), None),
        ("/v1/messages", b'{"max_tokens": 90000, ' + chat('"max_tokens": 20')[1:], None),
        (
            GEMINI,
            b'{"contents": [{"parts": []}], "generationConfig": {"maxOutputTokens": 90000, "maxOutputTokens": 20}}',
            None,
        ),
    ],
)
def test_a_field_that_stands_twice(
    proxy: ProxyServer, provider: FakeProvider, path: str, body: bytes, tokens: int | None
) -> None:
    answer = ask(proxy.url, path, body)
    assert answer.status == 200, answer.body
    (request,) = provider.requests
    assert all(len(set(names)) == len(names) for names in fields_of(request.body)), request.body
    assert request.json == json.loads(body), "the last of them is what was sent"
    (entry,) = entries(proxy)
    assert entry.tokens("input", "output") == provider.billed_tokens <= LIMIT
    assert tokens in (None, provider.billed_tokens)
    assert not entry.overrun


def test_a_stream_is_what_its_last_word_says(proxy: ProxyServer, provider: FakeProvider) -> None:
    answer = ask(proxy.url, CHAT, chat('"stream": false, "stream": true'))
    assert answer.body.endswith(b"data: [DONE]\n\n")
    (entry,) = entries(proxy)
    assert entry.tokens("input", "output") == provider.billed_tokens == HI_TOKENS + 9


@pytest.mark.parametrize("body", [chat('"n": 2'), json.dumps({"model": "m", "max_tokens": 9, "messages": HI}).encode()])
def test_a_clear_body_is_sent_byte_for_byte(proxy: ProxyServer, provider: FakeProvider, body: bytes) -> None:
    ask(proxy.url, CHAT, body)
    assert [request.body for request in provider.requests] == [body]


@pytest.mark.parametrize("fields", ['"MAX_TOKENS": 100000', '"N": 50', '"Model": "gpt-4o"', '"Stream": true'])
def test_a_field_that_some_servers_take_for_another_is_refused(
    proxy: ProxyServer, provider: FakeProvider, fields: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = ask(proxy.url, CHAT, chat(fields))
    assert (answer.status, answer.json["error"]["code"]) == (400, "unreadable_request")
    name = fields.split('"')[1]
    assert f"field {name!r} is not {name.lower()!r}" in answer.json["error"]["message"]
    assert provider.requests == []
    assert name not in caplog.text, "a body's own words stay out of the log"


def test_two_ceilings_are_held_at_the_larger(proxy: ProxyServer, provider: FakeProvider) -> None:
    """Servers differ in which they go by."""
    both: dict[str, Any] = {"model": "gpt-4o-mini", "messages": HI, "max_tokens": 1, "max_completion_tokens": 100_000}
    assert ask(proxy.url, CHAT, both).status == 429
    assert provider.requests == []


@pytest.mark.parametrize("model", ["gpt\n[INFO] All is well", "gpt\x1b[31m", "m" * 300])
def test_a_model_that_is_no_name_is_refused(proxy: ProxyServer, provider: FakeProvider, model: str) -> None:
    """It would stand in the log, in rows and in reports."""
    answer = ask(proxy.url, CHAT, {"model": model, "messages": HI, "max_tokens": 9})
    assert (answer.status, answer.json["error"]["code"]) == (400, "unreadable_request")
    assert len(answer.body) < 1_000
    assert provider.requests == []


@pytest.mark.parametrize("query", ["fields=candidates,usageMetadata/promptTokenCount", "%24fields=candidates"])
def test_a_query_that_hides_what_an_answer_costs_is_refused(
    proxy: ProxyServer, provider: FakeProvider, query: str
) -> None:
    """Google's servers leave out of an answer what is not asked for: its output would have cost nothing."""
    asked = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 9}}
    answer = ask(proxy.url, f"{GEMINI}?{query}", asked)
    assert (answer.status, answer.json["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "would leave out of the answer what it cost" in answer.json["error"]["message"]
    assert provider.requests == []
    assert ask(proxy.url, GEMINI, asked, headers={"X-Goog-FieldMask": "candidates"}).status == 200
    assert "x-goog-fieldmask" not in provider.requests[0].headers
    (entry,) = entries(proxy)
    assert entry.tokens("input", "output") == provider.billed_tokens


def test_the_model_of_an_azure_path_is_its_deployment(provider: FakeProvider) -> None:
    """Azure reads no model in a body: whoever wrote a cheap one there paid its price for any deployment."""
    usage = {"prompt_tokens": 1_000, "completion_tokens": 9, "total_tokens": 1_009}
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    provider.reply = Reply(body={"model": "gpt-4o-2024-11-20", "choices": [message], "usage": usage})
    given = settings_for(provider)
    azure = replace(given.upstreams[0], provider="azure", base_url=provider.url)
    asked = {"model": "gpt-4.1-nano", "messages": HI, "max_tokens": 9}
    with proxy_with(replace(given, upstreams=(azure,))) as proxy:
        proxy.runtime.put_budget(make_budget("all", usd=1, standing=True))
        path = "/openai/deployments/{}/chat/completions?api-version=2024-10-21"
        assert ask(proxy.url, path.format("gpt-4o"), asked).status == 200
        unknown = ask(proxy.url, path.format("of-mine"), asked)
        assert (unknown.status, unknown.json["error"]["code"]) == (400, "unpriced_model")
        assert ask(proxy.url, path.format("m" * 300), asked).status == 400
        (entry,) = entries(proxy)
    assert entry.facts.model == "gpt-4o"
    assert entry.cost_nano == 1_000 * 2_500 + 9 * 10_000
    assert [request.json["model"] for request in provider.requests] == ["gpt-4.1-nano"]
