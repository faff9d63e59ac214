"""The provider that most doors are tried on, and clients of it. A conftest.py takes them over for its folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anthropic import Anthropic
from openai import OpenAI

from farthing.testing import FakeProvider
from tests.doors.clients import FULL, anthropic_client, openai_client


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """One whose answers fill whatever ceiling a request has."""
    with FakeProvider(FULL) as running:
        yield running


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[OpenAI]:
    with openai_client(provider) as made:
        yield made


@pytest.fixture
def claude(provider: FakeProvider) -> Iterator[Anthropic]:
    with anthropic_client(provider) as made:
        yield made
