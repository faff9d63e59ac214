"""Clients that passed unseen: never handed over, of a shape that nobody knew, or made by a framework on the way."""

from __future__ import annotations

import asyncio
import gc

import openai
import pytest
from google import genai
from google.genai.types import HttpOptions

import farthing
from farthing.testing import FakeProvider
from tests.doors.clients import entries, openai_client
from tests.museum.calls import admitted, chat

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def test_an_uninstrumented_client_inside_a_hard_budget_is_said(provider: FakeProvider) -> None:
    """predecessors 2.4: an un-instrumented client in a block budget, cap 10: one call of 3,008 tokens, no warning."""
    with (
        openai_client(provider, governed=False) as client,
        farthing.budget("cap", tokens=10),
        pytest.warns(farthing.UngovernedClientWarning, match="past budget 'cap'"),
    ):
        chat(client, 3_000)
    assert provider.billed_tokens == 3_008


def test_install_finds_a_client_that_nobody_handed_over(provider: FakeProvider) -> None:
    """predecessors 2.4, the same row: with install() the call is refused, and nothing is sent."""
    farthing.install()
    try:
        with openai_client(provider, governed=False) as client, farthing.budget(tokens=10):
            assert not admitted(lambda: chat(client, 3_000))
    finally:
        farthing.uninstall()
    assert provider.posts == 0


def test_the_module_level_client(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """predecessors 2.1, 2.4: the openai module itself is a client."""
    monkeypatch.setattr(openai, "http_client", None)  # set by the package itself when its client is made
    monkeypatch.setattr(openai, "api_key", "fake")
    monkeypatch.setattr(openai, "base_url", f"{provider.openai_url}/")
    farthing.instrument(openai)
    try:
        with farthing.budget(tokens=100) as budget:
            assert admitted(lambda: chat(openai, 20))  # type: ignore[arg-type]
            assert not admitted(lambda: chat(openai, 100))  # type: ignore[arg-type]
            assert budget.spent.tokens == provider.billed_tokens
    finally:
        openai._load_client().close()
        openai._reset_client()  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the SDK leaves a closed loop's connections to the collector
def test_google_genai_sync_and_async_on_several_event_loops(provider: FakeProvider) -> None:
    """
    predecessors 2.4: google-genai was not tested. It sends async calls by aiohttp where that is installed, else through
    an inner client that it makes for each event loop: a hook on the client it was handed saw none of them.
    """
    _google(provider)
    gc.collect()


def _google(provider: FakeProvider) -> None:
    client = farthing.instrument(genai.Client(api_key="fake", http_options=HttpOptions(base_url=provider.url)))
    config = genai.types.GenerateContentConfig(max_output_tokens=20)

    def call(asynchronous: bool) -> None:
        models = client.aio.models if asynchronous else client.models
        made = models.generate_content(model="gemini-2.5-flash-lite", contents="hi", config=config)
        if asynchronous:
            asyncio.run(made)  # type: ignore[arg-type]
            gc.collect()

    with farthing.budget(tokens=10_000) as budget:
        for asynchronous in (False, True, True):
            call(asynchronous)
        assert budget.spent.tokens == provider.billed_tokens > 0
    assert len(entries()) == provider.posts == 3
    with farthing.budget(tokens=1):
        assert not admitted(lambda: call(False))
        assert not admitted(lambda: call(True))
    assert provider.posts == 3
    client.close()
