"""Providers that count words, so that these tests know every figure without a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anthropic import Anthropic
from openai import OpenAI

from farthing.testing import FakeClock, FakeProvider
from tests.unit.testing.words import count_words


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    # Its clock stands still: two answers are told apart by what they are, and never by the second they came in.
    with FakeProvider(count=count_words, now_ms=FakeClock()) as running:
        yield running


@pytest.fixture
def openai(provider: FakeProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="fake", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(provider: FakeProvider) -> Iterator[Anthropic]:
    with Anthropic(base_url=provider.anthropic_url, api_key="fake", max_retries=0) as client:
        yield client
