"""The proxy end to end, with OpenAI's client: what passes, what is refused, what the ledger says."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest

from farthing import ProxyServer, start_proxy
from farthing.proxy.client import Client
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, HI_TOKENS, openai_client
from tests.doors.proxy.running import entries, holds, proxy_before


def client_of(server: ProxyServer, **options: Any) -> openai.OpenAI:
    return openai_client(f"{server.url}/v1", governed=False, **options)


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": "gpt-4o-mini", "messages": HI, **options})


def test_a_plain_call_passes_and_is_settled_before_its_answer(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply("one two three", output_tokens=5)
    with proxy_before(fake_provider, max_tokens_total=1000) as server, client_of(server) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=HI, max_completion_tokens=50
        )
        assert raw.parse().choices[0].message.content == "one two three"
        (entry,) = entries(server)
        assert raw.headers["x-farthing-call-id"] == entry.hold_id
        assert Decimal(raw.headers["x-farthing-cost-usd"]) == Decimal(HI_TOKENS * 150 + 5 * 600) / 10**9
        assert raw.headers["x-farthing-budget"] == "max-tokens-total"
        assert int(raw.headers["x-farthing-remaining-tokens"]) == 1000 - HI_TOKENS - 5
        assert (entry.ending, entry.usage_source, entry.facts.budgets) == (
            "ok",
            "provider",
            ("max-tokens-per-request", "max-tokens-total"),
        )
        stats = server.stats
    assert server.stats == stats, "they can be read when it has stopped"
    assert stats["remaining"] == {"max-tokens-per-request": 4096, "max-tokens-total": 1000 - HI_TOKENS - 5}
    assert (stats["requests"], stats["forwarded"], stats["blocked"]) == (1, 1, 0)
    assert (stats["tokens_used"], stats["tokens_held"]) == (HI_TOKENS + 5, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_in_the_figures_before_its_client_has_all_of_its_answer(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    fake_provider.reply = Reply("one two three", output_tokens=5)
    seen: list[tuple[int, int]] = []
    name = "end" if stream else "answer"
    say = getattr(Client, name)

    async def saying(self: Client, *given: Any) -> None:
        proxy = server._worker.proxy
        assert proxy is not None
        seen.append((proxy.stats.in_flight, proxy.stats.tokens_used))
        await say(self, *given)

    monkeypatch.setattr(Client, name, saying)
    with proxy_before(fake_provider) as server, client_of(server) as client:
        answer = ask(client, stream=stream)
        assert not stream or list(answer)
    assert seen == [(0, HI_TOKENS + 5)]


def test_a_stream_passes_as_it_comes_and_its_usage_frame_is_ours(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply("one two three", output_tokens=5)
    with proxy_before(fake_provider, max_tokens_total=1000) as server, client_of(server) as client:
        chunks = list(ask(client, stream=True))
        assert all(chunk.choices for chunk in chunks)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
        (entry,) = entries(server)
        assert entry.tokens("input") == HI_TOKENS
        assert entry.tokens("output") == 5
        assert holds(server) == []


def test_a_call_over_its_limit_is_refused_once_and_never_sent(fake_provider: FakeProvider) -> None:
    with proxy_before(fake_provider) as server, client_of(server, max_retries=2) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            ask(client, max_completion_tokens=5000)
        assert server.stats["blocked"] == 1
        assert entries(server) == []
    error: Any = refused.value
    assert (error.code, error.type) == ("budget_exceeded", "insufficient_quota")
    assert error.body["farthing"]["limit"] == 4096
    assert error.body["farthing"]["asked"] == 5000 + HI_TOKENS
    assert error.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.response.headers
    assert fake_provider.posts == 0


def test_a_call_without_a_ceiling_passes_under_the_default_flags(fake_provider: FakeProvider) -> None:
    with proxy_before(fake_provider) as server, client_of(server) as client:
        ask(client)
    sent: Any = fake_provider.requests[0].json
    assert sent["max_completion_tokens"] == 4096 - HI_TOKENS


def test_what_nothing_measures_is_refused(fake_provider: FakeProvider) -> None:
    with proxy_before(fake_provider) as server, client_of(server) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.audio.speech.create(model="tts-1", voice="alloy", input="hi")
        client.models.list()
    assert getattr(refused.value, "code", None) == "unmetered_route"
    assert [request.path for request in fake_provider.requests] == ["/v1/models"]


def test_warn_only_refuses_nothing(fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture) -> None:
    with proxy_before(fake_provider, max_tokens_total=10, warn_only=True) as server, client_of(server) as client:
        ask(client, max_completion_tokens=5000)
        ask(client, model="a-model-without-a-price")
    assert fake_provider.posts == 2
    assert any("would have denied" in record.getMessage() for record in caplog.records)


def test_a_call_without_a_price_is_refused_under_a_limit_in_usd(fake_provider: FakeProvider) -> None:
    with (
        proxy_before(fake_provider, max_usd_total=1) as server,
        client_of(server) as client,
        pytest.raises(openai.BadRequestError) as refused,
    ):
        ask(client, model="a-model-without-a-price")
    assert getattr(refused.value, "code", None) == "unpriced_model"
    assert fake_provider.posts == 0


@pytest.mark.parametrize("kind", ["file", "mapping"])
def test_a_whole_configuration_starts_a_proxy_too(kind: str, fake_provider: FakeProvider, tmp_path: Path) -> None:
    text = f"""
        [upstreams.openai]
        base_url = "{fake_provider.openai_url}"
        [[budgets]]
        name = "small"
        tokens = 20
    """
    path = tmp_path / "farthing.toml"
    path.write_text(text)
    config = path if kind == "file" else tomllib.loads(text)
    with start_proxy(config, port=0, block=False) as server, client_of(server) as client:
        ask(client, max_completion_tokens=10)
        with pytest.raises(openai.RateLimitError, match="budget 'small'"):
            ask(client, max_completion_tokens=10)
    with start_proxy({"upstreams": {"openai": {"base_url": fake_provider.openai_url}}}, port=0, block=False) as server:
        assert server.stats["remaining"] == {"max-tokens-per-request": 4096}
