"""Goal: a call to a provider that speaks another one's language is priced, capped and judged as that provider's."""

from __future__ import annotations

import json

import pytest
from genai_prices import data_snapshot

from farthing.wire.hosts import KNOWN_HOSTS, ONLY_MAX_TOKENS, TELL_USAGE, provider_of
from farthing.wire.recognise import recognise
from tests.unit.wire.recorded_bodies import CHAT_STREAM


def test_every_host_leads_to_a_provider_of_the_price_table() -> None:
    known = {provider.id for provider in data_snapshot.get_snapshot().providers}
    assert set(KNOWN_HOSTS.values()) - known == {"huggingface"}  # a router to many, each at a price of its own
    assert set(KNOWN_HOSTS.values()) >= ONLY_MAX_TOKENS | TELL_USAGE


@pytest.mark.parametrize(
    ("host", "path", "provider"),
    [
        ("api.groq.com", "/openai/v1/chat/completions", "groq"),
        ("api.mistral.ai", "/v1/chat/completions", "mistral"),
        ("api.together.xyz", "/v1/chat/completions", "together"),
        ("openrouter.ai", "/api/v1/chat/completions", "openrouter"),
        ("api.deepseek.com", "/chat/completions", "deepseek"),
        ("api.deepseek.com", "/anthropic/v1/messages", "deepseek"),
        ("api.x.ai", "/v1/chat/completions", "x-ai"),
        ("us-east-1.api.x.ai", "/v1/responses", "x-ai"),
        ("api.fireworks.ai", "/inference/v1/chat/completions", "fireworks"),
        ("api.cohere.com", "/v2/chat", "cohere"),
        ("router.huggingface.co", "/v1/chat/completions", "huggingface"),
        ("router.huggingface.co", "/together/v1/chat/completions", "huggingface"),
        ("bedrock-mantle.us-east-1.api.aws", "/v1/chat/completions", "aws"),
        ("api.cohere.ai", "/compatibility/v1/chat/completions", "cohere"),
    ],
)
def test_compatible_apis_are_metered_at_their_own_prices(host: str, path: str, provider: str) -> None:
    found = recognise("POST", host, path)
    assert (found.verdict, found.provider) == ("metered", provider)
    assert found.dialect is not None
    assert found.dialect.provider == provider


@pytest.mark.parametrize("host", ["api.openai.com.evil.example", "notapi.x.ai.example", "mistral.ai", "llm.internal"])
def test_look_alikes_are_not_known(host: str) -> None:
    assert provider_of(host, {}) is None


@pytest.mark.parametrize(
    ("host", "field", "asks"),
    [
        ("api.openai.com", "max_completion_tokens", True),
        ("api.groq.com", "max_completion_tokens", True),
        ("api.deepseek.com", "max_tokens", True),
        ("api.mistral.ai", "max_tokens", False),
    ],
)
def test_a_ceiling_of_ours_goes_where_the_provider_reads_it(host: str, field: str, asks: bool) -> None:
    dialect = recognise("POST", host, "/v1/chat/completions").dialect
    assert dialect is not None
    facts = dialect.read_request(CHAT_STREAM)
    assert facts.wants_usage is not asks
    sent = json.loads(dialect.rewrite(facts, output_ceiling=9, ask_usage=not facts.wants_usage))
    assert sent[field] == 9
    assert ("stream_options" in sent) is asks
    assert len({"max_tokens", "max_completion_tokens"} & set(sent)) == 1


@pytest.mark.parametrize(
    ("host", "path", "verdict"),
    [
        ("api.openai.com", "/v1/conversations", "account"),
        ("x.openai.azure.com", "/openai/v1/conversations", "account"),
        ("api.mistral.ai", "/v1/conversations", "unmetered"),
        ("api.mistral.ai", "/v1/moderations", "unmetered"),
        ("api.groq.com", "/openai/v1/files", "unmetered"),
        ("api.cohere.com", "/v1/tokenize", "free"),
        ("api.cohere.com", "/v2/rerank", "unmetered"),
        ("api.cohere.com", "/v1/chat", "unmetered"),
    ],
)
def test_what_is_free_is_free_where_that_was_read(host: str, path: str, verdict: str) -> None:
    assert recognise("POST", host, path).verdict == verdict


def test_reading_is_free_everywhere() -> None:
    assert recognise("GET", "api.mistral.ai", "/v1/models").verdict == "free"
    assert recognise("DELETE", "api.groq.com", "/openai/v1/files/1").verdict == "account"
