"""openai 2, which stands on httpx, untouched, with its base URL at the proxy: it works, and posts once when refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from farthing.testing import FakeProvider, Reply
from tests.compat.ledger import HI
from tests.doors.proxy.running import entries, proxy_before

CALL: dict[str, Any] = {"model": "gpt-4o-mini", "messages": HI, "max_tokens": 50}


def openai_2(base_url: str, http: httpx.Client) -> Any:
    return openai.OpenAI(base_url=base_url, api_key="fake", http_client=http)


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply("a farthing is a coin", output_tokens=30)) as provider:
        yield provider


def test_openai_2_is_metered_plain_and_streamed(provider: FakeProvider) -> None:
    with proxy_before(provider) as server, httpx.Client(timeout=60) as http:
        client = openai_2(f"{server.url}/v1", http)
        plain = client.chat.completions.create(**CALL)
        pieces = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(stream=True, **CALL)]
        rows = entries(server)
    assert plain.choices[0].message.content == "".join(pieces) == "a farthing is a coin"
    assert [(row.ending, row.usage_source) for row in rows] == [("ok", "provider")] * 2
    assert sum(row.tokens("input", "output") for row in rows) == provider.billed_tokens
    assert provider.posts == 2


def test_openai_2_posts_once_when_it_is_refused(provider: FakeProvider) -> None:
    with proxy_before(provider, max_tokens_total=60) as server, httpx.Client(timeout=60) as http:
        client = openai_2(f"{server.url}/v1", http)
        client.chat.completions.create(**CALL)
        with pytest.raises(openai.RateLimitError, match="max-tokens-total"):
            client.chat.completions.create(**CALL)
        assert (server.stats["requests"], server.stats["blocked"], len(entries(server)), provider.posts) == (2, 1, 1, 1)
