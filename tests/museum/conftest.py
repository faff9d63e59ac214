"""The museum: faults that were measured elsewhere. Each test names its source; farthing does not have the fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anthropic import Anthropic
from openai import OpenAI

from farthing.testing import FakeProvider, Reply
from tests.doors.clients import anthropic_client, openai_client


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """One whose answers fill whatever ceiling a request has."""
    with FakeProvider(Reply(output_tokens=1_000_000)) as running:
        yield running


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[OpenAI]:
    with openai_client(provider) as made:
        yield made


@pytest.fixture
def claude(provider: FakeProvider) -> Iterator[Anthropic]:
    with anthropic_client(provider) as made:
        yield made
