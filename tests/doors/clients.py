"""
SDK clients for tests: of the real packages, pointed at a fake provider, cheap to make.

Making a client takes 30 ms of reading certificates, which no test here needs: all share one TLS context. And the five
seconds that a connection has by default are too few for a thousand at once on a busy machine. A client is otherwise
what its package makes by default.
"""

from __future__ import annotations

import ssl
from decimal import Decimal
from typing import Any

import anthropic
import httpx2
import openai
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

from farthing import Amounts, instrument
from farthing.kernel.hold import Entry, Hold
from farthing.runtime.default import runtime
from farthing.testing import FakeProvider, Reply

_TLS = ssl.create_default_context()
_PATIENT = httpx2.Timeout(600, connect=60)

NOTHING = Amounts(0, Decimal(0), 0)
HI: Any = [{"role": "user", "content": "hi"}]
HI_TOKENS = 8
"""What ``HI`` comes to for gpt-4o: 3 for the reply, 3 for the message, 1 for its role, 1 for its text."""
FULL = Reply(output_tokens=1_000_000)
"""An answer that fills whatever ceiling a request has."""
RATES = {
    "gpt-4o": ("2.50", "10", "1.25"),
    "gpt-4o-mini": ("0.15", "0.60"),
    "claude-haiku-4-5": ("1", "5", "0.1", "1.25"),
}
"""USD per million tokens, as published, and not read from the price table that is under test."""


def chat(client: OpenAI, ceiling: int | None = 10, **keywords: Any) -> Any:
    """One chat completion, with that ceiling; None: with none of its own."""
    given: Any = {"model": "gpt-4o", "messages": HI, **keywords}
    if ceiling is not None:
        given["max_tokens"] = ceiling
    return client.chat.completions.create(**given)


def openai_client(provider: FakeProvider | str, *, governed: bool = True, **options: Any) -> OpenAI:
    """A sync OpenAI client; *provider* may be a base URL."""
    http = openai.DefaultHttpxClient(verify=_TLS)
    made = OpenAI(**{**_defaults(_openai_url(provider)), **options}, http_client=http)
    return instrument(made) if governed else made


def async_openai_client(provider: FakeProvider | str, *, governed: bool = True, **options: Any) -> AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(verify=_TLS)
    made = AsyncOpenAI(**{**_defaults(_openai_url(provider)), **options}, http_client=http)
    return instrument(made) if governed else made


def anthropic_client(provider: FakeProvider | str, *, governed: bool = True, **options: Any) -> Anthropic:
    http = anthropic.DefaultHttpxClient(verify=_TLS)
    made = Anthropic(**{**_defaults(_anthropic_url(provider)), **options}, http_client=http)
    return instrument(made) if governed else made


def async_anthropic_client(provider: FakeProvider | str, *, governed: bool = True, **options: Any) -> AsyncAnthropic:
    http = anthropic.DefaultAsyncHttpxClient(verify=_TLS)
    made = AsyncAnthropic(**{**_defaults(_anthropic_url(provider)), **options}, http_client=http)
    return instrument(made) if governed else made


def entries() -> list[Entry]:
    """Every row that this process's ledger in memory has, abandoned calls ended first."""
    here = runtime()
    here.housekeeper.catch_up()
    return list(here.memory_store.entries().result())


def holds(*states: str) -> list[Hold]:
    """The live holds of this process's ledger in memory, abandoned calls ended first."""
    here = runtime()
    here.housekeeper.catch_up()
    return list(here.memory_store.holds(*states).result())


HASTY = httpx2.Timeout(60, read=0.2)
"""Of clients that are to lose patience: with an answer that does not come, not with the machine of the test."""


def _defaults(base_url: str) -> dict[str, Any]:
    return {"base_url": base_url, "api_key": "fake", "max_retries": 0, "timeout": _PATIENT}


def _openai_url(provider: FakeProvider | str) -> str:
    return provider if isinstance(provider, str) else provider.openai_url


def _anthropic_url(provider: FakeProvider | str) -> str:
    return provider if isinstance(provider, str) else provider.anthropic_url
